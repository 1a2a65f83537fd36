//! The built tracker over UDP, with raw packets of valid clients and others.

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

const MAX_PACKET_LEN: usize = 2048;

/// A running tracker and its UDP addresses.
struct Tracker {
    daemon: Daemon,
    udp: Vec<SocketAddr>,
}

impl Tracker {
    fn start(config: &str) -> Self {
        let daemon = Daemon::start(config);
        let udp = daemon.addresses("udp");
        Self { daemon, udp }
    }

    /// Starts an open tracker with further lines for `[udp]`. It has a single worker, so that packets are handled in
    /// the order in which they were sent.
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

    /// Returns the body of an HTTP response.
    fn get(&self, target: &str) -> Vec<u8> {
        let http = self.daemon.addresses("http")[0];
        Connection::open(http).get(target).body
    }

    /// Returns the numbers of seeders, downloads and leechers from a scrape.
    fn counts(&self) -> [u32; 3] {
        let client = self.client("127.0.0.1");
        let response = client.ask(&scrape(client.id(), &[TORRENT]));
        [8, 12, 16].map(|at| u32::from_be_bytes(field(&response, at)))
    }
}

fn announced(leechers: u32, seeders: u32, peers: &[u8]) -> Vec<u8> {
    let counts = [leechers.to_be_bytes(), seeders.to_be_bytes()].concat();
    [b"\x00\x00\x00\x01tran\x00\x00\x07\x08", &counts[..], peers].concat()
}

fn is_error(response: &[u8]) -> bool {
    response[..8] == *b"\x00\x00\x00\x03tran" && response.len() > 8 && response[8..].is_ascii()
}

#[test]
fn u1_connect_returns_16_bytes() {
    let tracker = Tracker::open("");
    for own in ["127.0.0.1", "::1"] {
        let client = tracker.client(own);
        for len in [16, 17, 98, MAX_PACKET_LEN] {
            let mut packet = connect(7);
            packet.resize(len, 0xff);
            let response = client.ask(&packet);
            assert_eq!(
                (response.len(), &response[..8]),
                (16, &[0, 0, 0, 0, 0, 0, 0, 7][..])
            );
        }
        let too_short = (0..16).map(|len| connect(7)[..len].to_vec());
        let wrong_magic = (0..8).map(|at| with(connect(7), at, [0x5a]));
        let bad: Vec<_> = too_short.chain(wrong_magic).collect();
        assert!(client.answers(&bad).is_empty());
    }
}

#[test]
fn u2_id_is_valid_for_one_address_and_all_its_ports() {
    for (setting, expected) in [
        ("invalid_connection_ids = 'silence'", 0),
        ("invalid_connection_ids = 'error'", 5),
    ] {
        let tracker = Tracker::open(setting);
        for (own, other) in [("127.0.0.1", "127.0.0.2"), ("::1", "127.0.0.1")] {
            let id = tracker.client(own).id();
            let same = tracker.client(own);
            for _ in 0..3 {
                assert_eq!(same.ask(&announce(id))[..8], *b"\x00\x00\x00\x01tran");
            }
            let (other, before) = (tracker.client(other), tracker.counts());
            let forged = [0, MAGIC, u64::MAX, id ^ 1 << 63, id];
            let responses = other.answers(&forged.map(announce));
            assert_eq!(responses.len(), expected);
            assert!(
                responses
                    .iter()
                    .all(|response| is_error(response) && response.len() <= 16)
            );
            assert_eq!(tracker.counts(), before);
        }
    }
}

