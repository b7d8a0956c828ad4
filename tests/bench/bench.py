#!/usr/bin/env python3
"""Measures what the project promises, and says for each promise whether it is met.

Every row prints a line with its ratio, the numbers it comes from, the target, and the command that runs it alone; the
whole table follows as markdown. Rows compare within one run, since the speed of a machine varies. No row fails the
command for a missed target; a row that can't be measured does. Needs root, /dev/net/tun, FUSE and the programs of
`tests/deps.sh bench`.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from child import Failure
from demo import is_dead_mount
from images import Images
from lab import Lab, Link
from result import Result, Skip, markdown
from rows_boot import Boots, ten_vms
from rows_compressed import compressed
from rows_crowd import crowd, whole
from rows_disk import fuse_1m, fuse_4k, misses
from rows_ffi import Reads
from rows_profile import Profiles
from rows_swarm import demand, download, memory
from scope import REPOSITORY, Scope, cargo_bench, note

HERE = Path(__file__).resolve().parent
PROBE = [sys.executable, HERE / "probe.py"]


def probe(scope, lab, count, seconds):
    """Round trip in milliseconds, and TCP goodput from the first host to the second in Mbit/s."""
    server = scope.start(*PROBE, "serve", name="probe", host=lab.hosts[0])
    port = server.wait_for("the probe listened", lambda: server.log.read_text().strip(), 10)

    def ask(*question):
        child = scope.start(*PROBE, *question, name="probe", host=lab.hosts[1])
        if child.wait(60):
            raise child.failure("failed")
        return float(child.log.read_text())

    rtt = ask("rtt", lab.hosts[0].address, port, count)
    return rtt, ask("rate", lab.hosts[0].address, port, seconds)


def lab(scope, _images):
    """Whether the lab's lines are what they are said to be."""
    found, right = [], True
    for mbit, rtt_ms in ((100, 1), (100, 20)):
        rtt, rate = probe(scope, scope.lab(Link(mbit, rtt_ms, remote=True), Link(mbit, rtt_ms)), 50, 4)
        right &= rtt_ms <= rtt <= rtt_ms * 1.1 + 0.5 and 0.85 * mbit <= rate <= 1.03 * mbit
        found.append({"mbit": mbit, "rtt_ms": rtt_ms, "rtt": rtt, "rate": rate})
    yield Result(
        "lab",
        f"what UDP and TCP ({scope.options.congestion}) find on the lab's lines",
        ", ".join(f"{f['rate']:.1f} Mbit/s" for f in found),
        "85 to 100",
        right,
        "; ".join(f"set {f['mbit']} Mbit/s, {f['rtt_ms']} ms: round trip {f['rtt']:.2f} ms" for f in found),
        {"lines": found},
    )


def pick(scope, _images):
    """The core's own benchmark of the picker; its worst case of the large image."""
    found = cargo_bench("picker")
    times = {
        kind: float(micros)
        for kind, micros in re.findall(r"^\s*131072\s+100\s+(\w+)\s+([\d.]+)", found, re.MULTILINE)
    }
    if not times:
        raise Failure(f"cargo bench printed no line for 131072 pieces: {found[-500:]}")
    worst = max(times.values())
    yield Result(
        "pick",
        "one pick, 131,072 pieces, 100 peers",
        f"{worst:.2f} us",
        "<= 5 us",
        worst <= 5,
        ", ".join(f"{kind} {micros:.2f} us" for kind, micros in times.items()),
        times,
    )


