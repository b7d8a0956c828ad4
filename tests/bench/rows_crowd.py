"""Guests that come at once: replays of a boot from one seed and each other, and whole downloads."""

import time

from lab import Link
from measure import median
from pristine import piece_length
from replayed import play
from result import Result
from rows_boot import spread
from rows_profile import NO_AUTO
from scope import MIB, free_port, need, note

RTT_MS = 1
# Of a crowd with a profile, and without: the slowest over one alone. And what the seed sends over what one needs, with it.
SLOWEST, SLOWEST_BARE, SENT = 1.25, 2, 3


def crowd(profiles, scope, images, guests, bare=False):
    """Guests that start in the same second and read what a boot of the demo read, from one seed and each other."""
    need("qemu-system-x86_64")
    row = f"crowd-{guests}{'-bare' if bare else ''}"
    known = profiles.of(images, "demo")
    ratios, sent, found = [], [], []
    for run in range(scope.options.runs):
        one = together(scope, known, 1, bare)
        note(f"{row}: run {run + 1}: {one['seconds'][0]:.2f} s was one alone")
        all_ = together(scope, known, guests, bare)
        note(f"{row}: run {run + 1}: {spread(all_['seconds'])} s were all")
        ratios.append(max(all_["seconds"]) / one["seconds"][0])
        sent.append(all_["sent"] / one["done"][0]["fetched_bytes"])
        found.append({"one": one, "all": all_})
    one, all_ = found[-1]["one"], found[-1]["all"]
    fetched = one["done"][0]["fetched_bytes"]
    slowest, uploaded = median(ratios), median(sent)
    met = slowest <= SLOWEST_BARE if bare else slowest <= SLOWEST and uploaded <= SENT
    yield Result(
        row,
        f"{guests} guests at once from one seed, all lines {scope.options.mbit} Mbit/s, {RTT_MS} ms, replays of a boot"
        f" {'without a' if bare else 'with its'} profile: the slowest over one alone, and what the seed sent over what"
        " one needs",
        f"{slowest:.2f} x, {uploaded:.2f} x",
        f"<= {SLOWEST_BARE} x" if bare else f"<= {SLOWEST} x, <= {SENT} x",
        met,
        f"alone {one['seconds'][0]:.2f} s with {fetched / 1e6:.1f} MB; together {spread(sorted(all_['seconds']))} s,"
        f" seed sent {all_['sent'] / 1e6:.1f} MB, guests {sum(d['uploaded_bytes'] for d in all_['done']) / 1e6:.1f} MB;"
        f" the lab took {all_['network']:.1f} CPU s, the seed {all_['seed_cpu']:.1f}; the processors were busy for"
        f" {all_['busy']:.0%} of the time",
        {"ratios": ratios, "sent": sent, "runs": found},
    )


def hosts_of(scope, count):
    """A lab with a seed's host, which is the first, and so many others."""
    mbit = scope.options.mbit
    return scope.lab(Link(mbit, RTT_MS, remote=True), *(Link(mbit, RTT_MS) for _ in range(count)))


def together(scope, known, guests, bare):
    """Seconds and counters of so many replays at once, and what their seed sent."""
    with scope.inner(f"crowd-{guests}") as inner:
        lab = hosts_of(inner, guests)
        seed, address = inner.seed(known.torrent, known.image.parent, host=lab.hosts[0])
        places = [f"{host.address}:{free_port()}" for host in lab.hosts[1:]]
        # Without a profile none must come from a peer either.
        profile = ["--no-profile-exchange"] if bare else ["--profile", known.profile]
        before, ticks = lab.cpu_seconds(), busy_ticks()
        running = [
            play(
                inner, known.torrent, known.trace, [address, *(p for p in places if p != place)],
                "--listen", place, *profile, *NO_AUTO, host=host,
            )
            for host, place in zip(lab.hosts[1:], places, strict=True)
        ]  # fmt: skip
        over = [one.wait_over() for one in running]
        busy = busy_share(ticks)
        network, seed_cpu = lab.cpu_seconds() - before, seed.cpu_seconds()
        seed.stop()
        return {
            "seconds": [seconds for seconds, _ in over],
            "done": [done for _, done in over],
            "sent": seed.wait_event("done", 1)[1]["uploaded_bytes"],
            "network": network,
            "seed_cpu": seed_cpu,
            "busy": busy,
        }


def busy_ticks():
    """Busy and idle time of this machine's processors so far."""
    with open("/proc/stat") as file:
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return user + nice + system + irq + softirq + steal, idle + iowait


def busy_share(before):
    """What part of the time since then they were busy: when it nears 1, hosts wait for them that have their own in a real
    network."""
    used, idle = (now - then for now, then in zip(busy_ticks(), before, strict=True))
    return used / (used + idle)


def whole(scope, images, leechers):
    """The whole image to several hosts from one seed and each other, over the least time that the lines allow."""
    row = f"full-{leechers}"
    image, torrent = images.random(min(scope.options.size, 256))
    length = image.stat().st_size
    pieces = -(-length // piece_length(torrent))
    rate = scope.options.mbit * 1e6 / 8
    bound = max(length / rate, leechers * length / ((leechers + 1) * rate))
    times, sent, busy = [], [], []
    for run in range(scope.options.runs):
        with scope.inner(row) as inner:
            lab = hosts_of(inner, leechers)
            seed, address = inner.seed(torrent, image.parent, host=lab.hosts[0])
            places = [f"{host.address}:{free_port()}" for host in lab.hosts[1:]]
            launches = [
                inner.launch(
                    torrent, "--listen", place, peers=[address, *(p for p in places if p != place)], fill="full",
                    host=host, wait=False,
                )
                for host, place in zip(lab.hosts[1:], places, strict=True)
            ]  # fmt: skip
            begin, ticks = min(launch.child.started for launch in launches), busy_ticks()
            ends = {}
            for launch in launches:
                launch.wait_ready()
            while len(ends) < leechers:
                for number, launch in enumerate(launches):
                    if number not in ends and launch.present_pieces() == pieces:
                        ends[number] = time.monotonic() - begin
                if time.monotonic() - begin > 20 * bound:
                    raise launches[0].child.failure(f"{leechers - len(ends)} of {leechers} were not complete in time")
                time.sleep(0.05)
            busy.append(busy_share(ticks))
            seed.stop()
            times.append(max(ends.values()))
            sent.append(seed.wait_event("done", 1)[1]["uploaded_bytes"])
        note(f"{row}: run {run + 1}: {spread(sorted(ends.values()))} s")
    ratio = median(times) / bound
    yield Result(
        row,
        f"{length / MIB:.0f} MiB that nothing compresses to {leechers} hosts at once from one seed, all lines"
        f" {scope.options.mbit} Mbit/s, {RTT_MS} ms: the last one's time over the fluid bound",
        f"{ratio:.2f} x",
        "<= 1.15 x",
        ratio <= 1.15,
        f"bound {bound:.2f} s for the bytes of the image alone, last {spread(times)} s,"
        f" the last run's {spread(sorted(ends.values()))} s; the seed sent {median(sent) / length:.2f} times the image;"
        f" the processors were busy for {median(busy):.0%} of the time",
        {"times": times, "bound": bound, "sent": sent, "busy": busy},
    )
