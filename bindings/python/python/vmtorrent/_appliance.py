# pyright: reportPrivateUsage=false
"""Appliances."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from . import _vmtorrent
from ._base import BaseAppliance
from ._console import compiled
from ._errors import InvalidInputError, TimedOutError
from ._image import Source, native_source
from ._machine import Machine, MountPoint, appliance_settings, session_settings, vmm_settings
from ._process import Process
from ._profile import Profile
from ._progress import check
from ._records import Event, Fill

if TYPE_CHECKING:
    from typing_extensions import Self


class Events(Iterator[Event]):
    """The events of an appliance from some moment on; iterating waits for the next one and ends with the appliance. At
    most 256 wait to be taken; then the oldest are lost, which is an event too."""

    __slots__ = ("_native",)

    def __init__(self, native: _vmtorrent.Events) -> None:
        """Made by `Appliance.events`."""
        self._native = native

    def __next__(self) -> Event:
        found = self._native.next(None)
        if not found:
            raise StopIteration
        return Event(**found)

    def get(self, timeout: float | None = None) -> Event | None:
        """The next event; None when the appliance has ended.

        Args:
            timeout: seconds; None: for ever.

        Raises:
            TimedOutError: nothing happened in that time.
        """
        found = self._native.next(timeout)
        if found is False:
            raise TimedOutError(errno.ETIMEDOUT, f"no event came within {timeout} s")
        return None if found is None else Event(**found)


class Appliance(BaseAppliance):
    __doc__ = BaseAppliance.__doc__

    def __init__(self, machine: Machine, native: _vmtorrent.Appliance, progress: bool) -> None:
        """Made by `launch`."""
        super().__init__(machine, native, progress)
        self._console_lock = threading.Lock()

    @property
    def process(self) -> Process:
        """The VMM.

        Raises:
            UnavailableError: there is none (`vmm=None`).
        """
        return Process(self._vmm())

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits for the VMM's end and gives its exit status, -N when signal N ended it.

        Args:
            timeout: seconds; None: for ever.

        Raises:
            TimedOutError: it still runs then.
            UnavailableError: there is no VMM.
        """
        return self.process.wait(timeout)

    def wait_console(self, pattern: str | re.Pattern[str], timeout: float | None = None) -> re.Match[str]:
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
        deadline = None if timeout is None else time.monotonic() + timeout
        console = self._read_console()
        with self._console_lock:
            while True:
                self._text.feed(console.take)
                if found := self._text.search(wanted):
                    return found
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                more = console.more(left)
                if more is None:
                    raise self._console_late(wanted.pattern, timeout)
                if not more:
                    self._text.feed(console.take)
                    if found := self._text.search(wanted):
                        return found
                    ended = self._vmm().wait(5.0)
                    raise self._vmm_ended(None if ended is None else ended[0])

    def pread(self, length: int, offset: int = 0, file: int | str | None = None) -> bytes:
        """Reads from a file, waiting for what is missing; fewer bytes only at its end. Other Python threads go on.

        Raises:
            TimedOutError, IoError: the data can't be had (`read_timeout`).
            InvalidInputError, NotFoundError: there is no such file.
            ClosedError: the appliance was closed, also meanwhile.
        """
        return self._native.pread(length, offset, self._number(file))

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int = 0, file: int | str | None = None) -> int:
        """Writes all of `data` to a file, which grows when needed, and gives its length. What the write needs of the
        image around its edges (blocks have 4096 bytes) is waited for. It is durable after the next `flush`.

        Raises:
            NoSpaceError, IoError, TimedOutError: any part may have been written then.
            InvalidInputError, NotFoundError: there is no such file.
            ClosedError: the appliance was closed, also meanwhile.
        """
        return self._native.pwrite(_contents(data), offset, self._number(file))

    def flush(self, file: int | str | None = None) -> None:
        """Makes all writes to a file that had returned before durable.

        Raises:
            NoSpaceError, IoError: nothing is given up; a later flush tries again.
            InvalidInputError, NotFoundError: there is no such file.
            ClosedError: the appliance was closed.
        """
        self._native.flush(self._number(file))

    def discard(self, offset: int, length: int, file: int | str | None = None) -> None:
        """Makes a range read as zeros and gives its storage back; the file keeps its length.

        Raises:
            As `pwrite`.
        """
        self._native.zero(offset, length, self._number(file), True)

    def write_zeroes(self, offset: int, length: int, file: int | str | None = None) -> None:
        """Makes a range read as zeros, storing none; the file grows when it ends behind its end.

        Raises:
            As `pwrite`.
        """
        self._native.zero(offset, length, self._number(file), False)

    def events(self) -> Events:
        """What happens from now on.

        Raises:
            ClosedError: the appliance was closed.
        """
        return Events(self._native.events())

    def profile(self) -> Profile:
        """What was read first so far, as a profile of one run.

        Raises:
            ClosedError: the appliance was closed.
        """
        return Profile(self._native.profile())

    def export(self, path: str | os.PathLike[str]) -> int:
        """Writes the image as it is to a file (a directory for an image of several files), fetching what is missing, and
        gives the bytes of data written; holes stay holes. What a guest that runs has not written to its disk yet is not
        in it, and what it writes meanwhile may be: let it end before, or pause it.

        Raises:
            InUseError: `path` exists.
            TimedOutError: missing data did not come.
            NoSpaceError, IoError: what the file system says.
            ClosedError: the appliance was closed; `vmtorrent.export(vm.state_directory, ...)` works then.
        """
        return self._native.export(os.fspath(path))

    def close(self, timeout: float | None = None) -> None:
        """Ends the VMM, then unmounts, flushes every file and leaves the swarm. Reads that wait for data end with
        `ClosedError`. Called again it does nothing. An exception in it, such as KeyboardInterrupt, breaks it off: as
        after a power failure, the next launch finds all that was flushed.

        Args:
            timeout: seconds for what comes after the VMM's end; None: as long as it takes.

        Raises:
            TimedOutError: it took longer, and was broken off.
            NoSpaceError, IoError: what the guest wrote could not be flushed.
            ForkedError: this is a fork of the process that launched it.
        """
        if self._final is not None:
            return
        machine = self._machine
        try:
            if machine.vmm is not None and not machine.is_forked:
                machine.vmm.end(False)
            last = self._stats_or_zeros()
            self._closed_with(self._native.shutdown(timeout), last)
        finally:
            machine.end_at_once()
        machine.tell_what_is_left()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _contents(data: bytes | bytearray | memoryview) -> bytes:
    return data if isinstance(data, bytes) else bytes(data)


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
) -> Appliance:
    """Starts an appliance: a complete, writable disk of an image whose data is still in the swarm, and the VMM that runs
    on it. Waits until the disk can be read and the VMM runs; nothing has to be downloaded for that. Use it as a context
    manager, or `close` it.

    Args:
        source: the path of a .torrent file, its http(s) URL, a magnet link, or an `Image`.
        vmm: the name of a VMM (see `vmms`), or the words of a command line in which `{disk}` and `{dir}` become the paths
            of the boot disk and of the image's directory; None: no VMM.
        memory: the machine's memory, bytes, or a text such as "512M" or "1G"; by default 1 GiB. Of a named VMM.
        cpus: the machine's processors; by default 1. Of a named VMM.
        name: what the VMM calls the machine; by default the image's name.
        format: the image's format, raw or qcow2 for instance; by default told by the end of the disk's name.
        set: the named VMM's variables that are set to another value.
        extra: words that are put behind the named VMM's command line.
        vmm_file: a TOML file that defines VMMs (docs/vmm.md).
        console: whether the VMM's output is read for `wait_console`; False leaves it on ours.
        mount: True for a temporary directory where the image appears through FUSE, or an empty directory; False: nowhere,
            the image is reached through calls alone.
        allow_other: whether other users may open the mount too, for a VMM that runs as another one.
        state: directory of what the guest writes, one for each machine; by default below the XDG state directory, by the
            image's name.
        ephemeral: whether what the guest writes is forgotten at the end.
        peers: IP:PORT of peers, beside those that are found.
        web_seeds: URLs of web servers that hold the image's files (BEP 19), beside those that its .torrent file names.
        fill: what is fetched in the background: "none", "idle" (what the line has left over) or "full".
        profile: what earlier runs read, which is fetched ahead of the guest: a `Profile` or its file; by default the one
            in the .torrent file and the runs that this host kept.
        auto_profile: whether this run is kept for later launches of the image, and earlier ones are used.
        record: file that the run is written to as a profile.
        trace: file that gets the guest's reads of the boot disk.
        read_timeout: seconds that a read waits for missing data before it fails; None: for ever.
        cache: directory of the downloaded copies, shared by all launches; by default below the XDG cache directory.
        max_disk: bytes (or a text such as "10G") that they may take together.
        listen: IP:PORT on which peers connect; by default a free port on all addresses.
        download_limit: bytes per second from all peers together.
        upload_limit: bytes per second to all peers together.
        upload_slots: peers that may ask for blocks at once; those of the local network have slots of their own.
        max_connections: most connections to peers at once.
        discovery: whether peers are looked for, beside `peers`.
        local_discovery: whether they are looked for on the local network too (BEP 14).
        dht: whether they are looked for in the distributed hash table too (BEP 5).
        dht_bootstrap: HOST:PORT of its nodes that are asked first; by default the public ones.
        utp: whether peers are reached over uTP (BEP 29) where TCP does not reach them, and let in so.
        peer_exchange: whether peers are asked for other peers and told of them (BEP 11).
        profile_exchange: whether peers are asked for profiles and given them.
        compression: whether blocks are taken from peers, and given to them, compressed where the line is slow.
        metadata_timeout: seconds that peers are asked for the description of a magnet link's image; None: for ever.
        progress: whether a bar shows how much is here (needs tqdm: `pip install vmtorrent[progress]`).

    Raises:
        NotFoundError: the .torrent file, the VMM, or the state's parent is missing.
        InvalidInputError, InvalidTorrentError: options or the .torrent file make no sense.
        InUseError: the state directory is another appliance's, or the mount point or port is taken.
        UnavailableError: there is no FUSE here (`mount=False` needs none).
        NetworkError, TimedOutError: a web server or the swarm can't be reached.
        NoSpaceError, IoError, CorruptError, PermissionDeniedError: of its files.
        ForkedError: the process was forked from one that uses this package.

    >>> import pathlib, tempfile, vmtorrent
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     disk = pathlib.Path(directory, "disk.img")
    ...     _ = disk.write_bytes(b"boot" + bytes(1 << 20))
    ...     image = vmtorrent.publish(disk)
    ...     with vmtorrent.seed(image, directory, listen="127.0.0.1:0") as seed:
    ...         with vmtorrent.launch(
    ...             seed.magnet, mount=False, ephemeral=True, cache=pathlib.Path(directory, "cache")
    ...         ) as vm:
    ...             vm.pread(4)
    b'boot'
    """
    _check_vmm(vmm, mount, memory, cpus, name, format, set, extra)
    check(progress)
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
        native = _vmtorrent.launch(native_source(source), session, settings)
        machine.appliance = native
        if vmm is not None:
            options = vmm_settings(
                vmm, machine.make_work(), memory, cpus, name, format, set, extra, vmm_file, console
            )
            machine.vmm = native.start_vmm(options)
            machine.vmm.started()
        return Appliance(machine, native, progress)
    except BaseException:
        machine.end_at_once()
        raise


