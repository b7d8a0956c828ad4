# pyright: reportPrivateUsage=false
"""The same for asyncio: `launch`, `seed`, `publish` and `export` as awaitables, `launch` and `seed` also with
`async with`, and events with `async for`.

Cancelling a task ends what it waits for. Other event loops than asyncio's (and those that stand in for it) are not
supported.

>>> import asyncio, pathlib, tempfile
>>> async def boot_sector(directory):
...     pathlib.Path(directory, "disk.img").write_bytes(b"boot" + bytes(1 << 20))
...     image = await publish(pathlib.Path(directory, "disk.img"))
...     async with seed(image, directory, listen="127.0.0.1:0") as served:
...         async with launch(
...             served.magnet, mount=False, ephemeral=True, cache=pathlib.Path(directory, "cache")
...         ) as vm:
...             return await vm.pread(4)
>>> with tempfile.TemporaryDirectory() as directory:
...     asyncio.run(boot_sector(directory))
b'boot'
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import _vmtorrent
from ._appliance import _check_vmm, _contents
from ._base import BaseAppliance
from ._console import compiled
from ._errors import ClosedError
from ._image import Image, Source, native_source, publish_settings
from ._machine import Machine, MountPoint, appliance_settings, session_settings, vmm_settings
from ._process import BaseProcess
from ._profile import Profile
from ._progress import check
from ._records import Event, Fill
from ._seed import BaseSeed, seed_session

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Appliance", "Events", "Process", "Seed", "Starting", "export", "launch", "publish", "seed"]

_AT_ONCE = 1 << 20
"""Bytes of a read that are copied in the event loop's thread if they are at hand."""

_T = TypeVar("_T", bound="Appliance | Seed")


class Starting(Generic[_T]):
    """Something that is started by `await`, or by `async with`, which closes it too."""

    def __init__(self, start: Callable[[], Coroutine[Any, Any, _T]]) -> None:
        """Made by `launch` and `seed`."""
        self._start = start
        self._started: _T | None = None

    def __await__(self) -> Generator[Any, None, _T]:
        return self._start().__await__()

    async def __aenter__(self) -> _T:
        self._started = await self._start()
        return self._started

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started is not None:
            await self._started.close()


class Events(AsyncIterator[Event]):
    """The events of an appliance from some moment on, for `async for`, which ends with the appliance."""

    __slots__ = ("_native",)

    def __init__(self, native: _vmtorrent.Events) -> None:
        """Made by `Appliance.events`."""
        self._native = native

    async def __anext__(self) -> Event:
        waiting = self._native.next_async()
        found = None if waiting is None else await waiting
        if found is None:
            raise StopAsyncIteration
        return Event(**found)


class Process(BaseProcess):
    """The VMM of an appliance. It ends with the appliance at the latest."""

    __slots__ = ()

    async def wait(self) -> int | None:
        """Waits for its end, and for what is done after it; gives the exit status, None if it never ran.

        Raises:
            Error: a program of it is missing or failed.
        """
        return (await self._native.wait_async())[0]

    async def stop(self) -> int | None:
        """Asks the machine to end in the VMM's way, kills it when it takes longer than the VMM's grace, and gives the exit
        status.

        Raises:
            Error: what stood in the way.
        """
        return (await self._native.end_async(False))[0]

    async def kill(self) -> int | None:
        """Kills it at once; gives the exit status.

        Raises:
            Error: what stood in the way.
        """
        return (await self._native.end_async(True))[0]


