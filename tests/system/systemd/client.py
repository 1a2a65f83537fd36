"""Clients of a tracker on this host: single announces and scrapes, and a load generator with a fixed rate."""

import os
import random
import re
import socket
import struct
import threading
import time
import urllib.parse

PORT = 6969
# Seconds to wait for a response. Requests are not repeated, so this must be longer than a restart takes, and a lost request
# shows as a timeout.
RESPONSE_TIMEOUT = 20
# Socket option for sending from an address that is routed here but not configured on an interface.
IPV6_FREEBIND = 78


class Refused(Exception):
    """The tracker sent an error, or a malformed response."""


def decode(data):
    """Decodes a bencoded value, which must use all of the data."""
    value, end = decode_at(data, 0)
    if end != len(data):
        raise Refused(f"data after the bencoded value: {data!r}")
    return value


def decode_at(data, at):
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        items = []
        at += 1
        while data[at : at + 1] != b"e":
            item, at = decode_at(data, at)
            items.append(item)
        return (items if kind == b"l" else dict(zip(items[::2], items[1::2]))), at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    if end > len(data):
        raise Refused(f"truncated: {data!r}")
    return data[colon + 1 : end], end


def connect(kind, source, to):
    """Returns a socket that is connected to the tracker, bound to the source address if there is one."""
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.settimeout(RESPONSE_TIMEOUT)
    if source:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        sock.bind((source, 0))
    sock.connect(to)
    return sock


def server(source):
    return ("::1" if source and ":" in source else "127.0.0.1", PORT)


def get(path, source=None, to=None):
    """Sends a GET on a new connection and returns the decoded body. Raises OSError if the connection is refused or reset."""
    with connect(socket.SOCK_STREAM, source, to or server(source)) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: tracker\r\nConnection: close\r\n\r\n".encode())
        response = b""
        while more := sock.recv(65536):
            response += more
    head, blank, body = response.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    if not head.startswith(b"HTTP/1.1 200 ") or not blank or not length or int(length[1]) != len(body):
        raise Refused(f"incomplete response: {response!r}")
    response = decode(body)
    if b"failure reason" in response:
        raise Refused(response[b"failure reason"].decode())
    return response


def announce(torrent, source=None, port=6881, left=1, to=None):
    """Announces over HTTP and returns the response as a dictionary."""
    query = {
        "info_hash": torrent,
        "peer_id": b"-XX0000-" + os.urandom(6).hex().encode(),
        "port": port,
        "uploaded": 0,
        "downloaded": 0,
        "left": left,
        "compact": 1,
        "event": "started",
    }
    response = get(f"/announce?{urllib.parse.urlencode(query, quote_via=urllib.parse.quote)}", source, to)
    if b"peers" not in response:
        raise Refused(f"no peers: {response!r}")
    return response


def scrape(torrents):
    """Returns the number of peers of each torrent, seeders and leechers together."""
    counts = {}
    for batch in (torrents[at : at + 50] for at in range(0, len(torrents), 50)):
        files = get("/scrape?" + "&".join("info_hash=" + urllib.parse.quote(torrent) for torrent in batch))[b"files"]
        counts |= {
            torrent: files[torrent][b"complete"] + files[torrent][b"incomplete"] if torrent in files else 0 for torrent in batch
        }
    return counts


class Udp:
    """A UDP client with its own socket (BEP 15)."""

    def __init__(self, source=None):
        self.sock = connect(socket.SOCK_DGRAM, source, server(source))
        self.connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def request(self, connection, action, rest=b""):
        transaction = random.randbytes(4)
        self.sock.send(connection + struct.pack(">I", action) + transaction + rest)
        while True:
            response = self.sock.recv(65536)
            if response[4:8] == transaction:
                break
        if response[:4] != struct.pack(">I", action):
            raise Refused(f"{response!r}")
        return response[8:]

    def announce(self, torrent, port=6881, left=1):
        """Announces; returns the interval in seconds, the number of leechers and the number of seeders."""
        if not self.connection:
            self.connection = self.request(struct.pack(">Q", 0x41727101980), 0)
        rest = torrent + b"-XX0000-" + os.urandom(6).hex().encode()
        rest += struct.pack(">QQQIIIiH", 0, left, 0, 2, 0, random.getrandbits(32), -1, port)
        return struct.unpack(">III", self.request(self.connection, 1, rest)[:12])


def torrents(name, count):
    return [f"{name}{number}".encode().ljust(20, b".") for number in range(count)]


def addresses(family):
    """Yields 65,535 source addresses. The IPv6 addresses are all in different networks."""
    for number in range(1, 0x10000):
        high, low = number >> 8 & 0xFF, number & 0xFF
        yield f"127.1.{high}.{low}" if family == 4 else f"fd00:0:0:{high:02x}{low:02x}::1"


class Load:
    """A load generator: announces new peers over both protocols and families, at a limited rate, until `end` is called.

    Each thread waits for the response to its announce. There are enough threads that many of them wait when the tracker is
    down.
    """

    # Each thread sends four announces a second.
    THREADS = {("HTTP", 4): 24, ("HTTP", 6): 12, ("UDP", 4): 12, ("UDP", 6): 6}
    PAUSE = 0.25

    def __init__(self, name):
        self.torrents = torrents(name, 40)
        self.lock = threading.Lock()
        self.responses = {way: 0 for way in self.THREADS}
        self.failures = []
        self.longest = 0.0
        self.ended = threading.Event()
        self.peers = {4: addresses(4), 6: addresses(6)}
        self.threads = [
            threading.Thread(target=self.run, args=(way,), daemon=True)
            for way, count in self.THREADS.items()
            for _ in range(count)
        ]
        for thread in self.threads:
            thread.start()

    def run(self, way):
        protocol, family = way
        # The threads must not all start at the same time.
        self.ended.wait(random.uniform(0, self.PAUSE))
        while not self.ended.wait(self.PAUSE):
            with self.lock:
                source = next(self.peers[family])
            begin = time.monotonic()
            try:
                if protocol == "HTTP":
                    announce(random.choice(self.torrents), source)
                else:
                    with Udp(source) as client:
                        client.announce(random.choice(self.torrents))
                failure = None
            except (OSError, Refused, ValueError) as error:
                failure = f"{protocol} over IPv{family}: {type(error).__name__}: {error}"
            with self.lock:
                self.longest = max(self.longest, time.monotonic() - begin)
                if failure:
                    self.failures.append(failure)
                else:
                    self.responses[way] += 1

    def total(self):
        with self.lock:
            return sum(self.responses.values())

    def end(self):
        """Stops sending and waits for the outstanding responses."""
        self.ended.set()
        for thread in self.threads:
            thread.join(2 * RESPONSE_TIMEOUT)
            assert not thread.is_alive(), "an announce did not finish"
