"""What a run needed of its image and when, and the least time that it had to wait for that on a line."""

import hashlib
import json
import re
from pathlib import Path

from child import Failure
from pristine import piece_length

HASH = 20


class Pieces:
    """The pieces of an image of one file, from its .torrent file."""

    def __init__(self, torrent, length):
        self.length, self.piece = length, piece_length(torrent)
        data = Path(torrent).read_bytes()
        found = re.search(rb"6:pieces(\d+):", data)
        hashes = data[found.end() : found.end() + int(found[1])]
        self.hashes = [hashes[n : n + HASH] for n in range(0, len(hashes), HASH)]
        # A short last piece of zeros has another hash; it costs too little to matter.
        self.zeros = hashlib.sha1(bytes(self.piece)).digest()

    def of(self, start, end):
        """The hashes and lengths of the pieces in a range that somebody has to send."""
        for index in range(start // self.piece, -(-min(end, self.length) // self.piece)):
            if self.hashes[index] != self.zeros:
                yield self.hashes[index], min(self.piece, self.length - index * self.piece)

    def used(self):
        """The offsets of all pieces that are not zeros."""
        return [n * self.piece for n, found in enumerate(self.hashes) if found != self.zeros]


def needed(profile, pieces):
    """(guest seconds, bytes) of each first need of a piece in a run's profile; of equal pieces the first only."""
    profile = json.loads(Path(profile).read_text())
    if len(profile["files"]) != 1:
        raise Failure("only images of one file are measured")
    block, found, had = profile["block_bytes"], [], set()
    for number, _, mean_us, *_ in sorted(profile["files"][0]["accesses"], key=lambda row: row[2]):
        for name, length in pieces.of(number * block, (number + 1) * block):
            if name not in had:
                had.add(name)
                found.append((mean_us / 1e6, length))
    if not found:
        raise Failure("the profile of the run is empty")
    return found


def floor(needs, mbit):
    """The largest over t of (bytes needed by t - rate x t) / rate, seconds: what no profile could spare a guest."""
    rate, total, most = mbit * 1e6 / 8, 0, 0.0
    for seconds, length in needs:
        total += length
        most = max(most, total / rate - seconds)
    return most
