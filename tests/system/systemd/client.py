"""Clients of a tracker on this host: one announce or scrape at a time, and a bounded load of them."""

import os
import random
import re
import socket
import struct
import threading
import time
import urllib.parse

PORT = 6969
# Nothing is sent twice, so this must outlast any restart: what is lost shows as a time-out.
PATIENCE = 20
# Whoever sends from an address that is not set up, but is routed here.
IPV6_FREEBIND = 78


class Refused(Exception):
    """The tracker answered, but not with what was asked for."""


def decode(data):
    """Bencode, the whole of it."""
    value, end = decode_at(data, 0)
    if end != len(data):
        raise Refused(f"more than one value: {data!r}")
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
        raise Refused(f"cut off: {data!r}")
    return data[colon + 1 : end], end


def connect(kind, source, to):
    """A socket from one address to the tracker."""
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.settimeout(PATIENCE)
    if source:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        sock.bind((source, 0))
    sock.connect(to)
    return sock


def server(source):
    return ("::1" if source and ":" in source else "127.0.0.1", PORT)


def get(path, source=None, to=None):
    """What HTTP answers, on a connection of its own; raises OSError if it is refused or reset."""
    with connect(socket.SOCK_STREAM, source, to or server(source)) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: tracker\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while more := sock.recv(65536):
            answer += more
    head, blank, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    if not head.startswith(b"HTTP/1.1 200 ") or not blank or not length or int(length[1]) != len(body):
        raise Refused(f"no whole answer: {answer!r}")
    answer = decode(body)
    if b"failure reason" in answer:
        raise Refused(answer[b"failure reason"].decode())
    return answer


def announce(torrent, source=None, port=6881, left=1, to=None):
    """An HTTP announce; the answer as a dictionary."""
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
    answer = get(f"/announce?{urllib.parse.urlencode(query, quote_via=urllib.parse.quote)}", source, to)
    if b"peers" not in answer:
        raise Refused(f"no peers: {answer!r}")
    return answer


def scrape(torrents):
    """How many peers each torrent has, complete or not."""
    counts = {}
    for some in (torrents[at : at + 50] for at in range(0, len(torrents), 50)):
        files = get("/scrape?" + "&".join("info_hash=" + urllib.parse.quote(one) for one in some))[b"files"]
        counts |= {one: files[one][b"complete"] + files[one][b"incomplete"] if one in files else 0 for one in some}
    return counts


class Udp:
    """A client over UDP, on a socket of its own (BEP 15)."""

    def __init__(self, source=None):
        self.sock = connect(socket.SOCK_DGRAM, source, server(source))
        self.connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def ask(self, connection, action, rest=b""):
        transaction = random.randbytes(4)
        self.sock.send(connection + struct.pack(">I", action) + transaction + rest)
        while True:
            answer = self.sock.recv(65536)
            if answer[4:8] == transaction:
                break
        if answer[:4] != struct.pack(">I", action):
            raise Refused(f"{answer!r}")
        return answer[8:]

    def announce(self, torrent, port=6881, left=1):
        """How many seconds until the next, and how many peers of each kind."""
        if not self.connection:
            self.connection = self.ask(struct.pack(">Q", 0x41727101980), 0)
        rest = torrent + b"-XX0000-" + os.urandom(6).hex().encode()
        rest += struct.pack(">QQQIIIiH", 0, left, 0, 2, 0, random.getrandbits(32), -1, port)
        return struct.unpack(">III", self.ask(self.connection, 1, rest)[:12])


def torrents(name, count):
    return [f"{name}{number}".encode().ljust(20, b".") for number in range(count)]


def addresses(family):
    """Addresses of 65,535 peers: in IPv6 each of a network of its own."""
    for number in range(1, 0x10000):
        high, low = number >> 8 & 0xFF, number & 0xFF
        yield f"127.1.{high}.{low}" if family == 4 else f"fd00:0:0:{high:02x}{low:02x}::1"


class Load:
    """Announces from ever new peers until it is told to end, some over each protocol and family, at a bounded rate.

    Each waits for its answer; threads enough that many wait when the tracker is away.
    """

    # Each four times a second.
    THREADS = {("HTTP", 4): 24, ("HTTP", 6): 12, ("UDP", 4): 12, ("UDP", 6): 6}
    PAUSE = 0.25

    def __init__(self, name):
        self.torrents = torrents(name, 40)
        self.lock = threading.Lock()
        self.answered = {way: 0 for way in self.THREADS}
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
        # Not all at once.
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
                    self.answered[way] += 1

    def total(self):
        with self.lock:
            return sum(self.answered.values())

    def end(self):
        """Waits for the answers that are still to come."""
        self.ended.set()
        for thread in self.threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive(), "an announce never came to its end"