#[test]
fn u3_announce_returns_peers_of_the_packets_family() {
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
    // A seeder gets no seeders, and no client gets itself.
    assert_eq!(
        v4.ask(&announce(id4)),
        announced(2, 2, b"\x7f\0\0\x01\0\x01")
    );
    // The IP address field, paused and unknown events, and extreme values of num_want.
    for (at, bytes) in [
        (84, [198, 51, 100, 7]),
        (80, [0, 0, 0, 4]),
        (80, [0, 0, 0, 9]),
        (80, [0xff; 4]),
        (92, i32::MIN.to_be_bytes()),
        (92, i32::MAX.to_be_bytes()),
    ] {
        let response = v4.ask(&with(announce(id4), at, bytes));
        assert_eq!(
            response,
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
    // Event 1 (completed) counts a download, event 3 (stopped) removes the peer.
    let event = |packet, event: u32| with(packet, 80, event.to_be_bytes());
    v4.ask(&event(at_port(announce(id4), 1), 1));
    v4.ask(&event(at_port(announce(id4), 1), 1));
    assert_eq!(tracker.counts(), [3, 1, 1]);
    assert_eq!(v4.ask(&event(at_port(announce(id4), 1), 3)).len(), 20);
    assert_eq!(tracker.counts(), [2, 1, 1]);
}

#[test]
fn u3_responses_are_never_fragmented() {
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
            let response = client.ask(&with(leecher(id), 92, i32::to_be_bytes(num_want)));
            assert_eq!(response.len(), 20 + peers * endpoint);
            assert!(response.len() <= 1232);
        }
    }
}

#[test]
fn u4_scrape_keeps_order_and_duplicates() {
    let tracker = Tracker::open("");
    for own in ["127.0.0.1", "::1"] {
        let client = tracker.client(own);
        let id = client.id();
        client.ask(&announce(id));
        let seeders = tracker.counts()[0] as u8;
        let (tracked, untracked) = ([0, 0, 0, seeders, 0, 0, 0, 0, 0, 0, 0, 0], [0; 12]);
        let response = client.ask(&scrape(id, &[[9; 20], TORRENT, [0; 20], TORRENT]));
        let entries = [untracked, tracked, untracked, tracked].concat();
        assert_eq!(response, [b"\x00\x00\x00\x02tran", &entries[..]].concat());
        for (requested, expected) in [(1, 1), (74, 74), (75, 74), (80, 74), (101, 74)] {
            let response = client.ask(&scrape(id, &vec![TORRENT; requested]));
            assert_eq!(response.len(), 8 + 12 * expected, "{requested}");
            assert!(response[8..].chunks(12).all(|entry| entry == tracked));
        }
        for len in [16, 17, 35, 37, 16 + 41, MAX_PACKET_LEN] {
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
    let response = client.ask(&scrape(id, &[TORRENT; 2]));
    assert_eq!(response, [&b"\x00\x00\x00\x02tran"[..], &[0; 24]].concat());
}

#[test]
fn u6_options_are_ignored() {
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
        &[0xff; MAX_PACKET_LEN - 98],
    ] {
        let packet = [&announce(id)[..], options].concat();
        assert_eq!(client.ask(&packet), announced(0, 1, b""), "{options:?}");
    }
}

#[test]
fn u7_other_packets_get_no_response() {
    let tracker = Tracker::open("invalid_connection_ids = 'error'");
    for own in ["127.0.0.1", "::1"] {
        let client = tracker.client(own);
        let id = client.id();
        let actions = [3u32, 4, 5, 1 << 24, u32::MAX];
        let mut bad: Vec<_> = actions
            .map(|action| with(announce(id), 8, action.to_be_bytes()))
            .into();
        for len in [MAX_PACKET_LEN + 1, 4096, 60_000] {
            for mut packet in [announce(id), connect(7), scrape(id, &[TORRENT])] {
                packet.resize(len, 0);
                bad.push(packet);
            }
        }
        assert!(client.answers(&bad).is_empty());
    }
}

/// This test uses a raw socket, because the kernel lets no other socket send from port 0.
#[test]
fn u7_source_port_0_gets_no_response() {
    if std::env::var_os(IN_NAMESPACE).is_none() {
        return in_namespace("u7_source_port_0_gets_no_response");
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
    // The raw socket receives all UDP packets to this address.
    raw.set_nonblocking(true).unwrap();
    let mut ports = Vec::new();
    let mut packet = [0; 4096];
    while (&raw).read(&mut packet).is_ok() {
        let udp = usize::from(packet[0] & 15) * 4;
        ports.push(u16::from_be_bytes(field(&packet, udp + 2)));
    }
    let to = |port| ports.iter().filter(|&&to| to == port).count();
    assert_eq!((to(0), to(1), ports.len()), (0, 1, 3));
}

#[test]
fn response_is_never_longer_than_packet_without_id() {
    for invalid_ids in ["silence", "error"] {
        let tracker = Tracker::open(&format!("invalid_connection_ids = '{invalid_ids}'"));
        for own in ["127.0.0.1", "::1"] {
            let client = tracker.client(own);
            let mut answered = 0;
            for len in 0..=MAX_PACKET_LEN {
                let heads = [connect(9), announce(MAGIC), scrape(0, &[]), vec![0xff; 16]];
                let packets = heads.map(|mut head| {
                    head.resize(len, 0xa5);
                    head
                });
                let responses = client.answers(&packets);
                assert!(
                    responses.iter().all(|response| response.len() <= len),
                    "{len}"
                );
                let expected = match invalid_ids {
                    _ if len < 16 => 0,
                    "silence" => 1,
                    _ => 3,
                };
                assert_eq!(responses.len(), expected, "{len}");
                answered += responses.len();
            }
            assert!(answered > 2000);
        }
    }
}

/// Measures the bytes sent per byte received for each kind of packet: the figures in SECURITY.md. The headers of UDP
/// and IP, which are the same in both directions, are not counted.
#[test]
fn sender_without_valid_id_gets_no_amplification() {
    for (invalid_ids, error_len) in [("silence", 0.0), ("error", 14.0)] {
        let tracker = Tracker::open(&format!("invalid_connection_ids = '{invalid_ids}'"));
        // A valid id of another address, and peers and torrents for long responses.
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
                "connect with trailing bytes",
                vec![longer(98), longer(MAX_PACKET_LEN)],
                32.0 / 2146.0,
            ),
            (
                "connect without BEP 15's number",
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
                error_len / 98.0,
            ),
            (
                "scrape of 74",
                vec![scrape(stolen, &hashes)],
                error_len / 1496.0,
            ),
            (
                "scrape of none",
                vec![scrape(stolen, &[])],
                error_len / 16.0,
            ),
            // Two of the packets are an announce and a scrape.
            (
                "any action",
                actions.collect(),
                2.0 * error_len / (32.0 * 98.0),
            ),
        ];
        for (kind, packets, expected) in cases {
            let stranger = tracker.client("127.0.0.1");
            let sent: usize = packets.iter().map(Vec::len).sum();
            let responses = stranger.answers(&packets);
            let received: usize = responses.iter().map(Vec::len).sum();
            let ratio = received as f64 / sent as f64;
            println!(
                "invalid_connection_ids = {invalid_ids}, {kind}: {sent} bytes in, {received} out, {ratio:.3}"
            );
            assert_eq!(ratio, expected, "{kind}");
            assert!(ratio <= 1.0);
        }
    }
}

