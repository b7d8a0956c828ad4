"""Boots of the demo's appliance: from the swarm, from a local file, and over what people use today."""

import contextlib

from guest import Guest, local_boot, swarm_boot
from lab import Link
from measure import median
from others import ALL
from result import Result, Skip
from scope import need, note

MBIT = 100
TIMEOUT = 300
BTFS_TIMEOUT = 120


class Boots:
    """The boots at one round trip; kept, since the row `fetched` is about them too."""

    def __init__(self):
        self.done = []

    def ours(self, scope, images, rtt_ms):
        """A lab with a seed on its first host and the image."""
        image, torrent = images.appliance()
        lab = scope.lab(Link(MBIT, rtt_ms), Link(MBIT, rtt_ms))
        _, address = scope.seed(torrent, image.parent, host=lab.hosts[0])
        return image, torrent, lab, address

    def row(self, scope, images, rtt_ms, limit):
        need("qemu-system-x86_64", "qemu-img")
        row = f"boot-{rtt_ms}ms"
        image, torrent, lab, address = self.ours(scope, images, rtt_ms)
        local, ours, others = [], [], {}
        for other in ALL if scope.options.with_peers else []:
            try:
                inner = scope.stack.enter_context(scope.inner(other.name))
                others[other] = (other(inner, image, *lab.hosts), [])
            except Skip as missing:
                yield Result(row, f"beside it: {other.name}", "skipped", "-", None, str(missing))
        for run in range(scope.options.runs):
            note(f"{row}: run {run + 1}: local file")
            with scope.inner("local") as inner:
                local.append(local_boot(inner, image, TIMEOUT))
            note(f"{row}: run {run + 1}: swarm ({local[-1]:.2f} s was the local file)")
            with scope.inner("swarm") as inner:
                ours.append(swarm_boot(inner, torrent, address, lab.hosts[1], TIMEOUT))
            note(f"{row}: run {run + 1}: {ours[-1][0]:.2f} s was the swarm")
            for other, times in others.values():
                # It fetches the whole image before long: once is enough to see that.
                if other.name == "btfs" and run:
                    continue
                note(f"{row}: run {run + 1}: {other.name}")
                with scope.inner(other.name) as inner:
                    limit_s = BTFS_TIMEOUT if other.name == "btfs" else TIMEOUT
                    times.append((*other.boot(inner, limit_s), limit_s))
        self.done += [done for _, done in ours]
        ratios = [seconds / base for (seconds, _), base in zip(ours, local, strict=True)]
        yield self._ours(row, rtt_ms, limit, local, ours, ratios)
        for other, times in others.values():
            yield self._other(row, other.name, local, times)

    def _ours(self, row, rtt_ms, limit, local, ours, ratios):
        done = ours[-1][1]
        return Result(
            row,
            f"boot + task, {MBIT} Mbit/s, {rtt_ms} ms round trip, fill none, against the local file",
            f"{median(ratios):.2f} x local",
            f"<= {limit} x",
            median(ratios) <= limit,
            f"local {median(local):.2f} s, swarm {median(s for s, _ in ours):.2f} s, ratios {spread(ratios)};"
            f" fetched {done['fetched_bytes'] / 1e6:.1f} MB (demand {done['demand_bytes'] / 1e6:.1f},"
            f" read-ahead {done['readahead_bytes'] / 1e6:.1f}); {done['stalls']} stalls, {done['stall_seconds']:.2f} s;"
            f" wait p50 {done['demand_p50_ms']:.1f} ms, p99 {done['demand_p99_ms']:.1f} ms",
            {"local": local, "swarm": [s for s, _ in ours], "ratios": ratios, "done": [d for _, d in ours]},
        )

    def _other(self, row, name, local, times):
        late = any(seconds is None for seconds, _, _ in times)
        ratios = [(seconds or limit) / base for (seconds, _, limit), base in zip(times, local, strict=False)]
        shown = f"> {times[-1][2]}" if late else f"{median(s for s, _, _ in times):.2f}"
        return Result(
            row,
            f"beside it: {name}",
            f"{'> ' if late else ''}{median(ratios):.2f} x local",
            "-",
            None,
            f"{shown} s, received {times[-1][1] / 1e6:.0f} MB",
            {"ratios": ratios, "seconds": [s for s, _, _ in times], "received": [r for _, r, _ in times]},
        )

    def fetched(self, scope, images):
        """What a boot fetches over what it reads; of the boots of this run, or of one more."""
        need("qemu-system-x86_64", "qemu-img")
        if not self.done:
            _, torrent, lab, address = self.ours(scope, images, 1)
            with scope.inner("swarm") as inner:
                self.done.append(swarm_boot(inner, torrent, address, lab.hosts[1], TIMEOUT)[1])
        ratios = [d["fetched_bytes"] / d["distinct_read_bytes"] for d in self.done]
        done, worst = self.done[-1], max(ratios)
        yield Result(
            "fetched",
            "fetched in a boot under fill none, over the distinct 64 KiB blocks that the guest read",
            f"{worst:.2f}",
            "<= 1.3",
            worst <= 1.3,
            f"{done['fetched_bytes'] / 1e6:.1f} MB over {done['distinct_read_bytes'] / 1e6:.1f} MB,"
            f" {done['wasted_bytes'] / 1e6:.2f} MB in vain, {done['fetched_bytes'] / done['image_bytes']:.1%} of the"
            f" image; worst of {len(ratios)} boots",
            {"ratios": ratios, "done": self.done},
        )


