//! The access lists of the built daemon, local networks, and addresses in parameters.

mod harness;

use harness::tracker::{
    ADDRESS_REFUSED, Mirror, SERVED, Tracker, new_info_hash, outcome, percent, udp_outcome,
};
use harness::udp;

#[test]
fn access_lists_control_announce_and_scrape() {
    let mirror = Mirror::new();
    mirror.write(
        "denied",
        "# abusers\n127.0.3.0/24 # whole network\n2001:db8:3::/48\n",
    );
    let settings = format!(
        "[access]\nannounce_deny = ['127.0.0.2', '2001:db8::/32', {}]\n\
         announce_allow = ['0.0.0.0/0', '::/0', '127.0.3.16/28', '2001:db8:3:7::/64']\n\
         scrape_allow = ['127.0.0.2', '127.0.3.0/24', '::1', '2001:db8:3::/48']\nscrape_deny = ['127.0.3.16/28', '2001:db8:3:7::/64']",
        mirror.quoted("denied")
    );
    let tracker = Tracker::open(&settings);
    let id = new_info_hash();
    tracker.client("127.0.0.1").announce(&id, "port=1&left=0");
    // The address, whether it may announce, and whether it may scrape.
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
        let client = tracker.client(address);
        let expected = |allowed| if allowed { SERVED } else { ADDRESS_REFUSED };
        let response = client.announce(&id, "port=2&left=0&event=stopped");
        assert_eq!(
            outcome(&response),
            expected(announces),
            "announce from {address}"
        );
        let response = client.get(&format!("/scrape?info_hash={}", percent(&id)));
        if scrapes {
            assert!(response.has("files"), "scrape from {address}: {response:?}");
        } else {
            assert_eq!(outcome(&response), ADDRESS_REFUSED, "scrape from {address}");
        }
        // Only addresses of this machine can send UDP packets.
        if client.address.is_loopback() {
            let over_udp = tracker.udp_client(address);
            let packet = udp::with(udp::announce(over_udp.1), 80, 3u32.to_be_bytes());
            let is_served = |packet: &[u8]| over_udp.0.ask(packet)[..4] != [0, 0, 0, 3];
            assert_eq!(is_served(&packet), announces, "UDP announce from {address}");
            let packet = udp::scrape(over_udp.1, &[id]);
            assert_eq!(is_served(&packet), scrapes, "UDP scrape from {address}");
        }
    }
    let over_udp = tracker.udp_client("127.0.0.2");
    assert_eq!(udp_outcome(&over_udp, &id), ADDRESS_REFUSED);
    assert_eq!(
        tracker.client("::1").scrape(&id),
        Some([1, 0]),
        "a refused client is in no swarm"
    );

    mirror.write("denied", "127.0.0.1\n::1\n127.0.3.0/33\n");
    let lines = tracker.failing_reload(1);
    assert!(lines[0].contains("denied:3: "), "{lines:?}");
    assert_eq!(tracker.outcome(&id), SERVED);
    mirror.write("denied", "127.0.0.1\n::1\n");
    tracker.reload();
    assert_eq!(tracker.outcome(&id), ADDRESS_REFUSED);
    assert_eq!(
        outcome(&tracker.client("127.0.3.1").announce(&id, "port=1")),
        SERVED
    );
}

