//! The built tracker over HTTP: requirements of the BEPs, requests of real clients, and defects of other trackers.
//!
//! The name of a case starts with its subject. H1: info_hash. H2: peer_id, port. H3: left. H4: event. H5: announce
//! response. H6: compact. H7: client address. H8: numwant. H9: form of a request. H10: form of a response. H11: scrape.
//! H12: retry times. H13: external ip. H14: failures. "row", "ask" and "defect" mark cases that were seen in other
//! trackers or requested by their operators.

mod harness;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};

use harness::http::{Connection, Dictionary, Response, get};
use harness::{Daemon, Directory, PATIENCE, TBTT, run};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// An open tracker on both address families.
struct Tracker {
    daemon: Daemon,
    port: u16,
}

impl Tracker {
    fn start() -> Self {
        Self::start_with("", "")
    }

    /// Starts with further lines for `[http]` and `[tracker]`.
    fn start_with(http: &str, tracker: &str) -> Self {
        let daemon = Daemon::start(&format!(
            "[http]\nlisten = [\"[::]:0\"]\n{http}\n[tracker]\n{tracker}\n[torrents]\nopen = true\n\
             [limits]\npeers_per_network = 1000\n"
        ));
        let port = daemon.port("http");
        Self { daemon, port }
    }

    fn at(&self, family: IpAddr) -> SocketAddr {
        SocketAddr::new(family, self.port)
    }

    fn connect(&self) -> Connection {
        Connection::open(self.at(V4))
    }

    fn get(&self, target: &str) -> Response {
        get(self.at(V4), target)
    }

    fn scrape(&self, query: &str) -> Dictionary {
        self.get(&format!("/scrape?{query}"))
            .dictionary()
            .dictionary("files")
    }

    /// Returns a torrent that no other case uses.
    fn swarm(&self) -> Swarm<'_> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Swarm {
            tracker: self,
            info_hash: format!("torrent{number:013}"),
        }
    }
}

struct Swarm<'a> {
    tracker: &'a Tracker,
    /// Has 20 bytes that need no percent-encoding.
    info_hash: String,
}

const PEER_ID: &str = "-XX0001-abcdefghijkl";

impl Swarm<'_> {
    fn target(&self, query: &str) -> String {
        format!(
            "/announce?info_hash={}&{query}&peer_id={PEER_ID}",
            self.info_hash
        )
    }

    fn announce(&self, query: &str) -> Dictionary {
        self.announce_over(V4, query)
    }

    fn announce_over(&self, family: IpAddr, query: &str) -> Dictionary {
        get(self.tracker.at(family), &self.target(query)).dictionary()
    }

    /// Announces peers on ports 1 to `peers`, over a single connection.
    fn fill(&self, peers: u16) {
        let mut connection = self.tracker.connect();
        for port in 1..=peers {
            connection.get(&self.target(&format!("port={port}&numwant=0")));
        }
    }

    /// Returns the numbers of seeders, leechers and downloads from a scrape.
    fn counts(&self) -> [i64; 3] {
        counts(
            &self
                .tracker
                .scrape(&format!("info_hash={}", self.info_hash))
                .dictionary(&self.info_hash),
        )
    }
}

fn counts(from: &Dictionary) -> [i64; 3] {
    ["complete", "incomplete", "downloaded"].map(|key| from.number(key))
}

