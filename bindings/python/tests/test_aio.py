"""The same for asyncio: one body, another way to wait."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from conftest import MIB, Swarm, mounts, need_fuse, no_threads

import vmtorrent
from vmtorrent import aio


def test_an_appliance_is_read_written_and_exported(swarm: Swarm, tmp_path: Path) -> None:
    async def run() -> None:
        async with aio.launch(swarm.torrent, **swarm.options) as vm:
            parts = await asyncio.gather(*(vm.pread(MIB, n * MIB) for n in range(6)))
            assert b"".join(parts) == swarm.data
            assert await vm.pwrite(b"guest", 4090) == 5
            await vm.discard(8192, 4096)
            await vm.write_zeroes(16384, 4096)
            await vm.flush()
            expected = bytearray(swarm.data)
            expected[4090:4095], expected[8192:12288], expected[16384:20480] = b"guest", bytes(4096), bytes(4096)
            assert await vm.pread(6 * MIB) == expected
            await vm.export(tmp_path / "out.img")
            assert (tmp_path / "out.img").read_bytes() == expected
            assert len(await vm.profile()) > 100
            # What is at hand needs no other thread.
            assert vm._native.try_pread(100, 0, 0) == swarm.data[:100]
        with pytest.raises(vmtorrent.ClosedError):
            await vm.pread(1)
        assert no_threads()

    asyncio.run(run())


def test_await_gives_an_appliance_that_is_closed_by_hand(swarm: Swarm) -> None:
    async def run() -> None:
        vm = await aio.launch(swarm.torrent, **swarm.options)
        assert await vm.pread(10) == swarm.data[:10]
        await vm.close()
        await vm.close()
        assert vm.closed and vm.stats().fetched_bytes > 0

    asyncio.run(run())


def test_events_are_iterated_until_the_end(swarm: Swarm) -> None:
    async def run() -> list[str]:
        async with aio.launch(swarm.torrent, **swarm.options) as vm:

            kinds: list[str] = []

            async def listen() -> None:
                async for event in vm.events():
                    kinds.append(event.kind)

            listening = asyncio.create_task(listen())
            await asyncio.sleep(0)
            assert await vm.pread(6 * MIB) == swarm.data
            while vm.stats().present_bytes < 6 * MIB:
                await asyncio.sleep(0.01)
            deadline = time.monotonic() + 30
            while not kinds and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            # Time for more, if there were any to come.
            await asyncio.sleep(0.2)
        await asyncio.wait_for(listening, 10)
        return kinds

    assert asyncio.run(run()) == ["complete"]


def test_publish_seed_and_export_are_awaited(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"boot" + bytes(MIB))

    async def run() -> None:
        image = await aio.publish(tmp_path / "disk.img", tmp_path / "disk.torrent")
        assert vmtorrent.Image.load(tmp_path / "disk.torrent") == image
        async with aio.seed(image, tmp_path, listen="127.0.0.1:0", local_discovery=False) as seed:
            async with aio.launch(
                seed.magnet, mount=False, state=tmp_path / "state", cache=tmp_path / "cache", discovery=False
            ) as vm:
                assert await vm.pread(4) == b"boot"
            assert await aio.export(vm.state_directory, tmp_path / "out.img") >= 4
        assert seed.closed and seed.stats().uploaded_bytes > 0

    asyncio.run(run())
    assert (tmp_path / "out.img").read_bytes() == b"boot" + bytes(MIB)


def test_a_cancelled_read_ends_at_once_and_the_loop_stays_free(dead: Swarm) -> None:
    async def run() -> None:
        async with aio.launch(dead.torrent, **dead.options) as vm:
            reading = asyncio.create_task(vm.pread(100, MIB))
            ticks = 0
            for _ in range(20):
                await asyncio.sleep(0.01)
                ticks += 1
            assert ticks == 20 and not reading.done()
            began = time.monotonic()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(vm.pread(100, 2 * MIB), 0.1)
            # A read waits for a minute.
            assert time.monotonic() - began < 10

    asyncio.run(run())


def test_close_sends_waiting_reads_away(dead: Swarm) -> None:
    async def run() -> None:
        vm = await aio.launch(dead.torrent, **dead.options)
        reading = asyncio.create_task(vm.pread(100, MIB))
        await asyncio.sleep(0.1)
        await vm.close()
        with pytest.raises(vmtorrent.ClosedError):
            await asyncio.wait_for(reading, 10)

    asyncio.run(run())


def test_a_cancelled_launch_leaves_nothing(dead: Swarm) -> None:
    need_fuse()
    before = mounts()

    async def run() -> None:
        # Nobody can describe the image.
        launching = asyncio.create_task(launch())
        await asyncio.sleep(0.3)
        launching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await launching

    async def launch() -> None:
        magnet = "magnet:?xt=urn:btih:" + "ab" * 20
        async with aio.launch(magnet, **{**dead.options, "mount": True}):
            raise AssertionError("nobody described it")

    asyncio.run(run())
    assert no_threads() and mounts() == before


def test_an_exception_in_the_block_closes_it(swarm: Swarm) -> None:
    need_fuse()

    async def run() -> None:
        async with aio.launch(swarm.torrent, **{**swarm.options, "mount": True}) as vm:
            raise LookupError(str(vm.directory))

    with pytest.raises(LookupError) as caught:
        asyncio.run(run())
    assert not Path(str(caught.value.args[0])).exists()
