# shellcheck shell=bash
# Hosts on networks of their own, made of namespaces that vanish with the test. $net names the network
# that a case is on.

running=()

# enter_namespaces ARGUMENT...: starts the script anew as the first process of new network, mount and
# process namespaces. The kernel then clears up after it however it ends: hosts, processes and what
# lies in /run, which is where temporary files belong. Without root it takes a user namespace as well.
# INSIDE_NAMESPACES is who started it.
enter_namespaces() {
    if [[ -z ${INSIDE_NAMESPACES-} ]]; then
        local user=()
        ((EUID == 0)) || user=(--user --map-root-user)
        INSIDE_NAMESPACES=$EUID unshare "${user[@]}" \
            --net --mount --pid --mount-proc --fork --kill-child -- "$0" "$@" &
        # unshare is deaf to other signals while it waits.
        trap 'kill -KILL $!; exit 130' INT TERM
        wait $!
        exit
    fi
    mount -t tmpfs tmpfs /run
    mkdir /run/netns
    printf '%s tracker\n' 192.0.2.1 2001:db8::1 >/run/hosts
    mount --bind /run/hosts /etc/hosts
}

# make_network HOST...: joins new hosts by a switch, under the name $net. The first gets 192.0.2.1 and 2001:db8::1, the
# next .2 and ::2, and so on; networks do not touch, so each can have the same addresses. All know the
# first as "tracker" by both.
make_network() {
    local switch=$net.switch host number=0
    ip netns add "$switch"
    # Snooping would hold back the multicast that IPv6 finds its neighbours with.
    ip -n "$switch" link add switch type bridge mcast_snooping 0
    ip -n "$switch" link set switch up
    for host; do
        number=$((number + 1))
        ip netns add "$net.$host"
        ip -n "$net.$host" -batch - <<END
link set lo up
link add eth0 type veth peer name $host netns $switch
link set eth0 addrgenmode none
address add 192.0.2.$number/24 dev eth0
address add 2001:db8::$number/64 dev eth0 nodad
link set eth0 up
END
        ip -n "$switch" link set "$host" master switch up
    done
}

# on HOST COMMAND...: runs a command on a host of the network $net.
on() {
    nsenter --net="/run/netns/$net.$1" -- "${@:2}"
}

# start HOST LOG COMMAND...: starts a program on a host of $net and leaves its process id in $started.
start() {
    (exec nsenter --net="/run/netns/$net.$1" -- "${@:3}") >"$2" 2>&1 </dev/null &
    started=$!
    running+=("$started")
}

# await WHAT COMMAND...: repeats a command until it succeeds; fails when a program that was started
# has ended, or after a minute.
await() {
    local what=$1 deadline=$((SECONDS + 60)) pid
    shift
    until "$@"; do
        for pid in "${running[@]}"; do
            kill -0 "$pid" 2>/dev/null || { echo "a program ended while waiting for $what"; return 1; }
        done
        ((SECONDS < deadline)) || { echo "gave up waiting for $what"; return 1; }
        sleep 0.05
    done
}

# stop PID...: ends programs that were started as Ctrl-C would, by force after ten seconds, and forgets
# them.
stop() {
    local pid kept=() deadline=$((SECONDS + 10))
    kill -INT "$@" 2>/dev/null || true
    for pid; do
        while kill -0 "$pid" 2>/dev/null; do
            ((SECONDS < deadline)) || kill -KILL "$pid"
            sleep 0.05
        done
    done
    for pid in "${running[@]}"; do
        [[ " $* " == *" $pid "* ]] || kept+=("$pid")
    done
    running=("${kept[@]}")
}
