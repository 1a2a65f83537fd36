"""A node, and clients that announce to it: one at a time, many at once, or all the time with the time that it takes."""

import contextlib
import hashlib
import http.client
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
import urllib.parse

from store import await_

TBTT = pathlib.Path(os.environ["TBTT"])
# Root of a user namespace has nobody else to become, so there it starts as another.
REAL_ROOT = os.environ["INSIDE_NAMESPACES"] == "0"
AS = [] if REAL_ROOT else ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"]
CONFIG = """
[http]
listen = ["[::]:{port}"]
[udp]
listen = ["[::]:{port}"]
[tracker]
workers = 1
[torrents]
{torrents}
[limits]
exempt = ["0.0.0.0/0", "::/0"]
peers_per_network = 1000
[access]
# All peers are of this host.
local_networks = []
[state]
directory = "{directory}/state"
[control]
listen = "{directory}/control"
[daemon]
user = "{user}"
[log]
target = "stderr"
level = "info"
[cluster]
{cluster}
"""


class Node:
    """A tracker on a port of its own; where= are lines of [cluster]."""

    def __init__(self, directory, port, cluster, torrents="open = true", environment=None):
        directory.mkdir()
        (directory / "state").mkdir()
        if REAL_ROOT:
            shutil.chown(directory, 65534, 65534)
            shutil.chown(directory / "state", 65534, 65534)
        self.directory, self.port, self.environment = directory, port, environment or {}
        self.config, self.log = directory / "tbtt.toml", directory / "tbtt.log"
        text = CONFIG.format(
            port=port, directory=directory, cluster=cluster, torrents=torrents, user="nobody" if REAL_ROOT else ""
        )
        self.config.write_text(text)
        self.start()

    def start(self):
        begin = self.log.stat().st_size if self.log.exists() else 0
        self.process = subprocess.Popen(
            [*AS, TBTT, "--config", self.config],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(self.log, "ab"), env={**os.environ, **self.environment},
        )

        def ready():
            assert self.process.poll() is None, f"{self.directory.name} does not start: {self.log.read_text()[begin:][-2000:]}"
            with contextlib.suppress(OSError):
                return self.get("/")
            return None

        await_("the tracker", ready)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, "it did not stop well"

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def empty(self):
        """Forgets all that it kept."""
        for file in (self.directory / "state").iterdir():
            file.unlink()

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def figures(self):
        """As tbttctl has them, but not older than that."""
        connection = http.client.HTTPConnection("tracker", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.directory / "control"))
        try:
            connection.request("GET", "/status.json")
            return json.load(connection.getresponse())
        finally:
            connection.close()

    def cluster(self):
        return self.figures()["cluster"]

    def resident(self):
        """In MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+) kB", status)[1]) / 1024

    def busy(self):
        """For how many seconds its threads had a processor."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def told(self, begin=0):
        """What it logged of the cluster, from that character on."""
        lines = self.log.read_text(errors="replace")[begin:].splitlines()
        return [match[0] for line in lines if (match := re.search(r"\b(?:notice|warning|error|info) cluster.*", line))]

    def mark(self):
        return self.log.stat().st_size


class Refused(Exception):
    pass


class Udp:
    """Clients at one address (BEP 15)."""

    def __init__(self, port, source="127.0.0.1", patience=5.0):
        self.socket = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(patience)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind((source, 0))
        self.socket.connect(("::1" if ":" in source else "127.0.0.1", port))
        self.connection, self.since = b"", 0.0
        self.numbers = itertools.count(1)

    def ask(self, request, action, number):
        self.socket.send(request)
        while True:
            answer = self.socket.recv(2048)
            if answer[4:8] == struct.pack(">I", number):
                break
        if answer[:4] != struct.pack(">I", action):
            raise Refused(answer[8:])
        return answer[8:]

    def stale(self):
        """Whether the id needs to be renewed, which is good for two minutes."""
        return time.monotonic() > self.since + 60

    def id(self):
        if self.stale():
            number = next(self.numbers)
            self.connection = self.ask(struct.pack(">QII", 0x41727101980, 0, number), 0, number)
            self.since = time.monotonic()
        return self.connection

    def request(self, torrent, port, left, event=0, numwant=0, downloaded=0):
        """Who the client is follows from its port, as for the others on its host."""
        number = next(self.numbers) & 0xFFFFFFFF
        peer = b"-XX0000-%012d" % port
        numbers = struct.pack(">QQQIIIiH", downloaded, left, 0, event, 0, port, numwant, port)
        return number, self.id() + struct.pack(">II", 1, number) + torrent + peer + numbers

    def announce(self, torrent, port, left=1, event=0, numwant=0):
        """The peers that are given."""
        number, request = self.request(torrent, port, left, event, numwant)
        return self.ask(request, 1, number)[12:]

    def scrape(self, torrents):
        """Of each, in the order of BEP 15: seeders, downloads, leechers."""
        found = []
        for begin in range(0, len(torrents), 74):
            some = torrents[begin : begin + 74]
            number = next(self.numbers)
            answer = self.ask(self.id() + struct.pack(">II", 2, number) + b"".join(some), 2, number)
            found += struct.iter_unpack(">III", answer)
        return found

    def many(self, acts):
        """Announces, many under way at once; fails if one is not answered."""
        waiting = 0
        for act in acts:
            # While the id is renewed, no other answer may be under way.
            while waiting and (waiting == 32 or self.stale()):
                waiting -= self.take()
            self.socket.send(self.request(*act)[1])
            waiting += 1
        while waiting:
            waiting -= self.take()

    def take(self):
        answer = self.socket.recv(2048)
        if answer[:4] != b"\0\0\0\1":
            raise Refused(answer[8:])
        return 1


