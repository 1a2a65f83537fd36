"""Shared code for the tests of the installed package: the service, its log, and clients."""

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests/system/systemd"))

import client  # noqa: E402
from client import Load, Refused, Udp, announce, scrape  # noqa: E402, F401

# An emulated machine on a busy host is slow.
client.RESPONSE_TIMEOUT = 120

UNITS = ("tbtt.socket", "tbtt-udp.socket", "tbtt.service")
# The settings of a test go where an operator would put them; the files of the package stay unchanged.
DROP_IN = pathlib.Path("/etc/tbtt/tbtt.toml.d/test.toml")
UNIT_DROP_IN = pathlib.Path("/run/systemd/system/tbtt.service.d/test.conf")
# On a busy host, the time-outs of the unit itself would make tests fail.
PATIENT = "TimeoutStartSec=600\nTimeoutStopSec=600\nWatchdogSec=600\n"
# For the test clients: any torrent, many announces from few addresses, long time-outs.
CONFIG = """
[http]
header_timeout = 120

[torrents]
open = true

[limits]
exempt = ["127.0.0.0/8", "::/0"]
"""
ONE = b"one-torrent........."


def run(*command, check=True, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}"
    return done


def systemctl(*arguments, check=True):
    return run("systemctl", *arguments, check=check)


def show(name, unit="tbtt.service"):
    return systemctl("show", "--value", "--property", name, unit).stdout.strip()


def configure(text):
    DROP_IN.parent.mkdir(exist_ok=True)
    DROP_IN.write_text(text)


def await_(what, ready, seconds=120):
    deadline = time.monotonic() + seconds
    while not (answer := ready()):
        assert time.monotonic() < deadline, f"gave up waiting for {what}"
        time.sleep(0.1)
    return answer


def expect(what, seen, wanted):
    assert seen == wanted, f"{what}: {seen!r} instead of {wanted!r}"


@contextlib.contextmanager
def fresh(config=CONFIG, unit="", denials=False):
    """Starts with only the sockets active and an empty state. AppArmor must deny nothing until the end, unless `denials` is set.
    Removes the settings of the test afterwards."""
    systemctl("stop", *UNITS)
    run("find", "/var/lib/tbtt", "-mindepth", "1", "-delete")
    configure(config)
    UNIT_DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    UNIT_DROP_IN.write_text(f"[Service]\n{PATIENT}{unit}\n")
    systemctl("daemon-reload")
    systemctl("reset-failed")
    systemctl("start", "tbtt.socket", "tbtt-udp.socket")
    journal = Journal()
    try:
        yield journal
        if not denials:
            expect("refused by AppArmor", journal.denials(), [])
    except BaseException:
        print(run("journalctl", "--no-pager", "--lines=60", check=False).stdout)
        raise
    finally:
        DROP_IN.unlink(missing_ok=True)
        UNIT_DROP_IN.unlink()
        UNIT_DROP_IN.parent.rmdir()
        systemctl("daemon-reload")


class Journal:
    """The entries that the journal receives from now on."""

    def __init__(self):
        self.cursor = run("journalctl", "--lines=0", "--show-cursor", "--quiet").stdout.split("cursor: ")[1].strip()

    def entries(self, *match):
        since = f"--after-cursor={self.cursor}"
        lines = run("journalctl", "--output=json", "--all", "--quiet", since, *match).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def find(self, pattern):
        for entry in self.entries("SYSLOG_IDENTIFIER=tbtt"):
            if re.search(pattern, entry["MESSAGE"]):
                return entry
        return None

    def denials(self):
        """Returns AppArmor's denials for the profile tbtt."""
        entries = self.entries("_TRANSPORT=kernel", "+", "_TRANSPORT=audit")
        lines = [entry["MESSAGE"] for entry in entries]
        return [line for line in lines if 'apparmor="DENIED"' in line and 'profile="tbtt"' in line]


def announce_udp(source, port=6881):
    with Udp(source) as udp:
        return udp.announce(ONE, port)


def networks():
    """Routes the addresses of client.addresses(6) to this machine."""
    run("ip", "-6", "route", "replace", "local", "fd00::/16", "dev", "lo")
