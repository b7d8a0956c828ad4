"""What an appliance gives: the image's bytes, what was written, figures and events."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, Swarm, content, mounts, need_fuse

import vmtorrent


def test_reads_come_from_the_swarm_and_are_right_at_any_place(swarm: Swarm) -> None:
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        for offset, length in [(0, 512), (3, 70_000), (2 * MIB - 7, 15), (6 * MIB - 10, 10)]:
            assert vm.pread(length, offset) == swarm.data[offset : offset + length]
        # Fewer bytes at the end, none behind it.
        assert vm.pread(100, 6 * MIB - 10) == swarm.data[-10:]
        assert vm.pread(100, 6 * MIB) == b""
        assert vm.pread(100, 1 << 60) == b""
        stats = vm.stats()
        assert 0 < stats.fetched_bytes < 6 * MIB
        assert stats.stalls > 0 and stats.peers == 1
        assert vm.pread(6 * MIB) == swarm.data
    assert swarm.seed.stop() >= stats.fetched_bytes


def test_a_magnet_link_and_an_image_lead_to_the_same_disk(swarm: Swarm) -> None:
    image = vmtorrent.Image.load(swarm.torrent)
    for source in (swarm.seed.magnet, image, Path(swarm.torrent)):
        with vmtorrent.launch(source, **swarm.options) as vm:
            assert vm.image == image
            assert vm.pread(100, MIB) == swarm.data[MIB : MIB + 100]


def test_what_was_written_stays_and_the_image_does_not_change(swarm: Swarm) -> None:
    expected = bytearray(swarm.data)
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        assert vm.pwrite(b"written", 4090) == 7
        assert vm.pwrite(bytearray(b"more"), MIB) == 4
        assert vm.pwrite(memoryview(b"xx--yy")[2:4], 2 * MIB) == 2
        vm.discard(8192, 4096)
        vm.write_zeroes(6 * MIB - 100, 200)
        vm.flush()
        assert vm.length() == 6 * MIB + 100
        vm.set_length(6 * MIB + 50)
        assert vm.stats().guest_written_bytes >= 13
    expected[4090:4097], expected[MIB : MIB + 4] = b"written", b"more"
    expected[2 * MIB : 2 * MIB + 2] = b"--"
    expected[8192:12288] = bytes(4096)
    expected[6 * MIB - 100 :] = bytes(150)
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        assert vm.pread(7 * MIB) == expected
    assert swarm.disk.read_bytes() == swarm.data


def test_an_ephemeral_machine_forgets(swarm: Swarm) -> None:
    options = {**swarm.options, "state": None, "ephemeral": True}
    for _ in range(2):
        with vmtorrent.launch(swarm.torrent, **options) as vm:
            assert vm.pread(4) == swarm.data[:4]
            vm.pwrite(b"gone", 0)
            vm.flush()
            state = vm.state_directory
        assert not state.exists()


def test_the_mount_shows_a_complete_writable_disk(swarm: Swarm) -> None:
    need_fuse()
    with vmtorrent.launch(swarm.torrent, **{**swarm.options, "mount": True}) as vm:
        assert str(vm.directory) in mounts()
        assert vm.path == vm.directory / "disk.img"
        # Another process, as a VMM is one: this one must not wait for itself while it holds the interpreter.
        shown = subprocess.run(["cat", vm.path], check=True, capture_output=True).stdout
        assert shown == swarm.data
        with open(vm.path, "r+b") as disk:
            disk.seek(100)
            disk.write(b"guest")
        assert vm.pread(5, 100) == b"guest"
        directory = vm.directory
    assert not directory.exists()


def test_a_mapped_file_can_be_read_while_the_interpreter_is_held(swarm: Swarm) -> None:
    """A page fault in Python holds the interpreter's lock until the swarm has answered."""
    need_fuse()
    import mmap

    with vmtorrent.launch(swarm.torrent, **{**swarm.options, "mount": True}) as vm:
        with open(vm.path, "rb") as disk, mmap.mmap(disk.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[: 6 * MIB] == swarm.data


def test_a_given_mount_point_stays(swarm: Swarm, tmp_path: Path) -> None:
    need_fuse()
    point = tmp_path / "point"
    point.mkdir()
    with vmtorrent.launch(swarm.torrent, **{**swarm.options, "mount": point}) as vm:
        assert vm.directory == point
        with pytest.raises(vmtorrent.InUseError):
            vmtorrent.launch(swarm.torrent, **{**swarm.options, "mount": point, "state": tmp_path / "other"})
    assert point.is_dir() and not list(point.iterdir())


def test_without_a_mount_there_is_no_path(swarm: Swarm) -> None:
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        with pytest.raises(vmtorrent.UnavailableError, match="mount=False"):
            _ = vm.path
        with pytest.raises(vmtorrent.UnavailableError, match="vmm="):
            _ = vm.process
        with pytest.raises(vmtorrent.UnavailableError, match="console"):
            vm.wait_console("x")


def test_files_are_named_by_number_or_path(tmp_path: Path) -> None:
    published = tmp_path / "machine"
    (published / "boot").mkdir(parents=True)
    (published / "boot" / "small.img").write_bytes(b"small" * 1000)
    (published / "large.img").write_bytes(content(2 * MIB))
    image = vmtorrent.publish(published)
    with (
        vmtorrent.seed(image, tmp_path, listen="127.0.0.1:0", local_discovery=False) as seed,
        vmtorrent.launch(
            image,
            mount=False,
            ephemeral=True,
            cache=tmp_path / "cache",
            peers=[seed.listen_address],
            discovery=False,
        ) as vm,
    ):
        assert [f.path for f in vm.files] == ["boot/small.img", "large.img"]
        assert vm.boot_file == 1 and vm.length() == 2 * MIB and vm.length(0) == 5000
        assert vm.pread(5, file=0) == vm.pread(5, file="boot/small.img") == b"small"
        with pytest.raises(vmtorrent.NotFoundError, match='no file "other"'):
            vm.pread(1, file="other")
        with pytest.raises(vmtorrent.InvalidInputError, match="no file 2"):
            vm.pread(1, file=2)


def test_extents_tell_where_bytes_are(swarm: Swarm) -> None:
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        vm.pread(16384, 0)
        vm.pwrite(bytes([1]) * 4096, 5 * MIB)
        vm.discard(5 * MIB + 4096, 4096)
        extents = vm.extents()
        assert extents[0] == vmtorrent.Extent(0, extents[0].length, "present")
        assert {e.kind for e in extents} == {"present", "missing", "zero", "written", "zeroed"}
        assert [e.offset for e in extents[1:]] == [e.offset + e.length for e in extents[:-1]]
        assert sum(e.length for e in extents) == 6 * MIB
        assert vm.extents(offset=5 * MIB, length=100) == [vmtorrent.Extent(5 * MIB, 100, "written")]


def test_prefetch_names_what_is_missing_and_fetches_it(swarm: Swarm) -> None:
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        events = vm.events()
        assert vm.prefetch(0, 6 * MIB) >= 4 * MIB
        assert vm.pread(6 * MIB) == swarm.data
        event = events.get(30)
        assert event is not None and event.kind == "complete"
        assert vm.prefetch(0, 6 * MIB) == 0
    assert list(events) == []


def test_a_read_that_times_out_fails_with_eio_and_is_an_event(dead: Swarm) -> None:
    with vmtorrent.launch(dead.torrent, **{**dead.options, "read_timeout": 0.3}) as vm:
        events = vm.events()
        with pytest.raises(vmtorrent.TimedOutError) as caught:
            vm.pread(100, MIB)
        assert caught.value.errno == errno.EIO and isinstance(caught.value, TimeoutError)
        event = events.get(10)
        assert event is not None
        assert (event.kind, event.file, event.offset, event.peers) == ("read-timed-out", 0, MIB, 0)
        with pytest.raises(vmtorrent.TimedOutError) as nothing:
            events.get(0.05)
        assert nothing.value.errno == errno.ETIMEDOUT


def test_after_the_end_calls_say_so_and_figures_stay(swarm: Swarm) -> None:
    vm = vmtorrent.launch(swarm.torrent, **swarm.options)
    vm.pread(100)
    assert not vm.closed
    vm.close()
    vm.close()
    assert vm.closed and vm.stats().guest_read_bytes >= 100
    for call in (vm.flush, vm.events, vm.profile, lambda: vm.pread(1), lambda: vm.pwrite(b"x")):
        with pytest.raises(vmtorrent.ClosedError) as caught:
            call()
        assert caught.value.errno == errno.ESHUTDOWN
    assert "closed" in repr(vm) and "closed" in vm._repr_html_()


def test_a_running_machine_and_a_closed_one_are_exported(swarm: Swarm, tmp_path: Path) -> None:
    expected = bytearray(swarm.data)
    expected[10:15] = b"guest"
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        vm.pwrite(b"guest", 10)
        written = vm.export(tmp_path / "running.img")
        assert 5 * MIB <= written <= 6 * MIB
        with pytest.raises(vmtorrent.InUseError):
            vm.export(tmp_path / "running.img")
        with pytest.raises(vmtorrent.InUseError):
            vmtorrent.export(vm.state_directory, tmp_path / "closed.img")
    vmtorrent.export(vm.state_directory, tmp_path / "closed.img")
    for name in ("running.img", "closed.img"):
        assert (tmp_path / name).read_bytes() == expected
    with pytest.raises(vmtorrent.NotFoundError):
        vmtorrent.export(tmp_path / "nowhere", tmp_path / "none.img")


@pytest.mark.parametrize(
    ("options", "error", "remedy"),
    [
        ({"listen": "localhost"}, vmtorrent.InvalidInputError, "192.0.2.7:6881"),
        ({"peers": ["here"]}, vmtorrent.InvalidInputError, "192.0.2.7:6881"),
        ({"fill": "some"}, vmtorrent.InvalidInputError, '"idle"'),
        ({"download_limit": 0}, vmtorrent.InvalidInputError, "None for no limit"),
        ({"upload_slots": 0}, vmtorrent.InvalidInputError, "None for no limit"),
        ({"max_connections": 0}, vmtorrent.InvalidInputError, "from 1 to 65535"),
        ({"read_timeout": -1.0}, vmtorrent.InvalidInputError, "None for ever"),
        ({"read_timeout": float("nan")}, vmtorrent.InvalidInputError, "None for ever"),
        ({"max_disk": "10 gigs"}, vmtorrent.InvalidInputError, "2G"),
        ({"ephemeral": True}, vmtorrent.InvalidInputError, "leave one out"),
        ({"memory": "1G"}, vmtorrent.InvalidInputError, "vmm="),
        ({"profile": "missing.json"}, vmtorrent.NotFoundError, "missing.json"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_a_remedy(
    swarm: Swarm, options: dict[str, Any], error: type[vmtorrent.Error], remedy: str
) -> None:
    with pytest.raises(error, match=re.escape(remedy)):
        vmtorrent.launch(swarm.torrent, **{**swarm.options, **options})


def test_errors_are_oserrors_with_the_number_of_their_cause(swarm: Swarm, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        vmtorrent.launch(tmp_path / "no.torrent", **swarm.options)
    assert isinstance(missing.value, vmtorrent.NotFoundError) and missing.value.errno == errno.ENOENT
    assert "no.torrent" in str(missing.value.strerror)
    (tmp_path / "bad.torrent").write_bytes(b"d8:announce")
    with pytest.raises(vmtorrent.InvalidTorrentError) as bad:
        vmtorrent.launch(tmp_path / "bad.torrent", **swarm.options)
    assert isinstance(bad.value, ValueError) and isinstance(bad.value, OSError)
    with vmtorrent.launch(swarm.torrent, **swarm.options):
        with pytest.raises(vmtorrent.InUseError, match=str(os.getpid())):
            vmtorrent.launch(swarm.torrent, **swarm.options)


def test_figures_have_the_names_of_the_library(swarm: Swarm) -> None:
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        native = vm._native.stats()
        assert set(native) == set(vmtorrent.Stats.__dataclass_fields__)
        stats = vmtorrent.Stats(**native)
        for name, field in vmtorrent.Stats.__dataclass_fields__.items():
            assert type(getattr(stats, name)).__name__ == field.type, name


def test_nothing_is_imported_that_was_not_asked_for() -> None:
    code = "import sys, vmtorrent; print([m for m in ('tqdm', 'pandas', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"
