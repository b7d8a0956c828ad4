"""What a read of present data costs through the mount, alone and beside reads that wait."""

import json
import random
import subprocess
import sys
from pathlib import Path

from child import Failure
from measure import DirectReader, median
from result import Result
from scope import MIB, need, note

HERE = Path(__file__).resolve().parent
SIZE = 256
SECONDS = 3
CPU = 0
MISSES = 64


def fio(scope, path, mode, size, direct, cpu, seconds=SECONDS, span=None):
    """Synchronous reads, one at a time: microseconds p50, p99, mean, and bytes per second."""
    command = [
        "fio", "--name=bench", f"--filename={path}", "--readonly", f"--rw={mode}", f"--bs={size}", "--ioengine=psync",
        f"--direct={int(direct)}", "--invalidate=0", "--time_based", f"--runtime={seconds}", "--norandommap",
        f"--size={span or SIZE * MIB}", "--percentile_list=50:99:99.9", "--output-format=json",
    ]  # fmt: skip
    if cpu is not None:
        command = ["taskset", "-c", str(cpu), *command]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=scope.directory)
    if found.returncode:
        raise Failure(f"{' '.join(command)}: {found.stderr[-500:]}")
    read = json.loads(found.stdout)["jobs"][0]["read"]
    times = {float(k): v / 1e3 for k, v in read["clat_ns"]["percentile"].items()}
    return {
        "p50": times[50.0],
        "p99": times[99.0],
        "p99.9": times[99.9],
        "mean": read["clat_ns"]["mean"] / 1e3,
        "rate": read["bw_bytes"],
    }


def complete_launch(scope, images, cpu):
    """A launch all of whose image is present and verified, and a local copy of it in the page cache."""
    image, torrent = images.random(SIZE)
    seed, address = scope.seed(torrent, image.parent)
    launch = scope.launch(torrent, peers=[address], fill="full", cpu=cpu)
    launch.wait_complete(120)
    seed.stop()
    # Once through both, so that neither pays for the disk.
    for path in (launch.disk, image):
        with open(path, "rb") as file:
            while file.read(MIB):
                pass
    return launch, image


def compare(scope, images, mode, size, cpu):
    """Rounds of local (from the page cache), mount (O_DIRECT), and local with O_DIRECT, which the disk answers."""
    found = {"local": [], "mount": [], "disk": []}
    with scope.inner("fuse") as inner:
        launch, image = complete_launch(inner, images, cpu)
        for _ in range(max(scope.options.runs, 3)):
            found["local"].append(fio(inner, image, mode, size, False, cpu))
            found["mount"].append(fio(inner, launch.disk, mode, size, True, cpu))
        found["disk"].append(fio(inner, image, mode, size, True, cpu, 1))
    return found


def fuse_4k(scope, images):
    need("fio", "taskset")
    note("fuse-4k")
    pinned = compare(scope, images, "randread", "4k", CPU)
    free = compare(scope, images, "randread", "4k", None)
    extra = median(m["p50"] - n["p50"] for m, n in zip(pinned["mount"], pinned["local"], strict=True))

    def p50(runs):
        return median(r["p50"] for r in runs)

    yield Result(
        "fuse-4k",
        "random 4 KiB read of present data, QD 1, O_DIRECT through the mount, over the page cache of a local file,"
        " all on one CPU",
        f"+ {extra:.1f} us",
        "<= + 8 us",
        extra <= 8,
        f"p50 local {p50(pinned['local']):.1f}, mount {p50(pinned['mount']):.1f}"
        f" (mean {median(r['mean'] for r in pinned['mount']):.1f}, p99 {median(r['p99'] for r in pinned['mount']):.1f})"
        f" us; any CPU: local {p50(free['local']):.1f}, mount {p50(free['mount']):.1f} us;"
        f" local with O_DIRECT {p50(pinned['disk']):.0f} us",
        {"pinned": pinned, "free": free},
    )


def fuse_1m(scope, images):
    need("fio", "taskset")
    note("fuse-1m")
    pinned = compare(scope, images, "read", "1m", CPU)
    free = compare(scope, images, "read", "1m", None)

    def ratio(found):
        return median(m["rate"] / n["rate"] for m, n in zip(found["mount"], found["local"], strict=True))

    def rate(runs):
        return median(r["rate"] for r in runs) / 1e9

    yield Result(
        "fuse-1m",
        "sequential 1 MiB reads of present data, O_DIRECT through the mount, over the page cache of a local file,"
        " all on one CPU",
        f"{ratio(pinned):.2f} x local",
        ">= 0.5 (0.9)",
        ratio(pinned) >= 0.5,
        f"local {rate(pinned['local']):.2f}, mount {rate(pinned['mount']):.2f} GB/s; any CPU: {ratio(free):.2f} x,"
        f" {rate(free['local']):.2f} and {rate(free['mount']):.2f} GB/s; local with O_DIRECT"
        f" {rate(pinned['disk']):.2f} GB/s",
        {"pinned": pinned, "free": free},
    )


def misses(scope, images):
    """Reads of present data while others wait for data that no peer has."""
    need("fio")
    note("misses")
    image, torrent = images.random(SIZE)
    seed, address = scope.seed(torrent, image.parent)
    launch = scope.launch(torrent, "--read-timeout", "0", peers=[address])
    present = 64 * MIB
    with DirectReader(launch.disk, MIB) as reader:
        for offset in range(0, present, MIB):
            reader.read(offset)
    # Nobody is left who could answer.
    seed.stop()
    quiet = fio(scope, launch.disk, "randread", "4k", True, None, span=present)
    before = launch.stats()["stalls"]
    # Behind what read-ahead may have fetched.
    offsets = random.Random(3).sample(range(2 * present, SIZE * MIB, 64 << 10), MISSES)
    waiting = scope.start(sys.executable, HERE / "waiting_reads.py", launch.disk, *offsets, name="waiting", events=True)
    launch.child.wait_for("the misses waited", lambda: launch.stats()["stalls"] == before + MISSES, 10)
    times = fio(scope, launch.disk, "randread", "4k", True, None, span=present)
    if answered := waiting.find("answered"):
        raise Failure(f"a read of data that nobody has was answered: {answered[1]}")
    yield Result(
        "misses",
        f"random 4 KiB reads of present data, O_DIRECT, while {MISSES} reads wait for data that no peer has",
        f"p99 {times['p99'] / 1e3:.3f} ms",
        "<= 1 ms",
        times["p99"] <= 1000,
        f"p50 {times['p50']:.1f}, p99 {times['p99']:.1f}, p99.9 {times['p99.9']:.1f} us;"
        f" without them {quiet['p50']:.1f}, {quiet['p99']:.1f}, {quiet['p99.9']:.1f} us",
        {"with": times, "without": quiet},
    )
    # Takes the mount away, which ends them.
    launch.child.stop(60)
