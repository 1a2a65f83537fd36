"""Runs the tracker under test in private namespaces, reads its state, and runs legitimate clients and spoofing senders."""

import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.parse

PORT = 6969
TRACKER = ("127.0.0.1", PORT)
# The source addresses of the legitimate clients, enough of them that none exceeds the rate limits. Attackers use other addresses.
LEGITIMATE_SOURCES = itertools.cycle(f"10.255.{number}.1" for number in range(250))
# The info dictionary of a torrent of one byte, and its id.
INFO = b"d6:lengthi1e4:name4:good12:piece lengthi16384e6:pieces20:a piece's 20 bytes..e"
TORRENT = hashlib.sha1(INFO).digest()
MAGIC = 0x41727101980
# Seconds before any wait fails: far more than a busy machine needs.
TIMEOUT = 60
IP_PKTINFO, IPV6_PKTINFO, IP_BIND_ADDRESS_NO_PORT = 8, 50, 24


class TestFailed(Exception):
    """The tracker did not behave as expected."""


def expect(condition, *message):
    if not condition:
        raise TestFailed(" ".join(map(str, message)))


def wait_until(description, ready, timeout=TIMEOUT):
    """Calls `ready` until its result is true; returns the result."""
    end = time.monotonic() + timeout
    while not (result := ready()):
        expect(time.monotonic() < end, "timed out waiting for", description)
        time.sleep(0.02)
    return result