BOOTS = Boots()
PROFILES = Profiles()
READS = Reads()
ROWS = {
    "lab": lab,
    "boot-1ms": lambda scope, images: BOOTS.row(scope, images, 1, 1.3),
    "boot-20ms": lambda scope, images: BOOTS.row(scope, images, 20, 2.0),
    "fetched": BOOTS.fetched,
    "demand": demand,
    "download": download,
    "memory": memory,
    "fuse-4k": fuse_4k,
    "fuse-1m": fuse_1m,
    "misses": misses,
    "ffi-4k": READS.small,
    "ffi-threads": READS.threads,
    "pick": pick,
    "ten-vms": ten_vms,
    "profile-1ms": lambda scope, images: PROFILES.row(scope, images, "profile-1ms", 100, 1, 1.05),
    "profile-20ms": lambda scope, images: PROFILES.row(scope, images, "profile-20ms", 100, 20, 1.10),
    "profile-25mbit": lambda scope, images: PROFILES.row(scope, images, "profile-25mbit", 25, 20, 1.10, packed=True),
    "replay-1ms": lambda scope, images: PROFILES.replayed(scope, images, "replay-1ms", 100, 1, 1.05),
    "replay-20ms": lambda scope, images: PROFILES.replayed(scope, images, "replay-20ms", 100, 20, 1.10),
    "replay-25mbit": lambda scope, images: PROFILES.replayed(scope, images, "replay-25mbit", 25, 20, 1.10),
    "profile-fetched": PROFILES.fetched,
    "profile-other": PROFILES.other,
    "record": PROFILES.record,
    "compressed-25mbit": lambda scope, images: compressed(PROFILES, scope, images, 25, 20),
    "crowd-8": lambda scope, images: crowd(PROFILES, scope, images, 8),
    "crowd-16": lambda scope, images: crowd(PROFILES, scope, images, 16),
    "crowd-16-bare": lambda scope, images: crowd(PROFILES, scope, images, 16, bare=True),
    "full-8": lambda scope, images: whole(scope, images, 8),
}


def self_test(options, work):
    """The lab comes up, its lines are about right, and nothing of it is left."""
    switch = options.binaries / "switch"
    begin = time.monotonic()
    with Scope(options, work / "self-test") as scope:
        lab = scope.lab(Link(50, 10, remote=True), Link(50, 10))
        rtt, rate = probe(scope, lab, 20, 1)
        pids = [host.holder.pid for host in lab.hosts] + [lab.switch.pid]
    problems = []
    # A busy machine makes it slower, nothing faster but the moment at which the clock is read.
    if not 9.9 <= rtt <= 30:
        problems.append(f"the round trip was {rtt:.1f} ms, 10 ms were set")
    if not 20 <= rate <= 53:
        problems.append(f"the goodput was {rate:.1f} Mbit/s, 50 were set")
    frames = {(c["port"], c["direction"]): c["frames"] for c in lab.counters}
    if not frames or not all(frames.values()):
        problems.append(f"the switch counted {frames}")
    problems += [f"process {pid} is left" for pid in pids if Path(f"/proc/{pid}").exists()]
    problems += [f"device {d.name} is left" for d in Path("/sys/class/net").glob("vmtbench*")]
    problems += [f"{scope.directory} is left"] if scope.directory.exists() else []
    # A lab that can't be built leaves nothing either.
    with contextlib.suppress(Failure, OSError):
        Lab(work / "no-such-switch", [Link(), Link()])
        problems.append("a lab came up without its switch")
    problems += [f"device {d.name} is left" for d in Path("/sys/class/net").glob("vmtbench*")]
    if problems:
        raise Failure("\n".join(problems))
    print(
        f"self-test: {switch.name} gave {rtt:.1f} ms and {rate:.1f} Mbit/s where 10 and 50 were set;"
        f" {time.monotonic() - begin:.1f} s"
    )


