"""Starts several machines of one image at once, from one event loop, and has each write to a disk of its own."""

import asyncio
import tempfile
from pathlib import Path

from vmtorrent import aio

MACHINES = 4


async def machine(number: int, magnet: str, directory: Path) -> bytes:
    async with aio.launch(
        magnet, mount=False, cache=directory / f"cache-{number}", state=directory / f"machine-{number}"
    ) as vm:
        await vm.pwrite(f"machine {number}".encode(), 4096)
        await vm.flush()
        return await vm.pread(16, 4096)


async def main(directory: Path) -> None:
    disk = directory / "disk.img"
    disk.write_bytes(bytes(range(256)) * 8192)
    image = await aio.publish(disk)
    async with aio.seed(image, directory, listen="127.0.0.1:0") as seed:
        found = await asyncio.gather(*(machine(n, seed.magnet, directory) for n in range(MACHINES)))
    for text in found:
        print(text.rstrip(b"\x00\x0c\x0d\x0e\x0f").decode())


with tempfile.TemporaryDirectory() as name:
    asyncio.run(main(Path(name)))
