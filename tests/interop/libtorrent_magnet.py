#!/usr/bin/python3
"""libtorrent starts from a magnet link, for the interoperability tests.

    libtorrent_magnet.py LINK DIR

Fetches the metadata from the peers that the link names (x.pe), then the content into DIR, and goes on until SIGTERM.
It prints one JSON event a line like `vmtorrent --json`: progress (present_bytes, image_bytes), done.
"""

import json
import signal
import sys

import libtorrent as lt

SETTINGS = {
    "listen_interfaces": "127.0.0.1:0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    # The peers here speak TCP; without this a connection starts with a wait for uTP.
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
}


def main():
    link, directory = sys.argv[1:]
    ended = False

    def end(_number, _frame):
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    session = lt.session(SETTINGS)
    wanted = lt.parse_magnet_uri(link)
    wanted.save_path = directory
    wanted.flags &= ~lt.torrent_flags.auto_managed
    wanted.flags &= ~lt.torrent_flags.paused
    handle = session.add_torrent(wanted)
    while not ended:
        session.wait_for_alert(200)
        for alert in session.pop_alerts():
            if alert.category() & lt.alert.category_t.error_notification:
                print(alert.message(), file=sys.stderr, flush=True)
        status = handle.status()
        if status.has_metadata:
            tell = {"present_bytes": status.total_wanted_done, "image_bytes": status.torrent_file.total_size()}
            print(json.dumps({"event": "progress", **tell}), flush=True)
    handle.flush_cache()
    print(json.dumps({"event": "done"}), flush=True)


if __name__ == "__main__":
    main()
