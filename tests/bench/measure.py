"""Reading times, and what is made of many of them."""

import math
import mmap
import os
import statistics
import time

median = statistics.median


def percentile(values, percent):
    """By nearest rank: the smallest value that at least so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


class DirectReader:
    """Reads of a file with O_DIRECT, timed."""

    def __init__(self, path, length):
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        # Anonymous memory begins at a page, as O_DIRECT wants it.
        self.buffer = mmap.mmap(-1, length)
        self.length = length

    def read(self, offset):
        """Seconds that the read took."""
        begin = time.perf_counter()
        count = os.preadv(self.descriptor, [self.buffer], offset)
        taken = time.perf_counter() - begin
        if count != self.length:
            raise OSError(f"a read at {offset} gave {count} of {self.length} bytes")
        return taken

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.descriptor)
        self.buffer.close()


def is_hole(descriptor, offset, length):
    """Whether nothing of the range is allocated in the file."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA) >= offset + length
    except OSError:
        # ENXIO: nothing but a hole up to the end.
        return True