#[test]
fn peers_are_shared_between_protocols() {
    let tracker = Tracker::open("");
    let target = |key: &str, port| {
        format!(
            "/announce?info_hash=a%20torrent%27s%2020%20bytes&peer_id=-XX0001-abcdefghijkl&left=1&port={port}&key={key}"
        )
    };
    tracker.get(&target("", 2));
    let client = tracker.client("127.0.0.1");
    let id = client.id();
    let response = client.ask(&with(announce(id), 88, [0xab, 0xcd, 0xef, 0x01]));
    assert_eq!(response, announced(1, 1, b"\x7f\0\0\x01\0\x02"));
    let response = tracker.get(&target("", 2));
    let peers = b"5:peers6:\x7f\0\0\x01\x1a\xe1";
    assert!(response.windows(peers.len()).any(|part| part == peers));
    // A host with the same peer_id and key on IPv6 as well counts as a single seeder.
    let client = tracker.client("::1");
    let id = client.id();
    client.ask(&with(announce(id), 88, [0xab, 0xcd, 0xef, 0x01]));
    assert_eq!(tracker.counts(), [1, 0, 1]);
}

#[test]
fn access_lists_and_rate_limits_apply() {
    let tracker = Tracker::open(
        "[access]\nannounce_deny = ['127.0.0.2']\nscrape_deny = ['127.0.0.3']\ntrust_ip_params_from = ['127.0.0.4']\n\
         [limits]\nexempt = []\nannounces = 1\nannounces_burst = 2",
    );
    let [denied, no_scrape, trusted] = ["127.0.0.2", "127.0.0.3", "127.0.0.4"].map(|own| {
        let client = tracker.client(own);
        (client.id(), client)
    });
    let send =
        |(id, client): &(u64, Client), request: fn(u64) -> Vec<u8>| client.ask(&request(*id));
    let scrape = |id| scrape(id, &[TORRENT]);
    assert_eq!(
        send(&denied, announce),
        error("your address is not allowed on this tracker")
    );
    assert_eq!(
        send(&no_scrape, scrape),
        error("your address is not allowed on this tracker")
    );
    assert_eq!(send(&denied, scrape).len(), 20);
    assert_eq!(send(&no_scrape, announce), announced(0, 1, b""));
    let with_ip = |id| with(with(announce(id), 84, [127, 0, 0, 9]), 96, [0, 9]);
    assert_eq!(send(&trusted, with_ip), announced(0, 2, b""));
    let response = send(&no_scrape, leecher);
    assert_eq!(response, announced(1, 1, b"\x7f\0\0\x09\0\x09"));
    assert_eq!(
        send(&no_scrape, announce),
        error("too many requests from your network")
    );
}

