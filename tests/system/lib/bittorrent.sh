# shellcheck shell=bash
# The scripts that source this file use its variables.
# shellcheck disable=SC2034
# Runs Debian's BitTorrent clients on the hosts of netns.sh, and a download from one client to another through the
# tracker of tracker.sh. $work is the directory of the case.

lib=$(dirname "${BASH_SOURCE[0]}")

# make_torrent v1|hybrid URL: creates $work/torrent from /run/payload and prints its ids.
make_torrent() {
    local private=()
    # aria2 sends UDP announces from its DHT socket only, which it closes for private torrents.
    [[ $2 == udp:* ]] || private=(private)
    /usr/bin/python3 "$lib/bt.py" make /run/payload "$1" "$work/torrent" "$2" "${private[@]}"
}

# returns_peer ID URL PEER: succeeds if an announce to the URL, sent from the host "other", returns this peer.
returns_peer() {
    on other /usr/bin/python3 "$lib/bt.py" peers "$2" "$1" | grep -qxF "$3"
}

# start_CLIENT HOST DIRECTORY: starts a client for $work/torrent. The client downloads the data that the directory
# lacks, seeds the rest, and finds peers through the tracker only. $started is its process id.

start_transmission() {
    local home=$work/$1.transmission
    mkdir "$home" "$home/watched"
    cp "$work/torrent" "$home/watched/payload.torrent"
    echo '{ "pex-enabled": false }' >"$home/settings.json"
    start "$1" "$work/$1.log" transmission-daemon --foreground --config-dir "$home" \
        --watch-dir "$home/watched" --download-dir "$2" --peerport 6881 \
        --no-dht --no-lpd --no-utp --no-portmap --log-debug
}

start_aria2() {
    local dht=false
    # aria2 needs the DHT socket for UDP announces; its DHT has no nodes and so finds no peers.
    ! grep -aq udp: "$work/torrent" || dht=true
    start "$1" "$work/$1.log" aria2c --no-conf --dir "$2" --listen-port 6881 \
        --enable-dht="$dht" --dht-listen-port 6882 --dht-file-path="$work/$1.dht" \
        --enable-dht6=false --enable-peer-exchange=false --bt-enable-lpd=false \
        --check-integrity=true --seed-ratio=0 --file-allocation=none \
        --console-log-level=info --summary-interval=0 --show-console-readout=false "$work/torrent"
}

start_libtorrent() {
    start "$1" "$work/$1.log" /usr/bin/python3 "$lib/bt.py" run "$work/torrent" "$2"
}

start_rtorrent() {
    local home=$work/$1.rtorrent
    mkdir "$home"
    cat >"$home/rtorrent.rc" <<END
system.daemon.set = true
log.open_file = "log", "$home/rtorrent.log"
log.add_output = "info", "log"
log.add_output = "tracker_debug", "log"
session.path.set = "$home"
directory.default.set = "$2"
network.port_range.set = 6881-6881
network.port_random.set = no
dht.mode.set = disable
protocol.pex.set = no
schedule2 = load, 0, 0, "load.start=$work/torrent"
END
    start "$1" "$work/$1.log" rtorrent -n -o "import=$home/rtorrent.rc"
}

# seed ID CLIENT: starts a client that has the file and waits until the tracker counts it as a seeder. $seeding is
# its process id.
seed() {
    mkdir "$work/seed"
    cp /run/payload "$work/seed"
    "start_$2" seeder "$work/seed"
    seeding=$started
    await "$2 to seed" swarm_has "$1" complete 1
}

# leech ID CLIENT: starts a client that downloads the file from the seeder, and waits until the tracker counts the
# download. $leeching is its process id.
leech() {
    mkdir "$work/leech"
    "start_$2" leecher "$work/leech"
    leeching=$started
    await "$2 to have the file" same_file "$work/leech/payload" /run/payload
    # Debian's rtorrent does not report a completed download before its next announce.
    if [[ $2 != rtorrent ]]; then
        await "$2 to announce its completion" swarm_has "$1" complete 2
        swarm_has "$1" downloaded 1 || { echo 'the tracker does not count exactly one download'; return 1; }
    fi
}

# same_file A B: succeeds if both files exist and have the same SHA-256.
same_file() {
    [[ -e $1 && $(sha256sum <"$1") == "$(sha256sum <"$2")" ]]
}
