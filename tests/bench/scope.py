"""What a row makes (directories, processes, mounts, hosts), taken away at its end in reverse order."""

import contextlib
import itertools
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from child import Child, Failure
from demo import free_port, is_dead_mount
from lab import Lab
from result import Skip

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
MIB = 1 << 20
HAVE_HEADER = 32


def note(text):
    """Tells a person what goes on; results go to stdout."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skip(f"{program} is missing: run `tests/deps.sh bench` as root")


def cargo_bench(name):
    """What one of the core's own benchmarks prints."""
    cargo = shlex.split(os.environ.get("CARGO", "cargo"))
    need(cargo[0])
    note(f"cargo bench {name}")
    found = subprocess.run(
        [*cargo, "bench", "-q", "-p", "vmtorrent", "--bench", name],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if found.returncode:
        raise Failure(f"cargo bench failed: {found.stderr[-500:]}")
    return found.stdout


class Scope:
    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.stack = contextlib.ExitStack()
        self.names = itertools.count()
        directory.mkdir()
        self.stack.callback(shutil.rmtree, directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def inner(self, name):
        """A scope of its own inside this one, for a single boot for instance; to be entered."""
        return Scope(self.options, self.directory / f"{name}.{next(self.names)}")

    def path(self, name):
        return self.directory / name

    def start(self, *arguments, name=None, **kind):
        log = self.path(f"{name or Path(arguments[0]).name}.{next(self.names)}.log")
        child = Child([str(a) for a in arguments], log, **kind)
        self.stack.callback(child.stop)
        return child

    def run(self, *arguments, seconds=300, **kind):
        child = self.start(*arguments, **kind)
        if status := child.wait(seconds):
            raise child.failure(f"ended with status {status}")
        return child

    def mount_point(self, name):
        """An empty directory; what is still mounted there at the end is taken away."""
        path = self.path(f"{name}.{next(self.names)}")
        path.mkdir()

        def unmount():
            if os.path.ismount(path) or is_dead_mount(path):
                subprocess.run(["umount", "-l", path], check=False)

        self.stack.callback(unmount)
        return path

    def lab(self, *links):
        lab = Lab(self.options.binaries / "switch", links, congestion=self.options.congestion)
        self.stack.callback(lab.close)
        return lab

    # The command.

    @property
    def vmtorrent(self):
        return self.options.binaries / "vmtorrent"

    def publish(self, image, *arguments):
        """The .torrent file of an image, and the most memory that making it took."""
        # Several images may bear one name.
        torrent = self.path(f"{image.name}.{next(self.names)}.torrent")
        if self.options.piece_size:
            arguments = ["--piece-size", self.options.piece_size, *arguments]
        command = [str(a) for a in (self.vmtorrent, "publish", image, "-o", torrent, *arguments)]
        log = self.path(f"publish.{next(self.names)}.log")
        with open(log, "wb") as errors:
            pid = os.posix_spawn(
                command[0], command, os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, errors.fileno(), n) for n in (1, 2)],
            )  # fmt: skip
        _, status, usage = os.wait4(pid, 0)
        if status:
            raise Failure(f"vmtorrent publish ended with wait status {status}: {log.read_text()[-500:]}")
        return torrent, usage.ru_maxrss * 1024

    def seed(self, torrent, data, *arguments, host=None, **kind):
        """A running seed, and the address at which it is reached."""
        address = f"{host.address if host else '127.0.0.1'}:{free_port()}"
        child = self.start(
            self.vmtorrent, "seed", torrent, "--data", data, "--listen", address, "--json", *arguments,
            name="seed", events=True, host=host, **kind,
        )  # fmt: skip
        child.wait_event("ready", 60)
        return child, address

    def launch(self, torrent, *arguments, peers=(), fill="none", vmm=(), wait=True, **kind):
        launch = Launch(self, torrent, arguments, peers, fill, vmm, kind)
        if wait:
            launch.wait_ready()
        return launch


class Launch:
    """A running `vmtorrent launch` with a cache and a state of its own."""

    def __init__(self, scope, torrent, arguments, peers, fill, vmm, kind):
        self.cache, self.mount = scope.path(f"cache.{next(scope.names)}"), scope.mount_point("mnt")
        state = scope.path(f"state.{next(scope.names)}")
        command = [scope.vmtorrent, "launch", torrent, "--cache", self.cache, "--state", state]
        command += ["--mount", self.mount, "--fill", fill, "--no-discovery", "--json", *arguments]
        for peer in peers:
            command += ["--peer", peer]
        if vmm:
            command += ["--", *vmm]
        self.child = scope.start(*command, name="launch", events=True, **kind)

    def wait_ready(self):
        event = self.child.wait_event("ready", 60)[1]
        self.disk = Path(event["disk"])
        self.length = event["image_bytes"]
        self.store = self.cache / event["info_hash"]
        return self

    def present_pieces(self):
        """Set bits of the have file: it is written as each piece is stored, so it tells more finely than events."""
        try:
            field = (self.store / "have").read_bytes()[HAVE_HEADER:]
        except FileNotFoundError:
            return 0
        return int.from_bytes(field, "big").bit_count()

    def wait_complete(self, seconds):
        """Until an event says that all is present."""

        def complete():
            stats = self.stats()
            return stats and stats["present_bytes"] == stats["image_bytes"]

        self.child.wait_for("the image was complete", complete, seconds)

    def stats(self):
        """The last counters that were told."""
        for _, event in reversed(self.child.events):
            if event and event.get("event") in ("progress", "done"):
                return event
        return None

    def end(self):
        """The final counters."""
        self.child.stop(60)
        return self.child.wait_event("done", 1)[1]

    def data_file(self):
        """The pristine copy of the image's only file."""
        return next(p for p in (self.store / "data").rglob("*") if p.is_file())


def wait_file(path):
    return lambda: path.is_file() and path.stat().st_size > 0


__all__ = ["MIB", "REPOSITORY", "Launch", "Scope", "cargo_bench", "free_port", "need", "note", "wait_file"]
