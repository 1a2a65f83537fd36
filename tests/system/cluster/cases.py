"""What a cluster of three trackers owes its clients and its operator, seen from outside.

cases.py [PATTERN]   in namespaces of tests/system/cluster/run
"""

import base64
import contextlib
import glob
import os
import pathlib
import re
import secrets
import signal
import struct
import subprocess
import sys
import time
import traceback
import urllib.parse

from store import Engine, Wire, await_
from tracker import (
    COMPLETED, REAL_ROOT, STARTED, STOPPED, TBTT, Beside, Node, Udp, announce_http, changes, fill, http_client, percentile, pulse, torrents,
)

ROOT = pathlib.Path(__file__).resolve().parents[3]
WORK = pathlib.Path("/run/cluster")
PEERS = int(os.environ.get("PEERS", "100000"))

cases = []


def case(name):
    def add(function):
        cases.append((name, function))
        return function

    return add


def expect(what, seen, wanted):
    assert seen == wanted, f"{what}: {seen!r} instead of {wanted!r}"


class Cluster:
    """An engine and three nodes; each may have a wire of its own to the engine."""

    def __init__(self, name, wires=False, engine=(), environments=({}, {}, {}), more=""):
        self.work, self.more = WORK / name, more
        self.work.mkdir(parents=True)
        self.work.chmod(0o755)
        self.engine = Engine(self.work / "engine", 6379, *engine)
        self.engines = [self.engine]
        self.wires = [Wire(7001 + number, 6379) for number in range(3)] if wires else []
        urls = [f"redis://127.0.0.1:{wire.listener.getsockname()[1]}/" for wire in self.wires]
        # Without wires: by either way.
        urls = urls or ["redis://127.0.0.1:6379/"] + 2 * [f"redis+unix://{self.engine.path}"]
        self.ports = [6969, 6970, 6971]
        self.nodes = []
        for which, port, url, environment in zip("abc", self.ports, urls, environments):
            self.nodes.append(Node(self.work / which, port, f'url = "{url}"\n{more}', environment=environment))

    def join(self, seconds=30):
        for node in self.nodes:
            await_(f"{node.directory.name} to join", lambda node=node: node.cluster()["state"] == "joined", seconds)

    def counts(self, swarms):
        """What each node says of them."""
        found = []
        for port in self.ports:
            found.append(Udp(port).scrape(swarms))
        return found

    def agree(self, swarms, wanted, seconds=15):
        """Waits until all say the same of those torrents: (seeders, downloads, leechers) of each."""
        begin = time.monotonic()
        try:
            await_("", lambda: all(counts == wanted for counts in self.counts(swarms)), seconds, 0.05)
        except AssertionError:
            told = [f"after {seconds} s, of {len(swarms)} torrents"]
            for node, counts in zip(self.nodes, self.counts(swarms)):
                wrong = [(seen, due, torrent) for torrent, seen, due in zip(swarms, counts, wanted) if seen != due]
                sums = [tuple(map(sum, zip(*some))) for some in (counts, wanted)]
                told.append(
                    f"{node.directory.name} counts {len(wrong)} otherwise than due, in all {sums[0]} instead of {sums[1]}, first (seen, due): {wrong[:3]}"
                )
            raise AssertionError("\n   ".join(told)) from None
        return time.monotonic() - begin

    def close(self):
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.send_signal(signal.SIGCONT)
                node.kill()
        for engine in self.engines:
            if engine.process.poll() is None:
                engine.stop()
        for wire in self.wires:
            wire.cut = True
            wire.listener.close()

    def report(self):
        for log in sorted(self.work.glob("*/*.log")):
            print(f"--- {log.relative_to(self.work)}")
            print("\n".join(log.read_text(errors="replace").splitlines()[-40:]))
        for node in self.nodes:
            with contextlib.suppress(OSError, ValueError):
                print(f"--- {node.directory.name}: {node.cluster()}")


@contextlib.contextmanager
def three(name, **options):
    cluster = Cluster(name, **options)
    try:
        cluster.join()
        yield cluster
    except BaseException:
        cluster.report()
        raise
    finally:
        cluster.close()


# What clients see.


