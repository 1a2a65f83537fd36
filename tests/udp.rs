//! The daemon over UDP, as clients and strangers meet it: raw packets to the built program.

mod harness;

use std::fs::{self, Permissions};
use std::io::Read;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::unistd::geteuid;
use socket2::{Domain, Protocol, Socket, Type};

use harness::http::Connection;
use harness::udp::{
    Client, MAGIC, TORRENT, announce, connect, error, field, leecher, scrape, with,
};
use harness::{Daemon, Directory};

const PACKET_MAX: usize = 2048;

/// A running tbtt and where it is reached.
struct Tracker {
    daemon: Daemon,
    udp: Vec<SocketAddr>,
}

impl Tracker {
    fn start(config: &str) -> Self {
        let daemon = Daemon::start(config);
        // It tells this after all addresses.
        daemon.wait_for_line("clients announce to");
        let udp = daemon.addresses("udp");
        Self { daemon, udp }
    }

    /// `settings` are keys of [udp]. One worker, so that whatever is sent first is read first.
    fn open(settings: &str) -> Self {
        Self::start(&format!(
            "[http]\nlisten = ['127.0.0.1:0']\n[udp]\nlisten = ['[::]:0']\n{settings}\n\
             [tracker]\nworkers = 1\n[torrents]\nopen = true"
        ))
    }

    fn client(&self, own: &str) -> Client {
        let own: IpAddr = own.parse().unwrap();
        let to = match own {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => "::1".parse().unwrap(),
        };
        Client::new(own, SocketAddr::new(to, self.udp[0].port()))
    }

    /// The body of an HTTP answer.
    fn get(&self, target: &str) -> Vec<u8> {
        let http = self.daemon.addresses("http")[0];
        Connection::open(http).get(target).body
    }

    /// Complete, downloaded, incomplete.
    fn counts(&self) -> [u32; 3] {
        let client = self.client("127.0.0.1");
        let answer = client.ask(&scrape(client.id(), &[TORRENT]));
        [8, 12, 16].map(|at| u32::from_be_bytes(field(&answer, at)))
    }
}

fn announced(leechers: u32, seeders: u32, peers: &[u8]) -> Vec<u8> {
    let counts = [leechers.to_be_bytes(), seeders.to_be_bytes()].concat();
    [b"\x00\x00\x00\x01tran\x00\x00\x07\x08", &counts[..], peers].concat()
}

fn is_error(answer: &[u8]) -> bool {
    answer[..8] == *b"\x00\x00\x00\x03tran" && answer.len() > 8 && answer[8..].is_ascii()
}

#[test]
fn u1_connect_gets_16_bytes_for_16_or_more() {
    let tracker = Tracker::open("");
    for own in ["127.0.0.1", "::1"] {
        let client = tracker.client(own);
        for len in [16, 17, 98, PACKET_MAX] {
            let mut packet = connect(7);
            packet.resize(len, 0xff);
            let answer = client.ask(&packet);
            assert_eq!(
                (answer.len(), &answer[..8]),
                (16, &[0, 0, 0, 0, 0, 0, 0, 7][..])
            );
        }
        let foreign = (0..16).map(|len| connect(7)[..len].to_vec());
        let wrong_magic = (0..8).map(|at| with(connect(7), at, [0x5a]));
        let bad: Vec<_> = foreign.chain(wrong_magic).collect();
        assert!(client.answers(&bad).is_empty());
    }
}

#[test]
fn u2_ids_are_for_one_address_and_any_of_its_ports() {
    for (bad_ids, told) in [
        ("invalid_connection_ids = 'silence'", 0),
        ("invalid_connection_ids = 'error'", 5),
    ] {
        let tracker = Tracker::open(bad_ids);
        for (own, other) in [("127.0.0.1", "127.0.0.2"), ("::1", "127.0.0.1")] {
            let id = tracker.client(own).id();
            let same = tracker.client(own);
            for _ in 0..3 {
                assert_eq!(same.ask(&announce(id))[..8], *b"\x00\x00\x00\x01tran");
            }
            let (other, before) = (tracker.client(other), tracker.counts());
            let forged = [0, MAGIC, u64::MAX, id ^ 1 << 63, id];
            let answers = other.answers(&forged.map(announce));
            assert_eq!(answers.len(), told);
            assert!(
                answers
                    .iter()
                    .all(|answer| is_error(answer) && answer.len() <= 16)
            );
            assert_eq!(tracker.counts(), before);
        }
    }
}

