"""Cases: hostile TCP connections and malformed requests."""

import contextlib
import itertools
import re
import select
import socket
import ssl
import struct
import time

import harness
from attack import RANDOM, source, under_load
from harness import LEGITIMATE_SOURCES, TRACKER, LegitimateClients, SpoofingSocket, expect


class HeldConnections:
    """Connections that attackers keep open. Some are idle after one request, some never send anything, and some send one byte per
    second. A connection that the tracker closes is replaced."""

    REQUEST = f"GET {harness.announce_path()} HTTP/1.1\r\nHost: t\r\nX-Padding: {'x' * 200}\r\n\r\n".encode()

    def __init__(self, idle, slow):
        self.poll = select.epoll()
        self.sockets, self.kinds, self.sent = {}, {}, {}
        self.opened = 0
        kinds = itertools.chain.from_iterable(
            itertools.repeat(kind, count) for kind, count in [("idle", idle // 2), ("silent", idle - idle // 2), ("slow", slow)]
        )
        for number, kind in enumerate(kinds):
            self.open(kind)
            if number % 200 == 199:
                # Do not overflow the tracker's accept queue.
                self.poll_events(0.02)

    def open(self, kind):
        sock = harness.connect_from(source(self.opened), TRACKER, wait=False)
        self.opened += 1
        fd = sock.fileno()
        self.sockets[fd], self.kinds[fd], self.sent[fd] = sock, kind, 0
        wait = select.EPOLLRDHUP | (0 if kind == "silent" else select.EPOLLOUT)
        self.poll.register(fd, wait)

    def poll_events(self, timeout=0.0):
        for fd, event in self.poll.poll(timeout, 4096):
            if event & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
                kind = self.kinds.pop(fd)
                del self.sent[fd]
                self.poll.unregister(fd)
                self.sockets.pop(fd).close()
                self.open(kind)
            elif event & select.EPOLLOUT:
                with contextlib.suppress(OSError):
                    self.sockets[fd].send(self.REQUEST if self.kinds[fd] == "idle" else self.REQUEST[:1])
                self.sent[fd] = 1
                self.poll.modify(fd, select.EPOLLRDHUP)

    def hold(self, seconds):
        """Keeps the connections open; each slow connection sends one byte per second."""
        end = time.monotonic() + seconds
        slow = []
        while time.monotonic() < end:
            begun = time.monotonic()
            slow = slow or [fd for fd, kind in self.kinds.items() if kind == "slow"]
            for fd in slow[:500]:
                at = self.sent.get(fd, 0)
                if 0 < at < len(self.REQUEST) and fd in self.sockets:
                    with contextlib.suppress(OSError):
                        self.sent[fd] += self.sockets[fd].send(self.REQUEST[at : at + 1])
            del slow[:500]
            self.poll_events(max(0.0, begun + 0.1 - time.monotonic()))

    def close(self):
        for sock in self.sockets.values():
            sock.close()
        self.poll.close()


def held_connections(tbtt, place, full):
    """idle and slow connections"""
    # The allocator keeps up to three KiB for each connection.
    with under_load(tbtt, place, left_over=15_000 * 3072) as daemon:
        before = daemon.memory()
        with LegitimateClients() as clients:
            connections = HeldConnections(10_000, 5_000)
            counts = []
            for _ in range(60 if full else 12):
                connections.hold(1)
                counts.append(daemon.status()["connections"])
            peak = daemon.memory()
        connections.close()
        # The tracker accepts a silent connection only after some seconds (deferred accept), and closes every connection at its timeout.
        expect(max(counts) >= 14_000, "at most", max(counts), "connections were open")
        summary = clients.check(p99=50 if full else None)
    each = (peak - before) / counts[-1]
    return f"{min(counts)} to {max(counts)} open, {connections.opened} opened, {each:.0f} bytes each; {summary}; {daemon.usage}"


def flood(seconds, finish):
    """Opens connections as fast as possible and ends each with `finish`; returns their number."""
    opened, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        socks = [harness.connect_from(source(opened + number), TRACKER, wait=False) for number in range(50)]
        opened += len(socks)
        select.select([], socks, [], 1)
        for sock in socks:
            with contextlib.suppress(OSError):
                finish(sock)
            sock.close()
    return opened


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.send(RANDOM.choice([b"", b"GET /ann", HeldConnections.REQUEST]))


def half_close(sock):
    sock.send(RANDOM.choice([b"", b"GET /ann", HeldConnections.REQUEST, HeldConnections.REQUEST * 2]))
    sock.shutdown(socket.SHUT_WR)


def connection_floods(tbtt, place, full):
    """floods of connections, resets and half-closes"""
    with under_load(tbtt, place) as daemon:
        report = []
        for name, finish in [("closed", lambda sock: None), ("reset", reset), ("half-closed", half_close)]:
            seconds = 30 if full else 3
            with LegitimateClients() as clients:
                opened = flood(seconds, finish)
            report.append(f"{opened / seconds:.0f} {name} per second, {clients.check()}")
    return "; ".join([*report, daemon.usage])


def garbage(tbtt, place, full):
    """garbage over both protocols"""
    count = 50_000 if full else 4_000
    with under_load(tbtt, place) as daemon:
        with LegitimateClients() as clients:
            spoofer = SpoofingSocket()
            valid = harness.udp_announce(1, 2)
            for number in range(count * 10):
                packet = RANDOM.randbytes(RANDOM.randrange(1500)) if number % 2 else bytearray(valid)
                if not number % 2:
                    packet[RANDOM.randrange(len(packet))] ^= 1 << RANDOM.randrange(8)
                    if number % 4:
                        packet = packet[: RANDOM.randrange(len(packet))]
                spoofer.send(number % 5000, bytes(packet))
            spoofer.sock.close()
            for number in range(count):
                data = RANDOM.randbytes(RANDOM.randrange(1, 2000)) if number % 2 else bytearray(HeldConnections.REQUEST)
                if not number % 2:
                    for _ in range(3):
                        data[RANDOM.randrange(len(data))] = RANDOM.randrange(256)
                with contextlib.suppress(OSError), harness.connect_from(source(number), TRACKER) as sock:
                    sock.send(bytes(data))
        summary = clients.check()
        expect(daemon.process.poll() is None, "the daemon exited")
    return f"{count * 10} packets, {count} connections; {summary}; {daemon.usage}"


def response_to(data, to=TRACKER, from_=None, timeout=30):
    """Sends the data on a new connection; returns the response, and whether the tracker closed the connection."""
    with harness.connect_from(from_ or next(LEGITIMATE_SOURCES), to) as sock:
        sock.settimeout(timeout)
        response = b""
        try:
            sock.sendall(data)
        except OSError:
            pass
        try:
            while more := sock.recv(65536):
                response += more
            return response, True
        except ConnectionResetError:
            return response, True
        except TimeoutError:
            return response, False


def client_hello():
    """Returns the first message of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="tracker.example.org")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def statuses(response):
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", response)]


def oversized_requests(tbtt, place, full):
    """TLS on the HTTP port, oversized headers and URLs"""
    get = b"GET /announce?%s HTTP/1.1\r\nHost: t\r\n"
    mebi = 1 << 20
    requests = {
        "TLS": (client_hello(), {400}),
        "a URL of 1 MiB": (get % (b"a" * mebi) + b"\r\n", {400, 414, 431}),
        "a header of 1 MiB": (get % b"a" + b"X: " + b"a" * mebi + b"\r\n\r\n", {400, 431}),
        "100,000 headers": (get % b"a" + b"X: y\r\n" * 100_000 + b"\r\n", {400, 431}),
        "one header 2,000 times": (get % b"a" + b"X: y\r\n" * 2000 + b"\r\n", {400, 431}),
        "1 MiB of line ends": (b"\r\n" * (mebi // 2), {400, 431}),
        "1 MiB without a line end": (b"A" * mebi, {400, 414, 431}),
        "a header name of 1 MiB": (get % b"a" + b"X" * mebi, {400, 431}),
        "10,000 parameters": (get % (b"a=b&" * 3000) + b"Connection: close\r\n\r\n", {200, 400, 414, 431}),
    }
    rounds = 300 if full else 20
    with under_load(tbtt, place) as daemon:
        with LegitimateClients() as clients:
            for number, (name, (data, allowed)) in itertools.product(range(rounds), requests.items()):
                response, closed = response_to(data, from_=source(number))
                got = statuses(response)
                # If the connection is reset before the whole request was read, the response may be lost.
                expect(closed and len(got) <= 1 and allowed.issuperset(got), name, "got the statuses", got, "closed:", closed)
        summary = clients.check()
    return f"{len(requests)} kinds, {rounds} times; {summary}; {daemon.usage}"
