"""Publishes a file and seeds it, in a process of its own, until its standard input ends. Prints one line of JSON.

Use: seeding.py FILE [UPLOAD_LIMIT]
"""

import json
import sys
from pathlib import Path

import vmtorrent


def main() -> None:
    disk = Path(sys.argv[1])
    limit = int(sys.argv[2]) if len(sys.argv) > 2 else None
    image = vmtorrent.publish(disk)
    with vmtorrent.seed(
        image, disk.parent, listen="127.0.0.1:0", local_discovery=False, upload_limit=limit
    ) as seed:
        torrent = disk.with_suffix(".torrent")
        image.save(torrent)
        told = {"magnet": seed.magnet, "peer": seed.listen_address, "torrent": str(torrent)}
        print(json.dumps(told), flush=True)
        sys.stdin.read()
    print(json.dumps({"uploaded": seed.stats().uploaded_bytes}), flush=True)


if __name__ == "__main__":
    main()