#[test]
fn u3_announce_gives_the_peers_of_the_packets_family() {
    let tracker = Tracker::open("");
    let (v4, v6) = (tracker.client("127.0.0.1"), tracker.client("::1"));
    let (id4, id6) = (v4.id(), v6.id());
    assert_eq!(v4.ask(&announce(id4)), announced(0, 1, b""));
    assert_eq!(v6.ask(&announce(id6)), announced(0, 2, b""));
    let (peer4, peer6) = (
        b"\x7f\0\0\x01\x1a\xe1",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1",
    );
    let at_port = |packet, port: u16| with(packet, 96, port.to_be_bytes());
    assert_eq!(v4.ask(&at_port(leecher(id4), 1)), announced(1, 2, peer4));
    assert_eq!(v6.ask(&at_port(leecher(id6), 1)), announced(2, 2, peer6));
    // A seeder is given no seeder; none that asks is given itself.
    assert_eq!(
        v4.ask(&announce(id4)),
        announced(2, 2, b"\x7f\0\0\x01\0\x01")
    );
    // The sender's own word for its address, the events of old and new clients, what follows.
    for (at, bytes) in [
        (84, [198, 51, 100, 7]),
        (80, [0, 0, 0, 4]),
        (80, [0, 0, 0, 9]),
        (80, [0xff; 4]),
        (92, i32::MIN.to_be_bytes()),
        (92, i32::MAX.to_be_bytes()),
    ] {
        let answer = v4.ask(&with(announce(id4), at, bytes));
        assert_eq!(
            answer,
            announced(2, 2, b"\x7f\0\0\x01\0\x01"),
            "{at} {bytes:?}"
        );
    }
    assert_eq!(
        v4.ask(&with(announce(id4), 92, [0; 4])),
        announced(2, 2, b"")
    );
    assert!(is_error(&v4.ask(&at_port(announce(id4), 0))));
    assert!(is_error(&v4.ask(&announce(id4)[..97])));
    // Event 1 counts one download, event 3 is the end.
    let event = |packet, event: u32| with(packet, 80, event.to_be_bytes());
    v4.ask(&event(at_port(announce(id4), 1), 1));
    v4.ask(&event(at_port(announce(id4), 1), 1));
    assert_eq!(tracker.counts(), [3, 1, 1]);
    assert_eq!(v4.ask(&event(at_port(announce(id4), 1), 3)).len(), 20);
    assert_eq!(tracker.counts(), [2, 1, 1]);
}

#[test]
fn u3_answers_are_never_fragmented() {
    let tracker = Tracker::start(
        "[udp]\nlisten = ['[::]:0']\n[tracker]\nworkers = 1\nmax_numwant = 1000\nnumwant = 1000\n\
         [limits]\npeers_per_network = 1000\n[torrents]\nopen = true",
    );
    for (own, endpoint, peers) in [("127.0.0.1", 6, 202), ("::1", 18, 67)] {
        let client = tracker.client(own);
        let id = client.id();
        for port in 1..=300u16 {
            client.ask(&with(leecher(id), 96, port.to_be_bytes()));
        }
        for num_want in [-1, 500] {
            let answer = client.ask(&with(leecher(id), 92, i32::to_be_bytes(num_want)));
            assert_eq!(answer.len(), 20 + peers * endpoint);
            assert!(answer.len() <= 1232);
        }
    }
}

