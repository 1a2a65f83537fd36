//! The rate limits of the built daemon, and its limits on connections, peers and torrents.

mod harness;

use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use harness::http::Connection;
use harness::tracker::{
    InfoHash, Mirror, NOT_TRACKED, PROXY, RATE_LIMITED, SERVED, TOO_MANY_TORRENTS, Tracker, V6,
    announce, new_info_hash, outcome, percent, torrent, udp_outcome,
};
use harness::{Daemon, udp};

/// Sends up to 100 requests, and returns the number that is served before one is refused by a rate limit.
fn served_before_limit(mut request: impl FnMut() -> String) -> usize {
    (0..100)
        .find(|_| match request().as_str() {
            SERVED => false,
            RATE_LIMITED => true,
            other => panic!("{other}"),
        })
        .unwrap_or(100)
}

#[test]
fn rate_limits_announces_and_scrapes_per_network() {
    let tracker = Tracker::open(
        "[limits]\nexempt = ['127.0.0.99', '2001:db8:99::/48']\n\
         announces = 1\nannounces_burst = 3\nscrapes = 1\nscrapes_burst = 2",
    );
    let id = new_info_hash();
    let announce = |from: &str| outcome(&tracker.client(from).announce(&id, "port=1&left=1"));
    let scrape = |from: &str| {
        let target = format!("/scrape?info_hash={}", percent(&id));
        let response = tracker.client(from).get(&target);
        match response.has("files") {
            true => SERVED.to_owned(),
            false => outcome(&response),
        }
    };
    for client in ["127.0.0.2", "::1", "203.0.113.2", "2001:db8:2::1"] {
        assert_eq!(served_before_limit(|| announce(client)), 3, "{client}");
        assert_eq!(served_before_limit(|| scrape(client)), 2, "{client}");
    }
    // HTTP and UDP share a limit. UDP connect requests have no limit.
    for address in ["127.0.0.2", "::1"] {
        assert_eq!(udp_outcome(&tracker.udp_client(address), &id), RATE_LIMITED);
        let (client, connection) = tracker.udp_client(address);
        let response = client.ask(&udp::scrape(connection, &[id]));
        assert_eq!(response, udp::error(RATE_LIMITED));
    }
    let over_udp = tracker.udp_client("127.0.0.3");
    assert_eq!(served_before_limit(|| udp_outcome(&over_udp, &id)), 3);
    assert_eq!(announce("127.0.0.3"), RATE_LIMITED);
    // Other networks are not affected, not even adjacent networks.
    for client in ["127.0.0.4", "203.0.113.3", "2001:db8:2:1::1"] {
        assert_eq!(served_before_limit(|| announce(client)), 3, "{client}");
    }
    for exempt in ["127.0.0.99", "2001:db8:99::1"] {
        assert_eq!(served_before_limit(|| announce(exempt)), 100);
    }
    // Refused clients are not in the swarm. Each served address is in it once.
    let leechers = [
        "127.0.0.2",
        "203.0.113.2",
        "127.0.0.4",
        "203.0.113.3",
        "127.0.0.99",
    ]
    .len()
        + ["::1", "2001:db8:2::1", "2001:db8:2:1::1", "2001:db8:99::1"].len();
    let counts = tracker.client("127.0.0.99").scrape(&id);
    assert_eq!(counts, Some([1, leechers as i64]));

    // A /64 shares one limit. A /56 has four times that limit, and a /48 sixteen times.
    let served = |prefixes: &mut dyn Iterator<Item = String>| -> usize {
        prefixes
            .map(|from| served_before_limit(|| announce(&from)))
            .sum()
    };
    let in_one_64 = |n| format!("2001:db8:64:0:{n:x}::1");
    assert_eq!(served(&mut (0..9).map(in_one_64)), 3);
    let in_one_56 = |n| format!("2001:db8:56:{n:x}::1");
    assert_eq!(served(&mut (0..9).map(in_one_56)), 4 * 3);
    let in_one_48 = |n| format!("2001:db8:48:{:x}::1", n << 6);
    assert_eq!(served(&mut (0..99).map(in_one_48)), 16 * 3);

    // A reload applies new limits and fills all buckets.
    tracker.edit_config("announces_burst = 3", "announces_burst = 5");
    tracker.reload();
    assert_eq!(served_before_limit(|| announce("127.0.0.2")), 5);
}

/// Returns the connection if it is served, or `None` if it was closed without a response.
fn served_connection(mut connection: Connection) -> Option<Connection> {
    // The tracker may have closed the connection before.
    let _ = connection
        .stream()
        .write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    match connection.try_response() {
        Ok(response) => {
            assert_eq!(response.status, 200);
            Some(connection)
        }
        Err(error) => {
            assert!(
                !matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ),
                "the connection is neither served nor closed"
            );
            None
        }
    }
}