/// Runs all cases, then panics with the names of those that failed.
fn each_case<C>(cases: &[(&str, C)], check: impl Fn(&C)) {
    let failed: Vec<_> = cases
        .iter()
        .filter(|(_, case)| catch_unwind(AssertUnwindSafe(|| check(case))).is_err())
        .map(|(name, _)| *name)
        .collect();
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

const SEEDER: [i64; 3] = [1, 0, 0];
const LEECHER: [i64; 3] = [0, 1, 0];
const NOBODY: [i64; 3] = [0, 0, 0];

/// Queries of an announce, and the counts afterwards.
const COUNTED: &[(&str, (&str, [i64; 3]))] = &[
    ("H2 port=1", ("port=1&left=5", LEECHER)),
    ("H2 port=65535", ("port=65535&left=5", LEECHER)),
    ("H3 left=0 is a seeder", ("port=1&left=0", SEEDER)),
    ("H3 left=00 is a seeder", ("port=1&left=00", SEEDER)),
    ("H3 left=1 is a leecher", ("port=1&left=1", LEECHER)),
    (
        "H3 left=2^31 is a leecher",
        ("port=1&left=2147483648", LEECHER),
    ),
    (
        "H3 row left=2^32 is a leecher",
        ("port=1&left=4294967296", LEECHER),
    ),
    (
        "H3 left=2^63-1 is a leecher",
        ("port=1&left=9223372036854775807", LEECHER),
    ),
    (
        "H3 left=2^63 is a leecher",
        ("port=1&left=9223372036854775808", LEECHER),
    ),
    (
        "H3 left=2^64-1 is a leecher",
        ("port=1&left=18446744073709551615", LEECHER),
    ),
    (
        "H3 left=2^64 is a leecher",
        ("port=1&left=18446744073709551616", LEECHER),
    ),
    ("H3 left=-1 is a leecher", ("port=1&left=-1", LEECHER)),
    ("H3 left=-0 is a leecher", ("port=1&left=-0", LEECHER)),
    ("H3 left= is a leecher", ("port=1&left=", LEECHER)),
    ("H3 left=abc is a leecher", ("port=1&left=abc", LEECHER)),
    ("H3 left=0x0 is a leecher", ("port=1&left=0x0", LEECHER)),
    ("H3 row left missing is a leecher", ("port=1", LEECHER)),
    (
        "H3 row ask 25 uploaded and downloaded missing",
        ("port=1&left=0", SEEDER),
    ),
    (
        "H3 uploaded and downloaded garbled",
        ("port=1&left=0&uploaded=-5&downloaded=x", SEEDER),
    ),
    ("H4 started", ("port=1&left=5&event=started", LEECHER)),
    (
        "H4 started with left=0 is no download",
        ("port=1&left=0&event=started", SEEDER),
    ),
    (
        "H4 completed is a download",
        ("port=1&left=0&event=completed", [1, 0, 1]),
    ),
    (
        "H4 completed with left=5 is neither seeder nor download",
        ("port=1&left=5&event=completed", LEECHER),
    ),
    (
        "H4 completed without left is neither seeder nor download",
        ("port=1&event=completed", LEECHER),
    ),
    (
        "H4 stopped by an unknown peer is no error",
        ("port=1&left=0&event=stopped", NOBODY),
    ),
    ("H4 row event= is none", ("port=1&left=5&event=", LEECHER)),
    ("H4 event without a value", ("port=1&left=5&event", LEECHER)),
    (
        "H4 event=empty is none",
        ("port=1&left=0&event=empty", SEEDER),
    ),
    (
        "H4 row ask 10 event=paused is a leecher",
        ("port=1&left=5&event=paused", LEECHER),
    ),
    (
        "H4 paused with left=0 is a seeder",
        ("port=1&left=0&event=paused", SEEDER),
    ),
    (
        "H4 row event=bogus is none",
        ("port=1&left=5&event=bogus", LEECHER),
    ),
    (
        "H4 events are in lower case",
        ("port=1&left=0&event=STOPPED", SEEDER),
    ),
    ("H6 row compact missing", ("port=1&left=5", LEECHER)),
    (
        "H7 ip, ipv4 and ipv6 are accepted",
        (
            "port=1&left=5&ip=192.0.2.7&ipv4=192.0.2.7:5&ipv6=%5B2001:db8::7%5D:5",
            LEECHER,
        ),
    ),
    (
        "H9 the first of a repeated key wins",
        ("port=1&left=0&left=5&left", SEEDER),
    ),
    (
        "H9 row the first info_hash wins",
        ("info_hash=another-torrent-0000&port=1&left=0", SEEDER),
    ),
    (
        "H9 unknown keys are ignored",
        (
            "corrupt=0&supportcrypto=1&requirecrypto=1&cryptoport=7&trackerid=x&redundant=0&azudp=1&%00=%zz&port=1&left=0",
            SEEDER,
        ),
    ),
    ("H9 empty pairs", ("&&port=1&&&left=0&&", SEEDER)),
    (
        "H9 a pair with = only, and an empty key",
        ("=&=5&port=1&left=0", SEEDER),
    ),
    (
        "H9 keys without =",
        ("no_peer_id&compact&port=1&left=0", SEEDER),
    ),
    ("H9 names are in lower case", ("port=1&LEFT=0", LEECHER)),
    (
        "ask 1 crypto_flags do not change the response",
        ("port=1&left=5&supportcrypto=0&crypto_flags=", LEECHER),
    ),
];

#[test]
fn announce_is_counted() {
    let tracker = Tracker::start();
    each_case(COUNTED, |(query, expected)| {
        let swarm = tracker.swarm();
        assert_eq!(
            counts(&swarm.announce(query)),
            *expected,
            "in the announce response"
        );
        assert_eq!(swarm.counts(), *expected, "in a scrape");
    });
}

const H: &str = "info_hash=abcdefghijklmnopqrst";

/// Invalid queries of an announce, and a part of the failure reason.
const INVALID: &[(&str, (&str, &str))] = &[
    ("H1 empty query", ("", "info_hash is missing")),
    (
        "H1 info_hash missing",
        ("peer_id={P}&port=1", "info_hash is missing"),
    ),
    (
        "H1 info_hash empty",
        ("info_hash=&peer_id={P}&port=1", "info_hash is not 20"),
    ),
    (
        "H1 19 bytes",
        (
            "info_hash=abcdefghijklmnopqrs&peer_id={P}&port=1",
            "info_hash is not 20",
        ),
    ),
    (
        "H1 21 bytes",
        (
            "info_hash=abcdefghijklmnopqrstu&peer_id={P}&port=1",
            "info_hash is not 20",
        ),
    ),
    (
        "H1 row 32 bytes",
        (
            "info_hash=abcdefghijklmnopqrstuvwxyz012345&peer_id={P}&port=1",
            "info_hash is not 20",
        ),
    ),
    (
        "H1 row 40 hex digits",
        (
            "info_hash=0123456789abcdef0123456789abcdef01234567&peer_id={P}&port=1",
            "info_hash is not 20",
        ),
    ),
    (
        "H1 %zz",
        (
            "info_hash=%zzbcdefghijklmnopqrst&peer_id={P}&port=1",
            "info_hash is not 20",
        ),
    ),
    (
        "H1 %+1",
        (
            "info_hash=%+1bcdefghijklmnopqrst&peer_id={P}&port=1",
            "info_hash is not 20",
        ),
    ),
    (
        "H1 cut after %",
        (
            "info_hash=abcdefghijklmnopqrs%&peer_id={P}&port=1",
            "info_hash is not 20",
        ),
    ),
    (
        "H1 cut after %4",
        (
            "info_hash=abcdefghijklmnopqrs%4&peer_id={P}&port=1",
            "info_hash is not 20",
        ),
    ),
    (
        "H1 encoded twice",
        (
            "info_hash=%2561bcdefghijklmnopqrst&peer_id={P}&port=1",
            "info_hash is not 20",
        ),
    ),
    ("H2 peer_id missing", ("{H}&port=1", "peer_id is missing")),
    (
        "H2 peer_id of 19 bytes",
        (
            "{H}&peer_id=abcdefghijklmnopqrs&port=1",
            "peer_id is not 20",
        ),
    ),
    (
        "H2 peer_id of 21 bytes",
        (
            "{H}&peer_id=abcdefghijklmnopqrstu&port=1",
            "peer_id is not 20",
        ),
    ),
    ("H2 port missing", ("{H}&peer_id={P}", "port is missing")),
    (
        "H2 row port=0",
        ("{H}&peer_id={P}&port=0", "from 1 to 65535"),
    ),
    (
        "H2 port=65536",
        ("{H}&peer_id={P}&port=65536", "from 1 to 65535"),
    ),
    (
        "H2 port=2^64+1",
        (
            "{H}&peer_id={P}&port=18446744073709551617",
            "from 1 to 65535",
        ),
    ),
    ("H2 port=-1", ("{H}&peer_id={P}&port=-1", "from 1 to 65535")),
    ("H2 port=+1", ("{H}&peer_id={P}&port=+1", "from 1 to 65535")),
    (
        "H2 port=1.0",
        ("{H}&peer_id={P}&port=1.0", "from 1 to 65535"),
    ),
    ("H2 port=", ("{H}&peer_id={P}&port=", "from 1 to 65535")),
    (
        "H2 port=http",
        ("{H}&peer_id={P}&port=http", "from 1 to 65535"),
    ),
    (
        "H9 the first port wins, wrong or not",
        ("{H}&peer_id={P}&port=0&port=1", "from 1 to 65535"),
    ),
    (
        "H9 the first info_hash wins, wrong or not",
        ("info_hash=a&{H}&peer_id={P}&port=1", "info_hash is not 20"),
    ),
];

#[test]
fn invalid_announce_fails_with_a_reason() {
    let tracker = Tracker::start();
    each_case(INVALID, |(query, reason)| {
        let query = query.replace("{H}", H).replace("{P}", PEER_ID);
        let failure = tracker.get(&format!("/announce?{query}")).dictionary();
        assert_eq!(failure.keys(), [b"failure reason"]);
        assert!(
            failure.text("failure reason").contains(reason),
            "{failure:?}"
        );
    });
    assert_eq!(
        counts(&tracker.scrape(H).dictionary("abcdefghijklmnopqrst")),
        NOBODY,
        "no peer is stored"
    );
}

type Check = fn(&Tracker);

/// Cases that need several requests or connections.
const CASES: &[(&str, Check)] = &[
    (
        "H1 percent-encoded in any case and raw are the same torrent",
        |t| {
            let raw = t.swarm();
            raw.announce("port=1");
            let encoded: String = raw
                .info_hash
                .bytes()
                .map(|byte| format!("%{byte:02x}"))
                .collect();
            let half = encoded
                .replacen("%74", "t", 1)
                .to_uppercase()
                .replacen('T', "t", 1);
            for (port, info_hash) in [(2, encoded.clone()), (3, encoded.to_uppercase()), (4, half)]
            {
                Swarm {
                    tracker: t,
                    info_hash,
                }
                .announce(&format!("port={port}"));
            }
            assert_eq!(raw.counts(), [0, 4, 0]);
        },
    ),
    ("H1 every byte can be percent-encoded", |t| {
        for byte in 0..=255_u8 {
            let files = t.scrape(&format!("info_hash=every-byte-torrent-%{byte:02X}"));
            assert_eq!(
                files.keys(),
                [[&b"every-byte-torrent-"[..], &[byte]].concat()]
            );
        }
    }),
    ("H1 bytes that a URI may hold need no encoding", |t| {
        for byte in *b"azAZ09-._~!$'()*+,;=:@/?" {
            let files = t.scrape(&format!(
                "info_hash=raw-bytes-torrents-{}",
                char::from(byte)
            ));
            assert_eq!(
                files.keys(),
                [[&b"raw-bytes-torrents-"[..], &[byte]].concat()]
            );
        }
    }),
    ("H1 + is not a space", |t| {
        let files = t.scrape("info_hash=a+torrent+with+signs&info_hash=a%2Btorrent%2bwith+signs");
        assert_eq!(files.keys(), [b"a+torrent+with+signs"]);
    }),
    ("H2 row + in peer_id is not a space", |t| {
        let swarm = t.swarm();
        let peer = "left=0&port=1&key=1&peer_id=";
        swarm.announce_over(V4, &format!("{peer}-XX0001-++++++++++++"));
        swarm.announce_over(V6, &format!("{peer}-XX0001-%2B%2b++++++++++"));
        assert_eq!(swarm.counts(), [1, 0, 0], "the same host");
        swarm.announce_over(V6, &format!("{peer}-XX0001-%20%20++++++++++"));
        assert_eq!(swarm.counts(), [2, 0, 0], "another host");
    }),
    ("H4 repeated completed events are one download", |t| {
        let swarm = t.swarm();
        swarm.announce("port=1&left=5&event=started");
        assert_eq!(
            counts(&swarm.announce("port=1&left=0&event=completed")),
            [1, 0, 1]
        );
        assert_eq!(
            counts(&swarm.announce("port=1&left=0&event=completed")),
            [1, 0, 1]
        );
        assert_eq!(counts(&swarm.announce("port=1&left=0")), [1, 0, 1]);
        assert_eq!(
            counts(&swarm.announce("port=1&left=0&event=completed")),
            [1, 0, 1]
        );
        assert_eq!(
            counts(&swarm.announce("port=2&left=0&event=completed")),
            [2, 0, 2],
            "another peer"
        );
    }),
    (
        "H4 row stopped gets no peers and removes the peer at once",
        |t| {
            let swarm = t.swarm();
            swarm.fill(2);
            let stopped = swarm.announce("port=1&event=stopped");
            assert_eq!(stopped.bytes("peers"), b"");
            assert_eq!(counts(&stopped), LEECHER);
            assert_eq!(swarm.announce("port=2").ports(), [0; 0]);
            let stopped = swarm.announce_over(V6, "port=9&event=stopped");
            assert_eq!(
                (stopped.bytes("peers"), stopped.bytes("peers6")),
                (&b""[..], &b""[..])
            );
            assert_eq!(
                swarm.counts(),
                LEECHER,
                "unchanged when an unknown peer stops"
            );
        },
    ),
    ("H5 the keys are sorted and complete", |t| {
        let response = t.swarm().announce("port=1&left=0");
        assert_eq!(
            response.keys(),
            [
                &b"complete"[..],
                b"downloaded",
                b"external ip",
                b"incomplete",
                b"interval",
                b"min interval",
                b"peers"
            ]
        );
        assert_eq!(
            (response.number("interval"), response.number("min interval")),
            (1800, 300)
        );
    }),
    ("H5 peers is present even if empty", |t| {
        let swarm = t.swarm();
        assert_eq!(swarm.announce("port=1").bytes("peers"), b"");
        assert_eq!(swarm.announce("port=1&compact=0").dictionaries("peers"), []);
        assert_eq!(swarm.announce_over(V6, "port=1").bytes("peers"), b"");
        assert_eq!(swarm.announce_over(V6, "port=1").bytes("peers6"), b"");
    }),
    ("H5 a client never gets itself", |t| {
        let swarm = t.swarm();
        swarm.announce("port=1");
        assert_eq!(swarm.announce("port=1").ports(), [0; 0]);
        assert_eq!(swarm.announce("port=2").ports(), [1]);
    }),
    ("H5 row port=0 is never given to others", |t| {
        let swarm = t.swarm();
        assert!(swarm.announce("port=0").has("failure reason"));
        assert_eq!(swarm.announce("port=2").ports(), [0; 0]);
    }),
    ("H5 a seeder gets leechers, a leecher gets both", |t| {
        let swarm = t.swarm();
        swarm.announce("port=1&left=0");
        swarm.announce("port=2&left=5");
        assert_eq!(swarm.announce("port=3&left=0").ports(), [2]);
        assert_eq!(swarm.announce("port=4&left=5").ports(), [1, 2, 3]);
    }),
    ("H6 compact has 6 bytes per peer, in network order", |t| {
        for compact in ["", "&compact=1", "&compact=", "&compact=2", "&compact"] {
            let swarm = t.swarm();
            swarm.announce("port=258");
            assert_eq!(
                swarm.announce(&format!("port=1{compact}")).bytes("peers"),
                [127, 0, 0, 1, 1, 2]
            );
        }
    }),
    ("H6 peers6 has 18 bytes per peer", |t| {
        let swarm = t.swarm();
        swarm.announce_over(V6, "port=258");
        let response = swarm.announce_over(V6, "port=1");
        let expected = [&Ipv6Addr::LOCALHOST.octets()[..], &[1, 2]].concat();
        assert_eq!(
            (response.bytes("peers6"), response.bytes("peers")),
            (&expected[..], &b""[..])
        );
    }),
    (
        "H6 row compact=0 and no_peer_id=1 is a list of dictionaries",
        |t| {
            for no_peer_id in ["", "&no_peer_id=1"] {
                for (family, ip) in [(V4, "127.0.0.1"), (V6, "::1")] {
                    let swarm = t.swarm();
                    swarm.announce_over(family, "port=258");
                    let response =
                        swarm.announce_over(family, &format!("port=1&compact=0{no_peer_id}"));
                    let [peer] = &response.dictionaries("peers")[..] else {
                        panic!("{response:?}");
                    };
                    assert_eq!(peer.keys(), [&b"ip"[..], b"port"]);
                    assert_eq!((peer.text("ip"), peer.number("port")), (ip, 258));
                }
            }
        },
    ),
    ("H7 address parameters are ignored", |t| {
        let swarm = t.swarm();
        swarm.announce("port=1&ip=192.0.2.7&ipv4=192.0.2.7&ipv6=2001:db8::7");
        assert_eq!(
            swarm.announce("port=2").bytes("peers"),
            [127, 0, 0, 1, 0, 1]
        );
        assert_eq!(swarm.announce_over(V6, "port=3").ports(), [0; 0]);
    }),
    ("H7 defect 7 forwarding headers are ignored", |t| {
        let swarm = t.swarm();
        let mut connection = t.connect();
        connection.send(format!(
            "GET {} HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7\r\n\
             X-Real-IP: 192.0.2.7\r\n\r\n",
            swarm.target("port=1")
        ));
        assert_eq!(
            connection.response().dictionary().bytes("external ip"),
            [127, 0, 0, 1]
        );
        assert_eq!(
            swarm.announce("port=2").bytes("peers"),
            [127, 0, 0, 1, 0, 1]
        );
    }),
    ("H7 row ask 11 a host on both families counts once", |t| {
        let swarm = t.swarm();
        swarm.announce_over(V4, "port=1&left=0&key=deadbeef");
        assert_eq!(
            counts(&swarm.announce_over(V6, "port=1&left=0&key=DEADBEEF")),
            SEEDER
        );
        assert_eq!(swarm.counts(), SEEDER);
        swarm.announce_over(V4, "port=1&left=0&key=deadbeef");
        assert_eq!(swarm.counts(), SEEDER, "after another announce");
        assert_eq!(
            swarm.announce_over(V4, "port=2").ports(),
            [1],
            "given to others over IPv4"
        );
        assert_eq!(
            swarm.announce_over(V6, "port=2").ports(),
            [1],
            "given to others over IPv6"
        );
    }),
    (
        "H7 a host that stops on one family stays on the other",
        |t| {
            let swarm = t.swarm();
            for family in [V4, V6] {
                swarm.announce_over(family, "port=1&left=0&key=7");
            }
            let stopped = swarm.announce_over(V4, "port=1&left=0&key=7&event=stopped");
            assert_eq!(counts(&stopped), SEEDER);
            swarm.announce_over(V6, "port=1&left=0&key=7&event=stopped");
            assert_eq!(swarm.counts(), NOBODY);
        },
    ),
    ("H7 another key is another host", |t| {
        let swarm = t.swarm();
        swarm.announce_over(V4, "port=1&left=0&key=deadbeef");
        swarm.announce_over(V6, "port=1&left=0&key=deadbeee");
        assert_eq!(swarm.counts(), [2, 0, 0]);
    }),
    ("H7 another peer_id is another host", |t| {
        let swarm = t.swarm();
        swarm.announce_over(V4, "port=1&left=0&key=deadbeef");
        swarm.announce_over(
            V6,
            "port=1&left=0&key=deadbeef&peer_id=-XX0001-abcdefghijkm",
        );
        assert_eq!(swarm.counts(), [2, 0, 0]);
    }),
    ("H7 without a key, each family is another host", |t| {
        let swarm = t.swarm();
        for family in [V4, V6] {
            swarm.announce_over(family, "port=1&left=0");
        }
        assert_eq!(swarm.counts(), [2, 0, 0]);
    }),
    (
        "H7 a host that completes on both families is one download",
        |t| {
            let swarm = t.swarm();
            for event in ["left=5&event=started", "left=0&event=completed"] {
                for family in [V4, V6] {
                    swarm.announce_over(family, &format!("port=1&key=7&{event}"));
                }
            }
            assert_eq!(swarm.counts(), [1, 0, 1]);
        },
    ),
    ("H7 key is never sent to others", |t| {
        let swarm = t.swarm();
        swarm.announce("port=1&key=secret-of-mine");
        for query in ["port=2&compact=0", "port=2"] {
            let body = t.get(&swarm.target(query)).body;
            assert!(!body.windows(6).any(|part| part == b"secret"));
        }
    }),
    ("H8 numwant", |t| {
        let swarm = t.swarm();
        swarm.fill(210);
        for (numwant, expected) in [
            ("", 50),
            ("&numwant=-1", 50), // row
            ("&numwant=-99999999999999999999", 50),
            ("&numwant=", 50),
            ("&numwant", 50),
            ("&numwant=abc", 50),
            ("&numwant=5x", 50),
            ("&numwant=0", 0), // row
            ("&numwant=1", 1),
            ("&numwant=199", 199),
            ("&numwant=200", 200),
            ("&numwant=201", 200),
            ("&numwant=4294967296", 200), // row
            ("&numwant=18446744073709551616", 200),
            ("&numwant=3&numwant=7", 3),
        ] {
            let mut ports = swarm.announce(&format!("port=1{numwant}")).ports();
            ports.dedup();
            assert_eq!(ports.len(), expected, "numwant{numwant}");
        }
    }),
    ("H9 keys in another order", |t| {
        let swarm = t.swarm();
        let target = format!(
            "/announce?left=0&port=1&peer_id={PEER_ID}&info_hash={}",
            swarm.info_hash
        );
        assert_eq!(counts(&t.get(&target).dictionary()), SEEDER);
    }),
    (
        "H9 a query of 8192 bytes is accepted, of 8193 refused",
        |t| {
            let swarm = t.swarm();
            let query = |length: usize| {
                let target = swarm.target("port=1&pad=");
                let missing = length - target.len() + "/announce?".len();
                target.replace("pad=", &format!("pad={}", "x".repeat(missing)))
            };
            assert_eq!(counts(&t.get(&query(8192)).dictionary()), LEECHER);
            let failure = t.get(&query(8193)).dictionary();
            assert!(
                failure.text("failure reason").contains("8192"),
                "{failure:?}"
            );
        },
    ),
    (
        "H9 a header of 16 KiB is accepted, of one byte more refused",
        |t| {
            let request = |length: usize| {
                let start = format!(
                    "GET {} HTTP/1.1\r\nHost: t\r\nX-Pad: ",
                    t.swarm().target("port=1")
                );
                start.clone() + &"x".repeat(length - start.len() - 4) + "\r\n\r\n"
            };
            let mut connection = t.connect();
            connection.send(request(16 * 1024));
            assert_eq!(counts(&connection.response().dictionary()), LEECHER);
            connection.send(request(16 * 1024 + 1));
            assert_eq!(connection.response().status, 431);
            connection.rest();
        },
    ),
    ("H9 a header that never ends", |t| {
        let mut connection = t.connect();
        connection.send("GET / HTTP/1.1\r\nX-Pad: ");
        // The tracker may close the connection before all bytes are sent.
        let _ = connection.stream().write_all(&[b'x'; 32 * 1024]);
        match connection.try_response() {
            Ok(response) => assert_eq!(response.status, 431),
            // The tracker closed the connection with unread bytes. Then the reset may overtake the response.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }),
    ("H9 byte by byte", |t| {
        let mut connection = t.connect();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: t\r\n\r\n",
            t.swarm().target("port=1")
        );
        for byte in request.bytes() {
            connection.send([byte]);
        }
        assert_eq!(counts(&connection.response().dictionary()), LEECHER);
    }),
    ("H9 the fast path and hyper respond alike", |t| {
        let announce = t.swarm().target("port=1");
        let requests = ["1.0", "1.1"].into_iter().flat_map(|version| {
            let targets = [&announce, "/scrape?info_hash=a", "/announce", "/nothing"];
            let headers = [
                "",
                "Connection: close\r\n",
                "connection: Keep-Alive\r\n",
                "Connection: keep-alive\r\nConnection: close\r\n",
                "Connection: TE, close\r\nTE: trailers\r\n",
                "User-Agent: libtorrent\r\nAccept-Encoding: gzip\r\nForwarded: for=192.0.2.7\r\n",
                "Content-Length: 0\r\n",
                "Content-Length: 1\r\n\r\nx\r\n",
                "Transfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n0\r\n",
                "Expect: 100-continue\r\n",
                "Upgrade: h2c\r\nConnection: Upgrade\r\n",
                "No colon\r\n",
                &"X-Many: x\r\n".repeat(40),
            ];
            let head = |target| format!("GET {target} HTTP/{version}\r\nHost: t\r\n");
            let one = |target| headers.map(|headers| head(target) + headers + "\r\n");
            targets.map(one).concat()
        });
        for request in requests {
            // After a request that is not simple, hyper serves all requests of the connection.
            let responses = ["", "GET / HTTP/1.1\r\n\r\n"].map(|before| {
                let mut connection = t.connect();
                connection.send(before);
                assert!(before.is_empty() || connection.response().status == 200);
                connection.send(&request);
                let end = connection.stream().shutdown(std::net::Shutdown::Write);
                end.unwrap();
                let response = String::from_utf8_lossy(&connection.rest()).into_owned();
                let is_no_date = |line: &&str| !(line.starts_with("date: ") && line.len() == 37);
                let lines: Vec<_> = response.split_inclusive("\r\n").collect();
                let left: String = lines.iter().copied().filter(is_no_date).collect();
                assert!(left.len() <= response.len() - 37, "no date in {response}");
                left
            });
            assert_eq!(responses[0], responses[1], "{request}");
            assert!(responses[0].starts_with("HTTP/1."), "{request}");
        }
    }),
    ("H9 pipelined requests get responses in order", |t| {
        let (first, second) = (t.swarm(), t.swarm());
        let mut connection = t.connect();
        let requests = [
            first.target("port=1&left=0"),
            second.target("port=1"),
            format!("/scrape?info_hash={}", first.info_hash),
            "/nothing".to_owned(),
            format!("/scrape?info_hash={}", second.info_hash),
        ]
        .map(|target| format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"))
        .concat();
        let (start, end) = requests.split_at(requests.len() - 30);
        connection.send(start);
        assert_eq!(counts(&connection.response().dictionary()), SEEDER);
        assert_eq!(counts(&connection.response().dictionary()), LEECHER);
        connection.send(end);
        let files = connection.response().dictionary().dictionary("files");
        assert_eq!(counts(&files.dictionary(&first.info_hash)), SEEDER);
        assert_eq!(connection.response().status, 404);
        let files = connection.response().dictionary().dictionary("files");
        assert_eq!(counts(&files.dictionary(&second.info_hash)), LEECHER);
    }),
    (
        "H9 HTTP/1.0 without Host gets a response and is closed",
        |t| {
            let mut connection = t.connect();
            connection.send(format!(
                "GET {} HTTP/1.0\r\n\r\n",
                t.swarm().target("port=1")
            ));
            assert_eq!(counts(&connection.response().dictionary()), LEECHER);
            assert_eq!(connection.rest(), b"");
        },
    ),
    ("H9 HTTP/1.0 with keep-alive stays open", |t| {
        let mut connection = t.connect();
        for _ in 0..2 {
            connection.send(format!(
                "GET {} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                t.swarm().target("port=1")
            ));
            let response = connection.response();
            assert_eq!(response.headers["connection"], "keep-alive");
            assert_eq!(counts(&response.dictionary()), LEECHER);
        }
    }),
    (
        "H9 HTTP/1.1 stays open until the client asks to close it",
        |t| {
            let mut connection = t.connect();
            for _ in 0..3 {
                assert_eq!(
                    counts(&connection.get(&t.swarm().target("port=1")).dictionary()),
                    LEECHER
                );
            }
            connection.send(format!(
                "GET {} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
                t.swarm().target("port=1")
            ));
            let response = connection.response();
            assert_eq!(response.headers["connection"], "close");
            assert_eq!(connection.rest(), b"");
        },
    ),
    (
        "H9 a client that shuts down its side gets a response",
        |t| {
            let mut connection = t.connect();
            connection.send(format!(
                "GET {} HTTP/1.1\r\nHost: t\r\n\r\n",
                t.swarm().target("port=1")
            ));
            connection
                .stream()
                .shutdown(std::net::Shutdown::Write)
                .unwrap();
            assert_eq!(counts(&connection.response().dictionary()), LEECHER);
            assert_eq!(connection.rest(), b"");
        },
    ),
    ("H9 row HEAD is GET without the body", |t| {
        let swarm = t.swarm();
        let body = t.get(&swarm.target("port=1")).body;
        for target in [
            swarm.target("port=1"),
            "/".to_owned(),
            "/nothing".to_owned(),
        ] {
            let mut connection = t.connect();
            connection.send(format!("HEAD {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
            let head = connection.head().unwrap();
            let whole = connection.get(&target);
            assert_eq!(head.status, whole.status);
            assert_eq!(head.headers["content-length"], whole.body.len().to_string());
        }
        assert_eq!(
            t.get(&swarm.target("port=1")).body,
            body,
            "HEAD stored no further peer"
        );
    }),
    ("H9 absolute-form", |t| {
        let mut connection = t.connect();
        let swarm = t.swarm();
        for host in [
            "tracker.example",
            "tracker.example:6969",
            "[2001:db8::1]:80",
        ] {
            connection.send(format!(
                "GET http://{host}{} HTTP/1.1\r\nHost: {host}\r\n\r\n",
                swarm.target("port=1")
            ));
            assert_eq!(counts(&connection.response().dictionary()), LEECHER);
        }
        connection.send("GET http://tracker.example HTTP/1.1\r\nHost: tracker.example\r\n\r\n");
        assert!(connection.response().text().contains("tbtt"));
    }),
    ("H9 paths", |t| {
        let status = |path: &str| t.get(path).status;
        for path in [
            "/announce",
            "/announce/",
            "/announce?",
            "/scrape",
            "/scrape/",
            "/",
        ] {
            assert_eq!(status(path), 200, "{path}");
        }
        for path in [
            "/announce//",
            "//announce",
            "/announces",
            "/announce.php",
            "/Announce",
            "/%61nnounce",
            "/a/announce",
            "/announce/scrape",
            "/index.html",
            "/favicon.ico",
            "/stat",
            "//",
            "/?info_hash",
        ] {
            let expected = if path == "/?info_hash" { 200 } else { 404 };
            assert_eq!(status(path), expected, "{path}");
        }
    }),
    ("H9 other methods", |t| {
        for method in [
            "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "BREW",
        ] {
            let swarm = t.swarm();
            let mut connection = t.connect();
            connection.send(format!(
                "{method} {} HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello",
                swarm.target("port=1")
            ));
            let response = connection.response();
            assert_eq!(
                (response.status, &*response.headers["allow"]),
                (405, "GET, HEAD"),
                "{method}"
            );
            assert_eq!(swarm.counts(), NOBODY);
        }
    }),
    ("H9 requests that are not HTTP are rejected", |t| {
        for garbage in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0",
            b"GET /announce\r\n\r\n",
            b"GET  HTTP/1.1\r\n\r\n",
            b"GET /announce HTTP/9.9\r\n\r\n",
            b"GET /announce?info_hash=\x00\x01 HTTP/1.1\r\n\r\n",
            b"GET /announce?info_hash=\xff\xfe HTTP/1.1\r\n\r\n",
        ] {
            let mut connection = t.connect();
            connection.send(garbage);
            let response = connection.rest();
            assert!(
                response.is_empty()
                    || response.starts_with(b"HTTP/1.1 400 ")
                    || response.starts_with(b"HTTP/1.1 505 "),
                "{} got {}",
                garbage.escape_ascii(),
                response.escape_ascii()
            );
        }
    }),
    (
        "H10 no content encoding, even if the client accepts it",
        |t| {
            let swarm = t.swarm();
            swarm.fill(100);
            for target in [
                swarm.target("port=1"),
                format!("/scrape?info_hash={}", swarm.info_hash),
            ] {
                let mut connection = t.connect();
                connection.send(format!(
                "GET {target} HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip, deflate, br\r\nTE: chunked\r\n\r\n"
            ));
                connection.response().dictionary();
            }
        },
    ),
    ("H10 row the longest body has the exact length", |t| {
        let swarm = t.swarm();
        swarm.fill(201);
        for (query, peers) in [
            ("port=201&numwant=200", 200),
            ("port=201&numwant=200&compact=0", 200),
        ] {
            // `get` checks the length, and that nothing follows.
            let response = t.get(&swarm.target(query));
            let dictionary = response.dictionary();
            let count = if query.contains("compact=0") {
                dictionary.dictionaries("peers").len()
            } else {
                dictionary.ports().len()
            };
            assert_eq!(count, peers);
            assert_eq!(response.headers["content-type"], "text/plain");
        }
    }),
    (
        "H11 scrape has the counts, downloaders without partial seeds",
        |t| {
            let swarm = t.swarm();
            swarm.announce("port=1&left=0&event=completed");
            swarm.announce("port=2&left=5");
            swarm.announce("port=3&left=5&event=paused");
            let files = t.scrape(&format!("info_hash={}", swarm.info_hash));
            let entry = files.dictionary(&swarm.info_hash);
            assert_eq!(
                entry.keys(),
                [
                    &b"complete"[..],
                    b"downloaded",
                    b"downloaders",
                    b"incomplete"
                ]
            );
            assert_eq!(
                (counts(&entry), entry.number("downloaders")),
                ([1, 2, 1], 1)
            );
            swarm.announce("port=3&left=5");
            let files = t.scrape(&format!("info_hash={}", swarm.info_hash));
            assert_eq!(
                files.dictionary(&swarm.info_hash).number("downloaders"),
                2,
                "no longer paused"
            );
        },
    ),
    ("H11 row a repeated hash is one key", |t| {
        let files = t.scrape(&format!("{H}&{H}&info_hash=%61bcdefghijklmnopqrst"));
        assert_eq!(files.keys(), [b"abcdefghijklmnopqrst"]);
    }),
    ("H11 row hashes are sorted", |t| {
        let files = t.scrape("info_hash=z0000000000000000000&info_hash=a0000000000000000000&info_hash=%ff0000000000000000000");
        assert_eq!(files.keys().len(), 3);
    }),
    (
        "H11 an open tracker returns zeros for an unknown torrent",
        |t| {
            let swarm = t.swarm();
            assert_eq!(swarm.counts(), NOBODY);
        },
    ),
    ("H11 at most the first 74 hashes", |t| {
        let query = |hashes: u32| {
            (0..hashes)
                .map(|i| format!("info_hash=%{:02x}0000000000000000000&", 255 - i))
                .collect::<String>()
        };
        assert_eq!(t.scrape(&query(74)).keys().len(), 74);
        let files = t.scrape(&query(75));
        assert_eq!((files.keys().len(), files.keys()[0][0]), (74, 255 - 73));
    }),
    ("H11 fails without a hash", |t| {
        for query in ["", "?", "?info_hashes=abcdefghijklmnopqrst", "?&"] {
            let failure = t.get(&format!("/scrape{query}")).dictionary();
            assert_eq!(
                failure.text("failure reason"),
                "a scrape needs an info_hash"
            );
        }
    }),
    ("H11 fails with a malformed hash", |t| {
        for hash in ["", "abc", "abcdefghijklmnopqrstu", "%zzbcdefghijklmnopqrst"] {
            let failure = t.get(&format!("/scrape?{H}&info_hash={hash}")).dictionary();
            assert!(failure.text("failure reason").contains("info_hash"));
        }
    }),
    ("H11 a scrape does not announce", |t| {
        let swarm = t.swarm();
        t.get(&swarm.target("port=1").replace("announce", "scrape"));
        assert_eq!(swarm.counts(), NOBODY);
    }),
    (
        "H13 external ip over IPv4, on a socket for both families",
        |t| {
            assert_eq!(
                t.swarm().announce("port=1").bytes("external ip"),
                [127, 0, 0, 1]
            );
        },
    ),
    ("H13 external ip over IPv6", |t| {
        let response = t.swarm().announce_over(V6, "port=1");
        assert_eq!(response.bytes("external ip"), Ipv6Addr::LOCALHOST.octets());
    }),
    ("H14 a failure is a short text with HTTP status 200", |t| {
        for target in ["/announce", "/scrape", "/announce?info_hash=%"] {
            let failure = t.get(target).dictionary();
            let reason = failure.text("failure reason");
            assert!((1..=80).contains(&reason.len()), "{reason}");
        }
    }),
    ("row GET / describes the tracker", |t| {
        let response = t.get("/");
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(response.status, 200);
        assert_eq!(
            response.text(),
            format!("tbtt {version}, a BitTorrent tracker. Clients announce to /announce\n")
        );
    }),
    ("row unknown paths get 404", |t| {
        let response = t.get("/unknown?info_hash=abcdefghijklmnopqrst");
        assert_eq!((response.status, response.text()), (404, "not found\n"));
    }),
    (
        "ask 1 IPv4-only, IPv6-only and dual-stack hosts find each other",
        |t| {
            let swarm = t.swarm();
            swarm.announce_over(V4, "port=4");
            swarm.announce_over(V6, "port=6");
            for family in [V4, V6] {
                swarm.announce_over(family, "port=10&key=7");
            }
            assert_eq!(swarm.announce_over(V4, "port=4").ports(), [10]);
            assert_eq!(swarm.announce_over(V6, "port=6").ports(), [10]);
            assert_eq!(swarm.announce_over(V4, "port=10&key=7").ports(), [4]);
            assert_eq!(swarm.announce_over(V6, "port=10&key=7").ports(), [6]);
            assert_eq!(swarm.counts(), [0, 3, 0]);
        },
    ),
    (
        "ask 10 a partial seed gets peers and is given to others",
        |t| {
            let swarm = t.swarm();
            swarm.announce("port=1");
            assert_eq!(swarm.announce("port=2&left=5&event=paused").ports(), [1]);
            assert_eq!(swarm.announce("port=1").ports(), [2]);
        },
    ),
];

#[test]
fn tracker_serves_clients() {
    let tracker = Tracker::start();
    each_case(CASES, |check| check(&tracker));
}

#[test]
fn separate_sockets_for_each_family() {
    let daemon =
        Daemon::start("[http]\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]\n[torrents]\nopen = true\n");
    let addresses = daemon.addresses("http");
    assert_eq!(addresses.len(), 2);
    for (address, external) in addresses
        .iter()
        .zip([&[127, 0, 0, 1][..], &Ipv6Addr::LOCALHOST.octets()])
    {
        let response = get(
            *address,
            &format!("/announce?{H}&peer_id={PEER_ID}&port=1&left=0&key=7"),
        )
        .dictionary();
        assert_eq!(response.bytes("external ip"), external, "H13");
        assert_eq!(counts(&response), SEEDER, "H7 one host on both sockets");
    }
}

#[test]
fn closed_tracker_refuses_with_retry_times() {
    let daemon = Daemon::start("[http]\nlisten = [\"127.0.0.1:0\"]\n");
    let address = daemon.addresses("http")[0];
    for query in [
        format!("{H}&peer_id={PEER_ID}&port=1"),
        format!("{H}&peer_id={PEER_ID}&port=1&left=0&event=completed"),
        format!("{H}&peer_id={PEER_ID}&port=1&event=stopped"),
    ] {
        let refusal = get(address, &format!("/announce?{query}")).dictionary();
        assert_eq!(
            refusal.keys(),
            [
                &b"failure reason"[..],
                b"interval",
                b"min interval",
                b"retry in"
            ],
            "H12 ask 9 row not whitelisted"
        );
        assert_eq!(
            refusal.text("failure reason"),
            "this torrent is not tracked here"
        );
        assert_eq!(
            refusal.text("retry in"),
            "5",
            "ask 4: the torrent may be published soon"
        );
        assert_eq!(
            (refusal.number("interval"), refusal.number("min interval")),
            (300, 300)
        );
    }
    let scraped = get(address, &format!("/scrape?{H}")).dictionary();
    assert_eq!(
        scraped.dictionary("files").keys(),
        [b""; 0],
        "H11: torrents that are not tracked are left out"
    );
}

#[test]
fn lists_apply_and_are_reloaded() {
    let hex = |hash: &str| hash.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let [ours, denied, foreign] = ["o", "d", "f"].map(|name| name.repeat(20));
    let lists = Directory::new();
    let both = format!("{}\n{}\n", hex(&ours), hex(&denied));
    let allow = lists.write("allow", both);
    let deny = lists.write("deny", hex(&denied) + "\n");
    let daemon = Daemon::start(&format!(
        "[http]\nlisten = [\"127.0.0.1:0\"]\n[torrents]\nallow = [{allow:?}]\ndeny = [{deny:?}]\n"
    ));
    let address = daemon.addresses("http")[0];
    let announce = |hash: &str| {
        let query = format!("info_hash={hash}&peer_id={PEER_ID}&port=1&left=0");
        get(address, &format!("/announce?{query}")).dictionary()
    };
    let scrape = || {
        let query = format!("info_hash={ours}&info_hash={denied}&info_hash={foreign}");
        let files = get(address, &format!("/scrape?{query}")).dictionary();
        files.dictionary("files")
    };
    assert_eq!(counts(&announce(&ours)), SEEDER);
    let refusal = announce(&denied);
    assert_eq!(
        (refusal.text("retry in"), refusal.number("interval")),
        ("never", 86_400),
        "ask 6, and ask 13: denied though allowed"
    );
    assert_eq!(announce(&foreign).text("retry in"), "5");
    assert_eq!(scrape().keys(), [ours.as_bytes()], "H11");

    lists.write("allow", hex(&foreign) + "\nno hash\n");
    daemon.signal(Signal::SIGHUP);
    let fault = daemon.wait_for_line("reload failed");
    assert!(
        fault.contains(&format!("{}:2:", allow.display())),
        "{fault}"
    );
    assert_eq!(
        scrape().keys(),
        [ours.as_bytes()],
        "unchanged after a failed reload"
    );

    lists.write("allow", hex(&foreign));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(" reloaded");
    assert_eq!(
        scrape().keys(),
        [foreign.as_bytes()],
        "row scrape of a hash removed from the whitelist"
    );
    assert!(announce(&ours).has("failure reason"));
    assert_eq!(counts(&announce(&foreign)), SEEDER);

    lists.write("allow", "");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_lines(" reloaded", 2);
    assert_eq!(
        scrape().keys(),
        [b""; 0],
        "defect 3: a list may become empty"
    );
}

#[test]
fn settings_take_effect() {
    let tracker = Tracker::start_with(
        "announce_path = \"/pub/announce.php\"",
        "interval = 1200\nmin_interval = 120\nnumwant = 2\nmax_numwant = 3\nmax_scrape = 2\nfull_scrape = true\n\
         warning = \"moving soon\"",
    );
    let target =
        |query: &str| format!("/pub/announce.php?{H}&peer_id=abcdefghijklmnopqrst&{query}");
    for port in 1..=5 {
        tracker.get(&target(&format!("port={port}")));
    }
    let response = tracker.get(&target("port=1")).dictionary();
    assert_eq!(
        (response.number("interval"), response.number("min interval")),
        (1200, 120)
    );
    assert_eq!(response.text("warning message"), "moving soon");
    assert_eq!(response.ports().len(), 2);
    let limited = tracker.get(&target("port=1&numwant=9")).dictionary();
    assert_eq!(limited.ports().len(), 3);

    let other = target("port=1").replace("abc", "%00bc");
    tracker.get(&other);
    let scrape = |query: &str| {
        let scraped = tracker.get(&format!("/pub/scrape.php{query}")).dictionary();
        scraped.dictionary("files")
    };
    assert_eq!(scrape("").keys().len(), 2, "H11 full scrape");
    let three = format!("?{H}&info_hash=b{0}&info_hash=c{0}", "0".repeat(19));
    assert_eq!(scrape(&three).keys().len(), 2, "H11 truncated");
    assert_eq!(tracker.get("/announce").status, 404);
    assert_eq!(tracker.get("/pub/scrape").status, 404);
    assert!(tracker.get("/").text().contains("/pub/announce.php"));
}

/// Announces over a new connection and checks that the tracker responds.
fn announce_works(to: SocketAddr) {
    let response = get(to, &format!("/announce?{H}&peer_id={PEER_ID}&port=1")).dictionary();
    assert!(response.has("peers"), "{response:?}");
}

#[test]
fn slow_clients_are_disconnected_and_others_served() {
    let tracker = Tracker::start_with("header_timeout = 1", "");
    let start = Instant::now();
    let mut silent: Vec<_> = (0..100).map(|_| tracker.connect()).collect();
    let mut stuck: Vec<_> = (0..100).map(|_| tracker.connect()).collect();
    for connection in &mut stuck {
        connection.send("GET /announce?info_");
    }
    let dripping = tracker.connect();
    dripping
        .stream()
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut bytes = b"GET /announce?info_hash="
        .iter()
        .chain([b'x'; 8000].iter());
    loop {
        assert!(start.elapsed() < PATIENCE, "not disconnected");
        // Sends a byte each time that there is nothing to read. A write to a closed connection may fail, but the read below
        // detects the close.
        let _ = dripping.stream().write(&[*bytes.next().unwrap()]);
        announce_works(tracker.at(V4));
        match dripping.stream().read(&mut [0; 1]) {
            Ok(0) => break,
            Err(error) => match error.kind() {
                ErrorKind::ConnectionReset => break,
                ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
                _ => panic!("{error}"),
            },
            Ok(_) => panic!("a response to an incomplete request"),
        }
    }
    for connection in silent.iter_mut().chain(&mut stuck) {
        assert_eq!(connection.rest(), b"");
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert!(took < Duration::from_secs(6), "{took:?}");
    announce_works(tracker.at(V4));
}

#[test]
fn clients_that_do_not_read_are_disconnected() {
    let tracker = Tracker::start_with("idle_timeout = 1", "");
    let swarm = tracker.swarm();
    swarm.fill(200);
    let connection = tracker.connect();
    connection
        .stream()
        .set_write_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let requests = format!(
        "GET {} HTTP/1.1\r\n\r\n",
        swarm.target("port=1&numwant=200")
    )
    .repeat(500);
    let start = Instant::now();
    loop {
        match connection.stream().write(requests.as_bytes()) {
            Ok(_) => {}
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => announce_works(tracker.at(V4)),
                ErrorKind::Interrupted => {}
                _ => break,
            },
        }
        assert!(start.elapsed() < PATIENCE, "not disconnected");
    }
    announce_works(tracker.at(V4));
}

#[test]
fn idle_connections_are_closed() {
    let tracker = Tracker::start_with("idle_timeout = 1", "");
    let mut connection = tracker.connect();
    let start = Instant::now();
    assert_eq!(connection.get("/").status, 200);
    assert_eq!(connection.rest(), b"");
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert!(took < Duration::from_secs(6), "{took:?}");
}

/// Connects until the tracker serves the connection. The tracker notices that another connection was closed a little later
/// than the client.
fn connect_in_time(connect: impl Fn() -> Connection) -> Connection {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut connection = connect();
        if is_served(&mut connection) {
            return connection;
        }
        assert!(Instant::now() < end, "not served");
    }
}

fn is_served(connection: &mut Connection) -> bool {
    connection
        .stream()
        .write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        .is_ok()
        && connection
            .try_response()
            .is_ok_and(|response| response.status == 200)
}

#[test]
fn connections_per_network_are_limited() {
    let tracker = Tracker::start_with("max_connections_per_network = 3", "");
    for (limited, other) in [(V4, V6), (V6, V4)] {
        let connect = || Connection::open(tracker.at(limited));
        let mut held: Vec<_> = (0..3).map(|_| connect_in_time(connect)).collect();
        assert!(!is_served(&mut connect()), "a fourth connection");
        // The connections of the iteration before may still count.
        connect_in_time(|| Connection::open(tracker.at(other)));
        assert!(held.iter_mut().all(is_served), "open connections");
        held.pop();
        held.push(connect_in_time(connect));
    }
    let address = |last| IpAddr::from([127, 0, 0, last]);
    let connect = |last| Connection::open_from(address(last), tracker.at(V4));
    let _held: Vec<_> = (0..3).map(|_| connect_in_time(|| connect(9))).collect();
    assert!(!is_served(&mut connect(9)));
    assert!(is_served(&mut connect(10)), "another IPv4 address");
}

#[test]
fn connections_in_total_are_limited() {
    let tracker = Tracker::start_with("max_connections = 4\nmax_connections_per_network = 3", "");
    let connect = |last| Connection::open_from([127, 0, 0, last].into(), tracker.at(V4));
    let mut held: Vec<_> = (1..=4)
        .map(|last| connect_in_time(|| connect(last)))
        .collect();
    assert!(!is_served(&mut connect(5)), "a fifth connection");
    assert!(held.iter_mut().all(is_served), "open connections");
    held.remove(0);
    connect_in_time(|| connect(5));
}

#[test]
fn survives_lack_of_file_descriptors() {
    let daemon = Daemon::start(
        "[http]\nlisten = [\"127.0.0.1:0\"]\nheader_timeout = 60\nidle_timeout = 60\n\
         [tracker]\nworkers = 1\n[torrents]\nopen = true\n",
    );
    // The limit is set after the start. Otherwise the tracker would reserve some descriptors and accept fewer connections.
    let mut limit = Command::new("prlimit");
    limit.args(["--nofile=64:64", &format!("--pid={}", daemon.pid())]);
    if geteuid().is_root() {
        // In some containers root may not limit other users' processes. A user may always limit their own.
        let nobody = User::from_name("nobody").unwrap().unwrap();
        limit.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
    }
    assert!(limit.status().unwrap().success());
    let address = daemon.addresses("http")[0];
    let mut held = Vec::new();
    let mut waiting = loop {
        let mut connection = Connection::open(address);
        connection
            .stream()
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        if !is_served(&mut connection) {
            break connection;
        }
        held.push(connection);
        assert!(held.len() < 64);
    };
    assert!(held.len() > 32, "{} were served", held.len());
    assert!(held.iter_mut().all(is_served), "open connections");
    drop(held);
    waiting.stream().set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(
        waiting.response().status,
        200,
        "the waiting connection is served"
    );
    announce_works(address);
}

#[test]
fn connections_leave_descriptors_for_other_uses() {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 68; exec \"$0\" \"$@\"", TBTT]);
    let daemon = Daemon::spawn(
        limited,
        "[http]\nlisten = [\"127.0.0.1:0\"]\nheader_timeout = 60\nidle_timeout = 60\n\
         [tracker]\nworkers = 1\n[torrents]\nopen = true\n",
    );
    daemon.wait_for_line("open-file limit is too low");
    daemon.wait_for_line("listening");
    let address = daemon.addresses("http")[0];
    let mut held: Vec<_> = (0..4).map(|_| Connection::open(address)).collect();
    assert!(held.iter_mut().all(is_served));
    assert!(
        !is_served(&mut Connection::open(address)),
        "a fifth connection"
    );
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("reloaded");
    assert!(!is_served(&mut Connection::open(address)), "after a reload");
    assert!(held.iter_mut().all(is_served), "open connections");
}

#[test]
fn signals_stop_it_after_requests_in_flight() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        // With one worker, this response shows that all bytes sent before were read.
        let mut tracker = Tracker::start_with("", "workers = 1");
        let target = tracker.swarm().target("port=1");
        let mut idle = tracker.connect();
        idle.get(&target);
        let mut half = tracker.connect();
        half.get(&target);
        half.send(format!("GET {target} HTTP/1."));
        announce_works(tracker.at(V4));

        tracker.daemon.signal(signal);
        tracker.daemon.wait_for_line("stopping");
        half.send("1\r\nHost: t\r\n\r\n");
        let start = Instant::now();
        let response = half.response();
        assert_eq!(response.headers["connection"], "close");
        assert_eq!(counts(&response.dictionary()), LEECHER);
        assert_eq!(half.rest(), b"");
        assert_eq!(idle.rest(), b"");
        assert_eq!(tracker.daemon.wait().code(), Some(0), "{signal}");
        let took = start.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        let log = tracker.daemon.log();
        assert!(
            log.contains("counters since the start http_announces=4 "),
            "{log}"
        );
    }
}

