"""Cases: lack of descriptors, memory or disk space; faults of the log receiver, the clock and network addresses."""

import contextlib
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import threading

import harness
from attack import LISTED, OPEN, source, try_announce, under_load
from harness import PORT, TRACKER, Daemon, LegitimateClients, SpoofingSocket, TestFailed, expect, wait_until


def descriptor_limit(tbtt, place, _full):
    """no file descriptors left"""
    state = place / "state"
    state.mkdir()
    shutil.chown(state, "nobody")
    settings = LISTED | {"state": {"directory": str(state)}, "http": {"header_timeout": 3, "idle_timeout": 3}}

    def fill(count):
        """Opens connections that stay open until their timeout."""
        socks = [harness.connect_from(source(number), TRACKER, wait=False) for number in range(count)]
        for sock in socks:
            with contextlib.suppress(OSError):
                select.select([], [sock], [], 1)
                sock.send(b"GET /")
        return socks

    with under_load(tbtt, place, settings, limits={"nofile": 200}) as daemon:
        # New HTTP connections are closed at once, but other operations still get a descriptor.
        with LegitimateClients(http=False) as over_udp:
            socks = fill(400)
            wait_until("the connection limit to be reached", lambda: daemon.status()["connections"] == 200 - 64)
            over_limit = daemon.status()["connections_over_limit"]
            daemon.save()
            daemon.reload()
        wait_until("a response over HTTP", lambda: try_announce(TRACKER))
        summary = f"{over_limit} closed, {over_udp.check()}"
        for sock in socks:
            sock.close()
        wait_until("the connections to be closed", lambda: daemon.status()["connections"] == 0)
        # Lower the limit below the number of descriptors that the daemon reserved at start.
        with LegitimateClients(http=False) as over_udp:
            limit = daemon.descriptors() + 10
            command = ["prlimit", f"--pid={daemon.pid}", f"--nofile={limit}:{limit}"]
            # In some containers root must not change the limits of other users, but every user can lower the limits of their own processes.
            own = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            subprocess.run(command, check=True, **(own if os.environ["INSIDE_NAMESPACES"] == "0" else {}))
            socks = fill(100)
            wait_until("accept to fail", lambda: daemon.descriptors() >= limit)
            # Saving and reloading need a descriptor; both log the failure and change nothing.
            daemon.signal(signal.SIGUSR1)
            daemon.signal(signal.SIGHUP)
            wait_until("the log lines", lambda: daemon.count_in_log("cannot save the state") and daemon.count_in_log("reload failed"))
            wait_until("a response over HTTP", lambda: try_announce(TRACKER))
        for sock in socks:
            sock.close()
        wait_until("the connections to be closed", lambda: daemon.status()["connections"] == 0)
        daemon.reload()
        daemon.save()
        errors = daemon.status()["accept_errors"]
        expect(errors, "no accept failed")
    return f"{summary}; {errors} failed accepts, {over_udp.check()}; {daemon.usage}"