#[test]
fn rate_limits_connections_per_network() {
    let tracker = Tracker::open("[limits]\nexempt = []\nconnections = 1\nconnections_burst = 3");
    for client in ["127.0.0.2".parse().unwrap(), V6] {
        let served = (0..10).map_while(|_| served_connection(tracker.connect(client)));
        let served: Vec<_> = served.collect();
        assert_eq!(served.len(), 3, "{client}");
        assert!(served_connection(tracker.connect(client)).is_none());
        // Open connections and other networks are not affected.
        let served = served.into_iter().filter_map(served_connection);
        assert_eq!(served.count(), 3);
        assert!(
            served_connection(tracker.connect([127, 0, 0, 3].into())).is_some() || client == V6
        );
    }
    for _ in 0..20 {
        assert!(
            served_connection(tracker.connect(PROXY)).is_some(),
            "connections of a proxy are not limited"
        );
    }
}

#[test]
fn limits_total_peers_and_torrents() {
    let tracker = Tracker::open("[limits]\nmax_torrents = 2\nmax_peers = 2\npeers_per_network = 1");
    let (first, second, third) = (new_info_hash(), new_info_hash(), new_info_hash());
    let announce = |from: &str, id: &InfoHash, event| {
        let query = format!("port=1&left=1&event={event}");
        tracker.client(from).announce(id, &query)
    };
    announce("127.0.0.2", &first, "started");
    let same_network = tracker
        .client("127.0.0.2")
        .announce(&first, "port=2&left=1&event=started");
    assert_eq!(
        same_network.ports(),
        [1],
        "the client gets peers, but is not kept"
    );
    announce("127.0.0.3", &first, "started");

    let late = announce("127.0.0.4", &first, "started");
    assert_eq!(outcome(&late), SERVED);
    assert_eq!((late.ports().len(), late.number("incomplete")), (2, 2));
    announce("127.0.0.2", &second, "started");
    assert_eq!(
        tracker.peers_returned_to("127.0.0.4", &second),
        ["127.0.0.2:1"],
        "the first peer of a torrent is always kept"
    );
    assert_eq!(
        outcome(&announce("127.0.0.2", &third, "started")),
        TOO_MANY_TORRENTS
    );
    let (client, id) = tracker.udp_client("127.0.0.2");
    assert_eq!(udp_outcome(&(client, id), &third), TOO_MANY_TORRENTS);

    // A peer that leaves makes room for another peer, and the last peer of a torrent for another torrent.
    announce("127.0.0.2", &second, "stopped");
    announce("127.0.0.3", &first, "stopped");
    assert_eq!(outcome(&announce("127.0.0.2", &third, "started")), SERVED);
    assert_eq!(
        outcome(&announce("127.0.0.2", &second, "started")),
        TOO_MANY_TORRENTS
    );

    tracker.edit_config("max_torrents = 2", "max_torrents = 3");
    tracker.reload();
    assert_eq!(outcome(&announce("127.0.0.2", &second, "started")), SERVED);
}

#[test]
fn limits_peers_of_one_network_in_a_swarm() {
    let tracker = Tracker::open("[limits]\npeers_per_network = 2");
    let id = new_info_hash();
    for (crowd, neighbor, expected) in [
        (
            ["127.0.0.2"; 3],
            "127.0.0.3",
            ["127.0.0.2:1", "127.0.0.2:2", "127.0.0.3:1"],
        ),
        (
            ["2001:db8::1", "2001:db8::2", "2001:db8::3"],
            "2001:db8:0:1::1",
            ["[2001:db8::1]:1", "[2001:db8::2]:2", "[2001:db8:0:1::1]:1"],
        ),
    ] {
        let announce = |from: &str, port: usize, query: &str| {
            let query = format!("port={port}&left=1&{query}");
            tracker.client(from).announce(&id, &query)
        };
        for (port, from) in crowd.iter().enumerate() {
            let response = announce(from, port + 1, "");
            assert_eq!(outcome(&response), SERVED);
            assert_eq!(response.ports().len(), port.min(2), "the client gets peers");
        }
        announce(neighbor, 1, "");
        let before = tracker.peers_returned_to(neighbor, &id);
        assert_eq!(before, expected);
        // A peer that leaves makes room.
        announce(crowd[0], 1, "event=stopped");
        announce(crowd[2], 3, "");
        let ports = |peers: &[String]| -> Vec<String> {
            let ports = peers.iter().filter_map(|peer| peer.rsplit_once(':'));
            let mut ports: Vec<_> = ports.map(|(_, port)| port.to_owned()).collect();
            ports.sort_unstable();
            ports
        };
        assert_eq!(
            ports(&tracker.peers_returned_to(neighbor, &id)),
            ["1", "2", "3"]
        );
    }
    // The swarm has three leechers of each address family, and two seeders that requested peers.
    assert_eq!(tracker.client("127.0.0.1").scrape(&id), Some([2, 6]));
}

const FLOOD_HTTP: usize = 60_000;
const FLOOD_UDP: usize = 140_000;

/// Returns the resident memory of the daemon, in bytes.
fn resident(daemon: &Daemon) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<usize>().unwrap() * 1024
}

/// A generator of info-hashes that are not tracked. Each seed gives a different sequence.
struct UnknownHashes(u64);