#[test]
fn all_addresses_and_workers_serve() {
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
        // Enough clients that each worker serves some.
        let clients: Vec<_> = (0..64)
            .map(|_| Client::new(own.parse().unwrap(), to))
            .collect();
        clients.iter().for_each(|client| client.send(&connect(3)));
        clients
            .iter()
            .for_each(|client| assert_eq!(client.receive().len(), 16));
        // An id is valid for all workers, not only for its issuer.
        let id = clients[0].id();
        clients.iter().for_each(|client| client.send(&leecher(id)));
        clients
            .iter()
            .for_each(|client| assert_eq!(client.receive()[..8], *b"\0\0\0\x01tran"));
    }
    assert_eq!(tracker.counts(), [0, 0, 2]);
}

#[test]
fn restarts_under_load_keep_ids_and_packets() {
    let state = Directory::new();
    fs::set_permissions(state.path(), Permissions::from_mode(0o777)).unwrap();
    let config = format!(
        "[state]\ndirectory = '{}'\n[torrents]\nopen = true\n[tracker]\nworkers = 2\n",
        state.path().display()
    );
    // This test keeps the socket open as a service manager does. Requests wait in the socket for the next process.
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
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        for port in 1..=8u16 {
            let (client, is_done) = (Client::new(at.ip(), at), &is_done);
            scope.spawn(move || {
                while !is_done.load(Ordering::Relaxed) {
                    let response = client.ask(&with(announce(id), 96, port.to_be_bytes()));
                    assert_eq!(response[..8], *b"\0\0\0\x01tran");
                }
            });
        }
        let restarted = panic::catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..3 {
                assert!(daemon.stop().success());
                daemon = start();
            }
        }));
        // Without this, the other threads would never end.
        is_done.store(true, Ordering::Relaxed);
        restarted.unwrap();
    });
    let response = Client::new(at.ip(), at).ask(&scrape(id, &[TORRENT]));
    assert_eq!(response[8..12], 8u32.to_be_bytes());
}

const IN_NAMESPACE: &str = "TBTT_TEST_IN_NAMESPACE";

/// Runs a test of this program in a network namespace, which has only the addresses below.
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
fn responses_leave_from_the_requested_address() {
    if std::env::var_os(IN_NAMESPACE).is_none() {
        return in_namespace("responses_leave_from_the_requested_address");
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
        // Each host sends to each host of its family. A client receives only from the address that it sent to.
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
