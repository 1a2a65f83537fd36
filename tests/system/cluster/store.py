"""The engine: Debian's server on a Unix socket and perhaps on loopback, what an operator says to it, and a wire that can be cut."""

import os
import pathlib
import selectors
import shutil
import signal
import socket
import subprocess
import threading
import time

# One program under several names; Debian's packages of the tools hold it, and start no service.
PROGRAM = shutil.which("valkey-check-rdb") or shutil.which("redis-check-rdb")


def await_(what, ready, seconds=30.0, pause=0.02):
    """The first answer that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := ready()):
        assert time.monotonic() < deadline, f"gave up waiting for {what} after {seconds} s"
        time.sleep(pause)
    return answer


class Client:
    """An operator of the engine."""

    def __init__(self, path, password=None):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")
        if password:
            self.ask("AUTH", "admin", password)

    def ask(self, *words):
        self.send(*words)
        return self.answer()

    def send(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))

    def answer(self):
        line = self.file.readline()
        assert line.endswith(b"\r\n"), f"the engine says {line!r}"
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind in b"*$" and int(rest) < 0:
            return None
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest


class Engine:
    """A server in the directory; more lines may go into its configuration."""

    def __init__(self, directory, port, *more, password=None):
        directory.mkdir(exist_ok=True)
        self.path, self.port, self.password = directory / "engine.sock", port, password
        self.log = directory / "engine.log"
        self.program = directory / f"{pathlib.Path(PROGRAM).name.split('-')[0]}-server"
        if not self.program.is_symlink():
            self.program.symlink_to(PROGRAM)
        lines = ["bind 127.0.0.1", f"port {port}", f"unixsocket {self.path}", "unixsocketperm 777", 'save ""', f"dir {directory}"]
        self.config = directory / "engine.conf"
        self.config.write_text("\n".join((*lines, *more)) + "\n")
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [self.program, self.config], stdout=open(self.log, "ab"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )

        def ready():
            assert self.process.poll() is None, f"the engine does not start: {self.log.read_text()}"
            try:
                return self.ask("PING") == b"PONG"
            except OSError:
                return False

        await_("the engine", ready)

    def ask(self, *words):
        client = Client(self.path, self.password)
        try:
            return client.ask(*words)
        finally:
            client.socket.close()

    def info(self):
        lines = self.ask("INFO").decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def figures(self):
        return {name: int(value) for name, value in self.info().items() if value.isdigit()}

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.signal(signal.SIGCONT)
        self.kill()


class Wire:
    """Carries connections on a port to where the engine is; may be slow, cut, or led elsewhere."""

    def __init__(self, port, to):
        self.to, self.delay, self.cut = to, 0.0, False
        self.listener = socket.create_server(("127.0.0.1", port))
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.peers, self.late = {}, []
        self.lock = threading.Lock()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            # Of a cut wire both ends hear nothing, not even that it is cut.
            events = () if self.cut else self.selector.select(0.002 if self.late else 0.05)
            if self.cut:
                time.sleep(0.02)
                continue
            with self.lock:
                for key, _ in events:
                    if key.fileobj is self.listener:
                        self.accept()
                    elif key.fileobj in self.peers:
                        self.read(key.fileobj)
                now = time.monotonic()
                while self.late and self.late[0][0] <= now:
                    self.write(*self.late.pop(0)[1:])

    def accept(self):
        near, _ = self.listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self.to), 2)
        except OSError:
            near.close()
            return
        for one, other in ((near, far), (far, near)):
            one.settimeout(2)
            self.peers[one] = other
            self.selector.register(one, selectors.EVENT_READ)

    def read(self, one):
        try:
            data = one.recv(1 << 18)
        except OSError:
            data = b""
        if self.delay or self.late:
            # In the order in which it came, even if the delay has changed.
            due = max(time.monotonic() + self.delay, self.late[-1][0] if self.late else 0)
            self.late.append((due, one, data))
        else:
            self.write(one, data)

    def write(self, one, data):
        other = self.peers.get(one)
        if other is None:
            return
        try:
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        self.drop(one, other)

    def drop(self, *both):
        for end in both:
            if self.peers.pop(end, None) is not None:
                self.selector.unregister(end)
                end.close()

    def lead(self, to):
        """To another engine: what was connected is not."""
        with self.lock:
            self.to = to
            while self.peers:
                one, other = next(iter(self.peers.items()))
                self.drop(one, other)
