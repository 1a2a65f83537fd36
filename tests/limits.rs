//! How often, and how much, the built daemon serves.

mod harness;

use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use harness::http::Connection;
use harness::tracker::{
    Id, Mirror, NO_ROOM, PROXY, SERVED, TOO_OFTEN, Tracker, UNKNOWN, V6, announce, percent,
    some_id, torrent, udp_verdict, verdict,
};
use harness::{Daemon, udp};

/// How many in a row are served before one is refused for being too often, of at most 100.
fn served_of_100(mut ask: impl FnMut() -> String) -> usize {
    (0..100)
        .find(|_| match ask().as_str() {
            SERVED => false,
            TOO_OFTEN => true,
            other => panic!("{other}"),
        })
        .unwrap_or(100)
}

#[test]
fn each_network_has_a_budget_for_announces_and_one_for_scrapes() {
    let tracker = Tracker::open(
        "[limits]\nexempt = ['127.0.0.99', '2001:db8:99::/48']\n\
         announces = 1\nannounces_burst = 3\nscrapes = 1\nscrapes_burst = 2",
    );
    let id = some_id();
    let announce = |from: &str| verdict(&tracker.from(from).announce(&id, "port=1&left=1"));
    let scrape = |from: &str| {
        let target = format!("/scrape?info_hash={}", percent(&id));
        let answer = tracker.from(from).get(&target);
        match answer.has("files") {
            true => SERVED.to_owned(),
            false => verdict(&answer),
        }
    };
    for loud in ["127.0.0.2", "::1", "203.0.113.2", "2001:db8:2::1"] {
        assert_eq!(served_of_100(|| announce(loud)), 3, "{loud}");
        assert_eq!(served_of_100(|| scrape(loud)), 2, "{loud}");
    }
    // One budget for both protocols, and none for asking at which address one is.
    for loud in ["127.0.0.2", "::1"] {
        assert_eq!(udp_verdict(&tracker.udp_from(loud), &id), TOO_OFTEN);
        let (client, connection) = tracker.udp_from(loud);
        let answer = client.ask(&udp::scrape(connection, &[id]));
        assert_eq!(answer, udp::error(TOO_OFTEN));
    }
    let over_udp = tracker.udp_from("127.0.0.3");
    assert_eq!(served_of_100(|| udp_verdict(&over_udp, &id)), 3);
    assert_eq!(announce("127.0.0.3"), TOO_OFTEN);
    // Others go unharmed, in the next network as well as anywhere.
    for quiet in ["127.0.0.4", "203.0.113.3", "2001:db8:2:1::1"] {
        assert_eq!(served_of_100(|| announce(quiet)), 3, "{quiet}");
    }
    for exempt in ["127.0.0.99", "2001:db8:99::1"] {
        assert_eq!(served_of_100(|| announce(exempt)), 100);
    }
    // Who is refused is in no swarm: each address that was served is in it once.
    let leechers = [
        "127.0.0.2",
        "203.0.113.2",
        "127.0.0.4",
        "203.0.113.3",
        "127.0.0.99",
    ]
    .len()
        + ["::1", "2001:db8:2::1", "2001:db8:2:1::1", "2001:db8:99::1"].len();
    let counts = tracker.from("127.0.0.99").scrape(&id);
    assert_eq!(counts, Some([1, leechers as i64]));

    // All of a /64 share; a /56 may ask four times as often, a /48 sixteen times.
    let sites = |prefixes: &mut dyn Iterator<Item = String>| -> usize {
        prefixes.map(|from| served_of_100(|| announce(&from))).sum()
    };
    let of_64 = |n| format!("2001:db8:64:0:{n:x}::1");
    assert_eq!(sites(&mut (0..9).map(of_64)), 3);
    let of_56 = |n| format!("2001:db8:56:{n:x}::1");
    assert_eq!(sites(&mut (0..9).map(of_56)), 4 * 3);
    let of_48 = |n| format!("2001:db8:48:{:x}::1", n << 6);
    assert_eq!(sites(&mut (0..99).map(of_48)), 16 * 3);

    // Written anew, other limits hold, and whoever had none left has again.
    tracker.rewrite("announces_burst = 3", "announces_burst = 5");
    tracker.reload();
    assert_eq!(served_of_100(|| announce("127.0.0.2")), 5);
}