#[test]
fn u4_scrape_answers_each_hash_in_its_place() {
    let tracker = Tracker::open("");
    for own in ["127.0.0.1", "::1"] {
        let client = tracker.client(own);
        let id = client.id();
        client.ask(&announce(id));
        let seeders = tracker.counts()[0] as u8;
        let (tracked, foreign) = ([0, 0, 0, seeders, 0, 0, 0, 0, 0, 0, 0, 0], [0; 12]);
        let answer = client.ask(&scrape(id, &[[9; 20], TORRENT, [0; 20], TORRENT]));
        let entries = [foreign, tracked, foreign, tracked].concat();
        assert_eq!(answer, [b"\x00\x00\x00\x02tran", &entries[..]].concat());
        for (asked, told) in [(1, 1), (74, 74), (75, 74), (80, 74), (101, 74)] {
            let answer = client.ask(&scrape(id, &vec![TORRENT; asked]));
            assert_eq!(answer.len(), 8 + 12 * told, "{asked}");
            assert!(answer[8..].chunks(12).all(|entry| entry == tracked));
        }
        for len in [16, 17, 35, 37, 16 + 41, PACKET_MAX] {
            let mut packet = scrape(id, &[TORRENT; 2]);
            packet.resize(len, 0);
            assert!(is_error(&client.ask(&packet)), "{len}");
        }
    }
}

#[test]
fn u5_refused_torrents_get_an_error() {
    let tracker = Tracker::start("[udp]\nlisten = ['127.0.0.1:0']\n[torrents]\nopen = false");
    let client = tracker.client("127.0.0.1");
    let id = client.id();
    assert_eq!(
        client.ask(&announce(id)),
        error("this torrent is not tracked here")
    );
    let answer = client.ask(&scrape(id, &[TORRENT; 2]));
    assert_eq!(answer, [&b"\x00\x00\x00\x02tran"[..], &[0; 24]].concat());
}

#[test]
fn u6_options_change_nothing() {
    let tracker = Tracker::open("");
    let client = tracker.client("127.0.0.1");
    let id = client.id();
    for options in [
        &b""[..],
        b"\x00\x00\x00",
        b"\x01\x01\x02\x09/announce\x00",
        b"\x02\x05/anno\x02\x04unce",
        b"\x02\x00\x07\x03abc\x02\x01/",
        b"\x02",
        b"\x02\x10cut",
        &[0xff; PACKET_MAX - 98],
    ] {
        let packet = [&announce(id)[..], options].concat();
        assert_eq!(client.ask(&packet), announced(0, 1, b""), "{options:?}");
    }
}

#[test]
fn u7_what_is_no_request_gets_silence() {
    let tracker = Tracker::open("invalid_connection_ids = 'error'");
    for own in ["127.0.0.1", "::1"] {
        let client = tracker.client(own);
        let id = client.id();
        let actions = [3u32, 4, 5, 1 << 24, u32::MAX];
        let mut bad: Vec<_> = actions
            .map(|action| with(announce(id), 8, action.to_be_bytes()))
            .into();
        for len in [PACKET_MAX + 1, 4096, 60_000] {
            for mut packet in [announce(id), connect(7), scrape(id, &[TORRENT])] {
                packet.resize(len, 0);
                bad.push(packet);
            }
        }
        assert!(client.answers(&bad).is_empty());
    }
}

/// The kernel lets only raw sockets send from port 0.
#[test]
fn u7_source_port_0_gets_silence() {
    if std::env::var_os(IN_NAMESPACE).is_none() {
        return in_namespace("u7_source_port_0_gets_silence");
    }
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).unwrap();
    let tracker = Tracker::open("");
    let own = "127.86.15.1";
    let at = |address: &str, port| SocketAddr::new(address.parse().unwrap(), port).into();
    raw.bind(&at(own, 0)).unwrap();
    for from in [0u16, 1] {
        let header = [from, tracker.udp[0].port(), 8 + 16, 0]
            .map(u16::to_be_bytes)
            .concat();
        raw.send_to(&[header, connect(7)].concat(), &at("127.0.0.1", 0))
            .unwrap();
    }
    let client = tracker.client(own);
    client.id();
    client.id();
    // It hears all that comes to this address over UDP.
    raw.set_nonblocking(true).unwrap();
    let mut heard = Vec::new();
    let mut packet = [0; 4096];
    while (&raw).read(&mut packet).is_ok() {
        let udp = usize::from(packet[0] & 15) * 4;
        heard.push(u16::from_be_bytes(field(&packet, udp + 2)));
    }
    let to = |port| heard.iter().filter(|&&to| to == port).count();
    assert_eq!((to(0), to(1), heard.len()), (0, 1, 3));
}

