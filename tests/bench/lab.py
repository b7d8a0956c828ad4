"""Hosts on one machine: network namespaces around a userspace switch (tests/src/bin/switch.rs) with rate and delay."""

import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from child import LEASH, Failure, cpu_seconds

NETWORK = "10.77.0.0/16"
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x2, 0x1000, 0x4000
TUNSETOFFLOAD, TUN_F_CSUM, TUN_F_TSO4 = 0x400454D0, 0x1, 0x2
# What the kernel hands to a network card at once.
MOST_SEGMENTS = 43


def realtime(priority):
    """What puts a program before all others of this machine; nothing where that is not allowed.

    The network and the hosts at its other end are not this machine's: they must not wait for its processors, which
    an emulated guest keeps busy.
    """
    prefix = ["chrt", "--rr", str(priority)]
    works = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    return prefix if works else []


def ip(*arguments, host=None):
    command = [*(host.enter if host else []), "ip", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Failure(f"{' '.join(command)}: {result.stderr.strip()}")


@dataclass
class Link:
    """A host's line: rate each way in Mbit/s (0: no limit), the round trip to a host with the same, the longest queue.

    `remote`: the host stands for another machine, so its programs go before those of this one.
    """

    mbit: float = 100
    rtt_ms: float = 1
    queue_ms: float = 50
    remote: bool = False

    def argument(self):
        # Each way a frame passes a line of either host, so each line has a quarter of the round trip.
        return f"{self.mbit}:{self.rtt_ms * 250:.0f}:{self.queue_ms * 1000:.0f}"


    def segments(self, mtu):
        """How many segments of TCP a host may hand over as one: what its line takes half a millisecond for. Each costs this
        machine, which is the network and all hosts, as much alone as several do together."""
        if not self.mbit:
            return MOST_SEGMENTS
        return max(1, min(MOST_SEGMENTS, int(500e-6 * self.mbit * 1e6 / 8 / mtu)))


class Host:
    """A network namespace. A process holds it, so that it goes with the lab and needs no name of its own."""

    def __init__(self, number, remote):
        self.address = f"10.77.{number // 250}.{number % 250 + 1}"
        self.holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--net", "--", "sh", "-c", "echo; exec sleep infinity"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        # The mount namespace stays this one: mounts made on a host are seen by all.
        self.enter = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", *(realtime(1) if remote else [])]
        if self.holder.stdout.read(1) != b"\n":
            raise Failure("no network namespace could be made: run as root, with CONFIG_NET_NS in the kernel")

    def connect(self, mtu, congestion, segments):
        """Gives the host its interface, to which it hands so many segments at once; the descriptor of the tap device
        behind it."""
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            request = struct.pack("16sH22x", b"vmtbench%d", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
            name = fcntl.ioctl(tap, TUNSETIFF, request)[:16].rstrip(b"\0").decode()
            fcntl.ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | (TUN_F_TSO4 if segments > 1 else 0))
            ip("link", "set", "dev", name, "gso_max_segs", segments)
            ip("link", "set", "dev", name, "netns", self.holder.pid, "name", "eth0", "mtu", mtu)
            ip("address", "add", f"{self.address}/16", "dev", "eth0", host=self)
            ip("link", "set", "lo", "up", host=self)
            ip("link", "set", "eth0", "up", host=self)
            # By route: the setting for a whole namespace takes only what the machine allows to everybody.
            ip("route", "replace", NETWORK, "dev", "eth0", "src", self.address, "congctl", congestion, host=self)
        except BaseException:
            os.close(tap)
            raise
        return tap

    def received(self):
        """Bytes that came in on its line so far, with their Ethernet headers."""
        for line in Path(f"/proc/{self.holder.pid}/net/dev").read_text().splitlines():
            if line.strip().startswith("eth0:"):
                return int(line.split(":")[1].split()[0])
        raise Failure("a host of the lab has lost its interface")

    def close(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


class Lab:
    """`with Lab(switch, [Link(), Link()]) as lab:` then `lab.hosts`; taken down at the end whatever happens.

    The hosts' TCP is named, and not this machine's: BBR, for one, lets a line rest for 200 ms each 10 s.
    """

    def __init__(self, switch, links, mtu=1500, congestion="cubic"):
        self.links, self.hosts, self.counters = links, [], []
        self.stack = contextlib.ExitStack()
        try:
            self._up(switch, mtu, congestion)
        except BaseException:
            self.stack.close()
            raise

    def _up(self, switch, mtu, congestion):
        with contextlib.ExitStack() as taps:
            descriptors = []
            for number, link in enumerate(self.links):
                host = Host(number, link.remote)
                self.stack.callback(host.close)
                self.hosts.append(host)
                descriptors.append(host.connect(mtu, congestion, link.segments(mtu)))
                taps.callback(os.close, descriptors[-1])
            self.control, theirs = socket.socketpair()
            self.stack.callback(self.control.close)
            with theirs:
                self.switch = subprocess.Popen(
                    [*LEASH, *realtime(2), str(switch), *(link.argument() for link in self.links)],
                    stdin=theirs,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            self.stack.callback(self._end_switch)
            socket.send_fds(self.control, [b"\0"], descriptors)
            if self.switch.stdout.readline() != b"ready\n":
                raise Failure(f"{switch} did not start")

    def _end_switch(self):
        # It ends when its socket is closed, and tells what it saw.
        self.control.close()
        try:
            out, _ = self.switch.communicate(timeout=5)
            self.counters = [json.loads(line) for line in out.splitlines()]
        except subprocess.TimeoutExpired:
            self.switch.kill()
            self.switch.communicate()

    def cpu_seconds(self):
        """What the network costs this machine, and a real one would not."""
        return cpu_seconds(self.switch.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Takes it down; `counters` holds what the switch saw of each line."""
        self.stack.close()