def spread(values):
    return " ".join(f"{value:.2f}" for value in values)


def ten_vms(scope, images):
    """Ten machines of one image in one session against one of them, a few booting at a time."""
    need("qemu-system-x86_64")
    image, torrent = images.appliance()
    costs = {}
    for count in (1, scope.options.vms):
        note(f"ten-vms: {count}")
        with scope.inner("many") as inner:
            costs[count] = many(inner, image, torrent, count)
    one, all_ = costs[1], costs[scope.options.vms]
    fetched, disk = (all_[what] / one[what] for what in ("fetched", "disk"))
    limit = 1.1
    yield Result(
        "ten-vms",
        f"{scope.options.vms} appliances of one image in one session, all booted, over one",
        f"fetched {fetched:.2f}, disk {disk:.2f}",
        f"<= {limit} each",
        max(fetched, disk) <= limit,
        f"fetched {one['fetched'] / 1e6:.1f} and {all_['fetched'] / 1e6:.1f} MB,"
        f" cache {one['disk'] / 1e6:.1f} and {all_['disk'] / 1e6:.1f} MB on disk,"
        f" guests read {one['read'] / 1e6:.0f} and {all_['read'] / 1e6:.0f} MB, seed sent {all_['sent'] / 1e6:.1f} MB",
        {"one": one, "all": all_},
    )


def many(scope, image, torrent, count):
    seed, address = scope.seed(torrent, image.parent)
    process = scope.start(
        scope.options.binaries / "many", torrent, address, scope.directory, count, name="many", events=True
    )
    mounts = [scope.directory / f"mnt-{n}" for n in range(count)]
    disks = process.wait_event("ready", 60)[1]["disks"]
    # So many at once that emulated guests don't run into their own timeouts.
    for wave in range(0, count, 3):
        with contextlib.ExitStack() as guests:
            running = []
            for disk in disks[wave : wave + 3]:
                inner = guests.enter_context(scope.inner("guest"))
                guest = Guest(inner, memory=384)
                running.append((guest, inner.start(*guest.arguments(disk))))
            for guest, vmm in running:
                guest.wait_ready(vmm, TIMEOUT)
            for guest, vmm in running:
                if status := vmm.wait(TIMEOUT):
                    raise vmm.failure(f"ended with status {status}")
    process.stop(60)
    done = process.wait_event("done", 1)[1]
    disk = sum(p.stat().st_blocks * 512 for p in (scope.directory / "cache").rglob("*") if p.is_file())
    seed.stop()
    assert not any(mount.is_mount() for mount in mounts), "the session left mounts"
    return {
        "fetched": done["fetched_bytes"],
        "disk": disk,
        "read": done["guest_read_bytes"],
        "sent": seed.wait_event("done", 1)[1]["uploaded_bytes"],
    }
