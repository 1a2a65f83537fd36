"""A daemon on a network of its own, what it holds, and clients that go on announcing whatever is done to it."""

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
HERE = ("127.0.0.1", PORT)
# From where those come whom the daemon serves all the while, none more often than the limits have it; nobody else does.
GOOD = itertools.cycle(f"10.255.{number}.1" for number in range(250))
# A torrent of one byte, and its id.
INFO = b"d6:lengthi1e4:name4:good12:piece lengthi16384e6:pieces20:a piece's 20 bytes..e"
TORRENT = hashlib.sha1(INFO).digest()
MAGIC = 0x41727101980
# How long anything is waited for: far more than a busy machine needs.
PATIENCE = 60
IP_PKTINFO, IPV6_PKTINFO, IP_BIND_ADDRESS_NO_PORT = 8, 50, 24


class Broken(Exception):
    """What was tried broke it, or was not what it should have been."""


def expect(good, *what):
    if not good:
        raise Broken(" ".join(map(str, what)))


def until(what, come, patience=PATIENCE):
    """Repeats a question until its answer is true, and gives that."""
    end = time.monotonic() + patience
    while not (answer := come()):
        expect(time.monotonic() < end, "not in time:", what)
        time.sleep(0.02)
    return answer


def enter():
    """Starts the script anew in namespaces of its own, which the kernel clears up however it ends: network, mounts, processes.
    All of 10/8 and 2a00::/16 are this machine's addresses there."""
    if "INSIDE_NAMESPACES" not in os.environ:
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        os.environ["INSIDE_NAMESPACES"] = str(os.geteuid())
        spaces = ["--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
        os.execvp("unshare", ["unshare", *user, *spaces, "--", sys.executable, *sys.argv])
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
def room(limit):
    """A control group with so many bytes of memory and no swap. None where none can be made: on a machine without the
    second version of them, or by who may not."""
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
        until("an end of the group", lambda: removed(group))


def removed(group):
    # Who has just ended may still be in it.
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def mebibytes(count):
    return f"{count / 2**20:.1f} MiB"


class Daemon:
    """The tracker under test. Killed at the end of its block."""

    def __init__(self, tbtt, place, settings, limits=None, environment=None, stderr=None, group=None):
        """`settings` are keys by section; `limits` are resource limits by name, as prlimit(1) knows them; `group` is the
        control group to start it in."""
        self.place = pathlib.Path(place)
        self.place.mkdir(exist_ok=True)
        self.place.chmod(0o755)
        self.log = self.place / "log"
        self.write(settings)
        self.command = [str(tbtt), "--config", str(self.place / "tbtt.toml")]
        # Root of a user namespace has nobody else to become, so there it starts as another.
        if os.environ["INSIDE_NAMESPACES"] != "0":
            self.command[:0] = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"]
        if limits:
            self.command[:0] = ["prlimit", *(f"--{name}={limit}" for name, limit in limits.items()), "--"]
        if group:
            self.command[:0] = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group)]
        self.environment = os.environ | (environment or {})
        self.process = None
        self.start(stderr)

    def configuration(self, settings):
        """As TOML, with what a test's daemon needs where the settings say nothing of it."""
        sections = {
            "http": {"listen": [f"[::]:{PORT}"]},
            "udp": {"listen": [f"[::]:{PORT}"]},
            "control": {"listen": str(self.place / "control")},
            "daemon": {"user": "nobody"},
            "log": {"target": "stderr", "level": "info"},
        }
        for section, values in settings.items():
            sections.setdefault(section, {}).update(values)
        # What JSON calls these values, TOML does too.
        lines = ([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
                 for name, values in sections.items())
        return "\n".join(line for section in lines for line in section) + "\n"

    def start(self, stderr=None):
        with open(self.log, "ab") as log:
            self.begun = log.tell()
            self.process = subprocess.Popen(self.command, stderr=stderr or log, env=self.environment)
        if stderr is None:
            until("listening", lambda: "listening" in self.said() or self.process.poll() is not None)
        until("an answer", self.answers)

    def answers(self):
        expect(self.process.poll() is None, "the daemon ended:", self.said())
        try:
            return announce(source="127.0.0.1") is not None
        except OSError:
            return False

    def said(self):
        """The log since the last start."""
        with open(self.log, "rb") as log:
            log.seek(self.begun)
            return log.read().decode()

    def count(self, text):
        return self.said().count(text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        self.signal(signal.SIGTERM)
        expect(self.process.wait(PATIENCE) == 0, "it did not stop well:", self.said()[-2000:])

    @property
    def pid(self):
        """Of the daemon itself: what starts it with other limits or as another becomes it."""
        return self.process.pid

    def memory(self):
        """Bytes of its own that are in memory."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s*(\d+) kB", status)[1]) * 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def ask(self, method, path):
        """What the control socket answers, on which no stranger weighs; raises Broken with what is wrong."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self.place / "control"))
            sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode())
            answer = rest(sock)
        head, _, body = answer.partition(b"\r\n\r\n")
        expect(head.startswith(b"HTTP/1.1 200 "), path, "is answered with", answer[:500])
        return json.loads(body)

    def figures(self):
        """What it holds: connections, torrents, peers, and each counter by its name."""
        told = self.ask("GET", "/status.json")
        totals = told["totals"]
        return told["counters"] | totals | {"peers": totals["peers_ipv4"] + totals["peers_ipv6"]}

    def torrents(self):
        """How many it has; some seconds old, but soon told however many they are."""
        page = get("/metrics", "127.0.0.1", HERE)[1]
        return int(re.search(rb"(?m)^tbtt_torrents (\d+)$", page)[1])

    def save(self):
        """Writes a snapshot; what it holds."""
        return self.ask("POST", "/snapshot")

    def configure(self, settings):
        """Has it take other settings."""
        self.write(settings)
        self.reload()

    def write(self, settings):
        (self.place / "tbtt.toml").write_text(self.configuration(settings))

    def reload(self):
        return self.ask("POST", "/reload")


def get(path, source, to, header=""):
    """Status and body of a GET on a connection of its own."""
    with connected(source, to) as sock:
        sock.settimeout(PATIENCE)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{header}\r\n".encode())
        answer = rest(sock)
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        raise ConnectionError("closed without an answer")
    return int(head.split(b" ")[1]), body


def rest(sock):
    """All that comes until the connection's end."""
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def connected(source, to, wait=True):
    """A TCP connection from an address; where it does not wait, one that is on its way."""
    sock = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET)
    # The port is chosen at connect, so that an address can have more connections than ports.
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))
    if wait:
        sock.settimeout(PATIENCE)
        sock.connect(to)
    else:
        sock.setblocking(False)
        sock.connect_ex(to)
    return sock