#[test]
fn no_packet_of_any_length_gets_more_than_it_sent() {
    for bad_ids in ["silence", "error"] {
        let tracker = Tracker::open(&format!("invalid_connection_ids = '{bad_ids}'"));
        for own in ["127.0.0.1", "::1"] {
            let client = tracker.client(own);
            let mut answered = 0;
            for len in 0..=PACKET_MAX {
                let heads = [connect(9), announce(MAGIC), scrape(0, &[]), vec![0xff; 16]];
                let packets = heads.map(|mut head| {
                    head.resize(len, 0xa5);
                    head
                });
                let answers = client.answers(&packets);
                assert!(answers.iter().all(|answer| answer.len() <= len), "{len}");
                let most = match bad_ids {
                    _ if len < 16 => 0,
                    "silence" => 1,
                    _ => 3,
                };
                assert_eq!(answers.len(), most, "{len}");
                answered += answers.len();
            }
            assert!(answered > 2000);
        }
    }
}

/// Bytes out for each byte in, by what is sent: the figures in SECURITY.md. What travels around them, the headers of UDP
/// and IP, is the same for both.
#[test]
fn who_has_not_proven_that_he_hears_is_sent_no_more_than_he_sent() {
    for (bad_ids, for_a_forged) in [("silence", 0.0), ("error", 14.0)] {
        let tracker = Tracker::open(&format!("invalid_connection_ids = '{bad_ids}'"));
        // An id that is good for another address, and peers and torrents that would make long answers.
        let other = tracker.client("127.0.0.2");
        let stolen = other.id();
        for port in 1..100u16 {
            let packet = with(leecher(stolen), 96, port.to_be_bytes());
            assert_eq!(other.ask(&packet)[..4], 1u32.to_be_bytes());
        }
        assert_eq!(other.ask(&leecher(stolen)).len(), 20 + 6 * 50);
        let hashes = [TORRENT; 74];
        let longer = |len| {
            let mut packet = connect(9);
            packet.resize(len, 0);
            packet
        };
        let actions = (0..32).map(|bit| with(announce(stolen), 8, (1u32 << bit).to_be_bytes()));
        let cases: [(&str, Vec<Vec<u8>>, f64); 7] = [
            ("connect", vec![connect(9); 50], 1.0),
            (
                "connect with more behind it",
                vec![longer(98), longer(PACKET_MAX)],
                32.0 / 2146.0,
            ),
            (
                "connect without its number",
                vec![with(connect(9), 0, stolen.to_be_bytes())],
                0.0,
            ),
            (
                "announce",
                vec![
                    announce(stolen),
                    leecher(stolen),
                    announce(MAGIC),
                    announce(0),
                ],
                for_a_forged / 98.0,
            ),
            (
                "scrape of 74",
                vec![scrape(stolen, &hashes)],
                for_a_forged / 1496.0,
            ),
            (
                "scrape of none",
                vec![scrape(stolen, &[])],
                for_a_forged / 16.0,
            ),
            // One of them is an announce, one a scrape.
            (
                "any action",
                actions.collect(),
                2.0 * for_a_forged / (32.0 * 98.0),
            ),
        ];
        for (what, packets, expected) in cases {
            let stranger = tracker.client("127.0.0.1");
            let sent: usize = packets.iter().map(Vec::len).sum();
            let answers = stranger.answers(&packets);
            let received: usize = answers.iter().map(Vec::len).sum();
            let ratio = received as f64 / sent as f64;
            println!("bad_ids = {bad_ids}, {what}: {sent} bytes in, {received} out, {ratio:.3}");
            assert_eq!(ratio, expected, "{what}");
            assert!(ratio <= 1.0);
        }
    }
}

