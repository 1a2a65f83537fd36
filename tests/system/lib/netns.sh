# shellcheck shell=bash
# Virtual hosts on private networks, built from Linux namespaces that disappear when the test ends. $net is the
# name of the current case's network.

running=()

# enter_namespaces ARGUMENT...: runs the script again, as the first process of new network, mount and process
# namespaces. However the script ends, the kernel then removes its hosts, its processes and its files in /run,
# which is where temporary files belong. An ordinary user gets a user namespace as well. INSIDE_NAMESPACES is
# the user id that started the script.
enter_namespaces() {
    if [[ -z ${INSIDE_NAMESPACES-} ]]; then
        local user=()
        ((EUID == 0)) || user=(--user --map-root-user)
        INSIDE_NAMESPACES=$EUID unshare "${user[@]}" \
            --net --mount --pid --mount-proc --fork --kill-child -- "$0" "$@" &
        # unshare ignores other signals while it waits.
        trap 'kill -KILL $!; exit 130' INT TERM
        wait $!
        exit
    fi
    mount -t tmpfs tmpfs /run
    mkdir /run/netns
    printf '%s tracker\n' 192.0.2.1 2001:db8::1 >/run/hosts
    mount --bind /run/hosts /etc/hosts
}

# make_network HOST...: creates hosts and connects them with a switch, in the network $net. The first host gets
# 192.0.2.1 and 2001:db8::1, the second .2 and ::2, and so on. Networks are not connected to each other, so all
# of them use the same addresses. Every host resolves "tracker" to both addresses of the first host.
make_network() {
    local switch=$net.switch host number=0
    ip netns add "$switch"
    # Multicast snooping would hold back IPv6 neighbor discovery.
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

# start HOST LOG COMMAND...: starts a program in the background on a host of $net and stores its process id in
# $started.
start() {
    (exec nsenter --net="/run/netns/$net.$1" -- "${@:3}") >"$2" 2>&1 </dev/null &
    started=$!
    running+=("$started")
}

# await DESCRIPTION COMMAND...: repeats a command until it succeeds. Fails when a started program has exited, or
# after a minute.
await() {
    local description=$1 deadline=$((SECONDS + 60)) pid
    shift
    until "$@"; do
        for pid in "${running[@]}"; do
            kill -0 "$pid" 2>/dev/null || { echo "a program exited while waiting for $description"; return 1; }
        done
        ((SECONDS < deadline)) || { echo "timed out waiting for $description"; return 1; }
        sleep 0.05
    done
}

# stop PID...: interrupts started programs as Ctrl-C does, kills them after ten seconds, and removes them from
# the list of running programs.
stop() {
    local pid remaining=() deadline=$((SECONDS + 10))
    kill -INT "$@" 2>/dev/null || true
    for pid; do
        while kill -0 "$pid" 2>/dev/null; do
            ((SECONDS < deadline)) || kill -KILL "$pid"
            sleep 0.05
        done
    done
    for pid in "${running[@]}"; do
        [[ " $* " == *" $pid "* ]] || remaining+=("$pid")
    done
    running=("${remaining[@]}")
}