def memory_limit(tbtt, place, _full):
    """too little memory"""
    state = place / "state"
    state.mkdir()
    shutil.chown(state, "nobody")
    # Bytes of data: what the daemon needs at start, and some memory for peers.
    limit = 24 << 20
    common = OPEN | {"state": {"directory": str(state)}, "tracker": {"workers": 2}}

    def announce_torrents(daemon, torrents):
        """Announces new torrents until all are sent or the daemon has exited."""
        spoofer = SpoofingSocket()
        ids = spoofer.connection_ids(range(1, 2 + torrents // 1000))
        try:
            for n in range(torrents):
                spoofer.send(1 + n // 1000, harness.udp_announce(ids[1 + n // 1000], n, b"%020d" % n))
                if n % 100 == 99:
                    spoofer.sock.settimeout(0.05)
                    with contextlib.suppress(TimeoutError):
                        for _ in range(100):
                            spoofer.sock.recv(4096)
                if n % 1000 == 999 and daemon.process.poll() is not None:
                    return
        except ConnectionRefusedError:
            return

    bounded = common | {"limits": {"max_torrents": 20_000, "max_peers": 20_000, "table_entries": 1024}}
    with Daemon(tbtt, place / "bounded", bounded, limits={"data": limit}) as daemon:
        with LegitimateClients() as clients:
            announce_torrents(daemon, 40_000)
        summary = clients.check()
        expect(daemon.status()["torrents"] >= 19_000, "too few torrents were announced")
        daemon.stop()
    shutil.rmtree(state)
    state.mkdir()
    shutil.chown(state, "nobody")
    with Daemon(tbtt, place / "unbounded", common, limits={"data": limit}) as daemon:
        harness.announce(b"kept after the abort")
        daemon.save()
        announce_torrents(daemon, 600_000)
        status = wait_until("the daemon to exit", lambda: daemon.process.poll(), 30)
        expect(status in (-signal.SIGABRT, -signal.SIGSEGV), "the daemon exited with", status)
        daemon.start()
        expect(daemon.count_in_log("state restored"), "the state was not restored:", daemon.log_text())
    summary = f"with suitable limits {summary}; without limits, the allocator aborts (signal {-status}), and a restart restores the state"
    shutil.rmtree(state)
    state.mkdir()
    shutil.chown(state, "nobody")
    with harness.memory_cgroup(limit) as group:
        if not group:
            return f"{summary}; skipped the out-of-memory kill: cannot create a control group (v2) with a memory limit"
        with Daemon(tbtt, place / "grouped", common, group=group) as daemon:
            announce_torrents(daemon, 10_000)
            saved = daemon.save()
            announce_torrents(daemon, 600_000)
            status = wait_until("the daemon to exit", lambda: daemon.process.poll(), 30)
            expect(status == -signal.SIGKILL, "the daemon exited with", status)
            events = (group / "memory.events").read_text()
            expect(re.search(r"(?m)^oom_kill [1-9]", events), "the kernel did not kill it:", events)
            daemon.start()
            log, restored = daemon.log_text(), daemon.status()
            expect("state restored" in log and " error " not in log, log)
            # Daemon.start announces, which may add a torrent and a peer.
            added = {name: restored[name] - saved[name] for name in ("torrents", "peers")}
            expect(all(more in (0, 1) for more in added.values()), saved, "were saved, but", restored, "restored")
    return f"{summary}; in a control group the kernel kills it, and a restart restores all {saved['peers']} peers of the snapshot"


def full_disk(tbtt, place, _full):
    """a full disk"""
    state = place / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=777", "tmpfs", str(state)], check=True)
    settings = OPEN | {"state": {"directory": str(state)}}
    with under_load(tbtt, place, settings) as daemon:
        daemon.save()
        saved = (state / "snapshot").read_bytes()
        filler = state / "filler"
        with LegitimateClients() as clients:
            with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            for round in range(1, 4):
                harness.announce(b"%020d" % round)
                with contextlib.suppress(TestFailed):
                    daemon.save()
                expect(daemon.count_in_log("cannot save the state") == round, "the failure is not logged")
        expect((state / "snapshot").read_bytes() == saved, "the previous snapshot has changed")
        expect(sorted(os.listdir(state)) == ["filler", "snapshot"], "files in the state directory:", os.listdir(state))
        filler.unlink()
        daemon.save()
        summary = clients.check()
        line = next(line for line in daemon.log_text().splitlines() if "cannot save the state" in line)
        expect("No space left" in line, line)
    return f"the previous snapshot is kept, and replaced when there is space again; {summary}; {daemon.usage}"


def hanging_log_receiver(tbtt, place, _full):
    """a hanging receiver of the log"""
    verbose = {"log": {"level": "debug", "announces": True}}
    report = []
    # A pipe that is not read, as with a service manager that hangs.
    read, write = os.pipe()
    with Daemon(tbtt, place / "pipe", OPEN | verbose, stderr=write) as daemon:
        os.close(write)
        with LegitimateClients() as clients:
            spoofer = SpoofingSocket()
            ids = spoofer.connection_ids(range(1, 101))
            responses = spoofer.exchange((1 + n % 100, n, harness.udp_announce(ids[1 + n % 100], n)) for n in range(20_000))
            expect(sum(response[:4] == b"\0\0\0\1" for _, response in responses) == 20_000, "announces got no response")
        report.append(f"pipe: {clients.check()}")
        lines = [b""]
        reader = threading.Thread(target=lambda: lines.extend(iter(lambda: os.read(read, 65536), b"")))
        reader.start()
        harness.announce()
        daemon.stop()
        reader.join()
        text = b"".join(lines).decode()
        time_of = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
        announced = r"info announced protocol=(?:udp|http) client=- info_hash=[0-9a-f]{40} event=\w+ complete=(?:true|false)"
        complete_line = re.compile(rf"{time_of} (?:{announced}|(?!info announced)(?:error|warning|notice|info|debug) .+)")
        incomplete = [line for line in text.split("\n")[:-1] if not complete_line.fullmatch(line)]
        expect(text.endswith("\n") and not incomplete, "incomplete lines:", incomplete[:3])
        dropped = sum(map(int, re.findall(r"log lines dropped dropped=(\d+)", text)))
        expect(dropped > 10_000, "only", dropped, "lines are counted as dropped:", text[-500:])
        expect("stopped" in text, "the stop is not logged")
        report.append(f"{dropped} lines dropped and counted, no line cut")
    os.close(read)
    # A syslog socket: the test needs its own /dev/log, so it mounts its own /dev.
    device = place / "dev"
    device.mkdir()
    for name in ("null", "urandom", "random", "zero"):
        (device / name).touch()
        subprocess.run(["mount", "--bind", f"/dev/{name}", str(device / name)], check=True)
    subprocess.run(["mount", "--rbind", str(device), "/dev"], check=True)
    try:
        syslog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        syslog.bind("/dev/log")
        os.chmod("/dev/log", 0o666)
        with Daemon(tbtt, place / "syslog", OPEN | {"log": verbose["log"] | {"target": "syslog"}}, stderr=subprocess.DEVNULL) as daemon:
            with LegitimateClients() as clients:
                spoofer = SpoofingSocket()
                ids = spoofer.connection_ids(range(1, 101))
                responses = spoofer.exchange((1 + n % 100, n, harness.udp_announce(ids[1 + n % 100], n)) for n in range(20_000))
                expect(sum(response[:4] == b"\0\0\0\1" for _, response in responses) == 20_000, "announces got no response")
            report.append(f"syslog: {clients.check()}")
            # The socket is removed and created again.
            syslog.close()
            os.unlink("/dev/log")
            harness.announce()
            syslog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            syslog.bind("/dev/log")
            os.chmod("/dev/log", 0o666)
            syslog.settimeout(harness.TIMEOUT)
            wait_until("a line at the new socket", lambda: harness.announce() and select.select([syslog], [], [], 0.1)[0])
            expect(b"tbtt[" in syslog.recv(8192), "the line is not from tbtt")
            daemon.stop()
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", "/dev"], check=True)
    return "; ".join(report)


def clock_changes(tbtt, place, _full):
    """the clock set forward and back"""
    found = list(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    expect(found, "libfaketime is not installed")
    state = place / "state"
    state.mkdir()
    shutil.chown(state, "nobody")
    (place / "daemon").mkdir()
    offset = place / "daemon" / "clock-offset"
    offset.write_text("+0")
    environment = {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        # An administrator cannot set the monotonic clock.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    settings = OPEN | {"state": {"directory": str(state)}, "tracker": {"peer_timeout": 2700}}
    with Daemon(tbtt, place / "daemon", settings, environment=environment) as daemon:
        spoofer = SpoofingSocket()
        numbers = range(1, 1001)
        ids = spoofer.connection_ids(numbers)
        list(spoofer.exchange((n, n, harness.udp_announce(ids[n], n)) for n in numbers))
        peers = daemon.status()["peers"]
        expect(peers >= 1000, peers)
        with LegitimateClients() as clients:
            for step in ["+1d", "-1d", "+400d", "-9000d", "-20000d", "+0", "+3h", "+0"]:
                offset.write_text(step)
                # The connection ids stay valid.
                responses = spoofer.exchange((n, n, harness.udp_announce(ids[n], n)) for n in numbers)
                expect(sum(response[:4] == b"\0\0\0\1" for _, response in responses) == 1000, "announces got no response at", step)
                expect(daemon.save()["peers"] >= peers, "peers were lost at", step)
        summary = clients.check()
        # A snapshot that was saved in the future is restored without losing peers.
        offset.write_text("+2h")
        daemon.save()
        daemon.process.kill()
        daemon.process.wait()
        offset.write_text("+0")
        daemon.start()
        expect(daemon.count_in_log("state restored"), daemon.log_text())
        expect(daemon.status()["peers"] >= peers, "peers were lost because the clock was set back")
    return f"8 steps of up to 55 years, and a snapshot from the future: {peers:.0f} peers kept; {summary}"


def removed_addresses(tbtt, place, _full):
    """addresses removed and added again"""

    def ip(command):
        subprocess.run(["ip", *command.split()], check=True)

    ip("link add outer type veth peer name inner")
    ip("link set inner up")
    ip("address add 192.0.2.1/24 dev outer")
    ip("link set outer up")
    report = []
    # Listen on the address, and on all addresses.
    for listen in ([f"192.0.2.1:{PORT}", f"127.0.0.1:{PORT}"], [f"[::]:{PORT}"]):
        settings = OPEN | {"http": {"listen": listen}, "udp": {"listen": listen}}
        (place / str(len(listen))).mkdir()
        address = ("192.0.2.1", PORT)
        with under_load(tbtt, place / str(len(listen)), settings):
            held = harness.connect_from("192.0.2.1", address)
            with LegitimateClients() as clients:
                for _ in range(5):
                    ip("address del 192.0.2.1/24 dev outer")
                    with contextlib.suppress(OSError):
                        harness.announce(to=address)
                        raise TestFailed("the removed address still works")
                    ip("link set outer down")
                    ip("link set outer up")
                    ip("address add 192.0.2.1/24 dev outer")
                    harness.announce(source="192.0.2.1", to=address)
                    harness.announce_udp(source="192.0.2.1", to=address)
            held.close()
            report.append(f"{', '.join(listen)}: {clients.check()}")
    ip("link del outer")
    return "; ".join(report)
