"""Cases: announces of many torrents, from many senders."""

import itertools
import socket

import harness
from attack import LEFT_OVER, LISTED, LONG_LIVED, OPEN, RANDOM, under_load
from harness import LegitimateClients, SpoofingSocket, expect, mebibytes, wait_until


def unknown_torrents(tbtt, place, full):
    """announces of unknown torrents"""
    count = 1_000_000 if full else 20_000
    with under_load(tbtt, place, LISTED | LONG_LIVED) as daemon:
        spoofer = SpoofingSocket()
        # Each source sends as many announces as the rate limit permits.
        ids = spoofer.connection_ids(range(1, 1 + count // 500))
        with LegitimateClients() as clients:
            packets = ((1 + n // 500, n, harness.udp_announce(ids[1 + n // 500], n, RANDOM.randbytes(20))) for n in range(count))
            refused = sum(b"not tracked here" in response for _, response in spoofer.exchange(packets))
        expect(refused == count, "only", refused, "of", count, "were refused")
        summary = clients.check()
    return f"{count} refused; {summary}; {daemon.usage}"


def many_senders(tbtt, place, full):
    """senders from many networks"""
    count = 500_000 if full else 5_000
    # The memory of the three rate limit tables when all entries are used, and of the peers of one swarm.
    tables, peers = 3 * 262_144 * 10, 40 * 2 * count
    with under_load(tbtt, place, left_over=LEFT_OVER + tables + peers) as daemon:
        before = daemon.memory()
        for family in (socket.AF_INET, socket.AF_INET6):
            spoofer = SpoofingSocket(family)
            with LegitimateClients() as clients:
                # The responses are not read: a sender with a forged address does not receive them.
                for number in range(1, count + 1):
                    spoofer.send(number, forged_packet(number))
            summary = clients.check()
            spoofer.sock.close()
        forged = daemon.memory() - before
        expect(forged < LEFT_OVER, "senders without a valid connection id cost", mebibytes(forged))
        with LegitimateClients() as clients:
            for family in (socket.AF_INET, socket.AF_INET6):
                spoofer = SpoofingSocket(family)
                numbers = iter(range(1, count + 1))
                while batch := list(itertools.islice(numbers, 10_000)):
                    ids = spoofer.connection_ids(batch)
                    responses = spoofer.exchange((n, n, harness.udp_announce(ids[n], n)) for n in batch)
                    expect(sum(response[:4] == b"\0\0\0\1" for _, response in responses) == len(batch), "announces got no response")
                spoofer.sock.close()
        summary = clients.check()
        kept = daemon.status()["peers"]
        expect(kept >= 2 * count, "only", kept, "peers")
        each = (daemon.memory() - before) / kept
    return f"{2 * count} forged senders took {mebibytes(max(forged, 0))}; {2 * count} real ones {each:.0f} bytes each; {summary}; {daemon.usage}"


def forged_packet(number):
    """Returns, alternately, a connect and an announce with an invalid connection id."""
    return harness.udp_connect(number) if number % 2 else harness.udp_announce(number * 2**32, number)


def swarm_limits(tbtt, place, full):
    """torrents and peers up to the configured limits"""
    torrents = 200_000 if full else 5_000
    peers = 2 * torrents
    settings = OPEN | LONG_LIVED | {
        "limits": {"max_torrents": torrents, "max_peers": peers},
        "tracker": {"interval": 60, "min_interval": 60},
    }
    # A torrent with one peer takes up to 100 bytes, a peer in a large swarm up to 40, and the rate limit table is filled.
    left_over = LEFT_OVER + (4 << 20) + 100 * torrents + 40 * peers
    with under_load(tbtt, place, settings, left_over=left_over) as daemon:
        before = daemon.memory()
        spoofer = SpoofingSocket()
        with LegitimateClients() as clients:
            tried = torrents * 6 // 5
            ids = spoofer.connection_ids(range(1, 2 + tried // 500))
            packets = ((1 + n // 500, n, harness.udp_announce(ids[1 + n // 500], n, b"%020d" % n)) for n in range(tried))
            # Action 3 is an error (BEP 15): the limit of torrents is reached.
            refused = sum(response[:4] == b"\0\0\0\3" for _, response in spoofer.exchange(packets))
            kept = daemon.status()
            # One of the torrents is that of the legitimate clients.
            expect(kept["torrents"] == torrents and refused == tried - torrents + 1, kept["torrents"], "kept,", refused, "refused")
            summary = f"{tried} torrents announced, {torrents} kept in {mebibytes(daemon.memory() - before)}"
            tried = peers
            ids = spoofer.connection_ids(range(1, 2 + tried // 50))
            packets = ((1 + n // 50, n, harness.udp_announce(ids[1 + n // 50], n, b"%020d" % 0, port=1 + n % 50)) for n in range(tried))
            responses = sum(response[:4] == b"\0\0\0\1" for _, response in spoofer.exchange(packets))
            kept = daemon.status()["peers"]
            expect(responses == tried, "at the limit only", responses, "announces got a response")
            # Workers that add peers at the same time may exceed the limit slightly.
            expect(peers <= kept <= peers + 100, kept, "peers are kept, the limit is", peers)
            summary += f"; {tried} more peers announced, {kept} kept in total in {mebibytes(daemon.memory() - before)}"
        if full:
            settings["tracker"]["peer_timeout"] = 120
            daemon.configure(settings)
            wait_until("all torrents to expire", lambda: daemon.status()["torrents"] == 0, 400)
    return f"{summary}; {clients.check()}; {daemon.usage}"