@case("a peer of one node is handed out by the others, over both families and protocols")
def _():
    with three("share") as cluster:
        a, b, c = cluster.ports
        (torrent,) = torrents("shared", 1)
        Udp(a, "127.0.0.2").announce(torrent, 1001)
        Udp(b, "::1").announce(torrent, 1002, left=0)
        announce_http(http_client(c), torrent, 1003)
        cluster.agree([torrent], [(1, 0, 2)], 5)
        v4 = {bytes([127, 0, 0, 2]) + (1001).to_bytes(2, "big"), bytes([127, 0, 0, 1]) + (1003).to_bytes(2, "big")}
        for number, port in enumerate(cluster.ports):
            answer = Udp(port, "127.0.0.9").announce(torrent, 10 + number, numwant=50)
            given = {answer[at : at + 6] for at in range(0, len(answer), 6) if answer[at + 3] != 9}
            expect("IPv4 peers", given, v4)
            answer = Udp(port, "::1").announce(torrent, 20 + number, numwant=50)
            given = {int.from_bytes(answer[at + 16 : at + 18], "big") for at in range(0, len(answer), 18)}
            expect("ports of IPv6 peers", given & {1002}, {1002})
        cluster.agree([torrent], [(1, 0, 8)], 5)
        # Who leaves one has left all.
        for number, port in enumerate(cluster.ports[1:] + cluster.ports[:1]):
            Udp(port, "127.0.0.9").announce(torrent, 10 + number, event=STOPPED)
            Udp(port, "::1").announce(torrent, 20 + number, event=STOPPED)
        Udp(c, "127.0.0.2").announce(torrent, 1001, event=STOPPED)
        cluster.agree([torrent], [(1, 0, 1)], 5)


@case("downloads are counted once, over all nodes and restarts")
def _():
    with three("downloads") as cluster:
        swarms = torrents("downloaded", 20)
        for number, torrent in enumerate(swarms):
            for peer in range(number):
                # It begins at one node and ends at another.
                Udp(cluster.ports[peer % 3], f"127.0.1.{1 + peer}").announce(torrent, 1000 + peer)
        await_("the leechers", lambda: all(counts[-1][2] == 19 for counts in cluster.counts(swarms)))
        for number, torrent in enumerate(swarms):
            for peer in range(number):
                for _ in range(2):
                    client = Udp(cluster.ports[(peer + 1) % 3], f"127.0.1.{1 + peer}")
                    client.announce(torrent, 1000 + peer, left=0, event=COMPLETED)
        wanted = [(number, number, 0) for number in range(20)]
        cluster.agree(swarms, wanted)
        # One that stops and starts, one that is killed and starts empty, an engine that has lost all.
        a, b, c = cluster.nodes
        a.stop()
        a.start()
        cluster.agree(swarms, wanted)
        b.kill()
        b.empty()
        b.start()
        cluster.agree(swarms, wanted)
        cluster.engine.ask("FLUSHALL")
        c.stop()
        c.empty()
        c.start()
        cluster.agree(swarms, wanted, 45)
        announce_http(http_client(c.port), swarms[0], 999)
        announce_http(http_client(c.port), swarms[0], 999, left=0, event="completed")
        cluster.agree(swarms[:1], [(1, 1, 0)])


def delays(ports, count):
    """Peers join, complete and leave at the first tracker, some at any time under way; for each of these, how long it took until the
    last of the others said so."""
    first, others = Udp(ports[0], "127.30.0.1"), [Udp(port, "127.30.0.1") for port in ports[1:]]
    waiting = list(torrents(f"probe{secrets.token_hex(3)}", count))
    # Of each torrent: which step it is at, since when, and who has not said so yet. What a step comes to is seeders and leechers;
    # an open tracker forgets a torrent without peers.
    acts = (((0, 1), 1, STARTED), ((1, 0), 0, COMPLETED), ((0, 0), 0, STOPPED))
    under_way, took = {}, {"joined": [], "completed": [], "left": []}
    names = list(took)

    def act(torrent, step):
        _, left, event = acts[step]
        under_way[torrent] = (step, time.monotonic(), set(range(len(others))))
        first.announce(torrent, 7000, left, event)

    deadline = time.monotonic() + 45
    while waiting or under_way:
        assert time.monotonic() < deadline, f"{len(under_way)} changes did not come through: {list(under_way.items())[:3]}"
        while waiting and len(under_way) < 60:
            act(waiting.pop(), 0)
        for number, other in enumerate(others):
            asked = [torrent for torrent, (_, _, missing) in under_way.items() if number in missing]
            for torrent, (seeders, _, leechers) in zip(asked, other.scrape(asked)):
                step, begin, missing = under_way[torrent]
                if (seeders, leechers) != acts[step][0]:
                    continue
                missing.discard(number)
                if missing:
                    continue
                took[names[step]].append(time.monotonic() - begin)
                if step + 1 < len(acts):
                    act(torrent, step + 1)
                else:
                    del under_way[torrent]
        time.sleep(0.002)
    return took


