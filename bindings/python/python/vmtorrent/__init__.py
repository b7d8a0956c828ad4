"""Starts virtual machines from disk images that are still being downloaded from a BitTorrent swarm.

`launch` gives an appliance: a complete, writable disk whose missing blocks are fetched when the guest reads them.
`publish` describes an image, `seed` serves it, `export` writes a machine's disk out. `vmtorrent.aio` has the same for
asyncio. All exceptions derive from `Error`, which is an `OSError`.
"""

from __future__ import annotations

from . import aio
from ._appliance import Appliance, Events, export, launch
from ._errors import (
    ClosedError,
    CorruptError,
    Error,
    ForkedError,
    InUseError,
    InvalidInputError,
    InvalidTorrentError,
    IoError,
    NetworkError,
    NoSpaceError,
    NotFoundError,
    PermissionDeniedError,
    TimedOutError,
    UnavailableError,
    VmmError,
)
from ._image import Image, Source, publish
from ._process import Process, Vmm, vmms
from ._profile import Access, Profile
from ._records import Event, EventKind, Extent, ExtentKind, File, Fill, Mismatch, Stats
from ._seed import Seed, seed
from ._vmtorrent import __version__

__all__ = [
    "Access",
    "Appliance",
    "ClosedError",
    "CorruptError",
    "Error",
    "Event",
    "EventKind",
    "Events",
    "Extent",
    "ExtentKind",
    "File",
    "Fill",
    "ForkedError",
    "Image",
    "InUseError",
    "InvalidInputError",
    "InvalidTorrentError",
    "IoError",
    "Mismatch",
    "NetworkError",
    "NoSpaceError",
    "NotFoundError",
    "PermissionDeniedError",
    "Process",
    "Profile",
    "Seed",
    "Source",
    "Stats",
    "TimedOutError",
    "UnavailableError",
    "Vmm",
    "VmmError",
    "__version__",
    "aio",
    "export",
    "launch",
    "publish",
    "seed",
    "vmms",
]
