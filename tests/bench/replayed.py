"""Launches whose guest is a replay of the reads of a boot, at its pace."""

from rows_boot import TIMEOUT


class Play:
    """A launch whose guest is a replay."""

    def __init__(self, child):
        self.child = child

    def wait_over(self, seconds=TIMEOUT):
        """Seconds from the start until the last read was answered and all was put away, and the final counters."""
        if status := self.child.wait(seconds):
            raise self.child.failure(f"ended with status {status}")
        at, done = self.child.wait_event("done", 1)
        return at - self.child.started, done


def play(scope, torrent, trace, peers, *arguments, host=None):
    vmm = [scope.vmtorrent, "replay", trace, "--disk", "{disk}", "--json"]
    launch = scope.launch(torrent, *arguments, peers=peers, vmm=vmm, host=host, wait=False)
    return Play(launch.child)
