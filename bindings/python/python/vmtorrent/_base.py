"""What `Appliance` and `aio.Appliance` have in common: all that doesn't wait."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import _html, _vmtorrent
from ._console import ConsoleText, shown
from ._errors import TimedOutError, UnavailableError, VmmError
from ._image import Image
from ._machine import Machine, not_mounted
from ._progress import FillingBar
from ._records import Extent, File, Stats

_MAP_EXTENTS = 4000
"""Parts of a file that a picture shows at most."""


class BaseAppliance:
    """A running appliance: complete, writable disks over an image that is still on its way.

    Offsets and lengths are bytes, at any alignment. `file` is a number or a path of `files`, None for the boot disk.
    """

    def __init__(self, machine: Machine, native: _vmtorrent.Appliance, progress: bool) -> None:
        """Made by `launch`."""
        self._machine = machine
        self._native = native
        self._final: Stats | None = None
        self._text = ConsoleText()
        self._console: _vmtorrent.Console | None = None
        machine.appliance = native
        self._finalizer = weakref.finalize(self, machine.end_unclosed)
        # `_machine` does it in its order.
        self._finalizer.atexit = False
        if progress:
            machine.bar = FillingBar(self.image.name, lambda: Stats(**native.stats()))

    def _number(self, file: int | str | None) -> int:
        if file is None:
            return self._native.boot_file
        return file if isinstance(file, int) else self._native.find(file)

    @property
    def image(self) -> Image:
        """The image."""
        return Image(self._native.image)

    @property
    def files(self) -> tuple[File, ...]:
        """The files of the image, by the order of their bytes."""
        return self.image.files

    @property
    def boot_file(self) -> int:
        """The number of the largest file: the disk to boot from."""
        return self._native.boot_file

    @property
    def path(self) -> Path:
        """The disk to boot from, below `directory`: what a VMM opens.

        Raises:
            UnavailableError: it is not mounted (`mount=False`).
        """
        return self.directory.joinpath(*self.files[self.boot_file].path.split("/"))

    @property
    def directory(self) -> Path:
        """Where the image is mounted.

        Raises:
            UnavailableError: it is not mounted (`mount=False`).
        """
        directory = self._native.directory
        if directory is None:
            raise not_mounted()
        return Path(directory)

    @property
    def state_directory(self) -> Path:
        """The directory that holds what the guest writes, for `export` and for the next launch."""
        return Path(self._native.state_directory)

    @property
    def listen_address(self) -> str:
        """Where peers connect, IP:PORT."""
        return self._native.listen_address

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._final is not None or self._native.closed

    @property
    def console(self) -> str:
        """What the guest's console has printed so far, at most the last million characters. It doesn't wait.

        Raises:
            UnavailableError: there is no VMM, or its console is not read (`console=False`).
        """
        self._text.feed(self._read_console().take)
        return self._text.text

    def _read_console(self) -> _vmtorrent.Console:
        if self._console is None:
            process = self._machine.vmm
            self._console = None if process is None else process.console()
        if self._console is None:
            text = "there is no console to read: launch with vmm= and without console=False"
            raise UnavailableError(errno.EOPNOTSUPP, text)
        return self._console

    def _vmm(self) -> _vmtorrent.Process:
        if self._machine.vmm is None:
            raise UnavailableError(errno.EOPNOTSUPP, "there is no VMM: launch with vmm=")
        return self._machine.vmm

    def _vmm_ended(self, status: int | None) -> VmmError:
        what = shown(self._vmm().words, status)
        return VmmError(errno.ECHILD, f"{what} before that came; its console ends with:\n{self._text.tail}")

    def _console_late(self, pattern: str, timeout: float | None) -> TimedOutError:
        text = f"the console did not show {pattern!r} within {timeout} s; it ends with:\n{self._text.tail}"
        return TimedOutError(errno.ETIMEDOUT, text)

    def length(self, file: int | str | None = None) -> int:
        """The present length of a file, bytes: its guest may have grown or cut it.

        Raises:
            InvalidInputError, NotFoundError: there is no such file.
            ClosedError: the appliance was closed.
        """
        return self._native.length(self._number(file))

    def set_length(self, length: int, file: int | str | None = None) -> None:
        """Grows a file with zeros, or cuts it off.

        Raises:
            InvalidInputError, NotFoundError: there is no such file.
            NoSpaceError, IoError: what the disk says.
            ClosedError: the appliance was closed.
        """
        self._native.set_length(length, self._number(file))

    def prefetch(self, offset: int, length: int, file: int | str | None = None) -> int:
        """Has a range fetched soon that a read may want: behind what reads wait for, before what is fetched in the
        background. Gives the bytes of the range's pieces that are not here yet, and doesn't wait for them.

        Raises:
            InvalidInputError, NotFoundError: there is no such file.
            ClosedError: the appliance was closed.
        """
        return self._native.prefetch(offset, length, self._number(file))

    def extents(self, file: int | str | None = None, offset: int = 0, length: int | None = None) -> list[Extent]:
        """What a range of a file is made of, in order and without gaps; `length` None: up to the end. Nothing is fetched
        for that.

        Raises:
            InvalidInputError, NotFoundError: there is no such file.
            ClosedError: the appliance was closed.
        """
        number = self._number(file)
        length = (1 << 63) - 1 if length is None else length
        return [Extent(*extent) for extent in self._native.extents(offset, length, number)]

    def stats(self) -> Stats:
        """What it has cost so far; the last figures when it was closed.

        Raises:
            ClosedError: it was closed, and its figures were given to another call.
        """
        return self._final if self._final is not None else Stats(**self._native.stats())

    def _stats_or_zeros(self) -> Stats:
        try:
            return self.stats()
        except OSError:
            return Stats(**dict.fromkeys(Stats.__dataclass_fields__, 0))

    def _closed_with(self, stats: dict[str, float] | None, last: Stats) -> None:
        self._final = Stats(**stats) if stats is not None else last  # type: ignore[arg-type]
        self._machine.forget()
        self._finalizer.detach()

    def __repr__(self) -> str:
        how = "closed" if self.closed else self._native.directory or "not mounted"
        return f"<vmtorrent.Appliance {self.image.name!r} {os.fspath(how)}>"

    def _repr_html_(self) -> str:
        name = self.image.name
        if self.closed:
            return _html.closed(name)
        extents = _coarse(self.extents(), _MAP_EXTENTS)
        directory = self._native.directory
        path = None if directory is None else str(self.path)
        return _html.appliance(name, path, self.length(), extents, self.stats())


def _coarse(extents: Sequence[Extent], most: int) -> Iterator[Extent]:
    """At most so many parts: short ones take the kind of the longest among their neighbours."""
    group = -(-len(extents) // most) if extents else 1
    for first in range(0, len(extents), group):
        parts = extents[first : first + group]
        longest = max(parts, key=lambda part: part.length)
        yield Extent(parts[0].offset, sum(part.length for part in parts), longest.kind)