@case("what a peer does is known everywhere within a second, at 5,000 changes a second")
def _():
    with three("delay") as cluster:
        told = ""
        for attempt in range(3):
            sent = [node.cluster()["sent"] for node in cluster.nodes]
            load = Beside(changes, cluster.ports, 5000, 200, 3000, f"load{attempt}")
            time.sleep(1)
            took = delays(cluster.ports, 500)
            answered, seconds = load.result()
            changed = sum(node.cluster()["sent"] for node in cluster.nodes) - sum(sent)
            every = [one for some in took.values() for one in some]
            worst = {name: percentile(some, 99) for name, some in took.items()}
            told += "; " * bool(told) + f"{answered / seconds:.0f} announces and {changed / seconds:.0f} changes/s, p50 {percentile(every, 50):.2f} s, p99 "
            told += ", ".join(f"{name} {value:.2f} s" for name, value in worst.items())
            if max(worst.values()) < 1 and changed / seconds > 4000:
                break
        else:
            raise AssertionError(told)
        for node in cluster.nodes:
            figures = node.cluster()
            expect(f"dropped and malformed at {node.directory.name}", (figures["dropped"], figures["malformed"]), (0, 0))
            expect("nodes that it hears", len(figures["nodes"]), 2)
        return told


# What the engine may do.


class Ledger:
    """Peers that were announced, node by node, and what must be counted of them."""

    def __init__(self, cluster):
        self.cluster, self.number, self.wanted = cluster, 0, {}
        self.swarms = torrents("ledger", 30)
        self.peers = {torrent: set() for torrent in self.swarms}
        self.known = {torrent: set() for torrent in self.swarms}

    def act(self):
        """At each node, some join, and some leave that all nodes know."""
        for at, port in enumerate(self.cluster.ports):
            client = Udp(port, "127.40.0.1")
            for torrent in self.swarms:
                self.number += 1
                peer = 1 + self.number
                client.announce(torrent, peer, event=STARTED)
                self.peers[torrent].add(peer)
                known = self.known[torrent]
                if self.number % 3 == at and known:
                    gone = min(known)
                    known.remove(gone)
                    self.peers[torrent].remove(gone)
                    client.announce(torrent, gone, event=STOPPED)

    def restart(self):
        """At each node, a client that all know stops and starts again."""
        for at, port in enumerate(self.cluster.ports):
            client = Udp(port, "127.40.0.1")
            torrent = self.swarms[at]
            peer = max(self.known[torrent])
            client.announce(torrent, peer, event=STOPPED)
            client.announce(torrent, peer, event=STARTED)

    def agree(self, seconds):
        took = self.cluster.agree(self.swarms, [(0, 0, len(self.peers[torrent])) for torrent in self.swarms], seconds)
        self.known = {torrent: set(peers) for torrent, peers in self.peers.items()}
        return took


def state(node):
    return node.cluster()["state"]


def outage(cluster, ledger, name, begin, end, expected="lone", who=(0, 1, 2), seconds=20):
    """Announces go on as before while the engine is away; then all comes right. What is told is how long that took."""
    cluster.join()
    marks = [node.mark() for node in cluster.nodes]
    others = [number for number in range(3) if number not in who]
    calm = Beside(pulse, cluster.ports)
    time.sleep(2.5)
    calm = [took for _, took in calm.result()]
    before = [node.resident() for node in cluster.nodes]
    # More than any queue holds.
    load = Beside(changes, cluster.ports, 1500, 50, 900, "flap")
    begin()
    beat = Beside(pulse, cluster.ports)
    try:
        if expected:
            for number in who:
                node = cluster.nodes[number]
                await_(f"{node.directory.name} to be {expected}", lambda node=node: state(node) == expected, 20)
        ledger.restart()
        ledger.act()
        time.sleep(2.5)
    finally:
        during = [took for _, took in beat.result()]
        load.result()
    grown = max(node.resident() - was for node, was in zip(cluster.nodes, before))
    for number in others:
        expect(f"state of {cluster.nodes[number].directory.name}", state(cluster.nodes[number]), "joined")
    end()
    back = time.monotonic()
    cluster.join(seconds)
    joined = time.monotonic() - back
    ledger.agree(seconds)
    healed = time.monotonic() - back
    ledger.act()
    ledger.agree(seconds)
    # One line for each change: lost, reached, joined; and who filled an engine that was empty says so.
    for number, (node, mark) in enumerate(zip(cluster.nodes, marks)):
        lines = [line for line in node.told(mark) if "engine was empty" not in line]
        changes_of_state = ["lost", "reached", "joined"] if expected and number in who else []
        told = [line.split()[2].strip(",") for line in lines]
        # What only becomes a replica may be reached once more before it says so.
        expect(f"log of {node.directory.name} ({lines})", told[2:] if told[:4] == ["lost", "reached"] * 2 else told, changes_of_state)
    worst, usual = percentile(during, 99), percentile(calm, 99)
    assert worst < max(4 * usual, 0.1), f"{name}: announces took {worst * 1000:.1f} ms (p99) instead of {usual * 1000:.1f} ms"
    assert grown < 64, f"{name}: it grew by {grown:.0f} MiB"
    return (
        f"{name}: p99 of {len(during)} announces {worst * 1000:.1f} ms ({usual * 1000:.1f} ms before), {grown:+.1f} MiB,"
        f" joined {joined:.1f} s and healed {healed:.1f} s after"
    )