def request(torrent=TORRENT, port=6881, left=1, more=""):
    """The path of an announce."""
    torrent = urllib.parse.quote(torrent)
    return f"/announce?info_hash={torrent}&peer_id=-XX0001-abcdefghijkl&port={port}&left={left}{more}"


def announce(torrent=TORRENT, source=None, to=HERE, **more):
    """One over HTTP, on a connection of its own; the answer."""
    status, body = get(request(torrent, **more), source or next(GOOD), to)
    expect(status == 200, "status", status, body[:200])
    expect(b"8:intervali" in body and b"failure" not in body, body[:200])
    return body


def udp_connect(transaction):
    return struct.pack(">QII", MAGIC, 0, transaction)


def udp_announce(connection, transaction, torrent=TORRENT, port=6881, left=1, key=1):
    return struct.pack(
        ">QII20s20sQQQIIIiH",
        *(connection, 1, transaction, torrent, b"-XX0001-abcdefghijkl", 0, left, 0, 0, 0, key, -1, port),
    )


def udp_good(source=None, to=HERE, patience=10):
    """A connect and an announce over UDP, each sent anew each second as clients do when nothing comes; raises TimeoutError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source or next(GOOD), 0))
        sock.connect(to)
        sock.settimeout(1)

        def ask(packet):
            for _ in range(patience):
                sock.send(packet)
                try:
                    # What was sent twice is answered twice.
                    while (answer := sock.recv(4096))[4:8] != packet[12:16]:
                        pass
                    return answer
                except TimeoutError:
                    continue
            raise TimeoutError("no answer over UDP")

        answer = ask(udp_connect(7))
        connection = struct.unpack(">IIQ", answer)[2]
        answer = ask(udp_announce(connection, 8))
        expect(answer[:8] == struct.pack(">II", 1, 8), answer)


class Good:
    """Clients in a process of their own that announce over both protocols, a new connection each time, until their block ends."""

    # Seconds between two, of each protocol.
    PAUSE = 0.01

    def __init__(self, http=True):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self.work, args=(theirs, http))

    @classmethod
    def work(cls, pipe, http):
        times, failures = [], []
        # However soon it is over, some were asked for.
        while not pipe.poll(cls.PAUSE) or len(times) + len(failures) < 20:
            for ask in (udp_good, announce)[: 1 + http]:
                begun = time.monotonic()
                try:
                    ask()
                    times.append(time.monotonic() - begun)
                except (OSError, Broken, struct.error) as error:
                    failures.append(f"{ask.__name__}: {error!r}")
        pipe.send((times, failures))

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, kind, *_):
        self.ours.send(None)
        self.times, self.failures = self.ours.recv()
        self.process.join()

    def part(self, hundredths):
        """So many of a hundred took at most this, in milliseconds."""
        times = sorted(self.times)
        return times[min(len(times) * hundredths // 100, len(times) - 1)] * 1000

    def told(self):
        return f"{len(self.times)} good announces, p50 {self.part(50):.1f} ms, p99 {self.part(99):.1f} ms"

    def held(self, p99=None):
        """All were answered, and 99 of 100 in time, in milliseconds."""
        expect(not self.failures, len(self.failures), "good announces failed:", self.failures[:3])
        expect(len(self.times) >= 10, "only", len(self.times), "good announces")
        if p99:
            expect(self.part(99) <= p99, "the p99 of good announces is", self.part(99), "ms")
        return self.told()


class Faces:
    """A UDP socket that sends from any address of 10/8, or of 2a00::/16 one for each /48."""

    def __init__(self, family=socket.AF_INET, to=None):
        self.v6 = family == socket.AF_INET6
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.sock.bind(("::" if self.v6 else "0.0.0.0", 0))
        self.sock.settimeout(0.2)
        self.to = to or (("::1", PORT) if self.v6 else HERE)

    def control(self, number):
        if self.v6:
            address = struct.pack(">HIHQ", 0x2A00, number, 0, 1)
            return [(socket.IPPROTO_IPV6, IPV6_PKTINFO, address + bytes(4))]
        address = struct.pack(">I", 0x0A000000 | number)
        return [(socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + address + bytes(4))]

    def send(self, number, packet):
        self.sock.sendmsg([packet], self.control(number), 0, self.to)

    def ask(self, packets, at_once=200):
        """Sends (number, transaction, packet) of an iterator, a window at a time and what is not answered again; yields
        (transaction, answer)."""
        packets = iter(packets)
        while window := {asked[1]: asked for asked in itertools.islice(packets, at_once)}:
            for _ in range(PATIENCE * 5):
                for number, _, packet in window.values():
                    self.send(number, packet)
                try:
                    while window:
                        answer = self.sock.recv(4096)
                        transaction = struct.unpack_from(">I", answer, 4)[0]
                        if window.pop(transaction, None):
                            yield transaction, answer
                    break
                except TimeoutError:
                    continue
            expect(not window, len(window), "packets were never answered")

    def ids(self, numbers):
        """A connection id for each of these addresses."""
        asked = ((number, number, udp_connect(number)) for number in numbers)
        return {number: struct.unpack(">IIQ", answer)[2] for number, answer in self.ask(asked)}


def cases(script):
    """Runs what the script's `CASES` names, or those of them whose name has the given pattern."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--whole"]
    pattern = arguments[0] if arguments else ""
    whole = "--whole" in sys.argv
    root = pathlib.Path(__file__).resolve().parents[3]
    tbtt = pathlib.Path(os.environ.get("TBTT", root / "target/release/tbtt")).resolve()
    if not tbtt.exists():
        sys.exit(f"there is no {tbtt}: build it first, with cargo build --release")
    chosen = [case for case in script.CASES if pattern in case.__name__]
    failed = 0
    for number, case in enumerate(chosen):
        place = pathlib.Path("/run") / f"{number}-{case.__name__}"
        place.mkdir(mode=0o755)
        begun = time.monotonic()
        try:
            told = case(tbtt, place, whole)
            print(f"ok {case.__doc__}: {told} ({time.monotonic() - begun:.0f} s)", flush=True)
        except Exception as error:  # whatever it is, the next cases are run
            failed += 1
            print(f"FAIL {case.__doc__}: {error}", flush=True)
            if not isinstance(error, Broken):
                traceback.print_exc(file=sys.stdout)
            for log in sorted(place.rglob("log")):
                print("\n".join(log.read_text(errors="replace").splitlines()[-20:]), flush=True)
    print(f"{len(chosen) - failed} of {len(chosen)} cases passed")
    sys.exit(bool(failed) or not chosen)