#[test]
fn peers_of_one_protocol_are_given_over_the_other() {
    let tracker = Tracker::open("");
    let target = |key: &str, port| {
        format!(
            "/announce?info_hash=a%20torrent%27s%2020%20bytes&peer_id=-XX0001-abcdefghijkl&left=1&port={port}&key={key}"
        )
    };
    tracker.get(&target("", 2));
    let client = tracker.client("127.0.0.1");
    let id = client.id();
    let answer = client.ask(&with(announce(id), 88, [0xab, 0xcd, 0xef, 0x01]));
    assert_eq!(answer, announced(1, 1, b"\x7f\0\0\x01\0\x02"));
    let answer = tracker.get(&target("", 2));
    let peers = b"5:peers6:\x7f\0\0\x01\x1a\xe1";
    assert!(answer.windows(peers.len()).any(|part| part == peers));
    // One host with a seed's peer_id and key on IPv6 as well is one seeder.
    let client = tracker.client("::1");
    let id = client.id();
    client.ask(&with(announce(id), 88, [0xab, 0xcd, 0xef, 0x01]));
    assert_eq!(tracker.counts(), [1, 0, 1]);
}

#[test]
fn who_may_ask_and_how_often_is_the_same_as_over_http() {
    let tracker = Tracker::open(
        "[access]\nannounce_deny = ['127.0.0.2']\nscrape_deny = ['127.0.0.3']\ntrust_ip_params_from = ['127.0.0.4']\n\
         [limits]\nexempt = []\nannounces = 1\nannounces_burst = 2",
    );
    let [denied, no_scrape, believed] = ["127.0.0.2", "127.0.0.3", "127.0.0.4"].map(|own| {
        let client = tracker.client(own);
        (client.id(), client)
    });
    let told =
        |(id, client): &(u64, Client), request: fn(u64) -> Vec<u8>| client.ask(&request(*id));
    let scrape = |id| scrape(id, &[TORRENT]);
    assert_eq!(
        told(&denied, announce),
        error("your address is not welcome here")
    );
    assert_eq!(
        told(&no_scrape, scrape),
        error("your address is not welcome here")
    );
    assert_eq!(told(&denied, scrape).len(), 20);
    assert_eq!(told(&no_scrape, announce), announced(0, 1, b""));
    let seed = |id| with(with(announce(id), 84, [127, 0, 0, 9]), 96, [0, 9]);
    assert_eq!(told(&believed, seed), announced(0, 2, b""));
    let leeches = told(&no_scrape, leecher);
    assert_eq!(leeches, announced(1, 1, b"\x7f\0\0\x09\0\x09"));
    assert_eq!(
        told(&no_scrape, announce),
        error("too many requests from your network")
    );
}

#[test]
fn every_address_and_worker_serves() {
    let tracker = Tracker::start(
        "[udp]\nlisten = ['[::]:0', '127.0.0.1:0', '[::1]:0']\n[tracker]\nworkers = 4\n\
         [torrents]\nopen = true",
    );
    let [wildcard, v4, v6] = tracker.udp[..] else {
        panic!("{:?}", tracker.udp);
    };
    for (to, own) in [
        (
            SocketAddr::new([127, 0, 0, 77].into(), wildcard.port()),
            "127.0.0.1",
        ),
        (SocketAddr::new(v6.ip(), wildcard.port()), "::1"),
        (v4, "127.0.0.1"),
        (v6, "::1"),
    ] {
        // Enough that no worker is left out.
        let clients: Vec<_> = (0..64)
            .map(|_| Client::new(own.parse().unwrap(), to))
            .collect();
        clients.iter().for_each(|client| client.send(&connect(3)));
        clients
            .iter()
            .for_each(|client| assert_eq!(client.receive().len(), 16));
        // An id that one worker issued is good with all.
        let id = clients[0].id();
        clients.iter().for_each(|client| client.send(&leecher(id)));
        clients
            .iter()
            .for_each(|client| assert_eq!(client.receive()[..8], *b"\0\0\0\x01tran"));
    }
    assert_eq!(tracker.counts(), [0, 0, 2]);
}

