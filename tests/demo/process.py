"""Child processes, and how they are ended."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from failure import Failure, tail


class Process:
    """A child in its own process group. It is ended by its id, kindly first."""

    APART = {"start_new_session": True}

    def __init__(self, arguments, log, events=False):
        # "vmtorrent launch", "qemu-system-x86_64".
        self.name = " ".join(Path(a).name for a in arguments[:2] if not str(a).startswith("-"))
        self.log = log
        self.events, self.condition = [], threading.Condition()
        self.started = time.monotonic()
        with open(log, "wb") as errors:
            self.child = subprocess.Popen(
                [str(a) for a in arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if events else errors,
                stderr=errors,
                **self.APART,
            )
        self.thread = None
        if events:
            self.thread = threading.Thread(target=self._read, daemon=True)
            self.thread.start()

    def _read(self):
        for line in self.child.stdout:
            now = time.monotonic()
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": "garbage", "line": line.decode(errors="replace").strip()}
            with self.condition:
                self.events.append((now, event))
                self.condition.notify_all()
        with self.condition:
            self.events.append((time.monotonic(), None))
            self.condition.notify_all()

    def failure(self, what):
        return Failure(f"{self.name} {what}; {self.log} ends with:\n{tail(self.log)}")

    def find(self, name):
        """Time and content of the first event of that name so far."""
        return next(((t, e) for t, e in self.events if e and e.get("event") == name), None)

    def wait_event(self, name, seconds):
        def over():
            return self.find(name) or (self.events and self.events[-1][1] is None)

        with self.condition:
            self.condition.wait_for(over, seconds)
            found = self.find(name)
        if not found:
            raise self.failure(f"gave no event {name!r} within {seconds} s")
        return found

    def wait(self, seconds):
        try:
            status = self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.failure(f"did not end within {seconds} s") from None
        if self.thread:
            self.thread.join(5)
        return status

    def stop(self, seconds=20):
        """Ends it if it runs. Its status, or None when it had to be killed."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
                return None
        if self.thread:
            self.thread.join(5)
        return self.child.returncode


def end_qemu(pidfile, work):
    """Kills the QEMU that wrote this file, if that is still the process of this id."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pidfile.read_text())
        if str(work).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
