"""The proof that what launch has downloaded is what was published."""

import os
import re
from pathlib import Path


def piece_length(torrent):
    """Bytes of a piece, from a .torrent file."""
    return int(re.search(rb"12:piece lengthi(\d+)e", Path(torrent).read_bytes())[1])


def extents(file):
    """The (start, end) ranges of the file that are allocated."""
    position, length = 0, os.fstat(file.fileno()).st_size
    while position < length:
        try:
            start = os.lseek(file.fileno(), position, os.SEEK_DATA)
        except OSError:
            return
        position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        yield start, position


def compare_pristine(cache, image, block):
    """Blocks of the cached copy that hold data, how many of them differ from the image, and where the first one is.

    `block` is the length of a piece, or divides it: pieces are there as a whole or not at all.
    """
    length, present, different, first = image.stat().st_size, 0, 0, None
    copies = [p for p in cache.rglob(image.name) if p.is_file() and p.stat().st_size == length]
    for copy in copies:
        with open(copy, "rb") as ours, open(image, "rb") as theirs:
            after = 0
            for start, end in extents(ours):
                # An extent may begin or end inside a block: no block is counted twice.
                for offset in range(max(start - start % block, after), end, block):
                    after = offset + block
                    data = os.pread(ours.fileno(), block, offset)
                    if not data.strip(b"\0"):
                        continue
                    present += 1
                    if data != os.pread(theirs.fileno(), block, offset):
                        different += 1
                        first = offset if first is None else first
    return present, different, first
