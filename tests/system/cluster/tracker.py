"""A node of the cluster, its clients, and load generators that run in the background."""

import contextlib
import hashlib
import http.client
import itertools
import json
import multiprocessing
import os
import pathlib
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
# Root of a user namespace cannot change to another user, so there the tracker is started as an ordinary user.
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
# All peers are on this host.
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
    """A tracker on its own port; `cluster` are the lines of its [cluster] section."""

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
            assert self.process.poll() is None, f"{self.directory.name} did not start: {self.log.read_text()[begin:][-2000:]}"
            with contextlib.suppress(OSError):
                return self.get("/")
            return None

        await_("the tracker", ready)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, "it did not stop with success"

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def delete_state(self):
        for file in (self.directory / "state").iterdir():
            file.unlink()

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def status(self):
        """Returns status.json from the control socket, which reports current values, unlike the status page."""
        connection = http.client.HTTPConnection("tracker", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.directory / "control"))
        try:
            connection.request("GET", "/status.json")
            return json.load(connection.getresponse())
        finally:
            connection.close()

    def cluster(self):
        return self.status()["cluster"]

    def resident(self):
        """Returns the resident memory in MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+) kB", status)[1]) / 1024

    def cpu_seconds(self):
        """Returns the CPU time of all threads."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log_lines(self, begin=0):
        """Returns the log lines about the cluster, from this offset in the log."""
        lines = self.log.read_text(errors="replace")[begin:].splitlines()
        return [match[1] for line in lines if (match := re.search(r" (?:notice|warning|error|info) ([^=]*\bcluster\b.*)", line))]

    def log_size(self):
        return self.log.stat().st_size


class Refused(Exception):
    pass


class Udp:
    """UDP clients at one address (BEP 15)."""

    def __init__(self, port, source="127.0.0.1", timeout=5.0):
        self.socket = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind((source, 0))
        self.socket.connect(("::1" if ":" in source else "127.0.0.1", port))
        self.connection, self.since = b"", 0.0
        self.numbers = itertools.count(1)

    def exchange(self, request, action, number):
        self.socket.send(request)
        while True:
            response = self.socket.recv(2048)
            if response[4:8] == struct.pack(">I", number):
                break
        if response[:4] != struct.pack(">I", action):
            raise Refused(response[8:])
        return response[8:]

    def id_expires(self):
        """Returns whether the connection id must be renewed. Connection ids are valid for two minutes."""
        return time.monotonic() > self.since + 60

    def id(self):
        if self.id_expires():
            number = next(self.numbers)
            self.connection = self.exchange(struct.pack(">QII", 0x41727101980, 0, number), 0, number)
            self.since = time.monotonic()
        return self.connection

    def request(self, torrent, port, left, event=0, numwant=0, downloaded=0):
        """Builds an announce. The peer id and the key are derived from the port."""
        number = next(self.numbers) & 0xFFFFFFFF
        peer = b"-XX0000-%012d" % port
        numbers = struct.pack(">QQQIIIiH", downloaded, left, 0, event, 0, port, numwant, port)
        return number, self.id() + struct.pack(">II", 1, number) + torrent + peer + numbers

    def announce(self, torrent, port, left=1, event=0, numwant=0):
        """Announces; returns the compact peers of the response."""
        number, request = self.request(torrent, port, left, event, numwant)
        return self.exchange(request, 1, number)[12:]

    def scrape(self, torrents):
        """Returns (seeders, downloads, leechers) of each torrent, in the order of BEP 15."""
        found = []
        for begin in range(0, len(torrents), 74):
            batch = torrents[begin : begin + 74]
            number = next(self.numbers)
            response = self.exchange(self.id() + struct.pack(">II", 2, number) + b"".join(batch), 2, number)
            found += struct.iter_unpack(">III", response)
        return found

    def announce_many(self, announces):
        """Sends announces with up to 32 outstanding responses; fails if a response is missing."""
        waiting = 0
        for announce in announces:
            # While the connection id is renewed, no other response may be outstanding.
            while waiting and (waiting == 32 or self.id_expires()):
                waiting -= self.receive()
            self.socket.send(self.request(*announce)[1])
            waiting += 1
        while waiting:
            waiting -= self.receive()

    def receive(self):
        response = self.socket.recv(2048)
        if response[:4] != b"\0\0\0\1":
            raise Refused(response[8:])
        return 1


def torrents(name, count):
    return [hashlib.sha1(f"{name} {number}".encode()).digest() for number in range(count)]


COMPLETED, STARTED, STOPPED = 1, 2, 3


def fill(port, swarms, each, source="127.0.0.1", left=1, event=STARTED):
    """Announces `each` peers for each torrent, all from one address."""
    client = Udp(port, source)
    client.announce_many((torrent, 1 + number, left, event) for torrent in swarms for number in range(each))


class Background:
    """Runs a function in a separate process. Its first argument is an event that is set when the result is requested."""

    def __init__(self, function, *arguments):
        self.ended = multiprocessing.Event()
        self.ours, theirs = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.Process(target=self.run, args=(function, arguments, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def run(self, function, arguments, pipe):
        try:
            pipe.send((True, function(self.ended, *arguments)))
        except Exception as error:  # the test case reports any error
            pipe.send((False, f"{type(error).__name__}: {error}"))

    def result(self):
        self.ended.set()
        succeeded, result = self.ours.recv()
        self.process.join()
        assert succeeded, result
        return result


def generate_changes(ended, ports, rate, swarms, peers, name="load"):
    """Sends `rate` announces per second to the trackers in turn. Each announce changes a swarm: peers join, complete and leave,
    repeatedly. Returns the number of responses and the seconds. A missing response is an error."""
    clients = [Udp(port, f"127.10.0.{1 + number}") for number, port in enumerate(ports)]
    swarms = torrents(name, swarms)

    def announces():
        while True:
            for left, event in ((1, STARTED), (0, COMPLETED), (0, STOPPED)):
                for number in range(peers):
                    yield swarms[number % len(swarms)], 1 + number, left, event

    announces = [announces() for _ in clients]
    begin, sent = time.monotonic(), 0
    while not ended.is_set():
        due = int((time.monotonic() - begin) * rate) - sent
        if due < 32:
            time.sleep(0.002)
            continue
        # If this machine was suspended, do not send all missed announces at once.
        due = min(due, 1024)
        for client, upcoming in zip(clients, announces):
            client.announce_many(next(upcoming) for _ in range(due // len(clients)))
        sent += due // len(clients) * len(clients)
    return sent, time.monotonic() - begin


def measure_announces(ended, ports):
    """Announces to each tracker in turn, over UDP and over HTTP. Returns (start time, duration) of each announce, in seconds. A
    missing response is an error."""
    took = []
    udp = [Udp(port, "127.20.0.1") for port in ports]
    http = [http_client(port) for port in ports]
    (torrent,) = torrents("measured", 1)
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
    response = connection.getresponse()
    body = response.read()
    if response.status != 200 or b"5:peers" not in body:
        raise Refused(body)
    return body


def percentile(values, percent):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * percent / 100))]
