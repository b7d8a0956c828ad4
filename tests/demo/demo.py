#!/usr/bin/env python3
"""Boots a real appliance whose disk image is still being downloaded, and reports what that cost.

The appliance (tests/appliance) is booted from a local copy first, then published, seeded with a limited upload, and
booted by `vmtorrent launch` from an empty cache and state. Both boots use the same QEMU options.
Ends with a non-zero status when anything is not as it should be. Needs root, FUSE and QEMU; Python's standard library.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from console import Console
from failure import Failure
from pristine import compare_pristine, piece_length
from process import Process, end_qemu

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
MIB = 1 << 20


def step(text):
    print(f"==> {text}", flush=True)


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(path):
    """What changes when somebody writes to the file."""
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


# A host has processors beside its guest's: for the seed, the network and the launch that run here too.
GUEST_PROCESSORS = max(1, min(2, (os.cpu_count() or 2) - 1))


def qemu_arguments(disk, console, pidfile, memory):
    return [
        "qemu-system-x86_64",
        "-machine",
        "q35,accel=tcg",
        "-cpu",
        "max",
        "-smp",
        str(GUEST_PROCESSORS),
        "-m",
        str(memory),
        "-nographic",
        "-monitor",
        "none",
        "-nic",
        "none",
        "-no-reboot",
        "-serial",
        f"unix:{console}",
        "-pidfile",
        str(pidfile),
        "-drive",
        f"file={disk},format=raw,if=virtio,cache=none,aio=native,rerror=stop,werror=stop",
    ]


class Demo:
    def __init__(self, options, work):
        self.options, self.work = options, work
        self.directory = options.dir
        self.image = options.dir / "appliance.img"
        self.processes, self.pidfiles, self.mount = [], [], work / "mnt"
        # A socket's path may have 107 bytes at most; the work directory may be deep.
        self.sockets = Path(tempfile.mkdtemp(prefix="vmtorrent-demo."))

    def start(self, *arguments, log, events=False):
        process = Process(arguments, self.work / log, events)
        self.processes.append(process)
        return process

    def vmtorrent(self, *arguments, log, events=False):
        return self.start(self.options.binary, *arguments, log=log, events=events)

    def clean_up(self):
        """Leaves no process, no mount and no file behind, whatever happened."""
        for process in reversed(self.processes):
            process.stop()
        for pidfile in self.pidfiles:
            end_qemu(pidfile, self.work)
        if os.path.ismount(self.mount) or is_dead_mount(self.mount):
            subprocess.run(["umount", "-l", self.mount], check=False)
        shutil.rmtree(self.sockets, ignore_errors=True)
        if self.options.keep:
            step(f"kept {self.work}")
        else:
            shutil.rmtree(self.work, ignore_errors=True)

    # The steps.

    def appliance(self):
        step("appliance")
        result = subprocess.run([REPOSITORY / "tests/appliance/build.sh", self.directory], check=False)
        if result.returncode:
            raise Failure("the appliance could not be made: see above")
        self.original = sha256(self.image)
        self.identity = identity(self.image)
        self.size = self.image.stat().st_size

    def local_boot(self):
        step("boot from the local file")
        disk = self.work / "local.img"
        subprocess.run(["cp", "--sparse=always", self.image, disk], check=True)
        # The boot must not pay for the copy.
        subprocess.run(["sync", disk], check=True)
        console = Console(self.sockets / "local", self.work / "local.console")
        pidfile = self.work / "local.pid"
        self.pidfiles.append(pidfile)
        vmm = self.start(*qemu_arguments(disk, console.path, pidfile, self.options.memory), log="local.qemu.log")
        status = vmm.wait(self.options.timeout)
        console.close()
        if status:
            raise vmm.failure(f"ended with status {status}")
        console.check(console.log)
        disk.unlink()
        self.local = {name: t - vmm.started for name, t in console.times.items()}

    def publish_and_seed(self):
        step(f"publish, and seed with at most {self.options.upload_limit}")
        tracker, self.torrent = f"127.0.0.1:{free_port()}", self.work / "appliance.torrent"
        publish = self.vmtorrent(
            "publish", self.image, "-o", self.torrent, "--tracker", f"http://{tracker}/announce", log="publish.log"
        )
        status = publish.wait(self.options.timeout)
        if status or not self.torrent.is_file():
            raise publish.failure(f"ended with status {status}")
        self.seed = self.vmtorrent(
            "seed", self.torrent, "--data", self.directory, "--listen", f"127.0.0.1:{free_port()}",
            "--tracker", tracker, "--upload-limit", self.options.upload_limit, "--no-lsd", "--json",
            log="seed.log", events=True,
        )  # fmt: skip
        self.seed.wait_event("ready", 60)

    def swarm_boot(self):
        step(f"boot from the swarm, --fill {self.options.fill}")
        self.cache = self.work / "cache"
        self.mount.mkdir()
        console = Console(self.sockets / "swarm", self.work / "swarm.console")
        pidfile = self.work / "swarm.pid"
        self.pidfiles.append(pidfile)
        launch = self.vmtorrent(
            "launch", self.torrent, "--cache", self.cache, "--state", self.work / "state", "--mount", self.mount,
            "--listen", "127.0.0.1:0", "--fill", self.options.fill, "--no-lsd", "--json",
            "--", *qemu_arguments("{disk}", console.path, pidfile, self.options.memory),
            log="launch.log", events=True,
        )  # fmt: skip
        mounted, _ = launch.wait_event("ready", 60)
        status = launch.wait(self.options.timeout)
        console.close()
        if status:
            raise launch.failure(f"ended with status {status}")
        self.ready = console.check(console.log)
        self.swarm = {"mounted": mounted - launch.started}
        self.swarm |= {name: t - launch.started for name, t in console.times.items()}
        self.done = launch.wait_event("done", 1)[1]
        if garbage := launch.find("garbage"):
            raise Failure(f"launch --json printed a line that is no JSON: {garbage[1]['line']!r}")
        if self.seed.child.poll() is not None:
            raise self.seed.failure("ended by itself")
        self.seed.stop()

    def check(self):
        step("checks")
        problems, done = [], self.done
        if os.path.ismount(self.mount) or is_dead_mount(self.mount):
            problems.append(f"launch left {self.mount} mounted")
        if missing := FIELDS - done.keys():
            raise Failure(f"the done event lacks {', '.join(sorted(missing))}")
        bands = sum(done[f"{band}_bytes"] for band in BANDS)
        if bands != done["fetched_bytes"]:
            problems.append(f"the bands add up to {bands} bytes, fetched are {done['fetched_bytes']}")
        if done["fetched_bytes"] == 0 or done["stalls"] == 0:
            problems.append("nothing was fetched from the swarm: this was no boot from a swarm")
        self.ratio = done["fetched_bytes"] / max(done["distinct_read_bytes"], 1)
        if self.options.fill == "none" and self.ratio > self.options.max_fetch_ratio:
            problems.append(
                f"fetched {self.ratio:.2f} x the distinct blocks that the guest read;"
                f" at most {self.options.max_fetch_ratio} is allowed"
            )
        # Piece by piece: one that is as another is kept in that one's place only, and its own stays a hole.
        self.pieces, different, places = compare_pristine(self.cache, self.image, piece_length(self.torrent))
        if different:
            problems.append(f"{different} of {self.pieces} pristine pieces differ from the original, first at {places}")
        if self.pieces == 0:
            problems.append(f"no pristine copy was found below {self.cache}")
        if identity(self.image) != self.identity or sha256(self.image) != self.original:
            problems.append(f"{self.image} was written to: the seed or the launch changed the original")
        if problems:
            raise Failure("\n".join(problems))

    def report(self):
        done, local, swarm, limit = self.done, self.local, self.swarm, self.options.upload_limit

        def line(label, value, rest=""):
            print(f"  {label:<26}{value:>12}{rest}")

        def megabytes(field):
            return f"{done[field] / 1e6:.1f} MB"

        written = int(self.ready["written"]) / MIB
        print(
            f"\nDebian, {self.size / MIB:.0f} MiB; nginx answered, {written:.0f} MiB written and synced;"
            f" QEMU, TCG, processors: {GUEST_PROCESSORS}"
        )
        line("seconds from start", "local file", f"   swarm at {limit}")
        line("  image mounted", "-", f"{swarm['mounted']:12.2f}")
        for name, label in LABELS.items():
            if name in local and name in swarm:
                line(f"  {label}", f"{local[name]:.2f}", f"{swarm[name]:12.2f}")
        line("swarm / local", f"{swarm['ready'] / local['ready']:.2f}")
        line("fetched", megabytes("fetched_bytes"), f", {done['fetched_bytes'] / self.size:.1%} of the image")
        for band in BANDS:
            line(f"  {band}", megabytes(f"{band}_bytes"))
        line("received in vain", megabytes("wasted_bytes"))
        line("distinct blocks read", megabytes("distinct_read_bytes"), " in blocks of 64 KiB")
        line("fetched / distinct", f"{self.ratio:.2f}")
        line("stalls", done["stalls"], f", {done['stall_seconds']:.2f} s in all")
        line("wait of a read, median", f"{done['demand_p50_ms']:.1f} ms", f", 99 % {done['demand_p99_ms']:.1f} ms")
        line("pristine copy", self.pieces, f" pieces of {piece_length(self.torrent) >> 10} KiB, all equal to the original")
        line("original", "unchanged", f", sha256 {self.original[:16]}...\n")
        if self.options.report:
            figures = {
                "local_seconds": local,
                "swarm_seconds": swarm,
                "ratio": swarm["ready"] / local["ready"],
                "fetched_per_distinct": self.ratio,
                "fill": self.options.fill,
                "upload_limit": limit,
                "done": done,
            }
            self.options.report.write_text(json.dumps(figures, indent=2) + "\n")

    def run(self):
        self.appliance()
        self.local_boot()
        self.publish_and_seed()
        self.swarm_boot()
        self.check()
        self.report()


BANDS = ["demand", "readahead", "profile", "background"]
FIELDS = {f"{band}_bytes" for band in BANDS} | {
    "fetched_bytes", "wasted_bytes", "distinct_read_bytes", "stalls", "stall_seconds", "demand_p50_ms", "demand_p99_ms",
}  # fmt: skip
LABELS = {
    "firmware": "firmware",
    "kernel": "first kernel line",
    "systemd": "systemd",
    "boot": "service started",
    "ready": "READY",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_dead_mount(path):
    """Whether a FUSE mount is left there whose process is gone."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--binary", type=Path, default=REPOSITORY / "target/release/vmtorrent", help="the vmtorrent to run"
    )
    parser.add_argument(
        "--dir", type=Path, default=Path(os.environ.get("VMTORRENT_DEMO_DIR") or REPOSITORY / ".demo"),
        help="where the appliance is cached and the run's files live (default: .demo, or $VMTORRENT_DEMO_DIR)",
    )  # fmt: skip
    parser.add_argument(
        "--fill", choices=["none", "idle", "full"], default="none", help="passed to launch (default: none)"
    )
    parser.add_argument("--upload-limit", default="100mbit", help="the seed's (default: 100mbit)")
    parser.add_argument(
        "--max-fetch-ratio",
        type=float,
        default=1.5,
        help="with --fill none: the most that may be fetched per distinct block read",
    )
    parser.add_argument("--memory", type=int, default=512, help="the guest's memory, MiB")
    parser.add_argument("--timeout", type=float, default=300, help="the most seconds for one boot")
    parser.add_argument("--report", type=Path, help="also write the figures there, as JSON")
    parser.add_argument("--keep", action="store_true", help="keep the run's files (logs, cache, state)")
    return parser.parse_args()


def main():
    chosen = options()
    chosen.dir = chosen.dir.resolve()
    chosen.binary = chosen.binary.resolve()
    if not os.access(chosen.binary, os.X_OK):
        sys.exit(f"demo: {chosen.binary} is missing: run `make demo`, or `cargo build --release -p vmtorrent-cli`")
    for tool in ["qemu-system-x86_64", "cp", "umount"]:
        if not shutil.which(tool):
            sys.exit(f"demo: {tool} is missing: run `make deps` as root")
    if not os.path.exists("/dev/fuse"):
        sys.exit("demo: /dev/fuse is missing: load the kernel module fuse")

    def interrupted(number, _):
        # Once is enough: what follows is the clean-up, which a second signal must not cut short.
        for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(n, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    chosen.dir.mkdir(parents=True, exist_ok=True)
    demo = Demo(chosen, Path(tempfile.mkdtemp(prefix="run.", dir=chosen.dir)))
    try:
        demo.run()
    except Failure as failure:
        print(f"demo: FAILED: {failure}", file=sys.stderr)
        # The logs are needed now.
        chosen.keep = True
        return 1
    finally:
        demo.clean_up()
    step("all is well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
