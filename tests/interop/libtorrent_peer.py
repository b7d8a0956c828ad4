#!/usr/bin/python3
"""A BitTorrent peer on Debian's python3-libtorrent, for the interoperability tests.

    libtorrent_peer.py make PATH TORRENT
    libtorrent_peer.py run --listen IP:PORT [--peer IP:PORT]... [--upload-limit BYTES] [--encrypted-only] [--lsd]
        [--pex] [--dht HOST:PORT] [--utp-only] DIR SOURCE...

`make` writes a v1 .torrent file of a file or a directory. `run` serves what DIR holds of the sources (.torrent files
or magnet links), fetches the rest, and goes on serving until SIGTERM. It prints one JSON event a line like
`vmtorrent --json`: ready (listen), progress (present_bytes, image_bytes, uploaded_bytes; of all torrents together,
and image_bytes is 0 while one is not known), done.
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


def settings(args):
    found = {
        "listen_interfaces": args.listen,
        "enable_dht": args.dht is not None,
        "enable_lsd": args.lsd,
        "enable_upnp": False,
        "enable_natpmp": False,
        # Where the peers speak TCP, a connection would start with a wait for uTP else.
        "enable_incoming_utp": args.utp_only,
        "enable_outgoing_utp": args.utp_only,
        "enable_incoming_tcp": not args.utp_only,
        "enable_outgoing_tcp": not args.utp_only,
        # Exchanges between three hosts shall not depend on whose turn it is to be unchoked.
        "unchoke_slots_limit": 8,
        "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification
        | lt.alert.category_t.connect_notification,
    }
    if args.dht is not None:
        found["dht_bootstrap_nodes"] = args.dht
        # All nodes of the tests' networks lie close to each other.
        found["dht_restrict_routing_ips"] = found["dht_restrict_search_ips"] = False
    if args.upload_limit:
        found["upload_rate_limit"] = args.upload_limit
    if args.encrypted_only:
        found["in_enc_policy"] = found["out_enc_policy"] = int(lt.enc_policy.pe_forced)
        found["allowed_enc_level"] = int(lt.enc_level.pe_rc4)
    return found


def add(session, source, directory, pex):
    if source.startswith("magnet:"):
        wanted = lt.parse_magnet_uri(source)
    else:
        wanted = lt.add_torrent_params()
        wanted.ti = lt.torrent_info(source)
    wanted.save_path = directory
    wanted.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    # Nobody but whom the test names.
    if not pex:
        wanted.flags |= lt.torrent_flags.disable_pex
    return session.add_torrent(wanted)


def run(args):
    ended = False

    def end(_number, _frame):
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    session = lt.session(settings(args))
    handles = [add(session, source, args.directory, args.pex) for source in args.source]

    def progress():
        states = [handle.status() for handle in handles]
        known = all(state.has_metadata for state in states)
        tell(
            "progress",
            present_bytes=sum(state.total_wanted_done for state in states),
            image_bytes=sum(state.total_wanted for state in states) if known else 0,
            uploaded_bytes=sum(state.total_payload_upload for state in states),
        )

    def log():
        for alert in session.pop_alerts():
            print(alert.message(), file=sys.stderr, flush=True)

    checking = (
        lt.torrent_status.states.checking_files,
        lt.torrent_status.states.checking_resume_data,
    )
    while any(handle.status().state in checking for handle in handles) and not ended:
        session.wait_for_alert(100)
        log()
    tell("ready", listen=args.listen)
    for peer in args.peer:
        address, port = peer.rsplit(":", 1)
        for handle in handles:
            handle.connect_peer((address, int(port)))
    while not ended:
        session.wait_for_alert(200)
        log()
        progress()
    for handle in handles:
        handle.flush_cache()
    tell("done")


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make")
    maker.add_argument("path")
    maker.add_argument("torrent")
    runner = commands.add_parser("run")
    runner.add_argument("--listen", required=True)
    runner.add_argument("--peer", action="append", default=[])
    runner.add_argument("--upload-limit", type=int)
    runner.add_argument("--encrypted-only", action="store_true")
    runner.add_argument("--lsd", action="store_true")
    runner.add_argument("--pex", action="store_true")
    runner.add_argument("--dht", metavar="HOST:PORT")
    runner.add_argument("--utp-only", action="store_true")
    runner.add_argument("directory")
    runner.add_argument("source", nargs="+")
    args = parser.parse_args()
    if args.command == "make":
        make(args.path, args.torrent)
    else:
        run(args)


if __name__ == "__main__":
    main()
