//! Which addresses the built daemon answers, and what it hands out to whom.

mod harness;

use harness::tracker::{
    Mirror, SERVED, Tracker, UNWELCOME, percent, some_id, udp_verdict, verdict,
};
use harness::udp;

#[test]
fn access_lists_say_who_may_announce_and_who_may_scrape() {
    let mirror = Mirror::new();
    mirror.0.write(
        "denied",
        "# abusers\n127.0.3.0/24 # all of it\n2001:db8:3::/48\n",
    );
    let settings = format!(
        "[access]\nannounce_deny = ['127.0.0.2', '2001:db8::/32', {}]\n\
         announce_allow = ['0.0.0.0/0', '::/0', '127.0.3.16/28', '2001:db8:3:7::/64']\n\
         scrape_allow = ['127.0.0.2', '127.0.3.0/24', '::1', '2001:db8:3::/48']\nscrape_deny = ['127.0.3.16/28', '2001:db8:3:7::/64']",
        mirror.quoted("denied")
    );
    let tracker = Tracker::open(&settings);
    let id = some_id();
    tracker.from("127.0.0.1").announce(&id, "port=1&left=0");
    // Whether each may announce, and scrape.
    for (address, announces, scrapes) in [
        ("127.0.0.1", true, false),
        ("127.0.0.2", false, true),
        ("127.0.0.3", true, false),
        ("127.0.2.255", true, false),
        ("127.0.3.1", false, true),
        ("127.0.3.15", false, true),
        ("127.0.3.16", true, false),
        ("127.0.3.31", true, false),
        ("127.0.3.32", false, true),
        ("127.0.4.0", true, false),
        ("::1", true, true),
        ("2001:db8::7", false, false),
        ("2001:db8:3::7", false, true),
        ("2001:db8:3:7::7", true, false),
        ("2001:db9::7", true, false),
        ("::ffff:127.0.0.2", false, true),
    ] {
        let client = tracker.from(address);
        let told = |may| if may { SERVED } else { UNWELCOME };
        let answer = client.announce(&id, "port=2&left=0&event=stopped");
        assert_eq!(verdict(&answer), told(announces), "announce from {address}");
        let answer = client.get(&format!("/scrape?info_hash={}", percent(&id)));
        if scrapes {
            assert!(answer.has("files"), "scrape from {address}: {answer:?}");
        } else {
            assert_eq!(verdict(&answer), UNWELCOME, "scrape from {address}");
        }
        // Over UDP, those that this machine has an address for.
        if client.address.is_loopback() {
            let over_udp = tracker.udp_from(address);
            let packet = udp::with(udp::announce(over_udp.1), 80, 3u32.to_be_bytes());
            let is_served = |packet: &[u8]| over_udp.0.ask(packet)[..4] != [0, 0, 0, 3];
            assert_eq!(is_served(&packet), announces, "UDP announce from {address}");
            let packet = udp::scrape(over_udp.1, &[id]);
            assert_eq!(is_served(&packet), scrapes, "UDP scrape from {address}");
        }
    }
    let over_udp = tracker.udp_from("127.0.0.2");
    assert_eq!(udp_verdict(&over_udp, &id), UNWELCOME);
    assert_eq!(
        tracker.from("::1").scrape(&id),
        Some([1, 0]),
        "who is refused is in no swarm"
    );

    mirror.0.write("denied", "127.0.0.1\n::1\n127.0.3.0/33\n");
    let told = tracker.reload_in_vain(1);
    assert!(told[0].contains("denied:3: "), "{told:?}");
    assert_eq!(tracker.verdict(&id), SERVED);
    mirror.0.write("denied", "127.0.0.1\n::1\n");
    tracker.reload();
    assert_eq!(tracker.verdict(&id), UNWELCOME);
    assert_eq!(
        verdict(&tracker.from("127.0.3.1").announce(&id, "port=1")),
        SERVED
    );
}

