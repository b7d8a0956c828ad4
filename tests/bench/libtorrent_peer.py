#!/usr/bin/python3
"""A seeder or leecher on libtorrent, for the row `download`. Needs Debian's python3-libtorrent.

    libtorrent_peer.py seed TORRENT DIR
    libtorrent_peer.py fetch TORRENT DIR IP:PORT

Prints JSON events: ready (listen), and for fetch complete (seconds since the peer was named). Runs until SIGTERM.
"""

import json
import signal
import sys
import time

import libtorrent as lt


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def main():
    command, torrent, directory, *peer = sys.argv[1:]
    session = lt.session(
        {
            "listen_interfaces": "127.0.0.1:0",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "enable_incoming_utp": False,
            "enable_outgoing_utp": False,
            "allow_multiple_connections_per_ip": True,
            "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
        }
    )
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = directory
    parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if command == "seed":
        # Pieces are hashed when they are first asked for, as our seed does.
        parameters.flags |= lt.torrent_flags.seed_mode
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    handle = session.add_torrent(parameters)
    checking = (lt.torrent_status.states.checking_files, lt.torrent_status.states.checking_resume_data)
    while handle.status().state in checking and not ended:
        session.wait_for_alert(20)
        session.pop_alerts()
    tell("ready", listen=f"127.0.0.1:{session.listen_port()}")
    begin = time.monotonic()
    if command == "fetch":
        address, port = peer[0].rsplit(":", 1)
        handle.connect_peer((address, int(port)))
    told = False
    while not ended:
        session.wait_for_alert(1000 if told else 50)
        for alert in session.pop_alerts():
            if alert.category() & lt.alert.category_t.error_notification:
                print(alert.message(), file=sys.stderr, flush=True)
        if command == "fetch" and not told and handle.status().is_finished:
            tell("complete", seconds=time.monotonic() - begin)
            told = True


if __name__ == "__main__":
    main()