def torrents(name, count):
    return [hashlib.sha1(f"{name} {number}".encode()).digest() for number in range(count)]


COMPLETED, STARTED, STOPPED = 1, 2, 3


def fill(port, swarms, each, source="127.0.0.1", left=1, event=STARTED):
    """So many peers of one address for each torrent."""
    client = Udp(port, source)
    client.many((torrent, 1 + number, left, event) for torrent in swarms for number in range(each))


class Beside:
    """A function in a process of its own, until its result is asked for; it looks whether it shall end."""

    def __init__(self, function, *arguments):
        self.ended = multiprocessing.Event()
        self.ours, theirs = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.Process(target=self.run, args=(function, arguments, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def run(self, function, arguments, pipe):
        try:
            pipe.send((True, function(self.ended, *arguments)))
        except Exception as error:  # whatever it is, the case shall show it
            pipe.send((False, f"{type(error).__name__}: {error}"))

    def result(self):
        self.ended.set()
        well, result = self.ours.recv()
        self.process.join()
        assert well, result
        return result


def changes(ended, ports, rate, swarms, peers, name="load"):
    """So many announces a second to the trackers, in turn, that change something: peers join, complete and leave, over and over. How
    many were answered, and in how many seconds. An answer that does not come is an error."""
    clients = [Udp(port, f"127.10.0.{1 + number}") for number, port in enumerate(ports)]
    swarms = torrents(name, swarms)

    def acts():
        while True:
            for left, event in ((1, STARTED), (0, COMPLETED), (0, STOPPED)):
                for number in range(peers):
                    yield swarms[number % len(swarms)], 1 + number, left, event

    acts = [acts() for _ in clients]
    begin, sent = time.monotonic(), 0
    while not ended.is_set():
        due = int((time.monotonic() - begin) * rate) - sent
        if due < 32:
            time.sleep(0.002)
            continue
        # After a halt of this machine it does not make up for all of it at once.
        due = min(due, 1024)
        for client, act in zip(clients, acts):
            client.many(next(act) for _ in range(due // len(clients)))
        sent += due // len(clients) * len(clients)
    return sent, time.monotonic() - begin


def pulse(ended, ports):
    """One announce after the other, over UDP and over HTTP, to each tracker: when each began and how long it took, in seconds. One
    that is not answered is an error."""
    took = []
    udp = [Udp(port, "127.20.0.1") for port in ports]
    http = [http_client(port) for port in ports]
    (torrent,) = torrents("pulse", 1)
    for number in itertools.count():
        if ended.is_set():
            return took
        at = number % len(ports)
        port = 1 + number % 500
        begin = time.monotonic()
        if number // len(ports) % 2:
            udp[at].announce(torrent, port, left=number % 7, numwant=50)
        else:
            announce_http(http[at], torrent, port, left=number % 7)
        took.append((begin, time.monotonic() - begin))
        time.sleep(0.002)


def http_client(port):
    return http.client.HTTPConnection("127.0.0.1", port, timeout=5)


def announce_http(connection, torrent, port, left=1, event=""):
    query = {"info_hash": torrent, "peer_id": b"-XX0000-%012d" % port, "port": port, "left": left, "compact": 1, "uploaded": 0, "downloaded": 0}
    if event:
        query["event"] = event
    connection.request("GET", "/announce?" + urllib.parse.urlencode(query), headers={"Host": "tracker"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200 or b"5:peers" not in body:
        raise Refused(body)
    return body


def percentile(values, percent):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * percent / 100))]
