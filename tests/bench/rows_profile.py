"""Boots with a profile of earlier runs: against the least that the line allows, and with a wrong one."""

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from floor import Pieces, floor, needed
from guest import copy_image, local_boot, swarm_boot
from lab import Link
from measure import median
from replayed import play
from result import Result
from rows_boot import TIMEOUT, spread
from scope import cargo_bench, need, note

APPLIANCES = ("demo", "develop")
RECORDED = 3
# The reads of a host's own earlier launches must not help where profiles are compared.
NO_AUTO = ("--auto-profile", "off")
# The floor is reckoned in bytes of the image.
PLAIN = ("--compression", "off")


@dataclass
class Known:
    """An image, and what is known of the runs before."""

    image: Path
    torrent: Path
    pieces: Pieces
    profile: Path
    # The reads of one run, one by one.
    trace: Path


def booted_local(scope, known):
    return local_boot(scope, known.image, TIMEOUT)


def booted_swarm(scope, known, address, host, *arguments):
    return swarm_boot(scope, known.torrent, address, host, TIMEOUT, *arguments)


def replayed_local(scope, known):
    copy = copy_image(scope, known.image)
    child = scope.start(scope.vmtorrent, "replay", known.trace, "--disk", copy, "--json", events=True)
    at = child.wait_event("done", TIMEOUT)[0]
    return at - child.started


def replayed_swarm(scope, known, address, host, *arguments):
    return play(scope, known.torrent, known.trace, [address], *arguments, host=host).wait_over()


@dataclass
class Comparison:
    """A row that compares what a machine does with its profile with the same on a local file."""

    row: str
    what: str
    mbit: float
    rtt_ms: float
    limit: float
    # (scope, known) -> seconds
    local: Callable
    # (scope, known, address, host, *arguments) -> (seconds, counters)
    swarm: Callable
    # Tell beside it what the same takes with the default, blocks that go compressed: not what the row is judged by.
    packed: bool = False

    def result(self, scope, known, name):
        """What came out for an appliance, and the counters of each run in the swarm."""
        lab = scope.lab(Link(self.mbit, self.rtt_ms, remote=True), Link(self.mbit, self.rtt_ms))
        _, address = scope.seed(known.torrent, known.image.parent, *PLAIN, host=lab.hosts[0])
        local, ours, floors, done, packed = [], [], [], [], []
        for run in range(scope.options.runs):
            note(f"{self.row}: {name}: run {run + 1}: local file")
            with scope.inner("local") as inner:
                local.append(self.local(inner, known))
            note(f"{self.row}: {name}: run {run + 1}: swarm ({local[-1]:.2f} s was the local file)")
            with scope.inner("swarm") as inner:
                record = inner.path("run.profile")
                arguments = ("--profile", known.profile, "--record", record, *PLAIN, *NO_AUTO)
                taken, counters = self.swarm(inner, known, address, lab.hosts[1], *arguments)
                floors.append(floor(needed(record, known.pieces), self.mbit))
            ours.append(taken)
            done.append(counters)
            note(f"{self.row}: {name}: run {run + 1}: {taken:.2f} s was the swarm, {floors[-1]:.2f} s the floor")
            if self.packed:
                # A seed for each, so that none finds what another has compressed.
                with scope.inner("packed") as inner:
                    _, packing = inner.seed(known.torrent, known.image.parent, host=lab.hosts[0])
                    arguments = ("--profile", known.profile, *NO_AUTO)
                    packed.append(self.swarm(inner, known, packing, lab.hosts[1], *arguments)[0])
                note(f"{self.row}: {name}: run {run + 1}: {packed[-1]:.2f} s with compression")
        bases = [base + least for base, least in zip(local, floors, strict=True)]
        ratios = [taken / base for taken, base in zip(ours, bases, strict=True)]
        last = done[-1]
        beside = ""
        if packed:
            shorter = [taken / base for taken, base in zip(packed, bases, strict=True)]
            beside = f"; with compression, as by default, {median(packed):.2f} s, {median(shorter):.2f} x ({spread(shorter)})"
        result = Result(
            self.row,
            f"{self.what} of {name} with its profile, {self.mbit} Mbit/s, {self.rtt_ms} ms round trip, fill none, against"
            " the local file and the line's floor",
            f"{median(ratios):.2f} x (local + floor)",
            f"<= {self.limit} x",
            median(ratios) <= self.limit,
            f"local {median(local):.2f} s, floor {median(floors):.2f} s, swarm {median(ours):.2f} s,"
            f" ratios {spread(ratios)}; fetched {last['fetched_bytes'] / 1e6:.1f} MB"
            f" (demand {last['demand_bytes'] / 1e6:.1f}, read-ahead {last['readahead_bytes'] / 1e6:.1f},"
            f" profile {last['profile_bytes'] / 1e6:.1f}); {last['stalls']} stalls, {last['stall_seconds']:.2f} s;"
            f" wait p50 {last['demand_p50_ms']:.1f} ms, p99 {last['demand_p99_ms']:.1f} ms{beside}",
            {
                "appliance": name,
                "local": local,
                "floor": floors,
                "swarm": ours,
                "ratios": ratios,
                "packed": packed,
                "done": done,
            },
        )
        return result, done