impl UnknownHashes {
    fn next(&mut self) -> InfoHash {
        let mut id = [0; 20];
        for part in id.chunks_mut(8) {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            part.copy_from_slice(&self.0.swap_bytes().to_be_bytes()[..part.len()]);
        }
        id
    }
}

/// Announces unknown torrents over one connection, a hundred at a time. All of them must be refused.
fn flood_http(tracker: &Tracker, from: IpAddr, count: usize, ticks: &Sender<()>) {
    const AT_ONCE: usize = 100;
    let mut hashes = UnknownHashes(u64::from(
        from.to_string().as_bytes()[from.to_string().len() - 1],
    ));
    let mut connection = tracker.connect(from);
    let request =
        |id: &InfoHash| format!("GET {} HTTP/1.1\r\nHost: t\r\n\r\n", announce(id, "port=1"));
    // All refusals have the same length.
    connection.send(request(&hashes.next()));
    let refusal = connection.response();
    assert_eq!(outcome(&refusal.dictionary()), NOT_TRACKED);
    connection.send(request(&hashes.next()));
    let mut response = vec![0; 4096];
    let length = connection.stream().read(&mut response).unwrap();
    for _ in 0..count / AT_ONCE {
        let requests: String = (0..AT_ONCE).map(|_| request(&hashes.next())).collect();
        connection.send(requests);
        response.resize(length * AT_ONCE, 0);
        connection.stream().read_exact(&mut response).unwrap();
        for response in response.chunks(length) {
            assert!(response.ends_with(&refusal.body));
        }
        ticks.send(()).unwrap();
    }
}

/// Announces unknown torrents over UDP, fifty at a time. All of them must be refused.
fn flood_udp(tracker: &Tracker, from: IpAddr, count: usize, ticks: &Sender<()>) {
    const AT_ONCE: usize = 50;
    let mut hashes = UnknownHashes(count as u64);
    let (client, connection) = tracker.udp_client(&from.to_string());
    let refusal = udp::error(NOT_TRACKED);
    for _ in 0..count / AT_ONCE {
        for _ in 0..AT_ONCE {
            client.send(&udp::with(udp::announce(connection), 16, hashes.next()));
        }
        for _ in 0..AT_ONCE {
            assert_eq!(client.receive(), refusal);
        }
        ticks.send(()).unwrap();
    }
}

#[test]
fn flood_of_unknown_torrents_uses_no_memory() {
    // 200,000 info-hashes alone would take 4 MB.
    const MAX_GROWTH: usize = 2 << 20;
    let mirror = Mirror::new();
    let (content, listed) = torrent("listed");
    mirror.publish("torrents/listed.torrent", &content);
    let tracker = mirror.start("");
    let flood = |http: usize, udp: usize| {
        thread::scope(|scope| {
            let tracker = &tracker;
            let (sender, ticks) = channel();
            for last in 11..=14 {
                let (from, sender) = (IpAddr::from([127, 0, 0, last]), sender.clone());
                scope.spawn(move || flood_http(tracker, from, http / 4, &sender));
            }
            for from in [V6, [127, 0, 0, 15].into()] {
                let sender = sender.clone();
                scope.spawn(move || flood_udp(tracker, from, udp / 2, &sender));
            }
            drop(sender);
            let mut delays = Vec::new();
            // A tracked torrent is announced until the flood ends, at most once for each batch of the flood.
            while ticks.recv().is_ok() {
                let since = Instant::now();
                let from = ["127.0.0.2", "::1"][delays.len() % 2];
                let outcome = match delays.len() % 4 {
                    0 | 1 => outcome(&tracker.client(from).announce(&listed, "port=1&left=1")),
                    _ => udp_outcome(&tracker.udp_client(from), &listed),
                };
                assert_eq!(outcome, SERVED);
                delays.push(since.elapsed());
                while ticks.try_recv().is_ok() {}
            }
            delays
        })
    };
    // The first requests allocate memory that later requests reuse.
    flood(4_000, 4_000);
    let before = resident(&tracker.daemon);
    let since = Instant::now();
    let mut delays = flood(FLOOD_HTTP, FLOOD_UDP);
    let elapsed = since.elapsed();
    let after = resident(&tracker.daemon);
    delays.sort_unstable();
    println!(
        "{} announces of unknown torrents in {elapsed:?}: {} KiB before, {} KiB after; meanwhile {} of a \
         tracked torrent, all served, median {:?}, 99 % within {:?}, worst {:?}",
        FLOOD_HTTP + FLOOD_UDP,
        before / 1024,
        after / 1024,
        delays.len(),
        delays[delays.len() / 2],
        delays[delays.len() * 99 / 100],
        delays[delays.len() - 1]
    );
    assert!(
        after < before + MAX_GROWTH,
        "{before} bytes before, {after} after"
    );
    assert!(delays.len() >= 20, "{}", delays.len());
    assert_eq!(tracker.client("127.0.0.1").scrape(&listed), Some([2, 2]));
}
