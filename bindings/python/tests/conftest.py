"""A real swarm: what the tests launch is seeded by another process."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Who starts this in the background may have had Ctrl-C ignored, and processes that we start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No public node of the DHT is asked.
os.environ["VMTORRENT_DHT_BOOTSTRAP"] = ""

MIB = 1 << 20
HERE = Path(__file__).resolve().parent


def need(there: bool, what: str) -> None:
    """Skips the test when something is missing here; where VMTORRENT_REQUIRE is set that is a failure."""
    if there:
        return
    if os.environ.get("VMTORRENT_REQUIRE"):
        pytest.fail(f"needs {what}")
    pytest.skip(f"needs {what}")


def need_fuse() -> None:
    need(os.access("/dev/fuse", os.R_OK | os.W_OK), "/dev/fuse")


def mounts() -> list[str]:
    """What is mounted through FUSE by this package."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if "fuse" in line.split()[2]]


def own_threads() -> list[str]:
    """Names of this process's threads that the native module started."""
    names: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
        except OSError:
            continue
        if name.startswith("vmtorrent"):
            names.append(name)
    return names


def no_threads(seconds: float = 30) -> bool:
    """Whether they are gone; the system takes a moment to forget a thread that has ended."""
    deadline = time.monotonic() + seconds
    while own_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    return own_threads() == []


def content(length: int, seed: int = 1) -> bytes:
    """Bytes that nothing compresses, with zeros in the middle."""
    data = bytearray(random.Random(seed).randbytes(length))
    middle = length // 2
    data[middle : middle + MIB] = bytes(min(MIB, length - middle))
    return bytes(data)


class SeedProcess:
    """Another process that seeds a file."""

    def __init__(self, disk: Path, *limit: int) -> None:
        self.child = subprocess.Popen(
            [sys.executable, str(HERE / "seeding.py"), str(disk), *map(str, limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.child.stdout is not None
        told = json.loads(self.child.stdout.readline())
        self.magnet: str = told["magnet"]
        self.peer: str = told["peer"]
        self.torrent: str = told["torrent"]

    def stop(self) -> int:
        """Ends it; gives the bytes that it sent."""
        out, _ = self.child.communicate(timeout=60)
        assert self.child.returncode == 0
        return int(json.loads(out)["uploaded"])

    def kill(self) -> None:
        """Ends it without a good-bye."""
        if self.child.poll() is None:
            self.child.kill()
        self.child.communicate(timeout=60)


@dataclass
class Swarm:
    """A seeded disk, and the options of launches that stay among us."""

    seed: SeedProcess
    disk: Path
    data: bytes
    options: dict[str, Any]

    @property
    def torrent(self) -> str:
        return self.seed.torrent


def options_in(directory: Path, peer: str) -> dict[str, Any]:
    """Launches of a test share nothing with anybody else."""
    return {
        "cache": directory / "cache",
        "state": directory / "state",
        "peers": [peer],
        "listen": "127.0.0.1:0",
        "discovery": False,
        "mount": False,
        "fill": "none",
        "auto_profile": False,
    }


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    data = content(6 * MIB)
    disk = tmp_path / "published" / "disk.img"
    disk.parent.mkdir()
    disk.write_bytes(data)
    seed = SeedProcess(disk)
    yield Swarm(seed, disk, data, options_in(tmp_path, seed.peer))
    seed.kill()


@pytest.fixture
def dead(swarm: Swarm) -> Swarm:
    """A swarm whose only seed is gone: what is missing never comes."""
    swarm.seed.kill()
    return swarm


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test leaves a mount, a thread or a child behind."""
    before = mounts()
    yield
    assert mounts() == before
    assert no_threads(), own_threads()
    python = [t.name for t in threading.enumerate() if t.name.startswith("vmtorrent")]
    assert python == []
