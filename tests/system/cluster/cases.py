"""Checks a cluster of three trackers from outside, as its clients and its operator see it.

cases.py [PATTERN]   must run in the namespaces that tests/system/cluster/run creates
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

from store import FaultyProxy, Store, await_
from tracker import (
    COMPLETED, REAL_ROOT, STARTED, STOPPED, TBTT, Background, Node, Udp, announce_http, fill, generate_changes, http_client,
    measure_announces, percentile, torrents,
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
    assert seen == wanted, f"{what}: found {seen!r}, expected {wanted!r}"


class Cluster:
    """A store and three nodes, each with its own faulty proxy to the store if `proxies` is set."""

    def __init__(self, name, proxies=False, store=(), environments=({}, {}, {}), more=""):
        self.work, self.more = WORK / name, more
        self.work.mkdir(parents=True)
        self.work.chmod(0o755)
        self.store = Store(self.work / "store", 6379, *store)
        self.stores = [self.store]
        self.proxies = [FaultyProxy(7001 + number, 6379) for number in range(3)] if proxies else []
        urls = [f"redis://127.0.0.1:{proxy.listener.getsockname()[1]}/" for proxy in self.proxies]
        # Without proxies, one node uses TCP and two use the Unix socket.
        urls = urls or ["redis://127.0.0.1:6379/"] + 2 * [f"redis+unix://{self.store.path}"]
        self.ports = [6969, 6970, 6971]
        self.nodes = []
        for which, port, url, environment in zip("abc", self.ports, urls, environments):
            self.nodes.append(Node(self.work / which, port, f'url = "{url}"\n{more}', environment=environment))

    def join(self, seconds=30):
        for node in self.nodes:
            await_(f"{node.directory.name} to join", lambda node=node: node.cluster()["state"] == "joined", seconds)

    def counts(self, swarms):
        """Returns the scrape of each node."""
        found = []
        for port in self.ports:
            found.append(Udp(port).scrape(swarms))
        return found

    def agree(self, swarms, wanted, seconds=15):
        """Waits until all nodes report the wanted (seeders, downloads, leechers) of each torrent. Returns the seconds that this took."""
        begin = time.monotonic()
        try:
            await_("", lambda: all(counts == wanted for counts in self.counts(swarms)), seconds, 0.05)
        except AssertionError:
            report = [f"after {seconds} s, of {len(swarms)} torrents"]
            for node, counts in zip(self.nodes, self.counts(swarms)):
                wrong = [(seen, due, torrent) for torrent, seen, due in zip(swarms, counts, wanted) if seen != due]
                sums = [tuple(map(sum, zip(*values))) for values in (counts, wanted)]
                report.append(
                    f"{node.directory.name} has {len(wrong)} wrong counts, in total {sums[0]} instead of {sums[1]}, first (found, expected): {wrong[:3]}"
                )
            raise AssertionError("\n   ".join(report)) from None
        return time.monotonic() - begin

    def close(self):
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.send_signal(signal.SIGCONT)
                node.kill()
        for store in self.stores:
            if store.process.poll() is None:
                store.stop()
        for proxy in self.proxies:
            proxy.frozen = True
            proxy.listener.close()

    def report(self):
        for log in sorted(self.work.glob("*/*.log")):
            print(f"--- {log.relative_to(self.work)}")
            print("\n".join(log.read_text(errors="replace").splitlines()[-40:]))
        for node in self.nodes:
            with contextlib.suppress(OSError, ValueError):
                print(f"--- {node.directory.name}: {node.cluster()}")


@contextlib.contextmanager
def running_cluster(name, **options):
    cluster = Cluster(name, **options)
    try:
        cluster.join()
        yield cluster
    except BaseException:
        cluster.report()
        raise
    finally:
        cluster.close()


# Clients.


@case("all nodes return a peer that announced to one node, over both families and protocols")
def _():
    with running_cluster("share") as cluster:
        a, b, c = cluster.ports
        (torrent,) = torrents("shared", 1)
        Udp(a, "127.0.0.2").announce(torrent, 1001)
        Udp(b, "::1").announce(torrent, 1002, left=0)
        announce_http(http_client(c), torrent, 1003)
        cluster.agree([torrent], [(1, 0, 2)], 5)
        v4 = {bytes([127, 0, 0, 2]) + (1001).to_bytes(2, "big"), bytes([127, 0, 0, 1]) + (1003).to_bytes(2, "big")}
        for number, port in enumerate(cluster.ports):
            peers = Udp(port, "127.0.0.9").announce(torrent, 10 + number, numwant=50)
            returned = {peers[at : at + 6] for at in range(0, len(peers), 6) if peers[at + 3] != 9}
            expect("IPv4 peers", returned, v4)
            peers = Udp(port, "::1").announce(torrent, 20 + number, numwant=50)
            returned = {int.from_bytes(peers[at + 16 : at + 18], "big") for at in range(0, len(peers), 18)}
            expect("ports of IPv6 peers", returned & {1002}, {1002})
        cluster.agree([torrent], [(1, 0, 8)], 5)
        # A peer that leaves at one node leaves the swarms of all nodes.
        for number, port in enumerate(cluster.ports[1:] + cluster.ports[:1]):
            Udp(port, "127.0.0.9").announce(torrent, 10 + number, event=STOPPED)
            Udp(port, "::1").announce(torrent, 20 + number, event=STOPPED)
        Udp(c, "127.0.0.2").announce(torrent, 1001, event=STOPPED)
        cluster.agree([torrent], [(1, 0, 1)], 5)


@case("downloads are counted once, across nodes and restarts")
def _():
    with running_cluster("downloads") as cluster:
        swarms = torrents("downloaded", 20)
        for number, torrent in enumerate(swarms):
            for peer in range(number):
                # The download starts at one node and completes at another.
                Udp(cluster.ports[peer % 3], f"127.0.1.{1 + peer}").announce(torrent, 1000 + peer)
        await_("the leechers", lambda: all(counts[-1][2] == 19 for counts in cluster.counts(swarms)))
        for number, torrent in enumerate(swarms):
            for peer in range(number):
                for _ in range(2):
                    client = Udp(cluster.ports[(peer + 1) % 3], f"127.0.1.{1 + peer}")
                    client.announce(torrent, 1000 + peer, left=0, event=COMPLETED)
        wanted = [(number, number, 0) for number in range(20)]
        cluster.agree(swarms, wanted)
        # One node restarts, one is killed and restarts without its state, and the store loses all data.
        a, b, c = cluster.nodes
        a.stop()
        a.start()
        cluster.agree(swarms, wanted)
        b.kill()
        b.delete_state()
        b.start()
        cluster.agree(swarms, wanted)
        cluster.store.command("FLUSHALL")
        c.stop()
        c.delete_state()
        c.start()
        cluster.agree(swarms, wanted, 45)
        announce_http(http_client(c.port), swarms[0], 999)
        announce_http(http_client(c.port), swarms[0], 999, left=0, event="completed")
        cluster.agree(swarms[:1], [(1, 1, 0)])


def replication_delays(ports, count):
    """Peers join, complete and leave at the first tracker, up to 60 of them at the same time. Returns, for each of these events, the
    seconds until the last other tracker reported the change."""
    first, others = Udp(ports[0], "127.30.0.1"), [Udp(port, "127.30.0.1") for port in ports[1:]]
    waiting = list(torrents(f"probe{secrets.token_hex(3)}", count))
    # Each step is the expected (seeders, leechers), and left= and event= of the announce. An open tracker drops a torrent that has no
    # peers.
    steps = (((0, 1), 1, STARTED), ((1, 0), 0, COMPLETED), ((0, 0), 0, STOPPED))
    # For each torrent: its step, when that was announced, and the trackers that have not reported it yet.
    in_progress, delays = {}, {"joined": [], "completed": [], "left": []}
    names = list(delays)

    def announce(torrent, step):
        _, left, event = steps[step]
        in_progress[torrent] = (step, time.monotonic(), set(range(len(others))))
        first.announce(torrent, 7000, left, event)

    deadline = time.monotonic() + 45
    while waiting or in_progress:
        assert time.monotonic() < deadline, f"{len(in_progress)} changes were not replicated: {list(in_progress.items())[:3]}"
        while waiting and len(in_progress) < 60:
            announce(waiting.pop(), 0)
        for number, other in enumerate(others):
            scraped = [torrent for torrent, (_, _, missing) in in_progress.items() if number in missing]
            for torrent, (seeders, _, leechers) in zip(scraped, other.scrape(scraped)):
                step, begin, missing = in_progress[torrent]
                if (seeders, leechers) != steps[step][0]:
                    continue
                missing.discard(number)
                if missing:
                    continue
                delays[names[step]].append(time.monotonic() - begin)
                if step + 1 < len(steps):
                    announce(torrent, step + 1)
                else:
                    del in_progress[torrent]
        time.sleep(0.002)
    return delays


@case("a change reaches all nodes within a second, at 5,000 changes per second")
def _():
    with running_cluster("delay") as cluster:
        report = ""
        for attempt in range(3):
            sent = [node.cluster()["sent"] for node in cluster.nodes]
            load = Background(generate_changes, cluster.ports, 5000, 200, 3000, f"load{attempt}")
            time.sleep(1)
            delays = replication_delays(cluster.ports, 500)
            announced, seconds = load.result()
            changed = sum(node.cluster()["sent"] for node in cluster.nodes) - sum(sent)
            median = percentile([delay for values in delays.values() for delay in values], 50)
            worst = {name: percentile(values, 99) for name, values in delays.items()}
            report += "; " * bool(report) + f"{announced / seconds:.0f} announces and {changed / seconds:.0f} changes/s, p50 {median:.2f} s, p99 "
            report += ", ".join(f"{name} {value:.2f} s" for name, value in worst.items())
            if max(worst.values()) < 1 and changed / seconds > 4000:
                break
        else:
            raise AssertionError(report)
        for node in cluster.nodes:
            status = node.cluster()
            expect(f"dropped and malformed at {node.directory.name}", (status["dropped"], status["malformed"]), (0, 0))
            expect("other nodes", len(status["nodes"]), 2)
        return report


# Faults of the store.


class ExpectedPeers:
    """Announces peers to each node, and records the counts that all nodes must report."""

    def __init__(self, cluster):
        self.cluster, self.number, self.wanted = cluster, 0, {}
        self.swarms = torrents("expected", 30)
        # The peers that announced, and those that all nodes have reported.
        self.peers = {torrent: set() for torrent in self.swarms}
        self.replicated = {torrent: set() for torrent in self.swarms}

    def change(self):
        """At each node, some peers join, and some peers leave that all nodes have."""
        for at, port in enumerate(self.cluster.ports):
            client = Udp(port, "127.40.0.1")
            for torrent in self.swarms:
                self.number += 1
                peer = 1 + self.number
                client.announce(torrent, peer, event=STARTED)
                self.peers[torrent].add(peer)
                replicated = self.replicated[torrent]
                if self.number % 3 == at and replicated:
                    leaving = min(replicated)
                    replicated.remove(leaving)
                    self.peers[torrent].remove(leaving)
                    client.announce(torrent, leaving, event=STOPPED)

    def restart_clients(self):
        """At each node, a client whose peer all nodes have stops and starts again."""
        for at, port in enumerate(self.cluster.ports):
            client = Udp(port, "127.40.0.1")
            torrent = self.swarms[at]
            peer = max(self.replicated[torrent])
            client.announce(torrent, peer, event=STOPPED)
            client.announce(torrent, peer, event=STARTED)

    def agree(self, seconds):
        took = self.cluster.agree(self.swarms, [(0, 0, len(self.peers[torrent])) for torrent in self.swarms], seconds)
        self.replicated = {torrent: set(peers) for torrent, peers in self.peers.items()}
        return took


def state(node):
    return node.cluster()["state"]


# The log lines of a node when its state changes.
STATES = {
    "lost": "cluster store unreachable",
    "reached": "connected to the cluster store",
    "joined": "cluster joined",
}


def outage(cluster, expected, name, begin, end, reported="disconnected", affected=(0, 1, 2), seconds=20):
    """Checks that announces are not delayed while the store is unavailable to the affected nodes, and that all nodes agree afterwards.
    `reported` is the state that the affected nodes must report. Returns a summary with the times."""
    cluster.join()
    log_sizes = [node.log_size() for node in cluster.nodes]
    unaffected = [number for number in range(3) if number not in affected]
    measuring = Background(measure_announces, cluster.ports)
    time.sleep(2.5)
    undisturbed = [took for _, took in measuring.result()]
    before = [node.resident() for node in cluster.nodes]
    # These are more changes than the queues hold.
    load = Background(generate_changes, cluster.ports, 1500, 50, 900, "flap")
    begin()
    measuring = Background(measure_announces, cluster.ports)
    try:
        if reported:
            for number in affected:
                node = cluster.nodes[number]
                await_(f"{node.directory.name} to be {reported}", lambda node=node: state(node) == reported, 20)
        expected.restart_clients()
        expected.change()
        time.sleep(2.5)
    finally:
        during = [took for _, took in measuring.result()]
        load.result()
    grown = max(node.resident() - was for node, was in zip(cluster.nodes, before))
    for number in unaffected:
        expect(f"state of {cluster.nodes[number].directory.name}", state(cluster.nodes[number]), "joined")
    end()
    available = time.monotonic()
    cluster.join(seconds)
    joined = time.monotonic() - available
    expected.agree(seconds)
    agreed = time.monotonic() - available
    expected.change()
    expected.agree(seconds)
    # One line for each change of state: lost, reached, joined. A node that refilled an empty store logs that as well.
    for number, (node, log_size) in enumerate(zip(cluster.nodes, log_sizes)):
        lines = [line for line in node.log_lines(log_size) if not line.startswith("cluster store was empty")]
        wanted = ["lost", "reached", "joined"] if reported and number in affected else []
        states = [next((name for name, start in STATES.items() if line.startswith(start)), line) for line in lines]
        # A store that is being demoted may be reached once more before it reports that it is a replica.
        expect(f"log of {node.directory.name} ({lines})", states[2:] if states[:4] == ["lost", "reached"] * 2 else states, wanted)
    worst, usual = percentile(during, 99), percentile(undisturbed, 99)
    assert worst < max(4 * usual, 0.1), f"{name}: announces took {worst * 1000:.1f} ms (p99) instead of {usual * 1000:.1f} ms"
    assert grown < 64, f"{name}: memory grew by {grown:.0f} MiB"
    return (
        f"{name}: p99 of {len(during)} announces {worst * 1000:.1f} ms ({usual * 1000:.1f} ms before), {grown:+.1f} MiB,"
        f" joined after {joined:.1f} s, agreed after {agreed:.1f} s"
    )


@case("a slow, stopped, killed, emptied or unreachable store delays no announce, and the nodes agree afterwards")
def _():
    with running_cluster("outage", proxies=True) as cluster:
        store, expected, report = cluster.store, ExpectedPeers(cluster), []
        expected.change()
        expected.agree(10)

        def slow(delay):
            def set_delay():
                for proxy in cluster.proxies:
                    proxy.delay = delay

            return set_delay

        def freeze(number, frozen):
            def set_frozen():
                cluster.proxies[number].frozen = frozen

            return set_frozen

        report.append(outage(cluster, expected, "slow by 1 s", slow(0.5), slow(0), reported=None))
        report.append(outage(cluster, expected, "stopped", lambda: store.signal(signal.SIGSTOP), lambda: store.signal(signal.SIGCONT)))
        report.append(outage(cluster, expected, "killed", store.kill, store.start))
        report.append(outage(cluster, expected, "unreachable for one node", freeze(1, True), freeze(1, False), affected=(1,)))
        report.append(outage(cluster, expected, "emptied", lambda: store.command("FLUSHALL"), lambda: None, reported=None))
        # The nodes have refilled the store, so that an empty node gets all peers from it.
        cluster.nodes[2].kill()
        cluster.nodes[2].delete_state()
        cluster.nodes[2].start()
        report.append(f"an empty node then had all peers after {expected.agree(20):.1f} s")
        return "\n   ".join(["", *report])


@case("failover to a replica, to an empty store or to an old one loses no peer")
def _():
    with running_cluster("failover", proxies=True) as cluster:
        first, expected, report = cluster.store, ExpectedPeers(cluster), []
        second = Store(cluster.work / "second", 6380, "replicaof 127.0.0.1 6379")
        cluster.stores.append(second)
        await_("the replica", lambda: second.info()["master_link_status"] == "up")
        expected.change()
        expected.agree(10)

        def redirect(to):
            for proxy in cluster.proxies:
                proxy.redirect(to)

        def promote():
            second.command("REPLICAOF", "NO", "ONE")
            redirect(6380)

        report.append(outage(cluster, expected, "replica takes over", first.kill, promote))
        # The first store starts empty, like a standby without replication.
        first.start()
        report.append(outage(cluster, expected, "empty store takes over", lambda: second.signal(signal.SIGSTOP), lambda: redirect(6379)))
        # The second store returns with its old data.
        second.signal(signal.SIGCONT)
        report.append(outage(cluster, expected, "old store takes over", first.kill, lambda: redirect(6380)))
        cluster.nodes[2].kill()
        cluster.nodes[2].delete_state()
        cluster.nodes[2].start()
        report.append(f"an empty node then had all peers after {expected.agree(20):.1f} s")
        # The primary becomes a replica while the nodes are connected.
        first.start()

        def demote():
            second.command("REPLICAOF", "127.0.0.1", "6379")

        report.append(outage(cluster, expected, "demoted", demote, lambda: redirect(6379)))
        return "\n   ".join(["", *report])


# Nodes that stop and start.


@case("an empty node has 99.9 % of the peers within five seconds")
def _():
    with running_cluster("empty") as cluster:
        each = 500 if PEERS > 100_000 else 100
        swarms = torrents("full", PEERS // each)
        begin = time.monotonic()
        fillers = [Background(lambda _, port, part, at: fill(port, part, each, f"127.50.0.{at}"), port, swarms[at::3], 1 + at)
                   for at, port in enumerate(cluster.ports)]
        for filler in fillers:
            filler.result()
        filled = time.monotonic() - begin
        caught_up = cluster.agree(swarms, [(0, 0, each)] * len(swarms), 120)
        node = cluster.nodes[2]
        node.kill()
        node.delete_state()
        keys = cluster.store.command("DBSIZE")
        begin = time.monotonic()
        node.start()
        client = Udp(node.port)

        def peers():
            return sum(counts[2] for counts in client.scrape(swarms))

        first = time.monotonic() - begin
        await_("99.9 % of the peers", lambda: peers() >= 0.999 * PEERS, 60, 0.01)
        took = time.monotonic() - begin
        cluster.agree(swarms, [(0, 0, each)] * len(swarms), 30)
        used = cluster.store.numbers()["used_memory"]
        report = (
            f"{PEERS:,} peers announced in {filled:.0f} s, all nodes had them {caught_up:.1f} s later; the empty node responded after {first:.2f} s and had"
            f" 99.9 % after {took:.1f} s, with {node.cpu_seconds():.1f} s of CPU time; the store uses {used / PEERS:.0f} bytes per peer in {keys} keys; {node.resident():.0f} MiB resident"
        )
        assert took < 5, report
        return report


@case("a node that was stopped for a while catches up")
def _():
    with running_cluster("stopped") as cluster:
        expected = ExpectedPeers(cluster)
        expected.change()
        expected.agree(10)
        node = cluster.nodes[1]
        fill(cluster.ports[0], torrents("before", 50), 100)
        cluster.agree(torrents("before", 50), [(0, 0, 100)] * 50)
        node.stop()
        # The node has its old peers in its snapshot, so it needs no entries from before its stop.
        for key in streams(cluster.store):
            cluster.store.command("XTRIM", key, "MAXLEN", 0)
        fill(cluster.ports[0], torrents("meanwhile", 10), 100)
        fill(cluster.ports[2], torrents("before", 25), 100, event=STOPPED)
        node.start()
        cluster.agree(torrents("meanwhile", 10), [(0, 0, 100)] * 10)
        cluster.agree(torrents("before", 50), [(0, 0, 0)] * 25 + [(0, 0, 100)] * 25)
        expected.agree(10)


# Untrusted input.


def streams(store):
    """Returns the keys of the streams."""
    return sorted(key for key in store.command("KEYS", "tbtt:*") if store.command("TYPE", key) == b"stream")


@case("foreign data in the streams is counted and skipped")
def _():
    with running_cluster("foreign") as cluster:
        store, expected = cluster.store, ExpectedPeers(cluster)
        expected.change()
        expected.agree(10)
        keys = streams(store)
        assert keys, store.command("KEYS", "*")
        key = max(keys, key=lambda key: len(store.command("XRANGE", key, "-", "+")))
        _, fields = max(store.command("XRANGE", key, "-", "+"), key=lambda entry: len(entry[1][1]))
        name, batch = fields
        # Use an unknown node id, because each node skips batches that have its own id.
        batch = batch[:1] + secrets.token_bytes(12) + batch[13:]
        # Another version, truncated, too long, empty, only the header, random and constant bytes.
        malformed = [bytes([batch[0] + 1]) + batch[1:], batch[:-1], batch + b"x", b"", batch[:5], secrets.token_bytes(4000), b"\xff" * 300]
        before = [node.cluster() for node in cluster.nodes]
        written = 0
        for key in keys:
            for data in malformed:
                store.command("XADD", key, "*", name, data)
                written += 1
            store.command("XADD", key, "*", "unknown", "field", "another", "field")
            store.command("XADD", key, "*", name, batch, name, batch)
            written += 1
        for node, status in zip(cluster.nodes, before):
            await_(
                f"{node.directory.name} to count them", lambda node=node, was=status["malformed"]: node.cluster()["malformed"] >= was + written, 10
            )
        expected.agree(5)
        expected.change()
        expected.agree(5)
        # Unknown records, which a later version may write, are skipped, and the other records of the batch are applied. The batch is
        # from an unknown node.
        (torrent,) = torrents("later", 1)
        peer = b"\4" + torrent + bytes([127, 0, 0, 77]) + struct.pack(">HIH", 1077, 0x12345670, 0)
        later = batch[:13] + b"\xc8\5later" + peer
        before = [node.cluster()["malformed"] for node in cluster.nodes]
        store.command("XADD", b"tbtt:{%d}:changes" % (torrent[0] & 15), "*", name, later)
        cluster.agree([torrent], [(0, 0, 1)], 5)
        expect("malformed", [node.cluster()["malformed"] for node in cluster.nodes], before)
        expect("other nodes", [len(node.cluster()["nodes"]) for node in cluster.nodes], [3, 3, 3])
        # The nodes recover when keys of other types replace the streams and the counters.
        for key in store.command("KEYS", "tbtt:*"):
            store.command("DEL", key)
            store.command("SET" if key in keys else "LPUSH", key, "x")
        time.sleep(3)
        for port in cluster.ports:
            Udp(port).announce(expected.swarms[0], 1, event=STOPPED)
        store.command("FLUSHALL")
        cluster.join()
        expected.change()
        expected.agree(30)
        for node in cluster.nodes:
            assert len(node.log_lines()) < 20, node.log_lines()
        return f"{written} batches"


@case("a node applies only updates of torrents that it tracks")
def _():
    with running_cluster("lists") as cluster:
        listed, other = (torrent.hex() for torrent in torrents("listed", 2))
        (cluster.work / "listed").write_text(listed + "\n")
        closed = Node(
            cluster.work / "closed", 6999, f'url = "redis+unix://{cluster.store.path}"', torrents=f'allow = ["{cluster.work}/listed"]'
        )
        cluster.nodes.append(closed)
        cluster.join()
        for torrent in (listed, other):
            Udp(cluster.ports[0]).announce(bytes.fromhex(torrent), 1001)
        await_("the listed torrent", lambda: Udp(closed.port).scrape([bytes.fromhex(listed)]) == [(0, 0, 1)])
        await_("the refused torrent", lambda: closed.cluster()["refused"] >= 1)
        expect("torrents", closed.status()["totals"]["torrents"], 1)
        # When the other torrent is listed, the node gets its peers without another announce.
        (cluster.work / "listed").write_text(f"{listed}\n{other}\n")
        closed.reload()
        await_("the newly listed torrent", lambda: Udp(closed.port).scrape([bytes.fromhex(other)]) == [(0, 0, 1)], 30)


@case("clocks that differ by two minutes do no harm")
def _():
    (faketime,) = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")

    def shifted(seconds):
        return {"LD_PRELOAD": faketime, "FAKETIME": f"{seconds:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    clocks = (shifted(60), {}, shifted(-60))
    with running_cluster("clocks", environments=clocks) as cluster:
        now = [node.status()["now"] for node in cluster.nodes]
        assert 100 < now[0] - now[2] < 140, f"the clocks are not shifted as intended: {now}"
        expected = ExpectedPeers(cluster)
        took = 0.0
        for _ in range(6):
            expected.change()
            took = max(took, expected.agree(10))
        (torrent,) = torrents("order", 1)
        # A peer joins and leaves alternately at the node with the fast clock and at the one with the slow clock. The last announce
        # counts.
        for _ in range(5):
            for first, second in ((0, 2), (2, 0)):
                Udp(cluster.ports[first]).announce(torrent, 1001, event=STARTED)
                cluster.agree([torrent], [(0, 0, 1)], 5)
                Udp(cluster.ports[second]).announce(torrent, 1001, event=STOPPED)
                cluster.agree([torrent], [(0, 0, 0)], 5)
        for node in cluster.nodes:
            lag = node.cluster()["lag_seconds"]
            assert lag < 5, f"{node.directory.name} reports a lag of {lag} s"
        return f"agreed within {took:.1f} s"


# Authentication and encryption.


def documented(first):
    """Returns the literal block of the manual that begins with `first`, without markup."""
    text = (ROOT / "man/tbtt-cluster.7").read_text()
    for block in re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", text, re.M | re.S):
        if block.startswith(first):
            return block.replace("\\e", "\\")
    raise AssertionError(f"man/tbtt-cluster.7 has no literal block that begins with {first}")


def certify(directory, address, authority=None):
    """Creates certificates with the manual's commands, for this address, signed by the authority in another directory if it is given."""
    script = re.sub(r"^# cd .*$|^# ch.*$", "", documented("# cd /etc/valkey"), flags=re.M).replace("\n# ", "\n").replace("192.0.2.1", address)
    directory.mkdir()
    if authority:
        script = script[script.index("openssl req -x509 -CA") :]
        for file in ("ca.pem", "ca.key"):
            (directory / file).write_bytes((authority / file).read_bytes())
    subprocess.run(["sh", "-euc", script], cwd=directory, check=True, capture_output=True)


