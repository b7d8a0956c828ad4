"""A boot of the demo's appliance, and when it was ready."""

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

from child import Failure
from console import Console
from demo import qemu_arguments
from process import end_qemu
from scope import Scope

# The options of all boots; behind them only what names the disk differs.
DRIVE = "if=virtio,cache=none,aio=native,rerror=stop,werror=stop"


class Guest:
    """One QEMU: its console is listened to before it starts. `arguments(disk)` are its command line."""

    def __init__(self, scope: Scope, memory=512):
        self.scope, self.memory = scope, memory
        # A socket's path may have 107 bytes at most; the work directory may be deep.
        sockets = Path(tempfile.mkdtemp(prefix="vmtorrent-bench."))
        scope.stack.callback(shutil.rmtree, sockets, ignore_errors=True)
        number = next(scope.names)
        self.console = Console(sockets / "console", scope.path(f"console.{number}.log"))
        scope.stack.callback(self.console.close)
        self.pidfile = scope.path(f"qemu.{number}.pid")
        scope.stack.callback(end_qemu, self.pidfile, scope.directory)

    def arguments(self, disk, drive=None):
        """QEMU's command line for a raw disk, or for what `drive` says."""
        arguments = qemu_arguments(disk, self.console.path, self.pidfile, self.memory)
        if drive:
            arguments[-1] = f"{drive},{DRIVE}"
        return arguments

    def wait_ready(self, child, seconds):
        """When READY was printed, on the monotonic clock. `child` is whose end means that it will never come."""
        child.wait_for("the guest was ready", lambda: "ready" in self.console.times, seconds)
        self.console.check(self.console.log)
        return self.console.times["ready"]

    def kill(self):
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(self.pidfile.read_text()), signal.SIGKILL)


def overlay(scope, base, format, size):
    """A qcow2 overlay over something that is only read; its drive options."""
    path = scope.path(f"overlay.{next(scope.names)}.qcow2")
    # -u: the base need not be looked at.
    scope.run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", base, "-F", format, path, size)
    return f"file={path},format=qcow2"


def copy_image(scope, image):
    """A private copy of the image that costs the boot nothing."""
    copy = scope.path("local.img")
    scope.run("cp", "--sparse=always", image, copy)
    scope.run("sync", copy)
    return copy


def local_boot(scope, image, seconds):
    """Seconds to READY on a private raw copy: what all ratios refer to."""
    guest = Guest(scope)
    copy = copy_image(scope, image)
    vmm = scope.start(*guest.arguments(copy))
    taken = guest.wait_ready(vmm, seconds) - vmm.started
    vmm.wait(60)
    return taken


def swarm_boot(scope, torrent, peer, host, seconds, *arguments):
    """Seconds to READY through `launch --fill none`, with these further arguments, and the final counters."""
    guest = Guest(scope)
    launch = scope.launch(torrent, *arguments, peers=[peer], vmm=guest.arguments("{disk}"), host=host, wait=False)
    taken = guest.wait_ready(launch.child, seconds) - launch.child.started
    if status := launch.child.wait(60):
        raise launch.child.failure(f"ended with status {status}")
    done = launch.child.wait_event("done", 1)[1]
    if done["stalls"] == 0:
        raise Failure("no read waited: this was no boot from a swarm")
    return taken, done

