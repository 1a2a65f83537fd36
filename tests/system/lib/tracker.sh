# shellcheck shell=bash
# Starts the tracker on a host of netns.sh and queries it. $work is the directory of the case, $tbtt the program
# under test.

# start_tracker ID...: starts the tracker under test. tbtt tracks any torrent. Debian's opentracker
# (TRACKER=opentracker) is built for listed torrents and for IPv4 only, so it gets the ids.
start_tracker() {
    if [[ ${TRACKER-} == opentracker ]]; then
        printf '%.40s\n' "$@" >"$work/whitelist"
        start tracker "$work/tracker.log" opentracker -d / -w "$work/whitelist"
        await 'the tracker' ask_tracker / >/dev/null
    else
        start_tbtt '[torrents]' 'open = true'
    fi
}

# start_tbtt LINE...: starts tbtt with these lines of configuration, on port 6969 of both families and over both
# protocols, and on the HTTP address HTTP_LISTEN if that is set.
start_tbtt() {
    {
        printf '[%s]\nlisten = ["[::]:6969"%s]\n' http "${HTTP_LISTEN:+, \"$HTTP_LISTEN\"}" udp ''
        printf '%s\n' '[control]' 'listen = ""' '[daemon]' 'user = "nobody"' '[log]' 'target = "stderr"' 'level = "info"' "$@"
    } >"$work/tbtt.toml"
    # Root of a user namespace cannot change to another user, so there tbtt is started as an ordinary user.
    local as=()
    ((INSIDE_NAMESPACES == 0)) || as=(unshare --user --map-user=65534 --map-group=65534 --)
    start tracker "$work/tracker.log" "${as[@]}" "$tbtt" --config "$work/tbtt.toml"
    await 'the tracker' ask_tracker / >/dev/null
}

# ask_tracker PATH [OPTION...]: prints the tracker's HTTP response to a client on its own host. The options are curl's.
ask_tracker() {
    on tracker curl --silent --max-time 5 "${@:2}" "http://127.0.0.1:6969$1"
}

# swarm_has ID KEY NUMBER: succeeds if the torrent's scrape has this number for the key.
swarm_has() {
    # No bash pattern puts a % before each pair.
    # shellcheck disable=SC2001
    ask_tracker "/scrape?info_hash=$(sed 's/../%&/g' <<<"$1")" | LC_ALL=C grep -aq ":${2}i${3}e"
}