@case("an engine that is slow, stopped, killed, emptied or cut off delays no announce, and heals")
def _():
    with three("outage", wires=True) as cluster:
        engine, ledger, told = cluster.engine, Ledger(cluster), []
        ledger.act()
        ledger.agree(10)

        def slow(delay):
            def set_delay():
                for wire in cluster.wires:
                    wire.delay = delay

            return set_delay

        def cut(which, away):
            def set_cut():
                cluster.wires[which].cut = away

            return set_cut

        told.append(outage(cluster, ledger, "slow by 1 s", slow(0.5), slow(0), expected=None))
        told.append(outage(cluster, ledger, "stopped", lambda: engine.signal(signal.SIGSTOP), lambda: engine.signal(signal.SIGCONT)))
        told.append(outage(cluster, ledger, "killed", engine.kill, engine.start))
        told.append(outage(cluster, ledger, "cut off for one", cut(1, True), cut(1, False), who=(1,)))
        told.append(outage(cluster, ledger, "emptied", lambda: engine.ask("FLUSHALL"), lambda: None, expected=None))
        # What was lost in the engine is there again.
        cluster.nodes[2].kill()
        cluster.nodes[2].empty()
        cluster.nodes[2].start()
        told.append(f"a node that started empty then knew all after {ledger.agree(20):.1f} s")
        return "\n   ".join(["", *told])


@case("an engine that is replaced, by a replica or by an empty one, loses nobody")
def _():
    with three("failover", wires=True) as cluster:
        first, ledger, told = cluster.engine, Ledger(cluster), []
        second = Engine(cluster.work / "second", 6380, "replicaof 127.0.0.1 6379")
        cluster.engines.append(second)
        await_("the replica", lambda: second.info()["master_link_status"] == "up")
        ledger.act()
        ledger.agree(10)

        def lead(to):
            for wire in cluster.wires:
                wire.lead(to)

        def promote():
            second.ask("REPLICAOF", "NO", "ONE")
            lead(6380)

        told.append(outage(cluster, ledger, "replica takes over", first.kill, promote))
        # The first comes back empty, as one that stood by.
        first.start()
        told.append(outage(cluster, ledger, "an empty one takes over", lambda: second.signal(signal.SIGSTOP), lambda: lead(6379)))
        # And the second as it was left.
        second.signal(signal.SIGCONT)
        told.append(outage(cluster, ledger, "a former one takes over", first.kill, lambda: lead(6380)))
        cluster.nodes[2].kill()
        cluster.nodes[2].empty()
        cluster.nodes[2].start()
        told.append(f"a node that started empty then knew all after {ledger.agree(20):.1f} s")
        # A primary that is demoted under its nodes.
        first.start()

        def demote():
            second.ask("REPLICAOF", "127.0.0.1", "6379")

        told.append(outage(cluster, ledger, "demoted", demote, lambda: lead(6379)))
        return "\n   ".join(["", *told])


# Nodes that come and go.