def _check_vmm(vmm: object, mount: object, *options: object) -> None:
    """A VMM opens a file, and options of a VMM without one would be ignored."""
    if vmm is not None and mount is False:
        raise InvalidInputError(errno.EINVAL, "a VMM opens the disk in the mount: leave mount=False out")
    if vmm is None and any(options):
        text = "memory, cpus, name, format, set and extra are the VMM's: name one with vmm="
        raise InvalidInputError(errno.EINVAL, text)


def export(
    state: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    read_timeout: float | None = 60.0,
) -> int:
    """Writes the image of a state directory, with everything that its guest wrote and flushed, to `output`: a file, or a
    directory for an image of several files. Gives the bytes of data written; holes stay holes. What is neither there nor
    in the cache is fetched from the peers and trackers that the last launch knew.

    Args:
        state: `Appliance.state_directory` of an appliance that was closed.
        output: where it is written.
        cache: the cache directory, if it is not the one that the last launch used.
        read_timeout: seconds that missing data is waited for; None: for ever.

    Raises:
        NotFoundError: `state` is no state directory.
        InUseError: its appliance runs, or `output` exists.
        TimedOutError: missing data did not come.
        NoSpaceError, IoError: what the file system says.
    """
    cache = None if cache is None else os.fspath(cache)
    return _vmtorrent.export(os.fspath(state), os.fspath(output), cache, read_timeout)