#[test]
fn incomplete_request_does_not_delay_shutdown() {
    let mut tracker = Tracker::start_with("header_timeout = 60", "workers = 1");
    let mut half = tracker.connect();
    half.send("GET /announce?");
    announce_works(tracker.at(V4));
    let start = Instant::now();
    assert_eq!(tracker.daemon.stop().code(), Some(0));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn stops_at_once_right_after_the_start() {
    for _ in 0..10 {
        let mut tracker = Tracker::start();
        assert_eq!(tracker.daemon.stop().code(), Some(0));
    }
}

#[test]
fn log_names_no_client() {
    let mut tracker = Tracker::start();
    let connect = || Connection::open_from([127, 77, 0, 9].into(), tracker.at(V4));
    connect().get(&tracker.swarm().target("port=1"));
    for garbage in ["/announce?info_hash=%", "/wp-login.php", "/scrape"] {
        connect().get(garbage);
    }
    let mut connection = connect();
    connection.send("\x16\x03\x01 no HTTP\r\n\r\n");
    connection.rest();
    tracker.daemon.stop();
    let log = tracker.daemon.log();
    assert!(!log.contains("127.77"), "{log}");
    // The lines of start and shutdown. The thread that watches torrents writes its line at any time between them.
    let expected = [
        "dropped root privileges",
        "entered the Landlock sandbox",
        "start step finished",
        "started",
        "tracker is open",
        "listening",
        "clients announce to",
        "torrent directories read",
        "stopping",
        "counters since the start",
        "stopped",
    ];
    for line in log.lines() {
        assert!(expected.iter().any(|text| line.contains(text)), "{line}");
    }
}

#[test]
fn open_option_opens_the_tracker() {
    let mut program = Command::new(TBTT);
    program.arg("--open");
    let daemon = Daemon::spawn(program, "[http]\nlisten = [\"[::]:0\"]\n");
    daemon.wait_for_line("listening");
    assert!(daemon.log().contains("tracker is open"), "{}", daemon.log());
    let port = daemon.port("http");
    let url = format!("url=http://127.0.0.1:{port}/announce");
    daemon.wait_for_line(&url);
    daemon.wait_for_line(&format!("url=http://[::1]:{port}/announce"));
    announce_works(SocketAddr::new(V4, port));
}

#[test]
fn exit_status_shows_the_kind_of_error() {
    let directory = Directory::new();
    let good = directory.write("good.toml", "[http]\nlisten = [\"127.0.0.1:0\"]\n");
    let bad = directory.write(
        "bad.toml",
        "# a comment\n[http]\nlisten = [\"127.0.0.1:0\"]\nheader_timeout = 0\n",
    );
    let missing = directory.path().join("missing.toml");
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (good, bad, missing) = (path(&good), path(&bad), path(&missing));
    let line = format!("{bad}:4:");
    for (arguments, status, stdout, stderr) in [
        (&["--help"][..], 0, "--config", ""),
        (&["--version"], 0, env!("CARGO_PKG_VERSION"), ""),
        (&["--nonsense"], 64, "", "--nonsense"),
        (&["stray"], 64, "", "stray"),
        (&["--config"], 64, "", "--config"),
        (&["--check-config", "--config", &good], 0, &good, ""),
        (&["--check-config", "--config", &bad], 78, "", &line),
        (&["--config", &bad], 78, "", &line),
        (&["--config", &bad], 78, "", "header_timeout"),
        (&["--config", &missing], 78, "", &missing),
        (&["--check-config", "--config", &missing], 78, "", &missing),
    ] {
        let output = run(arguments);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {output:?}"
        );
        for (text, expected) in [(&output.stdout, stdout), (&output.stderr, stderr)] {
            let text = String::from_utf8_lossy(text);
            assert!(text.contains(expected), "{arguments:?}: {output:?}");
        }
    }
}

#[test]
fn address_in_use_is_reported() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut daemon = Daemon::spawn(
        Command::new(TBTT),
        &format!("[http]\nlisten = [\"{address}\"]\n"),
    );
    assert_eq!(daemon.wait().code(), Some(69));
    daemon.wait_for_line(&format!("cannot listen on tcp {address}: address in use"));
}

#[test]
fn default_configuration_is_valid() {
    let printed = run(&["--print-default-config"]);
    assert_eq!(printed.status.code(), Some(0));
    let sample = String::from_utf8(printed.stdout).unwrap();
    // A commented-out setting has no space after the #. A further line of a list has four spaces.
    let uncommented: String = sample
        .lines()
        .map(|line| {
            let key = line
                .strip_prefix('#')
                .filter(|key| !key.starts_with(' ') || key.starts_with("    "));
            format!("{}\n", key.unwrap_or(line))
        })
        .collect();
    assert!(uncommented.contains("\nheader_timeout = 10\n"));
    let directory = Directory::new();
    for (name, text) in [("sample.toml", &sample), ("uncommented.toml", &uncommented)] {
        let path = directory.write(name, text);
        let output = run(&["--check-config", "--config", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
    }
}