#[test]
fn local_peers_are_for_their_neighbours() {
    let tracker = Tracker::open(
        "[access]\nlocal_networks = ['127.0.1.0/24', '127.0.2.0/24', 'fd00:1::/32', 'fd00:2::/32']",
    );
    let id = some_id();
    let local = [
        "127.0.1.1",
        "127.0.2.1",
        "203.0.113.1",
        "fd00:1::1",
        "fd00:2::1",
        "2001:db8::1",
    ];
    for address in local {
        tracker.from(address).announce(&id, "port=1&left=1");
    }
    for (asker, peers) in [
        ("127.0.1.9", &["127.0.1.1:1", "203.0.113.1:1"][..]),
        ("127.0.2.9", &["127.0.2.1:1", "203.0.113.1:1"]),
        ("127.0.3.9", &["203.0.113.1:1"]),
        ("203.0.113.9", &["203.0.113.1:1"]),
        ("fd00:1::9", &["[2001:db8::1]:1", "[fd00:1::1]:1"]),
        ("fd00:2::9", &["[2001:db8::1]:1", "[fd00:2::1]:1"]),
        ("fd00:3::9", &["[2001:db8::1]:1"]),
        ("::1", &["[2001:db8::1]:1"]),
    ] {
        assert_eq!(tracker.handed_to(asker, &id), peers, "to {asker}");
    }
    for (asker, peers) in [
        ("127.0.1.8", &["127.0.1.1:1", "203.0.113.1:1"][..]),
        ("127.0.3.8", &["203.0.113.1:1"]),
        ("::1", &["[2001:db8::1]:1"]),
    ] {
        let (client, connection) = tracker.udp_from(asker);
        let answer = client.ask(&udp::with(udp::announce(connection), 16, id));
        let mut handed = match asker {
            "::1" => udp::endpoints::<16>(&answer[20..]),
            _ => udp::endpoints::<4>(&answer[20..]),
        };
        handed.sort_unstable();
        let handed: Vec<_> = handed.iter().map(ToString::to_string).collect();
        assert_eq!(handed, peers, "over UDP to {asker}");
    }
    // All are counted: eight asked over HTTP, three over UDP, each from a port of its own.
    assert_eq!(tracker.from("127.0.0.1").scrape(&id), Some([11, 6]));

    // By default all of 127/8 are neighbours, and what is private is for nobody outside.
    let tracker = Tracker::open("");
    for address in ["127.0.1.1", "10.1.1.1", "192.168.1.1", "fe80::1", "fd00::1"] {
        tracker.from(address).announce(&id, "port=1&left=1");
    }
    assert_eq!(tracker.handed_to("127.0.2.9", &id), ["127.0.1.1:1"]);
    assert_eq!(tracker.handed_to("10.200.1.1", &id), ["10.1.1.1:1"]);
    assert_eq!(tracker.handed_to("203.0.113.9", &id), [""; 0]);
    assert_eq!(tracker.handed_to("2001:db8::9", &id), [""; 0]);
    assert_eq!(tracker.handed_to("fd99::9", &id), ["[fd00::1]:1"]);
}

#[test]
fn only_those_configured_speak_for_other_addresses() {
    let tracker = Tracker::open(
        "[access]\ntrust_ip_params_from = ['127.0.0.4', '2001:db8:4::/48']\nannounce_deny = ['198.51.100.0/24']",
    );
    // The sender, what it says, and the peer that is handed out.
    for (from, says, peer) in [
        ("127.0.0.5", "ip=203.0.113.4", "127.0.0.5:1"),
        ("127.0.0.5", "ipv4=203.0.113.4", "127.0.0.5:1"),
        ("127.0.0.5", "ipv6=2001:db8::4", "127.0.0.5:1"),
        ("::1", "ip=2001:db8::4", "[::1]:1"),
        ("::1", "ipv6=2001:db8::4&ipv4=203.0.113.4", "[::1]:1"),
        ("2001:db8:5::1", "ip=2001:db8::4", "[2001:db8:5::1]:1"),
        ("127.0.0.4", "", "127.0.0.4:1"),
        ("127.0.0.4", "ip=203.0.113.4", "203.0.113.4:1"),
        ("127.0.0.4", "ipv4=203.0.113.4", "203.0.113.4:1"),
        ("127.0.0.4", "ipv4=203.0.113.4%3A77", "203.0.113.4:1"),
        ("127.0.0.4", "ip=seed.example.org", "127.0.0.4:1"),
        ("127.0.0.4", "ip=224.0.0.1", "127.0.0.4:1"),
        ("2001:db8:4::1", "ip=2001:db8::4", "[2001:db8::4]:1"),
        ("2001:db8:4::1", "ipv6=2001%3Adb8%3A%3A4", "[2001:db8::4]:1"),
        // Its other address, over which it announces as well.
        ("127.0.0.4", "ipv6=2001:db8::4", "127.0.0.4:1"),
        ("2001:db8:4::1", "ip=203.0.113.4", "203.0.113.4:1"),
    ] {
        let id = some_id();
        let say = |query: &str| {
            let answer = tracker.from(from).announce(&id, &format!("{query}&{says}"));
            assert_eq!(verdict(&answer), SERVED);
            // Whatever the family of the word, the peers must be readable.
            answer.peers()
        };
        say("port=1&left=1");
        let [v4, v6] = ["127.0.0.77", "::1"].map(|asker| tracker.handed_to(asker, &id));
        assert_eq!([v4, v6].concat(), [peer], "{from} says {says}");
        let given = say("port=2&left=0");
        assert_eq!(given, [peer.parse().unwrap()], "{from} says {says}");
    }
    let id = some_id();
    let answer = tracker
        .from("127.0.0.4")
        .announce(&id, "port=1&ip=198.51.100.4");
    assert_eq!(
        verdict(&answer),
        UNWELCOME,
        "the lists are asked about the address that counts"
    );

    for (from, peer) in [
        ("127.0.0.4", "203.0.113.4:6881"),
        ("127.0.0.5", "127.0.0.5:6881"),
        ("::1", "[::1]:6881"),
    ] {
        let id = some_id();
        let (client, connection) = tracker.udp_from(from);
        let packet = udp::with(udp::leecher(connection), 16, id);
        client.ask(&udp::with(packet, 84, [203, 0, 113, 4]));
        let [v4, v6] = ["127.0.0.77", "::1"].map(|asker| tracker.handed_to(asker, &id));
        assert_eq!([v4, v6].concat(), [peer], "{from} over UDP");
    }
    tracker.rewrite("'127.0.0.4', ", "");
    tracker.reload();
    let id = some_id();
    tracker
        .from("127.0.0.4")
        .announce(&id, "port=1&left=1&ip=203.0.113.4");
    assert_eq!(tracker.handed_to("127.0.0.77", &id), ["127.0.0.4:1"]);
}