def enter_namespaces():
    """Runs the script again in new network, mount and process namespaces, which the kernel removes however the script ends. In these
    namespaces, all of 10.0.0.0/8 and 2a00::/16 are local addresses."""
    if "INSIDE_NAMESPACES" not in os.environ:
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        os.environ["INSIDE_NAMESPACES"] = str(os.geteuid())
        namespaces = ["--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
        os.execvp("unshare", ["unshare", *user, *namespaces, "--", sys.executable, *sys.argv])
    for command in [
        "mount -t tmpfs tmpfs /run",
        "ip link set lo up",
        "ip route add local 10.0.0.0/8 dev lo",
        "ip -6 route add local 2a00::/16 dev lo",
    ]:
        subprocess.run(command.split(), check=True)
    pathlib.Path("/proc/sys/net/ipv6/ip_nonlocal_bind").write_text("1")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def memory_cgroup(limit):
    """Yields a control group with this memory limit in bytes and no swap, or None if none can be created: without cgroup v2, or
    without the permission."""
    line = re.search(r"(?m)^0::/(.*)$", pathlib.Path("/proc/self/cgroup").read_text())
    top = pathlib.Path("/sys/fs/cgroup")
    own = top / line[1] if line else top
    group = None
    for above in [own, *own.parents]:
        if not above.is_relative_to(top) or group:
            break
        with contextlib.suppress(OSError):
            if "memory" in (above / "cgroup.subtree_control").read_text().split():
                group = pathlib.Path(tempfile.mkdtemp(prefix="tbtt-", dir=above))
    if not group:
        yield None
        return
    try:
        (group / "memory.max").write_text(str(limit))
        with contextlib.suppress(FileNotFoundError):
            (group / "memory.swap.max").write_text("0")
        yield group
    finally:
        wait_until("the control group to be removed", lambda: try_remove(group))


def try_remove(group):
    # A process that has just exited may still be in the group.
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def mebibytes(count):
    return f"{count / 2**20:.1f} MiB"


class Daemon:
    """The tracker under test. It is killed at the end of its `with` block."""

    def __init__(self, tbtt, place, settings, limits=None, environment=None, stderr=None, group=None):
        """`settings` are the configuration's keys by section. `limits` are resource limits, with the names of prlimit(1). The daemon
        is started in the control group `group`."""
        self.place = pathlib.Path(place)
        self.place.mkdir(exist_ok=True)
        self.place.chmod(0o755)
        self.log = self.place / "log"
        self.write_config(settings)
        self.command = [str(tbtt), "--config", str(self.place / "tbtt.toml")]
        # Root of a user namespace cannot change to another user, so there the daemon is started as an ordinary user.
        if os.environ["INSIDE_NAMESPACES"] != "0":
            self.command[:0] = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"]
        if limits:
            self.command[:0] = ["prlimit", *(f"--{name}={limit}" for name, limit in limits.items()), "--"]
        if group:
            self.command[:0] = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group)]
        self.environment = os.environ | (environment or {})
        self.process = None
        self.start(stderr)

    def config_text(self, settings):
        """Returns the settings as TOML, with defaults for the tests."""
        sections = {
            "http": {"listen": [f"[::]:{PORT}"]},
            "udp": {"listen": [f"[::]:{PORT}"]},
            "control": {"listen": str(self.place / "control")},
            "daemon": {"user": "nobody"},
            "log": {"target": "stderr", "level": "info"},
        }
        for section, values in settings.items():
            sections.setdefault(section, {}).update(values)
        # JSON's syntax for these values is also valid TOML.
        lines = ([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
                 for name, values in sections.items())
        return "\n".join(line for section in lines for line in section) + "\n"

    def start(self, stderr=None):
        with open(self.log, "ab") as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(self.command, stderr=stderr or log, env=self.environment)
        if stderr is None:
            wait_until("the daemon to listen", lambda: "listening" in self.log_text() or self.process.poll() is not None)
        wait_until("a response", self.responds)

    def responds(self):
        expect(self.process.poll() is None, "the daemon exited:", self.log_text())
        try:
            return announce(source="127.0.0.1") is not None
        except OSError:
            return False

    def log_text(self):
        """Returns the log since the last start."""
        with open(self.log, "rb") as log:
            log.seek(self.log_start)
            return log.read().decode()

    def count_in_log(self, text):
        return self.log_text().count(text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        self.signal(signal.SIGTERM)
        expect(self.process.wait(TIMEOUT) == 0, "the daemon did not stop with success:", self.log_text()[-2000:])

    @property
    def pid(self):
        """The daemon's process id. The programs that start it execute it in their own process."""
        return self.process.pid

    def memory(self):
        """Returns the anonymous resident memory in bytes."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s*(\d+) kB", status)[1]) * 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def control_request(self, method, path):
        """Sends a request to the control socket, which the load does not affect; returns the decoded response."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(TIMEOUT)
            sock.connect(str(self.place / "control"))
            sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode())
            response = receive_all(sock)
        head, _, body = response.partition(b"\r\n\r\n")
        expect(head.startswith(b"HTTP/1.1 200 "), "the response to", path, "is", response[:500])
        return json.loads(body)

    def status(self):
        """Returns the totals (connections, torrents, peers) and all counters, by name."""
        report = self.control_request("GET", "/status.json")
        totals = report["totals"]
        return report["counters"] | totals | {"peers": totals["peers_ipv4"] + totals["peers_ipv6"]}

    def torrents(self):
        """Returns the number of torrents. It may be some seconds old, but reading it is fast even with many torrents."""
        page = get("/metrics", "127.0.0.1", TRACKER)[1]
        return int(re.search(rb"(?m)^tbtt_torrents (\d+)$", page)[1])

    def save(self):
        """Writes a snapshot; returns its numbers of torrents and peers."""
        return self.control_request("POST", "/snapshot")

    def configure(self, settings):
        """Reloads the daemon with other settings."""
        self.write_config(settings)
        self.reload()

    def write_config(self, settings):
        (self.place / "tbtt.toml").write_text(self.config_text(settings))

    def reload(self):
        return self.control_request("POST", "/reload")


def get(path, source, to, header=""):
    """Sends a GET on a new connection; returns the status and the body."""
    with connect_from(source, to) as sock:
        sock.settimeout(TIMEOUT)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{header}\r\n".encode())
        response = receive_all(sock)
    head, blank, body = response.partition(b"\r\n\r\n")
    if not blank:
        raise ConnectionError("closed without a response")
    return int(head.split(b" ")[1]), body


def receive_all(sock):
    """Returns all data until the connection is closed."""
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def connect_from(source, to, wait=True):
    """Returns a TCP connection from a source address. Without `wait`, the connection may not be established yet."""
    sock = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET)
    # The kernel chooses the port at connect, so that one source address can have more connections than there are ports.
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))
    if wait:
        sock.settimeout(TIMEOUT)
        sock.connect(to)
    else:
        sock.setblocking(False)
        sock.connect_ex(to)
    return sock


