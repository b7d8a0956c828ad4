# pyright: reportPrivateUsage=false
"""Serving a published image."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from . import _html, _vmtorrent
from ._errors import ClosedError
from ._image import Image, Source, native_source
from ._machine import session_settings
from ._records import Stats

if TYPE_CHECKING:
    from typing_extensions import Self


def _end(native: _vmtorrent.Seed, process_id: int) -> None:
    if process_id == os.getpid():
        native.break_off()


class BaseSeed:
    """What `Seed` and `aio.Seed` have in common."""

    def __init__(self, native: _vmtorrent.Seed) -> None:
        """Made by `seed`."""
        self._native = native
        self._final: Stats | None = None
        self._finalizer = weakref.finalize(self, _end, native, os.getpid())
        # The native module ends what is left when the interpreter does.
        self._finalizer.atexit = False

    @property
    def image(self) -> Image:
        """What is served."""
        return Image(self._native.image)

    @property
    def magnet(self) -> str:
        """A magnet link to it. It names this host's addresses only where they mean one host: with `listen="0.0.0.0:0"`
        it has no peer in it."""
        return self._native.magnet

    @property
    def listen_address(self) -> str:
        """Where peers connect, IP:PORT, for `launch(peers=[...])`."""
        return self._native.listen_address

    @property
    def tracker_url(self) -> str | None:
        """The announce URL of the tracker that it runs."""
        return self._native.tracker_url

    @property
    def metrics_url(self) -> str | None:
        """Where Prometheus finds its figures."""
        return self._native.metrics_url

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._final is not None

    def stats(self) -> Stats:
        """Bytes sent so far, peers, and so on; the last figures when it was closed.

        Raises:
            ForkedError: this is a fork of the process that started it.
        """
        return self._final if self._final is not None else Stats(**self._native.stats())

    def _closed_with(self, stats: dict[str, float] | None, last: Stats) -> None:
        self._final = Stats(**stats) if stats is not None else last  # type: ignore[arg-type]
        self._finalizer.detach()

    def __repr__(self) -> str:
        how = "closed" if self.closed else self.listen_address
        return f"<vmtorrent.Seed {self.image.name!r} {how}>"

    def _repr_html_(self) -> str:
        return _html.seed(self.image.name, self.magnet, None if self.closed else self.stats())


class Seed(BaseSeed):
    """A published file or directory that is being served. Use it as a context manager, or `close` it."""

    def close(self) -> None:
        """Says good-bye to trackers and peers, and ends its threads. Called again it does nothing.

        Raises:
            ForkedError: this is a fork of the process that started it.
        """
        if self.closed:
            return
        try:
            last = self.stats()
            self._closed_with(self._native.shutdown(), last)
        except ClosedError:
            self._finalizer.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
) -> Seed:
    """Serves a published file or directory to the swarm; it is only read.

    Args:
        source: what was published: an `Image`, the path of a .torrent file, its URL, or a magnet link.
        data: the directory that holds the file or directory under its name.
        listen: IP:PORT on which peers connect; by default a free port on all addresses.
        tracker: IP:PORT on which a small tracker runs too, so that no other server is needed; port 0 takes a free one.
        metrics: IP:PORT on which figures for Prometheus are served.
        upload_limit: bytes per second to all peers together.
        upload_slots: peers that may ask for blocks at once; those of the local network have slots of their own.
        cache: directory for what is kept between runs; by default below the XDG cache directory.
        discovery: whether peers are looked for at all.
        local_discovery: whether they are looked for on the local network too (BEP 14).
        dht: whether they are looked for in the distributed hash table too (BEP 5).
        dht_bootstrap: HOST:PORT of its nodes that are asked first; by default the public ones.
        utp: whether peers are reached over uTP (BEP 29) where TCP does not reach them, and let in so.
        peer_exchange: whether peers are asked for other peers and told of them (BEP 11).
        profile_exchange: whether peers are given profiles.
        compression: whether peers are given blocks compressed where the line is slow.
        max_connections: most connections to peers at once.

    Raises:
        NotFoundError, InvalidInputError: naming the file that is missing or has another length.
        InUseError: a port is taken.
        ForkedError: the process was forked from one that uses this package.

    >>> import pathlib, tempfile, vmtorrent
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     disk = pathlib.Path(directory, "disk.img")
    ...     _ = disk.write_bytes(bytes(65536))
    ...     image = vmtorrent.publish(disk)
    ...     with seed(image, directory, listen="127.0.0.1:0", local_discovery=False) as served:
    ...         served.magnet == f"{image.magnet}&x.pe={served.listen_address}"
    True
    """
    session = seed_session(
        listen, upload_limit, upload_slots, cache, discovery, local_discovery, dht, dht_bootstrap, utp, peer_exchange,
        profile_exchange, compression, max_connections,
    )  # fmt: skip
    return Seed(_vmtorrent.seed(native_source(source), os.fspath(data), session, tracker, metrics))


def seed_session(
    listen: str | None,
    upload_limit: int | None,
    upload_slots: int | None,
    cache: str | os.PathLike[str] | None,
    discovery: bool,
    local_discovery: bool,
    dht: bool,
    dht_bootstrap: Sequence[str] | None,
    utp: bool,
    peer_exchange: bool,
    profile_exchange: bool,
    compression: bool,
    max_connections: int,
) -> _vmtorrent.SessionSettings:
    """Options of a seed's session; the others are of no use to one."""
    return session_settings(
        listen, cache, None, upload_limit, upload_slots, discovery, local_discovery, dht, dht_bootstrap, utp, peer_exchange,
        profile_exchange, compression, max_connections, 60.0, None,
    )  # fmt: skip