def sweep(directory):
    """Takes away the work directories of runs that were killed."""
    for old in directory.glob("bench.*.*"):
        owner = old.name.split(".")[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            if any(os.path.ismount(path) or is_dead_mount(path) for path in old.rglob("*.[0-9]*")):
                continue
            shutil.rmtree(old, ignore_errors=True)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n", 1)[0], epilog=f"Rows: {', '.join(ROWS)}. Without any, all are run."
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="a row to run, see below")
    parser.add_argument("--runs", type=int, default=1, help="runs of rows that compare, interleaved (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers there")
    parser.add_argument("--with-peers", action=argparse.BooleanOptionalAction, default=True,
                        help="boot over sshfs, NBD, HTTP and btfs too (default: yes, where they are installed)")  # fmt: skip
    parser.add_argument("--size", type=int, default=2048, help="MiB of the image that is downloaded (default: 2048)")
    parser.add_argument("--reads", type=int, default=300, help="reads of the row demand (default: 300)")
    parser.add_argument("--mbit", type=float, default=100, help="of the lines in crowd-* and full-8 (default: 100)")
    parser.add_argument("--vms", type=int, default=10, help="machines of the row ten-vms (default: 10)")
    parser.add_argument("--piece-size", metavar="SIZE", help="of all images (default: what publish chooses)")
    parser.add_argument("--congestion", default="cubic", help="TCP congestion control in the lab (default: cubic)")
    parser.add_argument("--binaries", type=Path, default=REPOSITORY / "target/release",
                        help="where vmtorrent, switch and many are (default: target/release)")  # fmt: skip
    parser.add_argument(
        "--dir", type=Path, default=Path(os.environ.get("VMTORRENT_DEMO_DIR") or REPOSITORY / ".demo"),
        help="where the appliance is cached and the run's files live (default: .demo, or $VMTORRENT_DEMO_DIR)",
    )  # fmt: skip
    parser.add_argument("--self-test", action="store_true", help="only see whether the lab works: a few seconds")
    options = parser.parse_args()
    if unknown := set(options.rows) - ROWS.keys():
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    options.dir, options.binaries = options.dir.resolve(), options.binaries.resolve()
    return options


def check(options):
    """What nothing goes without."""
    for name in ["switch"] if options.self_test else ["switch", "many", "vmtorrent"]:
        if not os.access(options.binaries / name, os.X_OK):
            sys.exit(
                f"bench: {options.binaries / name} is missing:"
                " run `make bench`, or `cargo build --release -p vmtorrent-cli -p vmtorrent-tests`"
            )
    if os.geteuid() != 0:
        sys.exit("bench: run it as root: it makes network namespaces and mounts")
    for tool in ["ip", "setpriv", "unshare", "nsenter"]:
        if not shutil.which(tool):
            sys.exit(f"bench: {tool} is missing: run `tests/deps.sh bench`")
    for device in ["/dev/net/tun"] if options.self_test else ["/dev/net/tun", "/dev/fuse"]:
        if not os.path.exists(device):
            sys.exit(f"bench: {device} is missing: load the kernel module {Path(device).name}")


def run_rows(options, work):
    """All results, and what went wrong."""
    results, problems = [], []
    with Images(options, work / "images") as images:
        for name in options.rows or ROWS:
            begin = time.monotonic()
            try:
                with Scope(options, work / name) as scope:
                    for result in ROWS[name](scope, images):
                        results.append(result)
                        print(result.line(), flush=True)
            except Skip as missing:
                problems.append(f"{name}: skipped: {missing}")
            except (Failure, OSError, StopIteration) as error:
                problems.append(f"{name}: FAILED: {error!r}" if not str(error) else f"{name}: FAILED: {error}")
            else:
                note(f"{name}: {time.monotonic() - begin:.0f} s")
                continue
            print(problems[-1], flush=True)
    return results, problems


def interrupted(number, _):
    # Once is enough: what follows is the clean-up, which a second signal must not cut short.
    for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(n, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main():
    options = arguments()
    # Where Debian keeps sshd, nginx and ip; not everybody's path has them.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    # No public node of the DHT is asked.
    os.environ["VMTORRENT_DHT_BOOTSTRAP"] = ""
    check(options)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup has it ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupted)
    options.dir.mkdir(parents=True, exist_ok=True)
    sweep(options.dir)
    with tempfile.TemporaryDirectory(prefix=f"bench.{os.getpid()}.", dir=options.dir, ignore_cleanup_errors=True) as d:
        if options.self_test:
            try:
                self_test(options, Path(d))
            except Failure as failure:
                sys.exit(f"bench: self-test FAILED: {failure}")
            return 0
        load = os.getloadavg()[0]
        results, problems = run_rows(options, Path(d))
    if options.json:
        found = {"results": [r.as_json() for r in results], "problems": problems}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"\n{markdown(results)}\n")
    print(f"{os.cpu_count()} CPUs, load {load:.1f} at the start and {os.getloadavg()[0]:.1f} at the end")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