def announce_path(torrent=TORRENT, port=6881, left=1, more=""):
    """Returns the path and query of an announce."""
    torrent = urllib.parse.quote(torrent)
    return f"/announce?info_hash={torrent}&peer_id=-XX0001-abcdefghijkl&port={port}&left={left}{more}"


def announce(torrent=TORRENT, source=None, to=TRACKER, **more):
    """Announces over HTTP on a new connection; returns the body of the response."""
    status, body = get(announce_path(torrent, **more), source or next(LEGITIMATE_SOURCES), to)
    expect(status == 200, "status", status, body[:200])
    expect(b"8:intervali" in body and b"failure" not in body, "not an announce response:", body[:200])
    return body


def udp_connect(transaction):
    return struct.pack(">QII", MAGIC, 0, transaction)


def udp_announce(connection, transaction, torrent=TORRENT, port=6881, left=1, key=1):
    return struct.pack(
        ">QII20s20sQQQIIIiH",
        *(connection, 1, transaction, torrent, b"-XX0001-abcdefghijkl", 0, left, 0, 0, 0, key, -1, port),
    )


def announce_udp(source=None, to=TRACKER, attempts=10):
    """Sends a connect and an announce over UDP. Each is repeated every second, as clients do; raises TimeoutError after `attempts`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source or next(LEGITIMATE_SOURCES), 0))
        sock.connect(to)
        sock.settimeout(1)

        def exchange(packet):
            for _ in range(attempts):
                sock.send(packet)
                try:
                    # Skip responses to repeated packets.
                    while (response := sock.recv(4096))[4:8] != packet[12:16]:
                        pass
                    return response
                except TimeoutError:
                    continue
            raise TimeoutError("no response over UDP")

        response = exchange(udp_connect(7))
        connection = struct.unpack(">IIQ", response)[2]
        response = exchange(udp_announce(connection, 8))
        expect(response[:8] == struct.pack(">II", 1, 8), "not an announce response:", response)


class LegitimateClients:
    """Clients in a separate process, which announce over both protocols on new connections until the end of the `with` block."""

    # Seconds between two announces of each protocol.
    PAUSE = 0.01

    def __init__(self, http=True):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self.work, args=(theirs, http))

    @classmethod
    def work(cls, pipe, http):
        times, failures = [], []
        # Announce at least 20 times, even if the block ends at once.
        while not pipe.poll(cls.PAUSE) or len(times) + len(failures) < 20:
            for send in (announce_udp, announce)[: 1 + http]:
                begun = time.monotonic()
                try:
                    send()
                    times.append(time.monotonic() - begun)
                except (OSError, TestFailed, struct.error) as error:
                    failures.append(f"{send.__name__}: {error!r}")
        pipe.send((times, failures))

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, kind, *_):
        self.ours.send(None)
        self.times, self.failures = self.ours.recv()
        self.process.join()

    def percentile(self, percent):
        """Returns the percentile of the response times, in milliseconds."""
        times = sorted(self.times)
        return times[min(len(times) * percent // 100, len(times) - 1)] * 1000

    def check(self, p99=None):
        """Fails if an announce had no response, or if the 99th percentile is above `p99` milliseconds. Returns a summary."""
        expect(not self.failures, len(self.failures), "legitimate announces failed:", self.failures[:3])
        expect(len(self.times) >= 10, "only", len(self.times), "legitimate announces")
        if p99:
            expect(self.percentile(99) <= p99, "the p99 of legitimate announces is", self.percentile(99), "ms")
        return f"{len(self.times)} legitimate announces, p50 {self.percentile(50):.1f} ms, p99 {self.percentile(99):.1f} ms"


class SpoofingSocket:
    """A UDP socket that sends from any address of 10.0.0.0/8, or from one address in each /48 of 2a00::/16."""

    def __init__(self, family=socket.AF_INET, to=None):
        self.v6 = family == socket.AF_INET6
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.sock.bind(("::" if self.v6 else "0.0.0.0", 0))
        self.sock.settimeout(0.2)
        self.to = to or (("::1", PORT) if self.v6 else TRACKER)

    def source(self, number):
        """Returns the control message that sets the source address with this number."""
        if self.v6:
            address = struct.pack(">HIHQ", 0x2A00, number, 0, 1)
            return [(socket.IPPROTO_IPV6, IPV6_PKTINFO, address + bytes(4))]
        address = struct.pack(">I", 0x0A000000 | number)
        return [(socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + address + bytes(4))]

    def send(self, number, packet):
        self.sock.sendmsg([packet], self.source(number), 0, self.to)

    def exchange(self, packets, window_size=200):
        """Sends each (source number, transaction, packet) of an iterator, a window at a time, and repeats packets without a response.
        Yields (transaction, response)."""
        packets = iter(packets)
        while window := {entry[1]: entry for entry in itertools.islice(packets, window_size)}:
            for _ in range(TIMEOUT * 5):
                for number, _, packet in window.values():
                    self.send(number, packet)
                try:
                    while window:
                        response = self.sock.recv(4096)
                        transaction = struct.unpack_from(">I", response, 4)[0]
                        if window.pop(transaction, None):
                            yield transaction, response
                    break
                except TimeoutError:
                    continue
            expect(not window, len(window), "packets got no response")

    def connection_ids(self, numbers):
        """Returns a connection id for each of these source addresses."""
        connects = ((number, number, udp_connect(number)) for number in numbers)
        return {number: struct.unpack(">IIQ", response)[2] for number, response in self.exchange(connects)}


def run_cases(cases):
    """Runs the case functions whose names contain the pattern of the command line, or all of them. Each gets the path of the tracker,
    a directory, and whether to run in full (--whole). The first line of its documentation is its title."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--whole"]
    pattern = arguments[0] if arguments else ""
    full = "--whole" in sys.argv
    root = pathlib.Path(__file__).resolve().parents[3]
    tbtt = pathlib.Path(os.environ.get("TBTT", root / "target/release/tbtt")).resolve()
    if not tbtt.exists():
        sys.exit(f"{tbtt} does not exist; build it with: cargo build --release")
    chosen = [case for case in cases if pattern in case.__name__]
    failed = 0
    for number, case in enumerate(chosen):
        place = pathlib.Path("/run") / f"{number}-{case.__name__}"
        place.mkdir(mode=0o755)
        begun = time.monotonic()
        try:
            summary = case(tbtt, place, full)
            print(f"ok {case.__doc__}: {summary} ({time.monotonic() - begun:.0f} s)", flush=True)
        except Exception as error:  # the next cases run after any error
            failed += 1
            print(f"FAIL {case.__doc__}: {error}", flush=True)
            if not isinstance(error, TestFailed):
                traceback.print_exc(file=sys.stdout)
            for log in sorted(place.rglob("log")):
                print("\n".join(log.read_text(errors="replace").splitlines()[-20:]), flush=True)
    print(f"{len(chosen) - failed} of {len(chosen)} cases passed")
    sys.exit(bool(failed) or not chosen)