#[test]
fn restarts_under_load_lose_no_id_and_no_packet() {
    let state = Directory::new();
    fs::set_permissions(state.path(), Permissions::from_mode(0o777)).unwrap();
    let config = format!(
        "[state]\ndirectory = '{}'\n[torrents]\nopen = true\n[tracker]\nworkers = 2\n",
        state.path().display()
    );
    // As a service manager does, this keeps the socket, where requests wait for the next process.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let start = || {
        let script = "exec 3<&1 1>/dev/null
            LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=udp exec \"$0\" \"$@\"";
        let mut program = Command::new("sh");
        program.args(["-c", script, harness::TBTT]);
        program.stdout(OwnedFd::from(socket.try_clone().unwrap()));
        let daemon = Daemon::spawn(program, &config);
        daemon.wait_for_line("clients announce to");
        daemon
    };
    let mut daemon = start();
    let id = Client::new(at.ip(), at).id();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for port in 1..=8u16 {
            let (client, over) = (Client::new(at.ip(), at), &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let answer = client.ask(&with(announce(id), 96, port.to_be_bytes()));
                    assert_eq!(answer[..8], *b"\0\0\0\x01tran");
                }
            });
        }
        let restarted = panic::catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..3 {
                assert!(daemon.stop().success());
                daemon = start();
            }
        }));
        // The others would wait for this for ever.
        over.store(true, Ordering::Relaxed);
        restarted.unwrap();
    });
    let answer = Client::new(at.ip(), at).ask(&scrape(id, &[TORRENT]));
    assert_eq!(answer[8..12], 8u32.to_be_bytes());
}

const IN_NAMESPACE: &str = "TBTT_TEST_IN_NAMESPACE";

/// Runs one test of this program on a network of its own, which has these addresses and nothing else.
fn in_namespace(test: &str) {
    let user: &[_] = if geteuid().is_root() {
        &[]
    } else {
        &["--user", "--map-current-user", "--keep-caps"]
    };
    let network = "ip link set lo up &&
        for n in 1 2 3; do
            ip addr add 192.0.2.$n/24 dev lo && ip addr add 2001:db8::$n/64 dev lo nodad || exit
        done && exec \"$0\" --exact \"$1\"";
    let status = Command::new("unshare")
        .args(user)
        .args(["--net", "sh", "-c", network])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(IN_NAMESPACE, "1")
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn replies_leave_from_the_address_that_was_asked() {
    if std::env::var_os(IN_NAMESPACE).is_none() {
        return in_namespace("replies_leave_from_the_address_that_was_asked");
    }
    for listen in ["[::]:0", "0.0.0.0:0"] {
        let tracker = Tracker::start(&format!(
            "[udp]\nlisten = ['{listen}']\n[tracker]\nworkers = 1"
        ));
        let hosts = (1..=3).flat_map(|n| [format!("192.0.2.{n}"), format!("2001:db8::{n}")]);
        let hosts: Vec<IpAddr> = hosts
            .map(|host| host.parse().unwrap())
            .filter(|host: &IpAddr| host.is_ipv4() || listen == "[::]:0")
            .collect();
        // Each host asks each of its family; Client hears nothing that comes from another.
        let mut clients = Vec::new();
        for &own in &hosts {
            for to in hosts.iter().filter(|to| to.is_ipv4() == own.is_ipv4()) {
                clients.push(Client::new(
                    own,
                    SocketAddr::new(*to, tracker.udp[0].port()),
                ));
            }
        }
        for round in 0..10 {
            clients
                .iter()
                .for_each(|client| client.send(&connect(round)));
            clients
                .iter()
                .for_each(|client| assert_eq!(client.receive().len(), 16));
        }
    }
}
