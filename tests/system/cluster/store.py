"""The store (Debian's Valkey or Redis) on a Unix socket and loopback, an administrative client, and a TCP proxy with faults."""

import os
import pathlib
import selectors
import shutil
import signal
import socket
import subprocess
import threading
import time

# The server, the tools and this program are one executable under several names. Debian's tools packages contain it, and do not
# start a service.
PROGRAM = shutil.which("valkey-check-rdb") or shutil.which("redis-check-rdb")


def await_(what, ready, seconds=30.0, pause=0.02):
    """Calls `ready` until its result is true; returns the result."""
    deadline = time.monotonic() + seconds
    while not (result := ready()):
        assert time.monotonic() < deadline, f"timed out waiting for {what} after {seconds} s"
        time.sleep(pause)
    return result


class Client:
    """An administrative client of the store."""

    def __init__(self, path, password=None):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")
        if password:
            self.command("AUTH", "admin", password)

    def command(self, *words):
        self.send(*words)
        return self.reply()

    def send(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))

    def reply(self):
        line = self.file.readline()
        assert line.endswith(b"\r\n"), f"the store sent {line!r}"
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind in b"*$" and int(rest) < 0:
            return None
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest


class Store:
    """A server with its files in a directory; `more` are additional lines of its configuration."""

    def __init__(self, directory, port, *more, password=None):
        directory.mkdir(exist_ok=True)
        self.path, self.port, self.password = directory / "store.sock", port, password
        self.log = directory / "store.log"
        self.program = directory / f"{pathlib.Path(PROGRAM).name.split('-')[0]}-server"
        if not self.program.is_symlink():
            self.program.symlink_to(PROGRAM)
        lines = ["bind 127.0.0.1", f"port {port}", f"unixsocket {self.path}", "unixsocketperm 777", 'save ""', f"dir {directory}"]
        self.config = directory / "store.conf"
        self.config.write_text("\n".join((*lines, *more)) + "\n")
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [self.program, self.config], stdout=open(self.log, "ab"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )

        def ready():
            assert self.process.poll() is None, f"the store did not start: {self.log.read_text()}"
            try:
                return self.command("PING") == b"PONG"
            except OSError:
                return False

        await_("the store", ready)

    def command(self, *words):
        client = Client(self.path, self.password)
        try:
            return client.command(*words)
        finally:
            client.socket.close()

    def info(self):
        lines = self.command("INFO").decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def numbers(self):
        """Returns the fields of INFO that are numbers."""
        return {name: int(value) for name, value in self.info().items() if value.isdigit()}

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.signal(signal.SIGCONT)
        self.kill()


class FaultyProxy:
    """A TCP proxy from a port to the store. It can delay the data, freeze all connections, or redirect to another store."""

    def __init__(self, port, to):
        self.to, self.delay, self.frozen = to, 0.0, False
        self.listener = socket.create_server(("127.0.0.1", port))
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        # The other end of each connection, and the delayed data as (time, source, data).
        self.peers, self.delayed = {}, []
        self.lock = threading.Lock()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            # While the proxy is frozen, both ends receive nothing, and their connections are not closed.
            events = () if self.frozen else self.selector.select(0.002 if self.delayed else 0.05)
            if self.frozen:
                time.sleep(0.02)
                continue
            with self.lock:
                for key, _ in events:
                    if key.fileobj is self.listener:
                        self.accept()
                    elif key.fileobj in self.peers:
                        self.read(key.fileobj)
                now = time.monotonic()
                while self.delayed and self.delayed[0][0] <= now:
                    self.write(*self.delayed.pop(0)[1:])

    def accept(self):
        near, _ = self.listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self.to), 2)
        except OSError:
            near.close()
            return
        for end, other in ((near, far), (far, near)):
            end.settimeout(2)
            self.peers[end] = other
            self.selector.register(end, selectors.EVENT_READ)

    def read(self, source):
        try:
            data = source.recv(1 << 18)
        except OSError:
            data = b""
        if self.delay or self.delayed:
            # Keep the order of the data even if the delay has changed.
            due = max(time.monotonic() + self.delay, self.delayed[-1][0] if self.delayed else 0)
            self.delayed.append((due, source, data))
        else:
            self.write(source, data)

    def write(self, source, data):
        other = self.peers.get(source)
        if other is None:
            return
        try:
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        self.close(source, other)

    def close(self, *ends):
        for end in ends:
            if self.peers.pop(end, None) is not None:
                self.selector.unregister(end)
                end.close()

    def redirect(self, to):
        """Closes all connections; new connections go to another store."""
        with self.lock:
            self.to = to
            while self.peers:
                end, other = next(iter(self.peers.items()))
                self.close(end, other)
