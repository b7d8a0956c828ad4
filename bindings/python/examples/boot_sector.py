"""Publishes an image, serves it, and reads its boot sector through a mount, with one block fetched of many."""

import tempfile
from pathlib import Path

import vmtorrent

with tempfile.TemporaryDirectory() as directory:
    disk = Path(directory, "disk.img")
    disk.write_bytes(b"\xeb\x63\x90" + bytes(507) + b"\x55\xaa" + bytes(range(256)) * 65536)
    image = vmtorrent.publish(disk)
    with (
        vmtorrent.seed(image, directory, listen="127.0.0.1:0") as seed,
        vmtorrent.launch(seed.magnet, cache=Path(directory, "cache"), ephemeral=True, fill="none") as vm,
    ):
        with open(vm.path, "rb") as mounted:
            sector = mounted.read(512)
        stats = vm.stats()
        print(f"{vm.path.name}: ends with {sector[-2:].hex()}")
        print(f"fetched {stats.fetched_bytes} of {stats.image_bytes} bytes")