class Appliance(BaseAppliance):
    __doc__ = BaseAppliance.__doc__

    def __init__(self, machine: Machine, native: _vmtorrent.Appliance, progress: bool) -> None:
        """Made by `launch`."""
        super().__init__(machine, native, progress)
        self._console_lock = asyncio.Lock()

    @property
    def process(self) -> Process:
        """The VMM.

        Raises:
            UnavailableError: there is none (`vmm=None`).
        """
        return Process(self._vmm())

    async def wait(self) -> int | None:
        """Waits for the VMM's end and gives its exit status, -N when signal N ended it.

        Raises:
            UnavailableError: there is no VMM.
        """
        return await self.process.wait()

    async def wait_console(self, pattern: str | re.Pattern[str], timeout: float | None = None) -> re.Match[str]:
        """Waits until the guest's console shows something, behind what the last call found.

        Args:
            pattern: a regular expression, in which `^` and `$` match at lines.
            timeout: seconds; None: for ever.

        Raises:
            TimedOutError: it did not come in time; the message has the console's end.
            VmmError: the VMM ended before.
            UnavailableError: there is no VMM, or its console is not read.
        """
        wanted = compiled(pattern)
        try:
            return await asyncio.wait_for(self._find(wanted), timeout)
        except asyncio.TimeoutError:
            raise self._console_late(wanted.pattern, timeout) from None

    async def _find(self, wanted: re.Pattern[str]) -> re.Match[str]:
        console = self._read_console()
        async with self._console_lock:
            while True:
                self._text.feed(console.take)
                if found := self._text.search(wanted):
                    return found
                if not await console.more_async():
                    self._text.feed(console.take)
                    if found := self._text.search(wanted):
                        return found
                    raise self._vmm_ended((await self._vmm().wait_async())[0])

    async def pread(self, length: int, offset: int = 0, file: int | str | None = None) -> bytes:
        """Reads from a file, waiting for what is missing; fewer bytes only at its end.

        Raises:
            As `vmtorrent.Appliance.pread`.
        """
        number = self._number(file)
        if length <= _AT_ONCE:
            data = self._native.try_pread(length, offset, number)
            if data is not None:
                return data
        return await self._native.pread_async(length, offset, number)

    async def pwrite(self, data: bytes | bytearray | memoryview, offset: int = 0, file: int | str | None = None) -> int:
        """Writes all of `data` to a file, which grows when needed, and gives its length.

        Raises:
            As `vmtorrent.Appliance.pwrite`.
        """
        return await self._native.pwrite_async(_contents(data), offset, self._number(file))

    async def flush(self, file: int | str | None = None) -> None:
        """Makes all writes to a file that had returned before durable.

        Raises:
            As `vmtorrent.Appliance.flush`.
        """
        await self._native.flush_async(self._number(file))

    async def discard(self, offset: int, length: int, file: int | str | None = None) -> None:
        """Makes a range read as zeros and gives its storage back; the file keeps its length.

        Raises:
            As `vmtorrent.Appliance.pwrite`.
        """
        await self._native.zero_async(offset, length, self._number(file), True)

    async def write_zeroes(self, offset: int, length: int, file: int | str | None = None) -> None:
        """Makes a range read as zeros, storing none; the file grows when it ends behind its end.

        Raises:
            As `vmtorrent.Appliance.pwrite`.
        """
        await self._native.zero_async(offset, length, self._number(file), False)

    def events(self) -> Events:
        """What happens from now on.

        Raises:
            ClosedError: the appliance was closed.
        """
        return Events(self._native.events())

    async def profile(self) -> Profile:
        """What was read first so far, as a profile of one run.

        Raises:
            ClosedError: the appliance was closed.
        """
        return Profile(await self._native.profile_async())

    async def export(self, path: str | os.PathLike[str]) -> int:
        """Writes the image as it is to a file, and gives the bytes of data written.

        Raises:
            As `vmtorrent.Appliance.export`.
        """
        return await self._native.export_async(os.fspath(path))

    async def close(self, timeout: float | None = None) -> None:
        """Ends the VMM, then unmounts, flushes every file and leaves the swarm. Called again it does nothing. Cancelling it
        breaks it off: as after a power failure, the next launch finds all that was flushed.

        Args:
            timeout: seconds for what comes after the VMM's end; None: as long as it takes.

        Raises:
            As `vmtorrent.Appliance.close`.
        """
        if self._final is not None:
            return
        machine = self._machine
        try:
            if machine.vmm is not None and not machine.is_forked:
                await machine.vmm.end_async(False)
            last = self._stats_or_zeros()
            self._closed_with(await self._native.shutdown_async(timeout), last)
        finally:
            machine.end_at_once()
        machine.tell_what_is_left()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Seed(BaseSeed):
    """A published file or directory that is being served."""

    async def close(self) -> None:
        """Says good-bye to trackers and peers, and ends its threads. Called again it does nothing.

        Raises:
            ForkedError: this is a fork of the process that started it.
        """
        if self.closed:
            return
        try:
            last = self.stats()
            self._closed_with(await self._native.shutdown_async(), last)
        except ClosedError:
            self._finalizer.detach()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def launch(
    source: Source,
    *,
    vmm: str | Sequence[str | os.PathLike[str]] | None = None,
    memory: int | str | None = None,
    cpus: int | None = None,
    name: str | None = None,
    format: str | None = None,
    set: Mapping[str, str] | None = None,
    extra: Sequence[str] = (),
    vmm_file: str | os.PathLike[str] | None = None,
    console: bool = True,
    mount: bool | str | os.PathLike[str] = True,
    allow_other: bool = False,
    state: str | os.PathLike[str] | None = None,
    ephemeral: bool = False,
    peers: Sequence[str] = (),
    web_seeds: Sequence[str] = (),
    fill: Fill = "idle",
    profile: Profile | str | os.PathLike[str] | None = None,
    auto_profile: bool = True,
    record: str | os.PathLike[str] | None = None,
    trace: str | os.PathLike[str] | None = None,
    read_timeout: float | None = 60.0,
    cache: str | os.PathLike[str] | None = None,
    max_disk: int | str | None = None,
    listen: str | None = None,
    download_limit: int | None = None,
    upload_limit: int | None = None,
    upload_slots: int | None = None,
    max_connections: int = 200,
    discovery: bool = True,
    local_discovery: bool = True,
    dht: bool = True,
    dht_bootstrap: Sequence[str] | None = None,
    utp: bool = True,
    peer_exchange: bool = True,
    profile_exchange: bool = True,
    compression: bool = True,
    metadata_timeout: float | None = 60.0,
    progress: bool = False,
) -> Starting[Appliance]:
    """Starts an appliance: `vm = await launch(...)`, or `async with launch(...) as vm`. Options and exceptions are those of
    `vmtorrent.launch`."""
    _check_vmm(vmm, mount, memory, cpus, name, format, set, extra)
    check(progress)

    async def start() -> Appliance:
        point = MountPoint(mount)
        machine = Machine(point)
        try:
            session = session_settings(
                listen, cache, download_limit, upload_limit, upload_slots, discovery, local_discovery, dht, dht_bootstrap,
                utp, peer_exchange, profile_exchange, compression, max_connections, metadata_timeout, max_disk,
            )  # fmt: skip
            settings = appliance_settings(
                point, state, ephemeral, allow_other, peers, web_seeds, fill, profile, auto_profile, record, read_timeout,
                trace,
            )
            native = await _vmtorrent.launch_async(native_source(source), session, settings)
            machine.appliance = native
            if vmm is not None:
                options = vmm_settings(
                    vmm, machine.make_work(), memory, cpus, name, format, set, extra, vmm_file, console
                )
                machine.vmm = native.start_vmm(options)
                await machine.vmm.started_async()
            return Appliance(machine, native, progress)
        except BaseException:
            machine.end_at_once()
            raise

    return Starting(start)


