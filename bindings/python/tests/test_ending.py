"""Whatever ends it: nothing stays mounted, no thread, no child process."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, Swarm, mounts, need_fuse, no_threads

import vmtorrent

PREAMBLE = """
import gc, os, signal, sys, time, threading
import vmtorrent
source, directory, peer = sys.argv[1:4]
options = dict(cache=directory + "/cache", state=directory + "/state", peers=[peer], listen="127.0.0.1:0",
               discovery=False, fill="none", auto_profile=False)
def say(*words):
    print(*words, flush=True)
"""


class Script:
    """A Python program of its own that uses the package."""

    def __init__(self, swarm: Swarm, tmp_path: Path, code: str, source: str | None = None) -> None:
        command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(code)]
        arguments = [source or swarm.torrent, str(tmp_path), swarm.seed.peer]
        self.child = subprocess.Popen(
            command + arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def line(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline().strip()

    def end(self, timeout: float = 60) -> tuple[int, str, str]:
        out, err = self.child.communicate(timeout=timeout)
        return self.child.returncode, out, err


@pytest.mark.parametrize(
    "end",
    ["pass", "sys.exit(0)", "raise RuntimeError('end')", "signal.raise_signal(signal.SIGINT)"],
    ids=["falls off the end", "sys.exit", "exception", "Ctrl-C"],
)
def test_a_process_that_ends_without_close_leaves_nothing_and_loses_nothing(
    swarm: Swarm, tmp_path: Path, end: str
) -> None:
    need_fuse()
    before = mounts()
    script = Script(
        swarm,
        tmp_path,
        f"""
        vm = vmtorrent.launch(source, vmm=["sleep", "1000"], **options)
        vm.pwrite(b"kept", 100)
        say(vm.directory, vm.process.pid)
        {end}
        """,
    )
    directory, pid = script.line().split()
    status, _, err = script.end()
    assert "Traceback" not in err or "RuntimeError" in err or "KeyboardInterrupt" in err, err
    assert status in (0, 1, -signal.SIGINT), err
    assert mounts() == before and not Path(directory).exists()
    assert not Path("/proc", pid).exists()
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        assert vm.pread(4, 100) == b"kept"


def test_an_exception_in_the_block_ends_it(swarm: Swarm) -> None:
    need_fuse()
    directory, pid = Path(), 0
    with pytest.raises(LookupError):
        with vmtorrent.launch(swarm.torrent, vmm=["sleep", "1000"], **{**swarm.options, "mount": True}) as vm:
            directory, pid = vm.directory, vm.process.pid
            raise LookupError
    assert pid and not directory.exists() and not Path("/proc", str(pid)).exists()
    assert no_threads()


def test_the_collector_ends_what_nobody_closed(swarm: Swarm) -> None:
    need_fuse()
    vm = vmtorrent.launch(swarm.torrent, vmm=["sleep", "1000"], **{**swarm.options, "mount": True})
    vm.pwrite(b"kept", 100)
    directory, pid = vm.directory, vm.process.pid
    with pytest.warns(ResourceWarning, match="not closed"):
        del vm
        gc.collect()
    assert not directory.exists() and not Path("/proc", str(pid)).exists()
    assert no_threads()
    with vmtorrent.launch(swarm.torrent, **swarm.options) as again:
        assert again.pread(4, 100) == b"kept"


BLOCKED = {
    "a read": 'vm = vmtorrent.launch(source, **options); say("ready"); vm.pread(100, 1 << 20)',
    "a write": 'vm = vmtorrent.launch(source, **options); say("ready"); vm.pwrite(b"x", (1 << 20) + 1)',
    "an event": 'vm = vmtorrent.launch(source, **options); say("ready"); next(vm.events())',
    "a launch": 'say("ready"); vmtorrent.launch("magnet:?xt=urn:btih:" + "ab" * 20, **options)',
    "a VMM's end": 'vm = vmtorrent.launch(source, vmm=["sleep", "1000"], **options); say("ready"); vm.wait()',
    "the console": 'vm = vmtorrent.launch(source, vmm=["sleep", "1000"], **options); say("ready"); '
    'vm.wait_console("x")',
}


@pytest.mark.parametrize("what", BLOCKED)
def test_ctrl_c_ends_what_waits_at_once(dead: Swarm, tmp_path: Path, what: str) -> None:
    need_fuse()
    before = mounts()
    script = Script(
        dead,
        tmp_path,
        f"""
        try:
            {BLOCKED[what]}
        except KeyboardInterrupt:
            say("interrupted", time.monotonic())
        """,
    )
    assert script.line() == "ready"
    time.sleep(0.5)
    assert script.child.poll() is None
    sent = time.monotonic()
    script.child.send_signal(signal.SIGINT)
    word, when = script.line().split()
    # What it waits for would take a minute, or for ever.
    assert word == "interrupted" and float(when) - sent < 10
    status, _, err = script.end()
    assert status == 0, err
    assert mounts() == before


def test_ctrl_c_in_close_breaks_it_off(swarm: Swarm, tmp_path: Path) -> None:
    need_fuse()
    before = mounts()
    # It ignores SIGTERM, so that close waits for its grace.
    script = Script(
        swarm,
        tmp_path,
        """
        vm = vmtorrent.launch(source, vmm=["sh", "-c", "trap '' TERM; echo up; sleep 1000 & wait; wait"], **options)
        vm.wait_console("up", 10)
        pid = vm.process.pid
        say("ready", pid)
        try:
            vm.close()
        except KeyboardInterrupt:
            say("interrupted")
        """,
    )
    _, pid = script.line().split()
    time.sleep(0.5)
    script.child.send_signal(signal.SIGINT)
    assert script.line() == "interrupted"
    status, _, err = script.end(15)
    assert status == 0, err
    assert mounts() == before and not Path("/proc", pid).exists()


def test_a_fork_is_refused_and_touches_nothing(swarm: Swarm) -> None:
    need_fuse()
    with vmtorrent.launch(swarm.torrent, **{**swarm.options, "mount": True}) as vm:
        events = vm.events()
        read, write = os.pipe()
        with warnings.catch_warnings():
            # CPython 3.12 and later warn of what is tested here.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            told = []
            calls = [
                lambda: vm.pread(1),
                vm.stats,
                vm.flush,
                vm.close,
                lambda: events.get(1),
                lambda: vmtorrent.launch(swarm.torrent, **swarm.options),
            ]
            for call in calls:
                try:
                    call()
                    told.append("done")
                except vmtorrent.ForkedError:
                    told.append("refused")
                except BaseException as error:
                    told.append(type(error).__name__)
            del vm, events
            gc.collect()
            os.write(write, " ".join(told).encode())
            # Runs what atexit was told, as a real end does.
            atexit._run_exitfuncs()
            os._exit(0)
        os.close(write)
        _, status = os.waitpid(child, 0)
        with os.fdopen(read) as pipe:
            assert pipe.read() == " ".join(["refused"] * 6)
        assert status == 0
        # All is as it was.
        assert str(vm.directory) in mounts()
        assert vm.path.read_bytes()[:10] == swarm.data[:10]
        assert vm.pread(100, 3 * MIB) == swarm.data[3 * MIB : 3 * MIB + 100]


def _read_first(torrent: str, options: dict[str, Any], result: "multiprocessing.Queue[bytes]") -> None:
    with vmtorrent.launch(torrent, **options) as vm:
        result.put(vm.pread(10))


def test_a_spawned_process_has_machines_of_its_own(swarm: Swarm, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        assert vm.pread(1) == swarm.data[:1]
        queue = spawn.Queue()
        options = {**swarm.options, "state": tmp_path / "other"}
        process = spawn.Process(target=_read_first, args=(swarm.torrent, options, queue))
        process.start()
        assert queue.get(timeout=60) == swarm.data[:10]
        process.join(60)
        assert process.exitcode == 0
        queue.close()
        queue.join_thread()


def test_close_sends_reads_of_other_threads_away(dead: Swarm) -> None:
    vm = vmtorrent.launch(dead.torrent, **dead.options)
    caught: list[BaseException] = []

    def read() -> None:
        try:
            vm.pread(100, MIB)
        except vmtorrent.ClosedError as error:
            caught.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    vm.close()
    for thread in threads:
        thread.join(10)
    assert len(caught) == 4


def test_a_process_killed_in_a_read_ends(dead: Swarm, tmp_path: Path) -> None:
    """Threads that still wait when the interpreter ends don't hold it up."""
    script = Script(
        dead,
        tmp_path,
        """
        vm = vmtorrent.launch(source, mount=False, **options)
        threading.Thread(target=lambda: vm.pread(100, 1 << 20), daemon=True).start()
        time.sleep(0.3)
        say("ready")
        """,
    )
    assert script.line() == "ready"
    status, _, err = script.end(30)
    assert status == 0 and "panick" not in err, err
