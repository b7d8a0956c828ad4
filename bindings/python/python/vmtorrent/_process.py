"""A VMM that runs on an appliance's disk."""

from __future__ import annotations

import errno
from typing import NamedTuple

from . import _vmtorrent
from ._errors import TimedOutError


class Vmm(NamedTuple):
    """A VMM that `launch(vmm=NAME)` knows: built in, or from a TOML file."""

    name: str
    """What it is asked for by."""
    summary: str
    """One line about it."""
    formats: list[str]
    """Image formats that it opens."""
    variables: dict[str, str | None]
    """What `set` may change, with the defaults; None has to be set."""
    origin: str | None
    """The file that defines it; None for a built-in one."""


def vmms(file: str | None = None) -> list[Vmm]:
    """The VMMs that `launch` knows by name: the built-in ones, those of the user's `vmm.toml` and those of `file`.

    Raises:
        InvalidInputError: a file has a mistake; the message names the line and the remedy.
        NotFoundError: there is no such file.

    >>> [vmm.name for vmm in vmms() if vmm.name == "qemu"]
    ['qemu']
    """
    return [Vmm(*told[:4], None if told[4] is None else str(told[4])) for told in _vmtorrent.vmms(file)]


class BaseProcess:
    """What `Process` and `aio.Process` have in common."""

    __slots__ = ("_native",)

    def __init__(self, native: _vmtorrent.Process) -> None:
        """Made by `launch(vmm=...)`."""
        self._native = native

    @property
    def args(self) -> list[str]:
        """The command line."""
        return self._native.words

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._native.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, -N when signal N ended it; None while it runs. It doesn't wait."""
        ended = self._native.poll()
        return None if ended is None else ended[0]

    @property
    def left_behind(self) -> list[str]:
        """What could not be taken back at the end, with the remedy: a machine that is still known to the VMM, for
        example."""
        ended = self._native.poll()
        return [] if ended is None else ended[1]

    def __repr__(self) -> str:
        running = self.pid
        how = f"pid {running}" if running is not None else f"returncode {self.returncode}"
        return f"<vmtorrent.Process {self.args[0]!r} {how}>"


class Process(BaseProcess):
    """The VMM of an appliance. It ends with the appliance at the latest."""

    __slots__ = ()

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits for its end, and for what is done after it; gives the exit status, None if it never ran.

        Args:
            timeout: seconds; None: for ever.

        Raises:
            TimedOutError: it still runs then.
            Error: a program of it is missing or failed.
        """
        ended = self._native.wait(timeout)
        if ended is None:
            raise TimedOutError(errno.ETIMEDOUT, f"the VMM {self.args[0]} still runs after {timeout} s")
        return ended[0]

    def stop(self) -> int | None:
        """Asks the machine to end in the VMM's way (SIGTERM, or the guest's power button), kills it when it takes longer
        than the VMM's grace, and gives the exit status.

        Raises:
            Error: what stood in the way.
        """
        return self._native.end(False)[0]

    def kill(self) -> int | None:
        """Kills it at once; gives the exit status.

        Raises:
            Error: what stood in the way.
        """
        return self._native.end(True)[0]