#[test]
fn local_peers_are_returned_only_within_their_network() {
    let tracker = Tracker::open(
        "[access]\nlocal_networks = ['127.0.1.0/24', '127.0.2.0/24', 'fd00:1::/32', 'fd00:2::/32']",
    );
    let id = new_info_hash();
    let local = [
        "127.0.1.1",
        "127.0.2.1",
        "203.0.113.1",
        "fd00:1::1",
        "fd00:2::1",
        "2001:db8::1",
    ];
    for address in local {
        tracker.client(address).announce(&id, "port=1&left=1");
    }
    for (client, peers) in [
        ("127.0.1.9", &["127.0.1.1:1", "203.0.113.1:1"][..]),
        ("127.0.2.9", &["127.0.2.1:1", "203.0.113.1:1"]),
        ("127.0.3.9", &["203.0.113.1:1"]),
        ("203.0.113.9", &["203.0.113.1:1"]),
        ("fd00:1::9", &["[2001:db8::1]:1", "[fd00:1::1]:1"]),
        ("fd00:2::9", &["[2001:db8::1]:1", "[fd00:2::1]:1"]),
        ("fd00:3::9", &["[2001:db8::1]:1"]),
        ("::1", &["[2001:db8::1]:1"]),
    ] {
        assert_eq!(tracker.peers_returned_to(client, &id), peers, "to {client}");
    }
    for (client, peers) in [
        ("127.0.1.8", &["127.0.1.1:1", "203.0.113.1:1"][..]),
        ("127.0.3.8", &["203.0.113.1:1"]),
        ("::1", &["[2001:db8::1]:1"]),
    ] {
        let (udp_client, connection) = tracker.udp_client(client);
        let response = udp_client.ask(&udp::with(udp::announce(connection), 16, id));
        let mut returned = match client {
            "::1" => udp::endpoints::<16>(&response[20..]),
            _ => udp::endpoints::<4>(&response[20..]),
        };
        returned.sort_unstable();
        let returned: Vec<_> = returned.iter().map(ToString::to_string).collect();
        assert_eq!(returned, peers, "over UDP to {client}");
    }
    // All peers are counted: six leechers, and as seeders eight HTTP clients and three UDP clients.
    assert_eq!(tracker.client("127.0.0.1").scrape(&id), Some([11, 6]));

    // By default 127.0.0.0/8 is one network, and peers in private networks are not returned outside of them.
    let tracker = Tracker::open("");
    for address in ["127.0.1.1", "10.1.1.1", "192.168.1.1", "fe80::1", "fd00::1"] {
        tracker.client(address).announce(&id, "port=1&left=1");
    }
    assert_eq!(tracker.peers_returned_to("127.0.2.9", &id), ["127.0.1.1:1"]);
    assert_eq!(tracker.peers_returned_to("10.200.1.1", &id), ["10.1.1.1:1"]);
    assert_eq!(tracker.peers_returned_to("203.0.113.9", &id), [""; 0]);
    assert_eq!(tracker.peers_returned_to("2001:db8::9", &id), [""; 0]);
    assert_eq!(tracker.peers_returned_to("fd99::9", &id), ["[fd00::1]:1"]);
}

#[test]
fn ip_parameters_are_honored_only_from_trusted_networks() {
    let tracker = Tracker::open(
        "[access]\ntrust_ip_params_from = ['127.0.0.4', '2001:db8:4::/48']\nannounce_deny = ['198.51.100.0/24']",
    );
    // The sender, its parameters, and the peer that other clients get.
    for (from, parameters, peer) in [
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
        // ipv6= from an IPv4 sender is ignored, because the sender announces over IPv6 as well. ip= may be of either
        // address family.
        ("127.0.0.4", "ipv6=2001:db8::4", "127.0.0.4:1"),
        ("2001:db8:4::1", "ip=203.0.113.4", "203.0.113.4:1"),
    ] {
        let id = new_info_hash();
        let announce = |query: &str| {
            let response = tracker
                .client(from)
                .announce(&id, &format!("{query}&{parameters}"));
            assert_eq!(outcome(&response), SERVED);
            // The peers must be readable, whichever address family the parameter has.
            response.peers()
        };
        announce("port=1&left=1");
        let [v4, v6] = ["127.0.0.77", "::1"].map(|client| tracker.peers_returned_to(client, &id));
        assert_eq!([v4, v6].concat(), [peer], "{from} with {parameters}");
        let returned = announce("port=2&left=0");
        assert_eq!(
            returned,
            [peer.parse().unwrap()],
            "{from} with {parameters}"
        );
    }
    let id = new_info_hash();
    let response = tracker
        .client("127.0.0.4")
        .announce(&id, "port=1&ip=198.51.100.4");
    assert_eq!(
        outcome(&response),
        ADDRESS_REFUSED,
        "the access lists apply to the address in the parameter"
    );

    for (from, peer) in [
        ("127.0.0.4", "203.0.113.4:6881"),
        ("127.0.0.5", "127.0.0.5:6881"),
        ("::1", "[::1]:6881"),
    ] {
        let id = new_info_hash();
        let (client, connection) = tracker.udp_client(from);
        let packet = udp::with(udp::leecher(connection), 16, id);
        client.ask(&udp::with(packet, 84, [203, 0, 113, 4]));
        let [v4, v6] = ["127.0.0.77", "::1"].map(|client| tracker.peers_returned_to(client, &id));
        assert_eq!([v4, v6].concat(), [peer], "{from} over UDP");
    }
    tracker.edit_config("'127.0.0.4', ", "");
    tracker.reload();
    let id = new_info_hash();
    tracker
        .client("127.0.0.4")
        .announce(&id, "port=1&left=1&ip=203.0.113.4");
    assert_eq!(
        tracker.peers_returned_to("127.0.0.77", &id),
        ["127.0.0.4:1"]
    );
}
