"""The tracker under test: consecutive processes with the same sockets."""

import fcntl
import os
import signal
import socket
import subprocess
import time

RELEASE = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../../target/release")
TBTT = os.path.realpath(os.environ.get("TBTT", os.path.join(RELEASE, "tbtt")))
TBTTCTL = os.path.realpath(os.environ.get("TBTTCTL", os.path.join(os.path.dirname(TBTT), "tbttctl")))

# Seconds to wait for a response. Requests are not repeated, so this must be longer than a restart takes, even on a busy machine,
# and a lost request shows as a timeout.
RESPONSE_TIMEOUT = 30
# Seconds. Short, so that peers expire during a run of some minutes.
PEER_TIMEOUT = 180
REMOVAL_GRACE = 2
CONFIGURATION = """
[tracker]
interval = 60
min_interval = 10
peer_timeout = {timeout}
[limits]
peers_per_network = 1000
[torrents]
directories = ["{place}/torrents"]
removal_grace = {grace}
[state]
directory = "{place}/state"
interval = 20
[control]
listen = "{place}/control"
mode = "0660"
[log]
target = "stderr"
level = "info"
announces = true
{daemon}
"""


class Failed(Exception):
    """An error that ends the run."""


class Daemon:
    """The tracker: consecutive processes that inherit the same sockets."""

    def __init__(self, place):
        self.place = place
        self.configure()
        self.sockets = []
        self.port = self.listen()
        self.log = os.path.join(place, "log")
        # The log goes through a pipe, whose reader never blocks the daemon. A file would hide writes of partial lines.
        reader, self.stderr = os.pipe()
        with open(self.log, "wb") as out:
            self.reader = subprocess.Popen(["cat"], stdin=reader, stdout=out)
        os.close(reader)
        self.pid = None
        # The size of the log when the current process started.
        self.log_start = 0

    def configure(self, more=""):
        text = CONFIGURATION.format(
            timeout=PEER_TIMEOUT,
            grace=REMOVAL_GRACE,
            place=self.place,
            daemon='[daemon]\nuser = "nobody"' if os.geteuid() == 0 else "",
        )
        with open(f"{self.place}/new", "w", encoding="utf-8") as out:
            out.write(text + more)
        os.rename(f"{self.place}/new", f"{self.place}/tbtt.toml")

    def listen(self):
        """Opens a socket for each protocol and family, on the same port; returns the port."""
        port = 0
        for kind, name in (socket.SOCK_STREAM, "http"), (socket.SOCK_DGRAM, "udp"):
            for family, address in (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"):
                sock = socket.socket(family, kind)
                sock.bind((address, port))
                port = sock.getsockname()[1]
                if kind == socket.SOCK_STREAM:
                    sock.listen(4096)
                else:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                # Use high descriptors, because the daemon gets the sockets as descriptors 3 to 6.
                self.sockets.append((name, fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, 100)))
                sock.close()
        return port

    def start(self):
        names = ":".join(name for name, _ in self.sockets)
        passed = [(os.POSIX_SPAWN_DUP2, fd, number) for number, (_, fd) in enumerate(self.sockets, 3)]
        script = f'LISTEN_PID=$$ LISTEN_FDS={len(passed)} LISTEN_FDNAMES={names} exec "$0" --config "$1"'
        # Duplicate the pipe first: its descriptor may be one of those that the sockets get.
        actions = [(os.POSIX_SPAWN_DUP2, self.stderr, 2), *passed]
        arguments = ["sh", "-c", script, TBTT, f"{self.place}/tbtt.toml"]
        self.pid = os.posix_spawn("/bin/sh", arguments, os.environ, file_actions=actions)
        end = time.monotonic() + RESPONSE_TIMEOUT
        while not self.has_started():
            if os.waitpid(self.pid, os.WNOHANG)[0] or time.monotonic() > end:
                self.pid = None
                raise Failed("the daemon did not start")
            time.sleep(0.01)

    def stop(self):
        pid, self.pid = self.pid, None
        os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
        if status:
            raise Failed(f"the daemon exited with status {status}")
        end = time.monotonic() + RESPONSE_TIMEOUT
        while not self.tail().endswith(b" notice stopped\n"):
            if time.monotonic() > end:
                raise Failed("the daemon did not log that it stopped")
            time.sleep(0.001)
        self.log_start = os.path.getsize(self.log)

    def end(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.stderr)
        self.reader.wait()

    def tail(self):
        with open(self.log, "rb") as log:
            log.seek(max(0, os.path.getsize(self.log) - 100))
            return log.read()

    def has_started(self):
        with open(self.log, "rb") as log:
            log.seek(self.log_start)
            return b" notice started " in log.read()

    def tbttctl(self, *arguments):
        """Runs tbttctl; returns its exit status and output."""
        done = subprocess.run(
            [TBTTCTL, "--socket", f"{self.place}/control", *arguments],
            capture_output=True,
            timeout=RESPONSE_TIMEOUT,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def resident(self):
        """Returns the resident memory in bytes."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))