def secured(work, name, address, passwords):
    """Starts a store with the manual's configuration and users, with these passwords. Its certificate is in the directory NAME-tls."""
    users = documented("user default off") + documented("user check")
    for user, password in passwords.items():
        digest = subprocess.run(["sha256sum"], input=password.encode(), capture_output=True, check=True).stdout.split()[0].decode()
        users, times = re.subn(rf"^(user {user} on #)\.\.\.", rf"\g<1>{digest}", users, flags=re.M)
        expect(f"lines for {user}", times, 1)
    (work / "users.acl").write_text(users)
    lines = documented("bind 192.0.2.1")
    for in_manual, here in (
        ("192.0.2.1", address),
        ("/etc/valkey/users.acl", f"{work}/users.acl"),
        ("/etc/valkey/", f"{work}/{name}-tls/"),
        ("unixsocket /run/valkey/valkey-server.sock", f"unixsocket {work}/{name}/store.sock"),
    ):
        assert in_manual in lines, f"{in_manual} is not in the manual's {lines}"
        lines = lines.replace(in_manual, here)
    return Store(work / name, 0, *lines.splitlines(), password=passwords["admin"])


def visible_output(node):
    """Returns everything that the node shows: log, arguments, environment, status page, metrics, and tbttctl's output."""
    process = pathlib.Path(f"/proc/{node.process.pid}")
    output = node.log.read_bytes() + (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    for path in ("/status", "/status.json", "/metrics"):
        output += node.get(path)
    for command in (("status",), ("status", "--json"), ("check",)):
        done = subprocess.run([TBTT.parent / "tbttctl", "--socket", node.directory / "control", *command], capture_output=True, check=False)
        output += done.stdout + done.stderr
    return output


def encodings(password):
    """Returns the encodings in which the password could appear."""
    raw = password.encode()
    return [raw, raw.hex().encode(), base64.b64encode(raw), urllib.parse.quote(password).encode(), raw[::-1]]


@case("password and TLS work as the manual describes, and no secret is visible")
def _():
    work = WORK / "secret"
    work.mkdir(parents=True)
    certify(work / "store-tls", "127.0.0.1")
    certify(work / "foreign-tls", "127.0.0.1")
    passwords = {user: secrets.token_hex(32) for user in ("admin", "tbtt", "check")}
    for name, password in {"password": passwords["tbtt"], "wrong": "wrong-" + secrets.token_hex(16)}.items():
        (work / name).write_text(password + "\n")
        (work / name).chmod(0o600)
    store = secured(work, "store", "127.0.0.1", passwords)
    nodes = []

    def node(name, port, url, password="password", authority="store"):
        cluster = f'url = "{url}"\nuser = "tbtt"\npassword_file = "{work}/{password}"\n'
        if url.startswith("rediss"):
            cluster += f'ca_file = "{work}/{authority}-tls/ca.pem"\n'
        nodes.append(Node(work / name, port, cluster))
        return nodes[-1]

    tls = "rediss://127.0.0.1:6380/"
    try:
        a = node("a", 6969, tls)
        b = node("b", 6970, f"redis+unix://{store.path}")
        for joining in (a, b):
            await_(f"{joining.directory.name} to join", lambda joining=joining: state(joining) == "joined")
        (torrent,) = torrents("secret", 1)
        Udp(a.port).announce(torrent, 1001)
        Udp(b.port).announce(torrent, 1002, left=0)
        Udp(b.port).announce(torrent, 1003)
        await_("the peers at both nodes", lambda: all(Udp(member.port).scrape([torrent]) == [(1, 0, 2)] for member in (a, b)), 5)
        Udp(a.port).announce(torrent, 1003, left=0, event=COMPLETED)
        await_("the download at both nodes", lambda: all(Udp(member.port).scrape([torrent]) == [(2, 1, 1)] for member in (a, b)), 5)
        store.command("FLUSHALL")
        c = node("c", 6971, tls)
        await_("the peers at a third node", lambda: Udp(c.port).scrape([torrent]) == [(2, 1, 1)], 40)
        refused = store.command("ACL", "LOG")
        # A node with a wrong password, or with a store that has a foreign certificate, stays disconnected and serves its own clients.
        reasons = []
        for name, port, password, authority in (("d", 6972, "wrong", "store"), ("e", 6973, "password", "foreign")):
            rejected = node(name, port, tls, password, authority)
            await_("its log line", rejected.log_lines)
            time.sleep(2.5)
            expect("state", state(rejected), "disconnected")
            assert len(rejected.log_lines()) == 1, rejected.log_lines()
            reasons.append(rejected.log_lines()[0])
            Udp(rejected.port).announce(torrent, 1001)
            expect("peers", Udp(rejected.port).scrape([torrent]), [(0, 0, 1)])
        for member in nodes:
            output = visible_output(member)
            for name in ("password", "wrong"):
                for encoding in encodings((work / name).read_text().strip()):
                    assert encoding not in output, f"{member.directory.name} shows a password: {output[max(0, output.index(encoding) - 200):][:300]}"
        # An error message about the configuration does not show the password either.
        secret = secrets.token_hex(16)
        faulty = work / "faulty.toml"
        faulty.write_text(f'[cluster]\nurl = "redis://tbtt:{secret}@127.0.0.1:6380/"\n')
        done = subprocess.run([TBTT, "--check-config", "--config", faulty], capture_output=True, text=True, check=False)
        expect("exit status with a password in the URL", done.returncode, 78)
        assert secret not in done.stdout + done.stderr, done.stderr
        assert "password_file" in done.stderr, done.stderr
        if refused:
            kinds = {bytes(entry[entry.index(b"object") + 1]).decode() for entry in refused}
            return f"the ACL refused {', '.join(sorted(kinds))}, without consequences; {'; '.join(reasons)}"
        return "; ".join(reasons)
    except BaseException:
        for log in sorted(work.glob("*/*.log")):
            print(f"--- {log.relative_to(work)}\n{log.read_text()[-3000:]}")
        raise
    finally:
        for member in nodes:
            member.kill()
        store.stop()


@case("haproxy fails over to the second store and back, as the manual describes")
def _():
    work = WORK / "haproxy"
    work.mkdir(parents=True)
    passwords = {user: secrets.token_hex(32) for user in ("admin", "tbtt", "check")}
    (work / "password").write_text(passwords["tbtt"] + "\n")
    certify(work / "one-tls", "127.0.0.1")
    certify(work / "two-tls", "127.0.0.2", work / "one-tls")
    stores = [secured(work, "one", "127.0.0.1", passwords), secured(work, "two", "127.0.0.2", passwords)]
    lines = documented("listen valkey")
    for in_manual, here in (
        ("192.0.2.1", "127.0.0.1"),
        ("192.0.2.2", "127.0.0.2"),
        ("/run/haproxy/valkey.sock", f"{work}/valkey.sock"),
        ("user _tbtt", f"user {'nobody' if REAL_ROOT else 'root'}"),
        ("/etc/haproxy/cluster-ca.pem", f"{work}/one-tls/ca.pem"),
        ("PASSWORD", passwords["check"]),
    ):
        assert in_manual in lines, f"{in_manual} is not in the manual's {lines}"
        lines = lines.replace(in_manual, here)
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
        (torrent,), peers, report = torrents("haproxy", 1), 0, []

        def share(what):
            """Announces a peer to each node, and waits until both nodes have these and all earlier peers."""
            nonlocal peers
            for port in (6969, 6970):
                peers += 1
                Udp(port).announce(torrent, peers)
            begin = time.monotonic()
            await_(what, lambda: all(Udp(port).scrape([torrent]) == [(0, 0, peers)] for port in (6969, 6970)), 30)
            report.append(f"{what} after {time.monotonic() - begin:.1f} s")

        def has_keys(store):
            return store.command("DBSIZE") > 0

        share("first store")
        expect("whether the second store has keys", has_keys(stores[1]), False)
        stores[0].kill()
        share("second store")
        stores[0].start()
        await_("haproxy to return to the first store", lambda: has_keys(stores[0]))
        share("first store again")
        nodes.append(node("c", 6971))
        await_("all peers at a third node", lambda: Udp(6971).scrape([torrent]) == [(0, 0, peers)], 20)
        return ", ".join(report)
    except BaseException:
        for log in [work / "haproxy.log", *sorted(work.glob("*/*.log"))]:
            print(f"--- {log.relative_to(work)}\n{log.read_text()[-3000:]}")
        raise
    finally:
        for member in nodes:
            member.kill()
        haproxy.kill()
        haproxy.wait()
        for store in stores:
            store.kill()


@case("all metrics of the dashboard and the alerts exist at a node")
def _():
    with running_cluster("metrics") as cluster:
        (WORK / "metrics.txt").write_bytes(cluster.nodes[0].get("/metrics"))
        assert b"\ntbtt_cluster_joined 1\n" in (WORK / "metrics.txt").read_bytes(), (WORK / "metrics.txt").read_text()
        for command in (
            ["python3", "-B", ROOT / "tests/system/views/dashboard.py", ROOT / "examples/grafana-dashboard.json", ROOT / "examples/alerts.yml", WORK / "metrics.txt"],
            ["promtool", "check", "metrics"],
        ):
            done = subprocess.run(command, stdin=open(WORK / "metrics.txt", "rb"), capture_output=True, text=True, check=False)
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
            report = function()
        except Exception as error:
            failed += 1
            print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
            if not isinstance(error, AssertionError):
                traceback.print_exc(file=sys.stdout)
        else:
            print(f"ok {name} ({time.monotonic() - begin:.1f} s{f'; {report}' if report else ''})", flush=True)
    print(f"{ran - failed} of {ran} cases passed")
    sys.exit(failed > 0 or ran == 0)


main()
