#!/usr/bin/python3
"""Creates torrents, seeds or downloads them with libtorrent, and asks a tracker for peers.

bt.py make FILE v1|hybrid TORRENT URL [private]
                                       writes a torrent; prints its v1 id and, if it is hybrid, its v2 id
bt.py run TORRENT DIRECTORY            seeds or downloads over both families until SIGINT
bt.py check TORRENT DIRECTORY          prints the v1 and v2 ids ("-" for a missing one) if the directory has
                                       all of the data; fails otherwise
bt.py peers URL ID                     announces over HTTP; prints each peer as ADDRESS PORT
"""

import ipaddress
import os
import signal
import sys
import time
import urllib.parse
import urllib.request

import libtorrent as lt


def make(path, version, torrent, url, private=None):
    files = lt.file_storage()
    lt.add_files(files, path)
    flags = lt.create_torrent.v1_only if version == "v1" else 0
    new = lt.create_torrent(files, 65536, flags)
    new.add_tracker(url)
    # Clients take the peers of a private torrent from the tracker only, regardless of their settings.
    new.set_priv(private == "private")
    lt.set_piece_hashes(new, os.path.dirname(path))
    with open(torrent, "wb") as out:
        out.write(lt.bencode(new.generate()))
    ids = lt.torrent_info(torrent).info_hashes()
    print(ids.v1)
    if version == "hybrid":
        print(ids.v2)


def run(torrent, directory):
    stopping = []
    signal.signal(signal.SIGINT, lambda *_: stopping.append(True))
    categories = lt.alert.category_t
    session = lt.session(
        {
            "listen_interfaces": "eth0:6881",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            # libtorrent would try uTP first, and lose seconds with peers that do not support it.
            "enable_outgoing_utp": False,
            "alert_mask": categories.error_notification
            | categories.status_notification
            | categories.tracker_notification
            | categories.connect_notification,
        },
        # Peer exchange is a plugin; 0 loads no plugins.
        flags=0,
    )
    session.add_torrent({"ti": lt.torrent_info(torrent), "save_path": directory})
    while not stopping:
        print_alerts(session)
    # Wait for the response to the "stopped" announce: over UDP, a destroyed session does not wait for it.
    session.pause()
    paused, unanswered, deadline = False, 0, time.monotonic() + 5
    while (not paused or unanswered) and time.monotonic() < deadline:
        for alert in print_alerts(session):
            paused |= isinstance(alert, lt.torrent_paused_alert)
            unanswered += isinstance(alert, lt.tracker_announce_alert)
            unanswered -= isinstance(alert, (lt.tracker_reply_alert, lt.tracker_error_alert))


def check(torrent, directory):
    session = lt.session({"listen_interfaces": "", "enable_dht": False, "enable_lsd": False})
    info = lt.torrent_info(torrent)
    checked = session.add_torrent({"ti": info, "save_path": directory})
    deadline = time.monotonic() + 60
    busy = lt.torrent_status.states.checking_files, lt.torrent_status.states.checking_resume_data
    while checked.status().state in busy:
        if time.monotonic() > deadline:
            sys.exit("libtorrent did not finish checking the files")
        session.wait_for_alert(100)
        session.pop_alerts()
    status = checked.status()
    if status.errc.value() or not status.is_seeding:
        sys.exit(f"libtorrent misses {status.total_wanted - status.total_wanted_done} bytes: {status.errc.message()}")
    ids = info.info_hashes()
    print(ids.v1 if ids.has_v1() else "-", ids.v2 if ids.has_v2() else "-")


def print_alerts(session):
    session.wait_for_alert(100)
    alerts = session.pop_alerts()
    for alert in alerts:
        print(alert, flush=True)
    return alerts


def peers(url, torrent_id):
    query = {
        "info_hash": bytes.fromhex(torrent_id),
        "peer_id": b"-XX0000-other client",
        "port": 9,
        "uploaded": 0,
        "downloaded": 0,
        "left": 1,
        "compact": 1,
    }
    # The tracker does not decode "+" as a space, so a space must be encoded as %20.
    query = urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
    with urllib.request.urlopen(f"{url}?{query}", timeout=5) as reply:
        answer = lt.bdecode(reply.read())
    for key, size in (b"peers", 6), (b"peers6", 18):
        records = answer.get(key, b"")
        for at in range(0, len(records), size):
            record = records[at : at + size]
            print(ipaddress.ip_address(record[:-2]), int.from_bytes(record[-2:], "big"))


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"make": make, "run": run, "check": check, "peers": peers}[command](*arguments)