/// Whether a new connection is served; else it must be closed without a word.
fn is_served(mut connection: Connection) -> Option<Connection> {
    // The tracker may have closed before.
    let _ = connection
        .stream()
        .write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    match connection.try_response() {
        Ok(answer) => {
            assert_eq!(answer.status, 200);
            Some(connection)
        }
        Err(error) => {
            assert!(
                !matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ),
                "neither served nor closed"
            );
            None
        }
    }
}

#[test]
fn each_network_has_a_budget_for_connections() {
    let tracker = Tracker::open("[limits]\nexempt = []\nconnections = 1\nconnections_burst = 3");
    for loud in ["127.0.0.2".parse().unwrap(), V6] {
        let served = (0..10).map_while(|_| is_served(tracker.connect(loud)));
        let served: Vec<_> = served.collect();
        assert_eq!(served.len(), 3, "{loud}");
        assert!(is_served(tracker.connect(loud)).is_none());
        // Those that are there go on, and so does everyone else.
        let served = served.into_iter().filter_map(is_served);
        assert_eq!(served.count(), 3);
        assert!(is_served(tracker.connect([127, 0, 0, 3].into())).is_some() || loud == V6);
    }
    for _ in 0..20 {
        assert!(
            is_served(tracker.connect(PROXY)).is_some(),
            "a proxy brings everyone's"
        );
    }
}

#[test]
fn what_is_kept_in_all_is_bounded() {
    let tracker = Tracker::open("[limits]\nmax_torrents = 2\nmax_peers = 2\npeers_per_network = 1");
    let (first, second, third) = (some_id(), some_id(), some_id());
    let apply_update = |from: &str, id: &Id, event| {
        let query = format!("port=1&left=1&event={event}");
        tracker.from(from).announce(id, &query)
    };
    apply_update("127.0.0.2", &first, "started");
    let same_network = tracker
        .from("127.0.0.2")
        .announce(&first, "port=2&left=1&event=started");
    assert_eq!(same_network.ports(), [1], "not kept, but answered in full");
    apply_update("127.0.0.3", &first, "started");

    let late = apply_update("127.0.0.4", &first, "started");
    assert_eq!(verdict(&late), SERVED);
    assert_eq!((late.ports().len(), late.number("incomplete")), (2, 2));
    apply_update("127.0.0.2", &second, "started");
    assert_eq!(
        tracker.handed_to("127.0.0.4", &second),
        ["127.0.0.2:1"],
        "a torrent's first peer is kept"
    );
    assert_eq!(
        verdict(&apply_update("127.0.0.2", &third, "started")),
        NO_ROOM
    );
    let (client, id) = tracker.udp_from("127.0.0.2");
    assert_eq!(udp_verdict(&(client, id), &third), NO_ROOM);

    // Whoever leaves makes room, for peers and with the last of a torrent for another.
    apply_update("127.0.0.2", &second, "stopped");
    apply_update("127.0.0.3", &first, "stopped");
    assert_eq!(
        verdict(&apply_update("127.0.0.2", &third, "started")),
        SERVED
    );
    assert_eq!(
        verdict(&apply_update("127.0.0.2", &second, "started")),
        NO_ROOM
    );

    tracker.rewrite("max_torrents = 2", "max_torrents = 3");
    tracker.reload();
    assert_eq!(
        verdict(&apply_update("127.0.0.2", &second, "started")),
        SERVED
    );
}

#[test]
fn a_network_fills_no_swarm() {
    let tracker = Tracker::open("[limits]\npeers_per_network = 2");
    let id = some_id();
    for (crowd, one, another) in [
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
            tracker.from(from).announce(&id, &query)
        };
        for (port, from) in crowd.iter().enumerate() {
            let answer = announce(from, port + 1, "");
            assert_eq!(verdict(&answer), SERVED);
            assert_eq!(answer.ports().len(), port.min(2), "answered in full");
        }
        announce(one, 1, "");
        let before = tracker.handed_to(one, &id);
        assert_eq!(before, another);
        // One leaves, and there is room.
        announce(crowd[0], 1, "event=stopped");
        announce(crowd[2], 3, "");
        let ports = |peers: &[String]| -> Vec<String> {
            let ports = peers.iter().filter_map(|peer| peer.rsplit_once(':'));
            let mut ports: Vec<_> = ports.map(|(_, port)| port.to_owned()).collect();
            ports.sort_unstable();
            ports
        };
        assert_eq!(ports(&tracker.handed_to(one, &id)), ["1", "2", "3"]);
    }
    // Three leechers of each family, and the two that asked.
    assert_eq!(tracker.from("127.0.0.1").scrape(&id), Some([2, 6]));
}

