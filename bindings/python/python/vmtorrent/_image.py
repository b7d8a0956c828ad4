"""What is published, and how."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Union

from . import _vmtorrent
from ._profile import Profile
from ._progress import hashing_bar
from ._records import File
from ._units import show_bytes

StrPath = Union[str, "os.PathLike[str]"]
Source = Union[str, "os.PathLike[str]", "Image"]
"""The path of a .torrent file, its http(s) URL, a magnet link, or an `Image`."""


class Image:
    """What a .torrent file describes. It never changes."""

    __slots__ = ("_native",)

    def __init__(self, native: _vmtorrent.Image) -> None:
        """Made by `publish`, `Image.load` and `Image.from_bytes`."""
        self._native = native

    @classmethod
    def load(cls, path: StrPath) -> Image:
        """Reads a .torrent file.

        Raises:
            InvalidTorrentError: it is none, or is hostile.
            OSError: what the system says of the file.
        """
        with open(path, "rb") as file:
            return cls.from_bytes(file.read())

    @classmethod
    def from_bytes(cls, torrent: bytes) -> Image:
        """Reads the content of a .torrent file.

        Raises:
            InvalidTorrentError: it is none, or is hostile.

        >>> Image.from_bytes(b"no torrent")
        Traceback (most recent call last):
        ...
        vmtorrent._errors.InvalidTorrentError: ...
        """
        return cls(_vmtorrent.Image.from_bytes(torrent))

    @property
    def name(self) -> str:
        """The name of the file or directory."""
        return self._native.name

    @property
    def info_hash(self) -> str:
        """The image's identity (BEP 3), 40 hexadecimal digits."""
        return self._native.info_hash

    @property
    def magnet(self) -> str:
        """A magnet link with the image's trackers and web seeds (BEP 9)."""
        return self._native.magnet

    @property
    def length(self) -> int:
        """Bytes of all files together."""
        return self._native.length

    @property
    def piece_length(self) -> int:
        """Bytes of a piece."""
        return self._native.piece_length

    @property
    def piece_count(self) -> int:
        """Number of pieces."""
        return self._native.piece_count

    @property
    def private(self) -> bool:
        """Whether peers may come from the trackers only (BEP 27)."""
        return self._native.private

    @property
    def trackers(self) -> list[list[str]]:
        """Trackers in tiers (BEP 12)."""
        return self._native.trackers

    @property
    def web_seeds(self) -> list[str]:
        """Web servers that hold the files too (BEP 19)."""
        return self._native.web_seeds

    @property
    def files(self) -> tuple[File, ...]:
        """The files, by the order of their bytes; padding is left out."""
        return tuple(File(path, length) for path, length in self._native.files)

    @property
    def profile(self) -> Profile | None:
        """The profile that its publisher put beside it, if there is one.

        Raises:
            InvalidInputError: what stands there is none, or of another image.
        """
        found = self._native.profile()
        return None if found is None else Profile(found)

    def to_bytes(self) -> bytes:
        """The content of the .torrent file."""
        return self._native.to_bytes()

    def save(self, path: StrPath) -> None:
        """Writes the .torrent file in one step: at no time is there half a file at `path`.

        Raises:
            Error: what the file system says.
        """
        self._native.save(os.fspath(path))

    def __repr__(self) -> str:
        return f"<vmtorrent.Image {self.name!r} {self.info_hash} {show_bytes(self.length)}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Image):
            return NotImplemented
        return self.info_hash == other.info_hash

    def __hash__(self) -> int:
        return hash(self.info_hash)


def native_source(source: Source) -> str | _vmtorrent.Image:
    """A source as the native module takes it."""
    if isinstance(source, Image):
        return source._native  # pyright: ignore[reportPrivateUsage]
    return os.fspath(source)


def publish(
    path: StrPath,
    output: StrPath | None = None,
    *,
    name: str | None = None,
    piece_size: int | None = None,
    trackers: Sequence[str] = (),
    web_seeds: Sequence[str] = (),
    private: bool = False,
    profile: Profile | None = None,
    progress: bool | Callable[[int, int], object] = False,
) -> Image:
    """Describes a file or a directory of files, for `seed` and `launch`, and writes the .torrent file to `output`. The
    same files and options always give the same file.

    Args:
        path: an image file, or a directory of files.
        output: where the .torrent file is written, in one step; None: nowhere, see `Image.save`.
        name: the image's name; by default that of the file or directory.
        piece_size: bytes of a piece, a multiple of 16384 up to 134217728; by default 16384 up to 2 GiB of image, then
            doubling.
        trackers: URLs of trackers at which peers find each other.
        web_seeds: URLs of web servers that hold the files too.
        private: whether peers may come from the trackers only (BEP 27).
        profile: what earlier runs read; whoever launches the image has it fetched ahead.
        progress: True for a bar (needs tqdm: `pip install vmtorrent[progress]`), or a function that is called with the
            bytes done and the bytes in all.

    Raises:
        InvalidInputError: options that make no sense; links, devices and names that are not UTF-8 in the directory; a
            profile of another image.
        InUseError: a file changed meanwhile.
        Error: what the file system says.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     disk = pathlib.Path(directory, "disk.img")
    ...     _ = disk.write_bytes(bytes(range(256)) * 256)
    ...     image = publish(disk, trackers=["http://192.0.2.7:6969/announce"])
    >>> image.name, image.length, image.piece_count
    ('disk.img', 65536, 4)
    """
    settings = publish_settings(name, piece_size, trackers, web_seeds, private)
    native_profile = None if profile is None else profile._native  # pyright: ignore[reportPrivateUsage]
    with hashing_bar(progress) as told:
        found = _vmtorrent.publish(os.fspath(path), settings, native_profile, told)
    image = Image(found)
    if output is not None:
        image.save(output)
    return image


def publish_settings(
    name: str | None,
    piece_size: int | None,
    trackers: Sequence[str],
    web_seeds: Sequence[str],
    private: bool,
) -> _vmtorrent.PublishSettings:
    """The options as the native module takes them."""
    return {
        "name": name,
        "piece_size": piece_size,
        "trackers": list(trackers),
        "web_seeds": list(web_seeds),
        "private": private,
    }
