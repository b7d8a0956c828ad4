"""VMMs: any command line, presets, and a real boot."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from conftest import HERE, MIB, SeedProcess, Swarm, need, need_fuse, options_in

import vmtorrent
from vmtorrent import aio


def script(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code, "{disk}", "{dir}"]


def mounted(swarm: Swarm) -> dict[str, object]:
    need_fuse()
    return {**swarm.options, "mount": True}


def test_a_command_gets_the_disk_and_its_console_is_read(swarm: Swarm) -> None:
    code = (
        "import sys, time\n"
        "disk = open(sys.argv[1], 'r+b'); print('first', disk.read(4).hex())\n"
        "disk.seek(100); disk.write(b'guest'); disk.close()\n"
        "print('second line'); print('login: second')\n"
        "sys.exit(7)"
    )
    with vmtorrent.launch(swarm.torrent, vmm=script(code), **mounted(swarm)) as vm:
        assert vm.process.args[0] == sys.executable and vm.process.args[-1] == str(vm.directory)
        found = vm.wait_console(r"^first (\w+)$", 30)
        assert found[1] == swarm.data[:4].hex()
        # The search goes on behind it.
        assert vm.wait_console("second", 30).start() < vm.wait_console("second", 30).start()
        with pytest.raises(vmtorrent.VmmError, match="status 7(.|\n)*login: second"):
            vm.wait_console("never", 30)
        assert vm.wait(30) == 7 and vm.process.returncode == 7 and vm.process.pid is None
        assert "login" in vm.console
        assert vm.pread(5, 100) == b"guest"


def test_what_does_not_come_in_time_is_told_with_the_console(swarm: Swarm) -> None:
    code = "import time; print('up'); time.sleep(1000)"
    with vmtorrent.launch(swarm.torrent, vmm=script(code), **mounted(swarm)) as vm:
        vm.wait_console("up", 30)
        with pytest.raises(vmtorrent.TimedOutError, match="within 0.1 s(.|\n)*up"):
            vm.wait_console("never", 0.1)
        with pytest.raises(vmtorrent.TimedOutError, match="still runs"):
            vm.wait(0.1)
        assert vm.process.returncode is None and vm.process.pid is not None
        assert vm.process.stop() == -signal.SIGTERM
        assert vm.process.kill() == -signal.SIGTERM


def test_a_vmm_that_is_missing_is_named_and_nothing_is_left(swarm: Swarm) -> None:
    with pytest.raises(vmtorrent.NotFoundError, match="no-such-vmm"):
        vmtorrent.launch(swarm.torrent, vmm=["no-such-vmm", "{disk}"], **mounted(swarm))
    with pytest.raises(vmtorrent.NotFoundError, match="choose one of"):
        vmtorrent.launch(swarm.torrent, vmm="no-such-preset", **mounted(swarm))
    with pytest.raises(vmtorrent.InvalidInputError, match="mount"):
        vmtorrent.launch(swarm.torrent, vmm="qemu", **swarm.options)


def test_presets_and_those_of_a_file_are_listed_and_run(swarm: Swarm, tmp_path: Path) -> None:
    names = [vmm.name for vmm in vmtorrent.vmms()]
    assert set(names) >= {"qemu", "cloud-hypervisor", "virtualbox", "vmware", "hyperv"}
    own = tmp_path / "vmm.toml"
    own.write_text(
        '[vmm.echo]\nsummary = "Shows what it is given"\nconsole = "stdio"\n'
        'run = ["echo", "{memory_mib}", "{cpus}", "{disk}", "{colour}"]\n'
        '[vmm.echo.variables]\ncolour = "red"\n[vmm.echo.formats]\nraw = "{disk}"\n'
    )
    told = {vmm.name: vmm for vmm in vmtorrent.vmms(str(own))}
    assert told["echo"].variables == {"colour": "red"} and told["echo"].origin == str(own)
    with vmtorrent.launch(
        swarm.torrent,
        vmm="echo",
        vmm_file=own,
        memory="512M",
        cpus=3,
        set={"colour": "blue"},
        extra=["last"],
        **mounted(swarm),
    ) as vm:
        vm.wait_console(rf"512 3 {vm.path} blue last", 30)
        assert vm.wait(30) == 0


def test_a_vmm_is_awaited(swarm: Swarm) -> None:
    code = "import time; print('up'); time.sleep(1000)"

    async def run() -> None:
        async with aio.launch(swarm.torrent, vmm=script(code), **mounted(swarm)) as vm:
            await vm.wait_console("up", 30)
            with pytest.raises(vmtorrent.TimedOutError, match="within 0.1 s"):
                await vm.wait_console("never", 0.1)
            waiting = asyncio.create_task(vm.wait())
            await asyncio.sleep(0.1)
            assert not waiting.done()
            assert await vm.process.stop() == await waiting == -signal.SIGTERM
            with pytest.raises(vmtorrent.VmmError):
                await vm.wait_console("never", 10)

    asyncio.run(run())


@pytest.mark.timeout(400)
@pytest.mark.boot
def test_qemu_boots_a_real_machine_from_the_swarm(tmp_path: Path) -> None:
    need_fuse()
    qemu = shutil.which("qemu-system-x86_64")
    need(qemu is not None, "qemu-system-x86_64")
    directory = Path(os.environ.get("VMTORRENT_DEMO_DIR") or HERE.parents[2] / ".demo")
    disk = directory / "appliance.img"
    need(disk.exists(), f"{disk}: tests/appliance/build.sh makes it")
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "appliance.img").symlink_to(disk)
    seed = SeedProcess(tmp_path / "published" / "appliance.img")
    try:
        began = time.monotonic()
        with vmtorrent.launch(
            seed.torrent,
            vmm="qemu",
            memory="512M",
            cpus=2,
            set={"nic": "none"},
            **{**options_in(tmp_path, seed.peer), "mount": True, "read_timeout": 60.0},
        ) as vm:
            found = vm.wait_console(r"VMTORRENT-DEMO-READY uptime=([\d.]+)", 350)
            stats = vm.stats()
            print(f"ready after {time.monotonic() - began:.1f} s (guest: {found[1]} s), {stats}")
            assert vm.process.pid is not None
            assert 10 * MIB < stats.fetched_bytes < stats.image_bytes / 2
            assert stats.guest_written_bytes > 0
        assert vm.process.returncode is not None
    finally:
        seed.kill()
