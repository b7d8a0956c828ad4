"""Plain values that calls give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Event", "EventKind", "Extent", "ExtentKind", "File", "Fill", "Mismatch", "Stats"]

Fill = Literal["none", "idle", "full"]
"""What is fetched in the background: nothing, what the line has left over, everything."""

EventKind = Literal["complete", "read-timed-out", "storage-failed", "cache-full", "web-seed-given-up", "lost"]
"""What an `Event` tells of."""

ExtentKind = Literal["missing", "present", "zero", "written", "zeroed"]
"""Where the bytes of an `Extent` are: in the image and not downloaded, in the image and downloaded, zeros of the image,
written by the guest, or zeroed by the guest."""


@dataclass(frozen=True)
class File:
    """One file of an image.

    >>> File("boot/disk.img", 512).path
    'boot/disk.img'
    """

    path: str
    """Path below the image's directory, with slashes."""
    length: int
    """Bytes in the image; the guest may have grown or cut the file since."""


@dataclass(frozen=True)
class Extent:
    """What a part of a file is made of."""

    offset: int
    """Where it begins in the file, bytes."""
    length: int
    """Bytes."""
    kind: ExtentKind
    """Where its bytes are."""


@dataclass(frozen=True)
class Event:
    """Something that happened once. Other kinds may be added: pass over what you don't know."""

    kind: EventKind
    """`complete`: the whole image is here. `read-timed-out`: a read got no data in time and failed. `storage-failed`:
    what comes from the swarm can't be stored; it goes on by itself when the disk does. `cache-full`: nothing is fetched
    in the background any more. `web-seed-given-up`: a web server that is said to hold the image is not counted on any
    more. `lost`: nobody took the events, and the oldest are gone."""
    message: str
    """What happened, in a sentence for people."""
    file: int | None = None
    """The file of a read that timed out, as in `Appliance.files`."""
    offset: int | None = None
    """The place of that read in its file, bytes."""
    peers: int | None = None
    """Peers that were connected then."""
    lost: int | None = None
    """How many events are gone."""


@dataclass(frozen=True)
class Mismatch:
    """How much of a profile of another image fits, in blocks of 16 KiB."""

    same: int
    """Blocks that both know, with the same bytes."""
    different: int
    """Blocks that both know, with other bytes: left out."""
    unknown: int
    """Blocks that only the other one knows: taken over."""
    elsewhere: int
    """Blocks of files that this image does not have: left out."""


@dataclass(frozen=True)
class Stats:
    """What an appliance or a seed has cost and served so far. Bytes are payload; those on the network are the image's,
    reads and stalls the appliance's own."""

    image_bytes: int
    """Length of the image."""
    present_bytes: int
    """Bytes of the image that are here (zeros and duplicates count)."""
    fetched_bytes: int
    """Bytes received from peers and web seeds, and kept: the sum of the next four."""
    demand_bytes: int
    """Of these, for reads that waited."""
    readahead_bytes: int
    """Of these, ahead of sequential reads."""
    profile_bytes: int
    """Of these, because a profile expects them."""
    background_bytes: int
    """Of these, in the background."""
    uploaded_bytes: int
    """Bytes sent to peers."""
    wasted_bytes: int
    """Bytes received in vain: second copies, and pieces whose hash was wrong."""
    stalls: int
    """Reads that had to wait for the swarm."""
    stall_seconds: float
    """Time during which at least one read waited, seconds."""
    demand_p50_ms: float
    """Median wait of those reads, milliseconds."""
    demand_p99_ms: float
    """99th percentile of those waits, milliseconds."""
    guest_read_bytes: int
    """Bytes that the guest read."""
    guest_written_bytes: int
    """Bytes that the guest wrote."""
    distinct_read_bytes: int
    """Distinct blocks of 64 KiB of the image that the guest read, in bytes."""
    first_reads: int
    """Blocks of 16 KiB that the guest read for the first time, without those of zeros."""
    expected_reads: int
    """Of these, how many the profile expected."""
    web_seed_bytes: int
    """Of the bytes fetched, those that web servers sent."""
    peers: int
    """Connected peers."""
    web_seeds: int
    """Web servers that hold the image and can be asked."""
    fetched_wire_bytes: int
    """What the bytes fetched took on the wire: less where they came compressed."""
    uploaded_wire_bytes: int
    """What the bytes sent took on the wire: less where they went compressed."""

    @property
    def present_share(self) -> float:
        """The share of the image that is here, 0 to 1."""
        return self.present_bytes / self.image_bytes if self.image_bytes else 1.0
