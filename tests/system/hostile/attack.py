"""The tracker under attack: constants, and the comparison of its resources before and after."""

import contextlib
import random

import harness
from harness import Daemon, expect, mebibytes, wait_until

# Bytes that the tracker may use more than before, after a case: the allocator does not return all freed memory.
LEFT_OVER = 8 << 20
LISTED = {"torrents": {"allow": ["/run/allowed"]}}
OPEN = {"torrents": {"open": True}}
# The connection ids must be valid for the duration of a case.
LONG_LIVED = {"udp": {"connection_lifetime": 3600}}
# The fixed seed gives each run of a case the same load.
RANDOM = random.Random(9)


def source(number):
    """Returns an address of the attacker, who controls 250 hosts."""
    return f"10.1.{number % 250}.1"


@contextlib.contextmanager
def under_load(tbtt, place, settings=LISTED, left_over=LEFT_OVER, limits=None, wait_for_close=True):
    """Yields a daemon that has served some clients. After the block it may use no more memory and descriptors than before; the
    attribute `usage` then has a summary."""
    with Daemon(tbtt, place / "daemon", settings, limits=limits) as daemon:
        for _ in range(200):
            harness.announce()
            harness.announce_udp()
        before, descriptors = daemon.memory(), daemon.descriptors()
        yield daemon
        if wait_for_close:
            wait_until("all connections to be closed", lambda: daemon.status()["connections"] == 0)
        harness.announce()
        harness.announce_udp()
        wait_until("the file descriptors to be closed", lambda: daemon.descriptors() <= descriptors)
        after = daemon.memory()
        daemon.usage = f"memory {mebibytes(before)} before, {mebibytes(after)} after; descriptors {descriptors} and {daemon.descriptors()}"
        expect(after <= before + left_over, "memory leaked:", daemon.usage)


def try_announce(to):
    try:
        return harness.announce(to=to)
    except OSError:
        return None