@case("a node that starts empty knows who is there within five seconds")
def _():
    with three("empty") as cluster:
        each = 500 if PEERS > 100_000 else 100
        swarms = torrents("full", PEERS // each)
        begin = time.monotonic()
        fillers = [Beside(lambda _, port, some, at: fill(port, some, each, f"127.50.0.{at}"), port, swarms[at::3], 1 + at)
                   for at, port in enumerate(cluster.ports)]
        for filler in fillers:
            filler.result()
        filled = time.monotonic() - begin
        caught_up = cluster.agree(swarms, [(0, 0, each)] * len(swarms), 120)
        node = cluster.nodes[2]
        node.kill()
        node.empty()
        before = cluster.engine.ask("DBSIZE")
        begin = time.monotonic()
        node.start()
        client = Udp(node.port)

        def known():
            return sum(counts[2] for counts in client.scrape(swarms))

        first = time.monotonic() - begin
        await_("99.9 % of the peers", lambda: known() >= 0.999 * PEERS, 60, 0.01)
        took = time.monotonic() - begin
        cluster.agree(swarms, [(0, 0, each)] * len(swarms), 30)
        used = cluster.engine.figures()["used_memory"]
        busy = node.busy()
        told = (
            f"{PEERS:,} peers in {filled:.0f} s, all nodes had them {caught_up:.1f} s after; started anew, it answered after {first:.2f} s and knew"
            f" 99.9 % after {took:.1f} s, of which it was busy for at most {busy:.1f} s; the engine holds {used / PEERS:.0f} bytes for each in {before} keys; {node.resident():.0f} MiB resident"
        )
        assert took < 5, told
        return told


@case("a node that was away learns what it missed")
def _():
    with three("away") as cluster:
        ledger = Ledger(cluster)
        ledger.act()
        ledger.agree(10)
        node = cluster.nodes[1]
        fill(cluster.ports[0], torrents("before", 50), 100)
        cluster.agree(torrents("before", 50), [(0, 0, 100)] * 50)
        node.stop()
        # What it knew is in its snapshot, and may be gone from the engine.
        for key in streams(cluster.engine):
            cluster.engine.ask("XTRIM", key, "MAXLEN", 0)
        fill(cluster.ports[0], torrents("meanwhile", 10), 100)
        fill(cluster.ports[2], torrents("before", 25), 100, event=STOPPED)
        node.start()
        cluster.agree(torrents("meanwhile", 10), [(0, 0, 100)] * 10)
        cluster.agree(torrents("before", 50), [(0, 0, 0)] * 25 + [(0, 0, 100)] * 25)
        ledger.agree(10)


# What is not from a friend.


def streams(engine):
    """The keys of the streams."""
    return sorted(key for key in engine.ask("KEYS", "tbtt:*") if engine.ask("TYPE", key) == b"stream")


@case("what others write into the streams is counted and passed over")
def _():
    with three("foreign") as cluster:
        engine, ledger = cluster.engine, Ledger(cluster)
        ledger.act()
        ledger.agree(10)
        keys = streams(engine)
        assert keys, engine.ask("KEYS", "*")
        key = max(keys, key=lambda key: len(engine.ask("XRANGE", key, "-", "+")))
        _, fields = max(engine.ask("XRANGE", key, "-", "+"), key=lambda entry: len(entry[1][1]))
        name, batch = fields
        # Nobody's here: what begins like one's own is not looked at.
        batch = batch[:1] + secrets.token_bytes(12) + batch[13:]
        # Another version, torn, longer than it should be, none of it, and what is no batch at all.
        wrong = [bytes([batch[0] + 1]) + batch[1:], batch[:-1], batch + b"x", b"", batch[:5], secrets.token_bytes(4000), b"\xff" * 300]
        before = [node.cluster() for node in cluster.nodes]
        written = 0
        for key in keys:
            for one in wrong:
                engine.ask("XADD", key, "*", name, one)
                written += 1
            engine.ask("XADD", key, "*", "what", "is", "this", "for")
            engine.ask("XADD", key, "*", name, batch, name, batch)
            written += 1
        for node, figures in zip(cluster.nodes, before):
            await_(
                f"{node.directory.name} to count them", lambda node=node, was=figures["malformed"]: node.cluster()["malformed"] >= was + written, 10
            )
        ledger.agree(5)
        ledger.act()
        ledger.agree(5)
        # What a later version tells besides is passed over, and the rest taken: here, of a node that nobody knows.
        (torrent,) = torrents("later", 1)
        peer = b"\4" + torrent + bytes([127, 0, 0, 77]) + struct.pack(">HIH", 1077, 0x12345670, 0)
        later = batch[:13] + b"\xc8\5later" + peer
        before = [node.cluster()["malformed"] for node in cluster.nodes]
        engine.ask("XADD", b"tbtt:{%d}:changes" % (torrent[0] & 15), "*", name, later)
        cluster.agree([torrent], [(0, 0, 1)], 5)
        expect("malformed", [node.cluster()["malformed"] for node in cluster.nodes], before)
        expect("nodes that are heard", [len(node.cluster()["nodes"]) for node in cluster.nodes], [3, 3, 3])
        # Nor is it undone by keys of another kind, where the streams and the counters are.
        for key in engine.ask("KEYS", "tbtt:*"):
            engine.ask("DEL", key)
            engine.ask("SET" if key in keys else "LPUSH", key, "x")
        time.sleep(3)
        for port in cluster.ports:
            Udp(port).announce(ledger.swarms[0], 1, event=STOPPED)
        engine.ask("FLUSHALL")
        cluster.join()
        ledger.act()
        ledger.agree(30)
        for node in cluster.nodes:
            assert len(node.told()) < 20, node.told()
        return f"{written} batches"


@case("only what a node tracks itself is taken from others")
def _():
    with three("lists") as cluster:
        listed, other = (torrent.hex() for torrent in torrents("listed", 2))
        (cluster.work / "listed").write_text(listed + "\n")
        choosy = Node(
            cluster.work / "choosy", 6999, f'url = "redis+unix://{cluster.engine.path}"', torrents=f'allow = ["{cluster.work}/listed"]'
        )
        cluster.nodes.append(choosy)
        cluster.join()
        for torrent in (listed, other):
            Udp(cluster.ports[0]).announce(bytes.fromhex(torrent), 1001)
        await_("what it tracks", lambda: Udp(choosy.port).scrape([bytes.fromhex(listed)]) == [(0, 0, 1)])
        await_("what it refuses", lambda: choosy.cluster()["refused"] >= 1)
        expect("torrents", choosy.figures()["totals"]["torrents"], 1)
        # Once it tracks the other too, it need not wait for the peer to announce again.
        (cluster.work / "listed").write_text(f"{listed}\n{other}\n")
        choosy.reload()
        await_("what it refused", lambda: Udp(choosy.port).scrape([bytes.fromhex(other)]) == [(0, 0, 1)], 30)


@case("clocks that differ by a minute do no harm")
def _():
    (faketime,) = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")

    def shifted(seconds):
        return {"LD_PRELOAD": faketime, "FAKETIME": f"{seconds:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    # The shortest life that a peer can have.
    clocks = (shifted(60), {}, shifted(-60))
    with three("clocks", environments=clocks) as cluster:
        now = [node.figures()["now"] for node in cluster.nodes]
        assert 100 < now[0] - now[2] < 140, f"the clocks are not as they should be: {now}"
        ledger = Ledger(cluster)
        took = 0.0
        for _ in range(6):
            ledger.act()
            took = max(took, ledger.agree(10))
        (torrent,) = torrents("order", 1)
        # To and fro between the one before and the one behind; what comes last holds.
        for _ in range(5):
            for first, second in ((0, 2), (2, 0)):
                Udp(cluster.ports[first]).announce(torrent, 1001, event=STARTED)
                cluster.agree([torrent], [(0, 0, 1)], 5)
                Udp(cluster.ports[second]).announce(torrent, 1001, event=STOPPED)
                cluster.agree([torrent], [(0, 0, 0)], 5)
        for node in cluster.nodes:
            lag = node.cluster()["lag_seconds"]
            assert lag < 5, f"{node.directory.name} believes to be {lag} s behind"
        return f"agreed after at most {took:.1f} s"


# Who may.


def advice(first):
    """A literal block of the manual, as a reader gets it: the one that begins so."""
    text = (ROOT / "man/tbtt-cluster.7").read_text()
    for block in re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", text, re.M | re.S):
        if block.startswith(first):
            return block.replace("\\e", "\\")
    raise AssertionError(f"the manual has nothing that begins with {first}")


def certify(directory, address, authority=None):
    """By the manual's commands, but for another address, and with the authority of another directory if there is one."""
    script = re.sub(r"^# cd .*$|^# ch.*$", "", advice("# cd /etc/valkey"), flags=re.M).replace("\n# ", "\n").replace("192.0.2.1", address)
    directory.mkdir()
    if authority:
        script = script[script.index("openssl req -x509 -CA") :]
        for file in ("ca.pem", "ca.key"):
            (directory / file).write_bytes((authority / file).read_bytes())
    subprocess.run(["sh", "-euc", script], cwd=directory, check=True, capture_output=True)


def secured(work, name, address, passwords):
    """An engine as the manual has it, with users who have these passwords; its certificate is in a directory beside it."""
    users = advice("user default off") + advice("user check")
    for user, password in passwords.items():
        digest = subprocess.run(["sha256sum"], input=password.encode(), capture_output=True, check=True).stdout.split()[0].decode()
        users, times = re.subn(rf"^(user {user} on #)\.\.\.", rf"\g<1>{digest}", users, flags=re.M)
        expect(f"lines for {user}", times, 1)
    (work / "users.acl").write_text(users)
    lines = advice("bind 192.0.2.1")
    for of_the_manual, here in (
        ("192.0.2.1", address),
        ("/etc/valkey/users.acl", f"{work}/users.acl"),
        ("/etc/valkey/", f"{work}/{name}-tls/"),
        ("unixsocket /run/valkey/valkey-server.sock", f"unixsocket {work}/{name}/engine.sock"),
    ):
        assert of_the_manual in lines, f"{of_the_manual} is not in the manual's {lines}"
        lines = lines.replace(of_the_manual, here)
    return Engine(work / name, 0, *lines.splitlines(), password=passwords["admin"])


def shown(node):
    """All that it shows to anyone."""
    process = pathlib.Path(f"/proc/{node.process.pid}")
    told = node.log.read_bytes() + (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    for path in ("/status", "/status.json", "/metrics"):
        told += node.get(path)
    for command in (("status",), ("status", "--json"), ("check",)):
        done = subprocess.run([TBTT.parent / "tbttctl", "--socket", node.directory / "control", *command], capture_output=True, check=False)
        told += done.stdout + done.stderr
    return told


def forms(password):
    """As it could be hidden."""
    raw = password.encode()
    return [raw, raw.hex().encode(), base64.b64encode(raw), urllib.parse.quote(password).encode(), raw[::-1]]


@case("by password and TLS, as the manual has it, and no secret shows")
def _():
    work = WORK / "secret"
    work.mkdir(parents=True)
    certify(work / "engine-tls", "127.0.0.1")
    certify(work / "others-tls", "127.0.0.1")
    passwords = {user: secrets.token_hex(32) for user in ("admin", "tbtt", "check")}
    for name, password in {"password": passwords["tbtt"], "wrong": "wrong-" + secrets.token_hex(16)}.items():
        (work / name).write_text(password + "\n")
        (work / name).chmod(0o600)
    engine = secured(work, "engine", "127.0.0.1", passwords)
    nodes = []

    def node(name, port, url, password="password", authority="engine"):
        cluster = f'url = "{url}"\nuser = "tbtt"\npassword_file = "{work}/{password}"\n'
        if url.startswith("rediss"):
            cluster += f'ca_file = "{work}/{authority}-tls/ca.pem"\n'
        nodes.append(Node(work / name, port, cluster))
        return nodes[-1]

    tls = "rediss://127.0.0.1:6380/"
    try:
        a = node("a", 6969, tls)
        b = node("b", 6970, f"redis+unix://{engine.path}")
        for one in (a, b):
            await_(f"{one.directory.name} to join", lambda one=one: state(one) == "joined")
        (torrent,) = torrents("secret", 1)
        Udp(a.port).announce(torrent, 1001)
        Udp(b.port).announce(torrent, 1002, left=0)
        Udp(b.port).announce(torrent, 1003)
        await_("both to know", lambda: all(Udp(one.port).scrape([torrent]) == [(1, 0, 2)] for one in (a, b)), 5)
        Udp(a.port).announce(torrent, 1003, left=0, event=COMPLETED)
        await_("both to count", lambda: all(Udp(one.port).scrape([torrent]) == [(2, 1, 1)] for one in (a, b)), 5)
        engine.ask("FLUSHALL")
        c = node("c", 6971, tls)
        await_("a third to know", lambda: Udp(c.port).scrape([torrent]) == [(2, 1, 1)], 40)
        refused = engine.ask("ACL", "LOG")
        # Who is not who he should be is not believed, and clients are served alone.
        reasons = []
        for name, port, password, authority in (("d", 6972, "wrong", "engine"), ("e", 6973, "password", "others")):
            one = node(name, port, tls, password, authority)
            await_("its word", one.told)
            time.sleep(2.5)
            expect("state", state(one), "lone")
            assert len(one.told()) == 1, one.told()
            reasons.append(one.told()[0])
            Udp(one.port).announce(torrent, 1001)
            expect("peers", Udp(one.port).scrape([torrent]), [(0, 0, 1)])
        for one in nodes:
            told = shown(one)
            for name in ("password", "wrong"):
                for form in forms((work / name).read_text().strip()):
                    assert form not in told, f"{one.directory.name} shows a password: {told[max(0, told.index(form) - 200):][:300]}"
        # Nor does a fault in the configuration show it.
        secret = secrets.token_hex(16)
        faulty = work / "faulty.toml"
        faulty.write_text(f'[cluster]\nurl = "redis://tbtt:{secret}@127.0.0.1:6380/"\n')
        done = subprocess.run([TBTT, "--check-config", "--config", faulty], capture_output=True, text=True, check=False)
        expect("exit status with a password in the URL", done.returncode, 78)
        assert secret not in done.stdout + done.stderr, done.stderr
        assert "password_file" in done.stderr, done.stderr
        if refused:
            kinds = {bytes(entry[entry.index(b"object") + 1]).decode() for entry in refused}
            return f"the ACL refused {', '.join(sorted(kinds))}, which did not matter; {'; '.join(reasons)}"
        return "; ".join(reasons)
    except BaseException:
        for log in sorted(work.glob("*/*.log")):
            print(f"--- {log.relative_to(work)}\n{log.read_text()[-3000:]}")
        raise
    finally:
        for one in nodes:
            one.kill()
        engine.stop()


@case("haproxy leads to the second engine and back, as the manual has it")
def _():
    work = WORK / "haproxy"
    work.mkdir(parents=True)
    passwords = {user: secrets.token_hex(32) for user in ("admin", "tbtt", "check")}
    (work / "password").write_text(passwords["tbtt"] + "\n")
    certify(work / "one-tls", "127.0.0.1")
    certify(work / "two-tls", "127.0.0.2", work / "one-tls")
    engines = [secured(work, "one", "127.0.0.1", passwords), secured(work, "two", "127.0.0.2", passwords)]
    lines = advice("listen valkey")
    for of_the_manual, here in (
        ("192.0.2.1", "127.0.0.1"),
        ("192.0.2.2", "127.0.0.2"),
        ("/run/haproxy/valkey.sock", f"{work}/valkey.sock"),
        ("user _tbtt", f"user {'nobody' if REAL_ROOT else 'root'}"),
        ("/etc/haproxy/cluster-ca.pem", f"{work}/one-tls/ca.pem"),
        ("PASSWORD", passwords["check"]),
    ):
        assert of_the_manual in lines, f"{of_the_manual} is not in the manual's {lines}"
        lines = lines.replace(of_the_manual, here)
    (work / "haproxy.cfg").write_text(lines)
    (work / "password").chmod(0o600)
    haproxy = subprocess.Popen(["haproxy", "-db", "-f", work / "haproxy.cfg"], stdout=open(work / "haproxy.log", "wb"), stderr=subprocess.STDOUT)
    nodes = []

    def node(name, port):
        return Node(work / name, port, f'url = "redis+unix://{work}/valkey.sock"\nuser = "tbtt"\npassword_file = "{work}/password"')

    try:
        await_("haproxy", (work / "valkey.sock").exists)
        for name, port in (("a", 6969), ("b", 6970)):
            nodes.append(node(name, port))
        (torrent,), peers, told = torrents("haproxy", 1), 0, []

        def share(what):
            """A peer that announces to one is at the other, and so is who was there before."""
            nonlocal peers
            for port in (6969, 6970):
                peers += 1
                Udp(port).announce(torrent, peers)
            begin = time.monotonic()
            await_(what, lambda: all(Udp(port).scrape([torrent]) == [(0, 0, peers)] for port in (6969, 6970)), 30)
            told.append(f"{what} after {time.monotonic() - begin:.1f} s")

        def keys(engine):
            return engine.ask("DBSIZE") > 0

        share("the first")
        expect("whether the second has anything", keys(engines[1]), False)
        engines[0].kill()
        share("the second")
        engines[0].start()
        await_("haproxy to lead back", lambda: keys(engines[0]))
        share("the first again")
        nodes.append(node("c", 6971))
        await_("a third to know all", lambda: Udp(6971).scrape([torrent]) == [(0, 0, peers)], 20)
        return ", ".join(told)
    except BaseException:
        for log in [work / "haproxy.log", *sorted(work.glob("*/*.log"))]:
            print(f"--- {log.relative_to(work)}\n{log.read_text()[-3000:]}")
        raise
    finally:
        for one in nodes:
            one.kill()
        haproxy.kill()
        haproxy.wait()
        for engine in engines:
            engine.kill()


@case("the examples ask for figures that a node has")
def _():
    with three("figures") as cluster:
        (WORK / "metrics").write_bytes(cluster.nodes[0].get("/metrics"))
        assert b"\ntbtt_cluster_joined 1\n" in (WORK / "metrics").read_bytes(), (WORK / "metrics").read_text()
        for command in (
            ["python3", "-B", ROOT / "tests/system/views/dashboard.py", ROOT / "examples/grafana-dashboard.json", ROOT / "examples/alerts.yml", WORK / "metrics"],
            ["promtool", "check", "metrics"],
        ):
            done = subprocess.run(command, stdin=open(WORK / "metrics", "rb"), capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


def main():
    pattern = sys.argv[1] if len(sys.argv) > 1 else ""
    WORK.mkdir()
    failed = ran = 0
    for name, function in cases:
        if pattern not in name:
            continue
        ran += 1
        begin = time.monotonic()
        try:
            told = function()
        except Exception as error:
            failed += 1
            print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
            if not isinstance(error, AssertionError):
                traceback.print_exc(file=sys.stdout)
        else:
            print(f"ok {name} ({time.monotonic() - begin:.1f} s{f'; {told}' if told else ''})", flush=True)
    print(f"{ran - failed} of {ran} cases passed")
    sys.exit(failed > 0 or ran == 0)


main()
