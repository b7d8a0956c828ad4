"""What the swarm session does: demand beside a full fill, whole downloads, memory."""

import random
import shutil
import time
from pathlib import Path

from lab import Link
from measure import DirectReader, is_hole, median, percentile
from pristine import piece_length
from result import Result, Skip
from scope import MIB, note

HERE = Path(__file__).resolve().parent
READ = 16 << 10
# Debian's own Python: python3-libtorrent is for no other.
PYTHON = "/usr/bin/python3"


def demand(scope, images):
    """Random reads of missing data while a full fill keeps the line busy."""
    mbit, rtt_ms, reads = 100, 20, scope.options.reads
    image, torrent = images.random(scope.options.size)
    piece = piece_length(torrent)
    lab = scope.lab(Link(mbit, rtt_ms, remote=True), Link(mbit, rtt_ms))
    _, address = scope.seed(torrent, image.parent, host=lab.hosts[0])
    launch = scope.launch(torrent, peers=[address], fill="full", host=lab.hosts[1])
    # Until the fill has found the line's rate.
    launch.child.wait_for("the fill was under way", lambda: launch.present_pieces() > 10e6 / piece, 30)
    note(f"demand: {reads} reads")
    source, times = random.Random(1), []
    pieces, passed = launch.length // piece, 0
    received, pieces_before, begin = lab.hosts[1].received(), launch.present_pieces(), time.monotonic()
    with DirectReader(launch.disk, READ) as reader, open(launch.data_file(), "rb") as store:
        while len(times) < reads:
            # The guest thinks.
            time.sleep(source.uniform(0.05, 0.15))
            while not is_hole(store.fileno(), (offset := source.randrange(pieces) * piece), piece):
                passed += 1
                if passed > 50 * reads:
                    raise Skip("the image was complete before enough of it was read: use a larger --size")
            times.append(reader.read(offset + source.randrange(piece // READ) * READ) * 1e3)
    seconds = time.monotonic() - begin
    line = (lab.hosts[1].received() - received) * 8 / seconds / 1e6
    kept = (launch.present_pieces() - pieces_before) * piece * 8 / seconds / 1e6
    done = launch.end()
    lab.close()
    drops = sum(counter["dropped"] for counter in lab.counters)
    p50, p99 = percentile(times, 50), percentile(times, 99)
    busy = line > 0.85 * mbit
    yield Result(
        "demand",
        f"random 16 KiB reads of missing data while fill full loads {mbit} Mbit/s at {rtt_ms} ms round trip",
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
        "<= 40, 80 ms",
        p50 <= 40 and p99 <= 80 and busy,
        f"{len(times)} reads, least {min(times):.1f}, most {max(times):.1f} ms; line {line:.1f} Mbit/s"
        f"{'' if busy else ' (NOT SATURATED)'}, stored {kept:.1f},"
        f" {drops} frames dropped; {done['wasted_bytes'] / 1e6:.2f} MB in vain",
        {"p50": p50, "p99": p99, "line_mbit": line, "stored_mbit": kept, "drops": drops, "times": times},
    )


def download(scope, images):
    """Whole downloads over loopback: our seed and our launch, libtorrent and libtorrent, and libtorrent to us."""
    try:
        scope.run(PYTHON, "-c", "import libtorrent", name="libtorrent")
    except Exception as error:
        raise Skip("python3-libtorrent is missing: run `tests/deps.sh bench` as root") from error
    image, torrent = images.random(scope.options.size)
    length = image.stat().st_size
    ways = {"ours": [], "libtorrent": [], "libtorrent to ours": []}
    for run in range(scope.options.runs):
        for name, found in ways.items():
            with scope.inner("download") as inner:
                seeder = ours_seed if name == "ours" else theirs_seed
                leecher = theirs_fetch if name == "libtorrent" else ours_fetch
                found.append(transfer(inner, image, torrent, seeder, leecher))
            seconds, cpu, seed_cpu, memory = found[-1]
            note(
                f"download: run {run + 1}: {name}: {length / seconds / 1e6:.0f} MB/s, CPU {cpu:.1f} s"
                f" (seeder {seed_cpu:.1f}), leecher {memory / MIB:.0f} MiB"
            )
    rate = {name: length / median(s for s, _, _, _ in found) / 1e6 for name, found in ways.items()}
    pairs = list(zip(ways["ours"], ways["libtorrent"], strict=True))
    speed = median(theirs[0] / ours[0] for ours, theirs in pairs)
    cpu = median(ours[1] / theirs[1] for ours, theirs in pairs)
    parts = [
        f"{name} {rate[name]:.0f} MB/s with {median(c for _, c, _, _ in found):.1f} CPU s"
        f" (seeder {median(c for _, _, c, _ in found):.1f})"
        for name, found in ways.items()
    ]
    yield Result(
        "download",
        f"{length / MIB:.0f} MiB over loopback, over libtorrent to libtorrent",
        f"speed {speed:.2f} x, CPU {cpu:.2f} x",
        ">= 0.9, <= 1.0",
        speed >= 0.9 and cpu <= 1.0,
        "; ".join(parts),
        {name: [dict(zip(["seconds", "cpu", "seed_cpu", "memory"], f, strict=True)) for f in found]
         for name, found in ways.items()},
    )  # fmt: skip


def transfer(scope, image, torrent, seeder, leecher):
    """Seconds, CPU seconds of both sides and of the seeder alone, and the leecher's memory."""
    seed, address = seeder(scope, image, torrent)
    before = seed.cpu_seconds()
    child, seconds, cpu = leecher(scope, image, torrent, address)
    seed_cpu = seed.cpu_seconds() - before
    memory = child.peak_memory()
    return seconds, cpu + seed_cpu, seed_cpu, memory


def ours_seed(scope, image, torrent):
    return scope.seed(torrent, image.parent)


def theirs_seed(scope, image, torrent):
    seed = scope.start(PYTHON, HERE / "libtorrent_peer.py", "seed", torrent, image.parent, name="lt", events=True)
    return seed, seed.wait_event("ready", 60)[1]["listen"]


def ours_fetch(scope, image, torrent, address):
    """From the start of the process on, its mount included."""
    pieces = -(-image.stat().st_size // piece_length(torrent))
    launch = scope.launch(torrent, peers=[address], fill="full")
    child = launch.child
    child.wait_for("the download was complete", lambda: launch.present_pieces() == pieces, 300)
    return child, time.monotonic() - child.started, child.cpu_seconds()


def theirs_fetch(scope, image, torrent, address):
    """From the moment on when it is told of its peer."""
    child = scope.start(
        PYTHON, HERE / "libtorrent_peer.py", "fetch", torrent, scope.mount_point("lt"), address,
        name="lt", events=True,
    )  # fmt: skip
    child.wait_event("ready", 60)
    before = child.cpu_seconds()
    seconds = child.wait_event("complete", 300)[1]["seconds"]
    return child, seconds, child.cpu_seconds() - before


def memory(scope, images):
    """Resident memory of launch, seed and publish for an image of 64 GiB that is mostly zeros."""
    gib, data_mib, reads = 64, 1024, 20_000
    if shutil.disk_usage(scope.directory).free < 6 << 30:
        raise Skip("less than 6 GiB are free")
    note(f"memory: making and publishing {gib} GiB with {data_mib} MiB of data")
    image, torrent, publish = images.sparse(gib, data_mib)
    seed, address = scope.seed(torrent, image.parent)
    launch = scope.launch(torrent, peers=[address], fill="full")
    start = launch.child.peak_memory()
    source = random.Random(2)
    note(f"memory: {reads} reads and a full fill")
    with DirectReader(launch.disk, 4096) as reader:
        times = [reader.read(source.randrange(launch.length // 4096) * 4096) * 1e3 for _ in range(reads)]
    launch.wait_complete(300)
    most, seed_most = launch.child.peak_memory(), seed.peak_memory()
    yield Result(
        "memory",
        f"most resident memory of launch, {gib} GiB sparse image, {reads} random reads, fill full",
        f"{most / MIB:.1f} MiB",
        "<= 100 MiB",
        most <= 100 * MIB,
        f"at the start {start / MIB:.1f}, seed {seed_most / MIB:.1f}, publish {publish / MIB:.1f} MiB;"
        f" reads p50 {percentile(times, 50):.3f}, p99 {percentile(times, 99):.2f} ms",
        {"launch": most, "start": start, "seed": seed_most, "publish": publish},
    )
