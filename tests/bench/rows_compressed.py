"""A boot over a slow line with blocks that go compressed, against one with plain blocks."""

from child import Failure, cpu_seconds
from guest import Guest
from lab import Link
from measure import median
from result import Result
from rows_boot import TIMEOUT, spread
from rows_profile import APPLIANCES, NO_AUTO
from scope import need, note

WAYS = ("off", "on")
# Of what the guest waits for, and of the host's processor time for the boot.
MOST_WAITING, MOST_CPU = 0.6, 1.10


def boot(scope, known, address, host, *arguments):
    """Seconds to READY, the processor seconds of the launch and of its QEMU until then, and the final counters."""
    guest = Guest(scope)
    vmm = guest.arguments("{disk}")
    launch = scope.launch(known.torrent, *arguments, peers=[address], vmm=vmm, host=host, wait=False)
    taken = guest.wait_ready(launch.child, TIMEOUT) - launch.child.started
    cpu = launch.child.cpu_seconds(), cpu_seconds(int(guest.pidfile.read_text()))
    if status := launch.child.wait(60):
        raise launch.child.failure(f"ended with status {status}")
    done = launch.child.wait_event("done", 1)[1]
    if done["stalls"] == 0:
        raise Failure("no read waited: this was no boot from a swarm")
    return taken, cpu, done


def compressed(profiles, scope, images, mbit, rtt_ms):
    """Boots with a profile, with compression and without, by turns."""
    need("qemu-system-x86_64")
    for name in APPLIANCES:
        with scope.inner(name) as inner:
            yield compared(inner, name, profiles.of(images, name), mbit, rtt_ms)


def compared(scope, name, known, mbit, rtt_ms):
    """The row's result for an appliance."""
    row = f"compressed-{mbit}mbit"
    runs = {way: [] for way in WAYS}
    for run in range(scope.options.runs):
        # Each way is the first in turn.
        for way in WAYS if run % 2 == 0 else WAYS[::-1]:
            with scope.inner(f"{way}-{run}") as inner:
                lab = inner.lab(Link(mbit, rtt_ms, remote=True), Link(mbit, rtt_ms))
                # A seed for each, so that none finds what another has compressed.
                seed, address = inner.seed(
                    known.torrent, known.image.parent, "--compression", way, host=lab.hosts[0]
                )
                before = seed.cpu_seconds()
                arguments = ("--profile", known.profile, "--compression", way, *NO_AUTO)
                seconds, (launch, vmm), done = boot(inner, known, address, lab.hosts[1], *arguments)
                sent = seed.cpu_seconds() - before
            runs[way].append({"seconds": seconds, "launch": launch, "vmm": vmm, "seed": sent, "done": done})
            note(f"{row}: {name}: run {run + 1}: compression {way}: {seconds:.2f} s, {done['stall_seconds']:.2f} s of waiting")
    plain, packed = (runs[way] for way in WAYS)

    def ratios(figure):
        return [figure(on) / figure(off) for off, on in zip(plain, packed, strict=True)]

    waiting = ratios(lambda run: run["done"]["stall_seconds"])
    cpu = ratios(lambda run: run["launch"] + run["vmm"])
    whole = ratios(lambda run: run["seconds"])
    last, least = packed[-1], plain[-1]
    done = last["done"]
    return Result(
        row,
        f"a boot of {name} with its profile, {mbit} Mbit/s, {rtt_ms} ms round trip, fill none, blocks compressed over"
        " the same with plain ones: what the guest waits, and the host's processor time",
        f"{median(waiting):.2f} x waiting, {median(cpu):.2f} x CPU",
        f"<= {MOST_WAITING} x, <= {MOST_CPU} x",
        median(waiting) <= MOST_WAITING and median(cpu) <= MOST_CPU,
        f"boots {spread(r['seconds'] for r in plain)} s plain, {spread(r['seconds'] for r in packed)} s compressed"
        f" ({median(whole):.2f} x); waiting {spread(r['done']['stall_seconds'] for r in plain)} and"
        f" {spread(r['done']['stall_seconds'] for r in packed)} s; fetched {done['fetched_bytes'] / 1e6:.1f} MB,"
        f" {done['fetched_wire_bytes'] / 1e6:.1f} MB on the wire"
        f" ({done['fetched_wire_bytes'] / done['fetched_bytes']:.2f}); CPU of the launch {least['launch']:.2f} and"
        f" {last['launch']:.2f} s, of QEMU {least['vmm']:.1f} and {last['vmm']:.1f} s,"
        f" of the seed {least['seed']:.2f} and {last['seed']:.2f} s",
        {"appliance": name, "runs": runs, "waiting": waiting, "cpu": cpu, "seconds": whole},
    )
