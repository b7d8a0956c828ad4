"""What a read of present data costs through the C library, in the process that reads."""

import json
import os
import random
import subprocess
from pathlib import Path

from child import Failure
from measure import median
from pristine import piece_length
from result import Result
from scope import REPOSITORY, need, note

HERE = Path(__file__).resolve().parent
SIZE = 256
SECONDS = 1
# Where a copy dominates; smaller reads are told beside it.
SIZE_OF_READS = 65536


def in_pieces(scope, image, piece):
    """A copy of the image that was written as data comes from a swarm: piece by piece, in any order.

    Linux copies out of a file that was written in larger parts up to twice as fast (ext4, Linux 6.18; its page cache has larger
    folios then): beside this file it shows what it brings that pieces are stored together.
    """
    copy = scope.path("local.img")
    contents = memoryview(image.read_bytes())
    places = random.Random(1).sample(range(0, len(contents), piece), -(-len(contents) // piece))
    with open(copy, "wb") as file:
        file.truncate(len(contents))
        for place in places:
            os.pwrite(file.fileno(), contents[place : place + piece], place)
        os.fsync(file.fileno())
    return copy


class Reads:
    """Both rows come out of one run of ffi_read."""

    def __init__(self):
        self.found = None

    def run(self, scope, images):
        if self.found is None:
            self.found = self.measure(scope, images)
        return self.found

    @staticmethod
    def measure(scope, images):
        need("cc")
        note("ffi")
        library = scope.options.binaries / "libvmtorrent_ffi.so"
        if not library.is_file():
            raise Failure(f"{library} is missing: run `make bench`, or `cargo build --release -p vmtorrent-ffi`")
        program = scope.path("ffi_read")
        command = ["cc", "-std=c11", "-O2", "-pthread", "-I", REPOSITORY / "include", "-o", program,
                   HERE / "ffi_read.c", library]  # fmt: skip
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            raise Failure(f"ffi_read.c: {built.stderr[-500:]}")
        image, torrent = images.random(SIZE)
        _, address = scope.seed(torrent, image.parent)
        options = [f"peer={address}", f"cache={scope.path('cache')}", f"state={scope.path('state')}",
                   "discovery=false", "fill=full", "listen=127.0.0.1:0"]  # fmt: skip
        rounds = max(scope.options.runs, 3)

        def beside(local):
            child = scope.run(program, local, SECONDS, rounds, torrent, *options, name="ffi_read")
            return json.loads(child.log.read_text().splitlines()[-1])

        found = beside(image)
        found["in_pieces"] = beside(in_pieces(scope, image, piece_length(torrent)))["threads"]
        return found

    def small(self, scope, images):
        found = self.run(scope, images)
        ours, local = found["ours"], found["local"]
        yield Result(
            "ffi-4k",
            "random vmt_pread of 4 KiB that are present, in the process, one thread",
            f"{ours['p50']:.2f} us, {ours['allocations']} allocations",
            "<= 3 us, 0",
            ours["p50"] <= 3 and ours["allocations"] == 0,
            f"p50 {ours['p50']:.2f}, p99 {ours['p99']:.2f}, mean {ours['mean']:.2f} us;"
            f" pread(2) of a local file {local['p50']:.2f}, {local['p99']:.2f}, {local['mean']:.2f} us",
            {"ours": ours, "local": local},
        )

    def threads(self, scope, images):
        found, in_pieces = (self.run(scope, images)[key] for key in ("threads", "in_pieces"))
        ratios, others = (
            {int(size): median(ours / local for local, ours in runs) for size, runs in sizes.items()}
            for sizes in (found, in_pieces)
        )
        rates = {int(size): (median(r[0] for r in runs), median(r[1] for r in runs)) for size, runs in found.items()}
        yield Result(
            "ffi-threads",
            f"2 threads' random vmt_pread of {SIZE_OF_READS >> 10} KiB, over pread(2) of a local file",
            f"{ratios[SIZE_OF_READS]:.2f} x local",
            ">= 0.8",
            ratios[SIZE_OF_READS] >= 0.8,
            "; ".join(
                f"{size >> 10} KiB: {ratio:.2f} x ({rates[size][1] / 1e9:.2f} and {rates[size][0] / 1e9:.2f} GB/s)"
                for size, ratio in ratios.items()
            )
            + "; over a file that was written piece by piece: "
            + ", ".join(f"{size >> 10} KiB: {ratio:.2f} x" for size, ratio in others.items()),
            {"at_once": found, "in_pieces": in_pieces},
        )
