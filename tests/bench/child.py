"""Programs that a benchmark starts: they end with it, whatever ends it."""

import os
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "demo"))

from failure import Failure  # noqa: E402
from process import Process  # noqa: E402

# When this process is killed without a chance to clean up, the kernel asks its children to end.
LEASH = ["setpriv", "--pdeathsig", "TERM", "--"]
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """User and system time so far, of all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Child(Process):
    """A program on a host of the lab (None: this machine's network), tied to a processor if one is named."""

    # Linux gives the processors to sessions in turn: with one for each host, a program that only answers waits for the turn of
    # all other hosts, which it does not where each has its own processors.
    APART = {"process_group": 0}

    def __init__(self, arguments, log, events=False, host=None, cpu=None):
        prefix = list(LEASH)
        if host is not None:
            prefix += host.enter
        if cpu is not None:
            prefix += ["taskset", "-c", str(cpu)]
        # All of the prefix execs, so the child's id is the program's.
        super().__init__([*prefix, *arguments], log, events)
        self.name = " ".join(Path(a).name for a in arguments[:2] if not str(a).startswith("-"))

    def alive(self):
        return self.child.poll() is None

    def peak_memory(self):
        """The most resident memory so far, bytes."""
        for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise self.failure("ended before its memory could be looked at")

    def cpu_seconds(self):
        return cpu_seconds(self.child.pid)

    def wait_for(self, what, condition, seconds):
        """Polls until the condition gives something; fails when the program ends first."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if not self.alive():
                raise self.failure(f"ended with status {self.child.returncode} before {what}")
            if time.monotonic() > deadline:
                raise self.failure(f"{what}: not within {seconds} s")
            time.sleep(0.01)
        return found


__all__ = ["LEASH", "Child", "Failure", "cpu_seconds"]