const FLOOD_HTTP: usize = 60_000;
const FLOOD_UDP: usize = 140_000;

/// What the process has in memory, in bytes.
fn resident(daemon: &Daemon) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<usize>().unwrap() * 1024
}

/// Ids that nobody has heard of, other ones for each flood.
struct Foreign(u64);

impl Foreign {
    fn next(&mut self) -> Id {
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

/// Announces of foreign torrents on one connection that is kept, a hundred at a time, all of which must be refused.
fn flood_http(tracker: &Tracker, from: IpAddr, count: usize, ticks: &Sender<()>) {
    const AT_ONCE: usize = 100;
    let mut foreign = Foreign(u64::from(
        from.to_string().as_bytes()[from.to_string().len() - 1],
    ));
    let mut connection = tracker.connect(from);
    let one = |id: &Id| format!("GET {} HTTP/1.1\r\nHost: t\r\n\r\n", announce(id, "port=1"));
    // Each answer has the length of the first.
    connection.send(one(&foreign.next()));
    let refusal = connection.response();
    assert_eq!(verdict(&refusal.dictionary()), UNKNOWN);
    connection.send(one(&foreign.next()));
    let mut answer = vec![0; 4096];
    let length = connection.stream().read(&mut answer).unwrap();
    for _ in 0..count / AT_ONCE {
        let requests: String = (0..AT_ONCE).map(|_| one(&foreign.next())).collect();
        connection.send(requests);
        answer.resize(length * AT_ONCE, 0);
        connection.stream().read_exact(&mut answer).unwrap();
        for answer in answer.chunks(length) {
            assert!(answer.ends_with(&refusal.body));
        }
        ticks.send(()).unwrap();
    }
}

fn flood_udp(tracker: &Tracker, from: IpAddr, count: usize, ticks: &Sender<()>) {
    const AT_ONCE: usize = 50;
    let mut foreign = Foreign(count as u64);
    let (client, connection) = tracker.udp_from(&from.to_string());
    let refusal = udp::error(UNKNOWN);
    for _ in 0..count / AT_ONCE {
        for _ in 0..AT_ONCE {
            client.send(&udp::with(udp::announce(connection), 16, foreign.next()));
        }
        for _ in 0..AT_ONCE {
            assert_eq!(client.receive(), refusal);
        }
        ticks.send(()).unwrap();
    }
}

#[test]
fn a_flood_of_foreign_torrents_leaves_no_trace() {
    // 200,000 hashes alone, with nothing beside them, would be 4 MB.
    const BOUND: usize = 2 << 20;
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
            let mut took = Vec::new();
            // As long as the flood goes on, but not as fast as it can be done.
            while ticks.recv().is_ok() {
                let since = Instant::now();
                let from = ["127.0.0.2", "::1"][took.len() % 2];
                let verdict = match took.len() % 4 {
                    0 | 1 => verdict(&tracker.from(from).announce(&listed, "port=1&left=1")),
                    _ => udp_verdict(&tracker.udp_from(from), &listed),
                };
                assert_eq!(verdict, SERVED);
                took.push(since.elapsed());
                while ticks.try_recv().is_ok() {}
            }
            took
        })
    };
    // What any load takes once.
    flood(4_000, 4_000);
    let before = resident(&tracker.daemon);
    let since = Instant::now();
    let mut took = flood(FLOOD_HTTP, FLOOD_UDP);
    let elapsed = since.elapsed();
    let after = resident(&tracker.daemon);
    took.sort_unstable();
    println!(
        "{} foreign announces in {elapsed:?}: {} KiB before, {} KiB after; meanwhile {} listed ones, \
         all answered, median {:?}, 99 % within {:?}, worst {:?}",
        FLOOD_HTTP + FLOOD_UDP,
        before / 1024,
        after / 1024,
        took.len(),
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        took[took.len() - 1]
    );
    assert!(
        after < before + BOUND,
        "{before} bytes before, {after} after"
    );
    assert!(took.len() >= 20, "{}", took.len());
    assert_eq!(tracker.from("127.0.0.1").scrape(&listed), Some([2, 2]));
}
