"""Simulated clients: HTTP with and without keep-alive, and UDP."""

import heapq
import http.client
import itertools
import random
import socket
import struct
import threading
import time
import urllib.parse

from client import Refused, decode
from daemon import RESPONSE_TIMEOUT


class Tally:
    """Counters, failures and response times of all threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = {}
        self.failures = []
        self.waits = []

    def add(self, what, count=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + count

    def fail(self, text):
        with self.lock:
            self.failures.append(text)

    def add_wait(self, seconds):
        with self.lock:
            self.waits.append(seconds)

    def __getitem__(self, what):
        with self.lock:
            return self.counts.get(what, 0)


class Client:
    """One peer in one or more swarms."""

    numbers = itertools.count(1)

    def __init__(self, family, torrents, complete):
        number = next(self.numbers)
        self.family = family
        self.source = "::1"
        self.peer_port = 1 + number % 65535
        if family == 4:
            # Each IPv4 client has its own address.
            self.source = f"127.{1 + (number >> 16) % 254}.{number >> 8 & 255}.{number & 255}"
            self.peer_port = 6881
        self.torrents = torrents
        self.complete = complete
        self.id = b"-XX0001-%012d" % number
        # For each torrent, the times before and after the last announce; the tracker processed it in between.
        self.announced = {}

    def query(self, torrent, event):
        fields = {
            "info_hash": torrent,
            "peer_id": self.id,
            "port": self.peer_port,
            "uploaded": 0,
            "downloaded": 0,
            "left": 0 if self.complete else 16384,
            "compact": 1,
            "numwant": 50,
        }
        if event:
            fields["event"] = event
        return "/announce?" + urllib.parse.urlencode(fields, quote_via=urllib.parse.quote)


class Worker(threading.Thread):
    """Clients of one protocol, which announce one at a time."""

    def __init__(self, soak):
        super().__init__(daemon=True)
        self.soak = soak
        self.interval, self.max_clients = soak.interval, soak.population
        self.clients = []
        self.due = []
        self.order = itertools.count()
        self.idle = threading.Event()
        self.gone = []

    def run(self):
        try:
            next_turn = time.monotonic() + random.uniform(0, self.soak.pause)
            while not self.soak.ended.is_set():
                if not self.soak.running.is_set():
                    self.idle.set()
                    self.soak.running.wait(1)
                    next_turn = time.monotonic()
                    continue
                self.idle.clear()
                time.sleep(max(0, next_turn - time.monotonic()))
                # After a delay, do not send all missed announces at once.
                next_turn = max(next_turn + self.soak.pause, time.monotonic() - 1)
                self.turn()
            self.close()
        except Exception as error:  # pylint: disable=broad-except
            self.soak.tally.fail(f"worker: {error!r}")
        finally:
            self.idle.set()

    def turn(self):
        now = time.monotonic()
        if self.due and self.due[0][0] <= now:
            client = heapq.heappop(self.due)[2]
            chance = random.random()
            if chance < 0.03:
                # The client disappears without an announce.
                self.clients.remove(client)
                self.gone.append(client)
                return
            event = None
            if chance < 0.12:
                event = "stopped"
            elif not client.complete and chance < 0.3:
                event, client.complete = "completed", True
            self.announce(client, event)
            if event == "stopped":
                self.clients.remove(client)
                return
        elif len(self.clients) < self.max_clients:
            client = self.new_client()
            self.clients.append(client)
            self.announce(client, "started")
        else:
            return
        heapq.heappush(self.due, (time.monotonic() + self.interval, next(self.order), client))

    def new_client(self):
        family = 6 if random.random() < 0.15 else 4
        return Client(family, [self.soak.pick(family)], random.random() < 0.15)

    def announce(self, client, event):
        for torrent in client.torrents:
            begin = time.monotonic()
            try:
                self.send(client, torrent, event)
            except (OSError, Refused, ValueError, http.client.HTTPException) as error:
                self.soak.tally.fail(f"{type(self).__name__} {event}: {type(error).__name__}: {error}")
                client.announced[torrent] = (0, time.monotonic())
                continue
            end = time.monotonic()
            self.soak.tally.add(type(self).__name__)
            self.soak.tally.add_wait(end - begin)
            if event == "stopped":
                client.announced.pop(torrent, None)
            else:
                client.announced[torrent] = (begin, end)

    def close(self):
        """Closes open connections."""


def check_response(response):
    body = response.read()
    if response.status != 200:
        raise Refused(f"status {response.status}")
    value = decode(body)
    if b"failure reason" in value or b"peers" not in value:
        raise Refused(f"{value!r}")


class HttpClose(Worker):
    """HTTP clients that open a connection for each announce, as most clients do."""

    def send(self, client, torrent, event):
        host = "127.0.0.1" if client.family == 4 else "::1"
        connection = http.client.HTTPConnection(
            host, self.soak.daemon.port, timeout=RESPONSE_TIMEOUT, source_address=(client.source, 0)
        )
        try:
            connection.request("GET", client.query(torrent, event), headers={"Connection": "close"})
            check_response(connection.getresponse())
        finally:
            connection.close()


class HttpKeepAlive(Worker):
    """HTTP clients with several torrents, which reuse their connections for a while."""

    MAX_OPEN = 200
    MAX_USES = 12
    # Maximum seconds without a request. The tracker's timeout is a little longer, the announce interval a little shorter.
    MAX_IDLE = 15

    def __init__(self, soak):
        super().__init__(soak)
        self.interval = min(self.interval, self.MAX_IDLE * 2 // 3)
        self.max_clients = self.max_clients * self.interval // soak.interval
        self.connections = {}

    def new_client(self):
        return Client(4, list({self.soak.pick(4) for _ in range(4)}), random.random() < 0.3)

    def send(self, client, torrent, event):
        connection, uses, since = self.connections.pop(client, (None, 0, 0))
        if connection and time.monotonic() - since > self.MAX_IDLE:
            connection.close()
            connection, uses = None, 0
        reused = connection is not None
        while True:
            if connection is None:
                connection = http.client.HTTPConnection(
                    "127.0.0.1", self.soak.daemon.port, timeout=RESPONSE_TIMEOUT, source_address=(client.source, 0)
                )
            try:
                connection.request("GET", client.query(torrent, event))
                response = connection.getresponse()
                check_response(response)
                break
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                connection.close()
                # The server may close an idle connection at any time; the client then repeats the request on a new connection (RFC 9112,
                # section 9.3.1).
                if not reused:
                    raise
                self.soak.tally.add("repeated")
                connection, reused, uses = None, False, 0
        if response.will_close or uses >= self.MAX_USES:
            connection.close()
            return
        self.connections[client] = connection, uses + 1, time.monotonic()
        if len(self.connections) > self.MAX_OPEN:
            oldest = next(iter(self.connections))
            self.connections.pop(oldest)[0].close()

    def close(self):
        for connection, *_ in self.connections.values():
            connection.close()
        self.connections.clear()


class Udp(Worker):
    """UDP clients, which use a connection id for a minute (BEP 15)."""

    ID_LIFETIME = 60

    def send(self, client, torrent, event):
        with socket.socket(socket.AF_INET if client.family == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.settimeout(RESPONSE_TIMEOUT)
            sock.bind((client.source, 0))
            sock.connect(("127.0.0.1" if client.family == 4 else "::1", self.soak.daemon.port))
            connection, since = getattr(client, "connection", (None, 0))
            if connection is None or time.monotonic() - since > self.ID_LIFETIME:
                connection = self.exchange(sock, struct.pack(">Q", 0x41727101980), 0)
                client.connection = connection, time.monotonic()
            number = {None: 0, "completed": 1, "started": 2, "stopped": 3}[event]
            left = 0 if client.complete else 16384
            rest = torrent + client.id
            rest += struct.pack(">QQQIIIiH", 0, left, 0, number, 0, 0, 50, client.peer_port)
            response = self.exchange(sock, connection, 1, rest)
            size = 6 if client.family == 4 else 18
            if len(response) < 12 or (len(response) - 12) % size:
                raise Refused(f"{response!r}")

    @staticmethod
    def exchange(sock, connection, action, rest=b""):
        transaction = random.randbytes(4)
        sock.send(connection + struct.pack(">I", action) + transaction + rest)
        response = sock.recv(65536)
        if response[:8] != struct.pack(">I", action) + transaction:
            raise Refused(f"{response!r}")
        return response[8:]
