"""Boots a machine from a .torrent file or a magnet link, waits for its login prompt, and shuts it down.

Use: boot.py SOURCE [--vmm NAME] [--memory 1G] [--pattern REGEX] [--timeout SECONDS] [--peer IP:PORT] [-- COMMAND...]
Without --vmm and a command, QEMU is started.
"""

import argparse

import vmtorrent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--vmm", default="qemu")
    parser.add_argument("--memory")
    parser.add_argument("--pattern", default=r"login: ")
    parser.add_argument("--timeout", type=float, default=300)
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("command", nargs="*")
    given = parser.parse_args()
    with vmtorrent.launch(
        given.source,
        vmm=given.command or given.vmm,
        memory=given.memory,
        peers=given.peer,
        ephemeral=True,
    ) as vm:
        found = vm.wait_console(given.pattern, given.timeout)
        stats = vm.stats()
        print(f"{vm.image.name} shows {found[0]!r}; {stats.fetched_bytes} bytes of {stats.image_bytes} were fetched")


if __name__ == "__main__":
    main()