class Profiles:
    """Runs with profiles. Both are kept while the benchmark runs: the profiles, and what the boots have cost."""

    def __init__(self):
        self.known, self.done = {}, []

    def of(self, images, name):
        """Boots an appliance a few times from a seed on this machine, and merges what it read."""
        if name in self.known:
            return self.known[name]
        image, torrent = images.appliance(name)
        trace, runs = images.path(f"{name}.trace"), []
        for run in range(RECORDED):
            note(f"recording a boot of {name}: {run + 1} of {RECORDED}")
            runs.append(images.path(f"{name}.{run}.profile"))
            with images.inner("record") as inner:
                _, address = inner.seed(torrent, image.parent)
                swarm_boot(inner, torrent, address, None, TIMEOUT, "--record", runs[-1], "--trace", trace, *NO_AUTO)
        profile = images.path(f"{name}.profile")
        images.run(images.vmtorrent, "profile", "merge", *runs, "-o", profile)
        pieces = Pieces(torrent, image.stat().st_size)
        self.known[name] = Known(image, torrent, pieces, profile, trace)
        return self.known[name]

    def row(self, scope, images, row, mbit, rtt_ms, limit, packed=False):
        """Boots with a profile, over the local file's time and the least that the line adds to it."""
        comparison = Comparison(row, "the boot", mbit, rtt_ms, limit, booted_local, booted_swarm, packed)
        yield from self._rows(scope, images, comparison)

    def replayed(self, scope, images, row, mbit, rtt_ms, limit):
        """The reads of a boot, at its pace: what streaming adds, apart from what a busy processor does to a boot."""
        what = "the reads of a boot, at its pace,"
        yield from self._rows(scope, images, Comparison(row, what, mbit, rtt_ms, limit, replayed_local, replayed_swarm))

    def _rows(self, scope, images, comparison):
        need("qemu-system-x86_64")
        for name in APPLIANCES:
            known = self.of(images, name)
            with scope.inner(name) as inner:
                result, done = comparison.result(inner, known, name)
                self.done += [(name, counters) for counters in done]
                yield result

    def fetched(self, scope, images):
        """What a boot with a profile fetches over what it reads; of the boots of this run, or of one more."""
        need("qemu-system-x86_64")
        if not self.done:
            known = self.of(images, "demo")
            lab = scope.lab(Link(100, 1, remote=True), Link(100, 1))
            _, address = scope.seed(known.torrent, known.image.parent, host=lab.hosts[0])
            with scope.inner("swarm") as inner:
                _, counters = swarm_boot(
                    inner, known.torrent, address, lab.hosts[1], TIMEOUT, "--profile", known.profile, *NO_AUTO
                )
            self.done.append(("demo", counters))
        ratios = [d["fetched_bytes"] / d["distinct_read_bytes"] for _, d in self.done]
        worst = max(ratios)
        name, done = self.done[ratios.index(worst)]
        limit = 1.25
        yield Result(
            "profile-fetched",
            "fetched in a boot with a profile under fill none, over the distinct 64 KiB blocks that the guest read",
            f"{worst:.2f}",
            f"<= {limit}",
            worst <= limit,
            f"{name}: {done['fetched_bytes'] / 1e6:.1f} MB (profile {done['profile_bytes'] / 1e6:.1f}) over"
            f" {done['distinct_read_bytes'] / 1e6:.1f} MB, {done['wasted_bytes'] / 1e6:.2f} MB in vain;"
            f" worst of {len(ratios)} boots: {spread(ratios)}",
            {"ratios": ratios, "done": self.done},
        )

    def other(self, scope, images):
        """A boot with the profile of other work on the same image, against one without any."""
        need("qemu-system-x86_64")
        mbit, rtt_ms, limit = 100, 20, 1.03
        known = self.of(images, "demo")
        wrong = self.wrong_profile(scope, known)
        lab = scope.lab(Link(mbit, rtt_ms, remote=True), Link(mbit, rtt_ms))
        _, address = scope.seed(known.torrent, known.image.parent, host=lab.hosts[0])
        ways = {"plain": (), "other": ("--profile", wrong)}
        times, done = {way: [] for way in ways}, {way: [] for way in ways}
        # A boot's time varies by as much as may be lost here.
        for run in range(max(scope.options.runs, 3)):
            # Each way is the first in turn.
            for way in sorted(ways, reverse=run % 2 == 0):
                with scope.inner(way) as inner:
                    taken, counters = swarm_boot(
                        inner, known.torrent, address, lab.hosts[1], TIMEOUT, *ways[way], *NO_AUTO
                    )
                times[way].append(taken)
                done[way].append(counters)
                note(f"profile-other: run {run + 1}: {way}: {taken:.2f} s")
        # By pairs that ran one after the other, as in the other rows: a machine's speed drifts.
        ratios = [other / plain for other, plain in zip(times["other"], times["plain"], strict=True)]
        ratio = median(ratios)
        last = done["other"][-1]
        yield Result(
            "profile-other",
            f"demo with the profile of other work, {mbit} Mbit/s, {rtt_ms} ms round trip, fill none,"
            " over the same without a profile",
            f"{ratio:.3f} x",
            f"<= {limit} x",
            ratio <= limit,
            f"plain {spread(times['plain'])} s, other {spread(times['other'])} s, ratios {spread(ratios)}; fetched"
            f" {done['plain'][-1]['fetched_bytes'] / 1e6:.1f} and {last['fetched_bytes'] / 1e6:.1f} MB"
            f" (for the profile {last['profile_bytes'] / 1e6:.1f})",
            {"times": times, "ratios": ratios, "done": done},
        )

    def record(self, scope, images):
        """What recording costs of a boot: its parts, as the core's own benchmark has them, times how often a boot has them."""
        known = self.of(images, "demo")
        found = cargo_bench("recording")
        cost = {name: int(nanos) * 1e-9 for name, nanos in re.findall(r"^(\w+) (\d+) ns$", found, re.MULTILINE)}
        recorded = int(re.search(r"^blocks (\d+)$", found, re.MULTILINE)[1])
        reads = [line.split() for line in known.trace.read_text().splitlines() if not line.startswith("#")]
        seconds = sum(int(think) for think, _, _ in reads) / 1e6
        block = 16 << 10
        touched = [n for _, at, length in reads for n in range(int(at) // block, -(-(int(at) + int(length)) // block))]
        first = len(set(touched))
        # The whole run is written every five seconds, each time with what was read until then: half of it in the mean.
        writes = math.ceil(seconds / 5)
        spent = {
            "again": (len(touched) - first) * cost["again"],
            "first": first * cost["first"],
            "look": first * cost["look"],
            "write": writes * cost["write"] * first / recorded / 2,
        }
        share, limit = sum(spent.values()) / seconds, 0.01
        yield Result(
            "record",
            "processor time for recording a boot of the demo, over the guest's time",
            f"{share:.3%}",
            f"<= {limit:.0%}",
            share <= limit,
            f"{seconds:.1f} s with {len(reads)} reads, {first} blocks; "
            + ", ".join(f"{name} {seconds_ * 1e3:.1f} ms" for name, seconds_ in spent.items()),
            {"cost": cost, "spent": spent, "seconds": seconds},
        )

    def wrong_profile(self, scope, known):
        """Of a run that reads as much as a boot does, at places and in an order of its own."""
        reads = [line.split() for line in known.trace.read_text().splitlines() if not line.startswith("#")]
        seconds = sum(int(think) for think, _, _ in reads) / 1e6
        source, used = random.Random(3), known.pieces.used()
        size = min(known.pieces.piece, 16 << 10)
        count = min(len(needed(known.profile, known.pieces)) * known.pieces.piece // size, len(used))
        trace, profile = scope.path("other.trace"), scope.path("other.profile")
        places = source.sample(used, count)
        length = known.pieces.length
        trace.write_text(
            "".join(f"{seconds * 1e6 / count:.0f} {at} {min(size, length - at)}\n" for at in places)
        )
        note(f"profile-other: recording {count} reads in {seconds:.0f} s")
        with scope.inner("record") as inner:
            _, address = inner.seed(known.torrent, known.image.parent)
            play(inner, known.torrent, trace, [address], "--record", profile, *NO_AUTO).wait_over()
        return profile
