#!/usr/bin/python3
"""A BitTorrent peer on Debian's python3-libtorrent, for the interoperability tests.

    libtorrent_peer.py make PATH TORRENT
    libtorrent_peer.py run TORRENT DIR [--peer IP:PORT] [--lsd IP]

`make` writes a v1 .torrent file of a file or a directory. `run` serves what DIR holds of the torrent, fetches the
rest from the given peer, and goes on serving until SIGTERM. With `--lsd` it listens on that address and looks for peers
on that network. It prints one JSON event a line like `vmtorrent --json`:
ready (listen, info_hash), progress (present_bytes, image_bytes), done.
"""

import argparse
import json
import os
import signal
import sys

import libtorrent as lt


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def make(path, torrent):
    path = os.path.abspath(path)
    files = lt.file_storage()
    lt.add_files(files, path)
    made = lt.create_torrent(files, 64 * 1024, flags=lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, os.path.dirname(path))
    with open(torrent, "wb") as out:
        out.write(lt.bencode(made.generate()))


def run(torrent, directory, peer, lsd):
    host = lsd or "127.0.0.1"
    session = lt.session(
        {
            "listen_interfaces": f"{host}:0",
            "enable_dht": False,
            "enable_lsd": bool(lsd),
            "enable_upnp": False,
            "enable_natpmp": False,
            # The peers here speak TCP; without this a connection starts with a wait for uTP.
            "enable_incoming_utp": False,
            "enable_outgoing_utp": False,
            "allow_multiple_connections_per_ip": True,
            "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
        }
    )
    info = lt.torrent_info(torrent)
    handle = session.add_torrent({"ti": info, "save_path": directory})
    handle.unset_flags(lt.torrent_flags.auto_managed)
    handle.resume()

    ended = False

    def end(_number, _frame):
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)

    def progress():
        status = handle.status()
        tell("progress", present_bytes=status.total_wanted_done, image_bytes=info.total_size())
        return status

    checking = (
        lt.torrent_status.states.checking_files,
        lt.torrent_status.states.checking_resume_data,
    )
    while handle.status().state in checking and not ended:
        session.wait_for_alert(100)
        session.pop_alerts()
    tell(
        "ready",
        listen=f"{host}:{session.listen_port()}",
        info_hash=str(info.info_hashes().v1),
    )
    if peer:
        address, port = peer.rsplit(":", 1)
        handle.connect_peer((address, int(port)))
    while not ended:
        session.wait_for_alert(200)
        for alert in session.pop_alerts():
            if alert.category() & lt.alert.category_t.error_notification:
                print(alert.message(), file=sys.stderr, flush=True)
        progress()
    progress()
    handle.flush_cache()
    tell("done")


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make")
    maker.add_argument("path")
    maker.add_argument("torrent")
    runner = commands.add_parser("run")
    runner.add_argument("torrent")
    runner.add_argument("directory")
    runner.add_argument("--peer")
    runner.add_argument("--lsd")
    args = parser.parse_args()
    if args.command == "make":
        make(args.path, args.torrent)
    else:
        run(args.torrent, args.directory, args.peer, args.lsd)


if __name__ == "__main__":
    main()