def seed(
    source: Source,
    data: str | os.PathLike[str],
    *,
    listen: str | None = None,
    tracker: str | None = None,
    metrics: str | None = None,
    upload_limit: int | None = None,
    upload_slots: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    discovery: bool = True,
    local_discovery: bool = True,
    dht: bool = True,
    dht_bootstrap: Sequence[str] | None = None,
    utp: bool = True,
    peer_exchange: bool = True,
    profile_exchange: bool = True,
    compression: bool = True,
    max_connections: int = 200,
) -> Starting[Seed]:
    """Serves a published file or directory: `seed = await seed(...)`, or `async with seed(...) as seed`. Options and
    exceptions are those of `vmtorrent.seed`."""
    session = seed_session(
        listen, upload_limit, upload_slots, cache, discovery, local_discovery, dht, dht_bootstrap, utp, peer_exchange,
        profile_exchange, compression, max_connections,
    )  # fmt: skip

    async def start() -> Seed:
        return Seed(await _vmtorrent.seed_async(native_source(source), os.fspath(data), session, tracker, metrics))

    return Starting(start)


async def publish(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    piece_size: int | None = None,
    trackers: Sequence[str] = (),
    web_seeds: Sequence[str] = (),
    private: bool = False,
    profile: Profile | None = None,
) -> Image:
    """Describes a file or a directory of files, as `vmtorrent.publish` does, in a thread of its own."""
    settings = publish_settings(name, piece_size, trackers, web_seeds, private)
    native_profile = None if profile is None else profile._native
    image = Image(await _vmtorrent.publish_async(os.fspath(path), settings, native_profile))
    if output is not None:
        image.save(output)
    return image


async def export(
    state: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    read_timeout: float | None = 60.0,
) -> int:
    """Writes the image of a state directory, as `vmtorrent.export` does."""
    cache = None if cache is None else os.fspath(cache)
    return await _vmtorrent.export_async(os.fspath(state), os.fspath(output), cache, read_timeout)
