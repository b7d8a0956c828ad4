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

from child import LEASH, Failure

NETWORK = "10.77.0.0/16"
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x2, 0x1000


def ip(*arguments, host=None):
    command = [*(host.enter if host else []), "ip", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Failure(f"{' '.join(command)}: {result.stderr.strip()}")


@dataclass
class Link:
    """A host's line: rate each way in Mbit/s (0: no limit), its share of the round trip, the longest queue."""

    mbit: float = 100
    rtt_ms: float = 1
    queue_ms: float = 50

    def argument(self):
        # Each way a frame passes a line of either host, so each line has a quarter of the round trip.
        return f"{self.mbit}:{self.rtt_ms * 250:.0f}:{self.queue_ms * 1000:.0f}"


class Host:
    """A network namespace. A process holds it, so that it goes with the lab and needs no name of its own."""

    def __init__(self, number):
        self.address = f"10.77.{number // 250}.{number % 250 + 1}"
        self.holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--net", "--", "sh", "-c", "echo; exec sleep infinity"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        # The mount namespace stays this one: mounts made on a host are seen by all.
        self.enter = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net"]
        if self.holder.stdout.read(1) != b"\n":
            raise Failure("no network namespace could be made: run as root, with CONFIG_NET_NS in the kernel")

    def connect(self, mtu, congestion):
        """Gives the host its interface; the descriptor of the tap device behind it."""
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            request = struct.pack("16sH22x", b"vmtbench%d", IFF_TAP | IFF_NO_PI)
            name = fcntl.ioctl(tap, TUNSETIFF, request)[:16].rstrip(b"\0").decode()
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
            for number in range(len(self.links)):
                host = Host(number)
                self.stack.callback(host.close)
                self.hosts.append(host)
                descriptors.append(host.connect(mtu, congestion))
                taps.callback(os.close, descriptors[-1])
            self.control, theirs = socket.socketpair()
            self.stack.callback(self.control.close)
            with theirs:
                self.switch = subprocess.Popen(
                    [*LEASH, str(switch), *(link.argument() for link in self.links)],
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

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Takes it down; `counters` holds what the switch saw of each line."""
        self.stack.close()
