//! Clients behind proxies: forwarding headers, the PROXY protocol, and Unix sockets.

mod harness;

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use harness::Daemon;
use harness::http::Connection;
use harness::tracker::{
    ADDRESS_REFUSED, InfoHash, Mirror, NO_CLIENT_ADDRESS, PROXY, RATE_LIMITED, SERVED, Tracker, V4,
    V6, announce, announce_with, loopback, new_info_hash, outcome,
};

const VICTIM: &str = "198.51.100.66";
const VICTIM_V6: &str = "2001:db8:bad::66";

/// Returns all peers of a swarm, of both address families. The requests come from this machine, so its peers are included.
fn swarm(tracker: &Tracker, id: &InfoHash) -> Vec<String> {
    let swarm = ["127.0.0.77", "::1"].map(|client| tracker.peers_returned_to(client, id));
    swarm.concat()
}

#[test]
fn forwarding_header_is_honored_only_from_trusted_proxies() {
    let trusted = "trusted = ['127.0.0.1', '127.0.0.9', '2001:db8:aaaa::/48']";
    let tracker = Tracker::open(&format!("[proxy]\n{trusted}"));
    let check = |header: &str, cases: &[(&str, &[&str], &str)]| {
        for (sender, lines, peer) in cases {
            let id = new_info_hash();
            let lines: String = lines
                .iter()
                .map(|line| format!("{header}: {line}\r\n"))
                .collect();
            let mut connection = tracker.connect(sender.parse().unwrap());
            let response = announce_with(&mut connection, &id, &lines).dictionary();
            let expected: &[String] = match *peer {
                "" => {
                    assert_eq!(outcome(&response), NO_CLIENT_ADDRESS, "{lines}");
                    &[]
                }
                peer => {
                    assert_eq!(outcome(&response), SERVED, "{lines}");
                    let peer = SocketAddr::new(peer.parse().unwrap(), 1);
                    &[peer.to_string()]
                }
            };
            assert_eq!(swarm(&tracker, &id), expected, "{sender} sends {lines}");
        }
    };
    check(
        "X-Forwarded-For",
        &[
            ("127.0.0.1", &["203.0.113.5"], "203.0.113.5"),
            ("127.0.0.1", &["2001:db8::5"], "2001:db8::5"),
            ("127.0.0.1", &["203.0.113.5:4711"], "203.0.113.5"),
            ("127.0.0.1", &["[2001:db8::5]:4711"], "2001:db8::5"),
            ("127.0.0.1", &["::ffff:203.0.113.5"], "203.0.113.5"),
            (
                "127.0.0.1",
                &[&format!("{VICTIM}, 203.0.113.5")],
                "203.0.113.5",
            ),
            ("127.0.0.1", &[VICTIM, "203.0.113.5"], "203.0.113.5"),
            (
                "127.0.0.9",
                &[&format!(
                    "{VICTIM}, 203.0.113.5, 2001:db8:aaaa::1, 127.0.0.1"
                )],
                "203.0.113.5",
            ),
            ("127.0.0.1", &[&format!("{VICTIM}, unknown")], ""),
            ("127.0.0.1", &[&format!("{VICTIM}, ")], VICTIM),
            ("127.0.0.1", &["garbage"], ""),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.2", &[VICTIM], "127.0.0.2"),
            ("127.0.0.2", &["127.0.0.1"], "127.0.0.2"),
            ("127.0.0.2", &[VICTIM_V6, "127.0.0.9"], "127.0.0.2"),
            ("::1", &[VICTIM_V6], "::1"),
        ],
    );
    // The other header is ignored, because clients can write it.
    check(
        "Forwarded",
        &[("127.0.0.1", &["for=198.51.100.66"], "127.0.0.1")],
    );

    tracker.edit_config(
        trusted,
        "header = 'forwarded'\ntrusted = ['127.0.0.1', '::1']",
    );
    tracker.reload();
    check(
        "Forwarded",
        &[
            ("127.0.0.1", &["for=203.0.113.5"], "203.0.113.5"),
            (
                "::1",
                &["for=\"[2001:db8::5]:4711\";proto=https;by=203.0.113.1"],
                "2001:db8::5",
            ),
            (
                "127.0.0.1",
                &["for=198.51.100.66, for=203.0.113.5;host=\"a,b\", for=\"[::1]\""],
                "203.0.113.5",
            ),
            (
                "127.0.0.1",
                &["for=198.51.100.66", "For=203.0.113.5"],
                "203.0.113.5",
            ),
            ("127.0.0.1", &["for=198.51.100.66, for=_hidden"], ""),
            ("127.0.0.1", &["for=198.51.100.66, for=unknown"], ""),
            ("127.0.0.2", &["for=198.51.100.66"], "127.0.0.2"),
            ("127.0.0.9", &["for=198.51.100.66"], "127.0.0.9"),
        ],
    );
    check("X-Forwarded-For", &[("127.0.0.1", &[VICTIM], "127.0.0.1")]);
}

#[test]
fn one_proxy_connection_serves_many_clients() {
    let tracker = Tracker::open("");
    let id = new_info_hash();
    let mut connection = tracker.connect(PROXY);
    let clients = ["203.0.113.1", "2001:db8::1", "203.0.113.2", "2001:db8::2"];
    for client in clients {
        let header = format!("X-Forwarded-For: {VICTIM}, {client}\r\n");
        let response = announce_with(&mut connection, &id, &header).dictionary();
        let address: IpAddr = client.parse().unwrap();
        let expected = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        assert_eq!(response.bytes("external ip"), expected);
    }
    // A request without the header comes from the proxy itself, not from an earlier client.
    announce_with(&mut connection, &id, "");
    assert_eq!(
        swarm(&tracker, &id),
        [
            "127.0.0.200:1",
            "203.0.113.1:1",
            "203.0.113.2:1",
            "[2001:db8::1]:1",
            "[2001:db8::2]:1"
        ]
    );
}

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Returns a header of version 2 of the PROXY protocol.
fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [&V2_SIGNATURE[..], &[command, family], &length, addresses].concat()
}

/// Returns a version 2 header for a connection from `address` to 192.0.2.1 or 2001:db8::1.
fn version_2_from(address: &str) -> Vec<u8> {
    let ports = [4711_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat();
    match address.parse().unwrap() {
        IpAddr::V4(from) => {
            let addresses = [from.octets(), [192, 0, 2, 1]].concat();
            version_2(0x21, 0x11, &[addresses, ports].concat())
        }
        IpAddr::V6(from) => {
            let to: Ipv6Addr = "2001:db8::1".parse().unwrap();
            let addresses = [from.octets(), to.octets()].concat();
            version_2(0x21, 0x21, &[addresses, ports].concat())
        }
    }
}

/// Returns valid PROXY headers, each with the client address that it contains.
fn proxy_headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let with_more = |mut header: Vec<u8>, more: &[u8]| {
        let length = (header.len() - 16 + more.len()) as u16;
        header[14..16].copy_from_slice(&length.to_be_bytes());
        [header, more.to_vec()].concat()
    };
    vec![
        (
            b"PROXY TCP4 203.0.113.5 192.0.2.1 4711 80\r\n".to_vec(),
            Some("203.0.113.5"),
        ),
        (
            b"PROXY TCP6 2001:db8::5 2001:db8::1 4711 80\r\n".to_vec(),
            Some("2001:db8::5"),
        ),
        (
            b"PROXY TCP6 ::ffff:203.0.113.5 ::1 4711 80\r\n".to_vec(),
            Some("203.0.113.5"),
        ),
        (version_2_from("203.0.113.5"), Some("203.0.113.5")),
        (version_2_from("2001:db8::5"), Some("2001:db8::5")),
        (
            // It has an authority (type 0x02), as a proxy that terminates TLS sends it.
            with_more(version_2_from("203.0.113.5"), b"\x02\0\x09tracker.t"),
            Some("203.0.113.5"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (version_2(0x20, 0x00, b""), None),
    ]
}

#[test]
fn proxy_protocol_provides_client_address() {
    let mirror = Mirror::new();
    let unix = mirror.path("proxied.socket");
    let tracker = Tracker::open(&format!(
        "[proxy]\ntrusted = ['127.0.0.1', '::1']\nlisten = ['[::]:0', 'unix:{}']",
        unix.display()
    ));
    let port = tracker.daemon.port("http-proxy");
    let proxied = |from: IpAddr| Connection::open_from(from, SocketAddr::new(loopback(from), port));
    for (proxy_header, client) in proxy_headers() {
        let shown = proxy_header.escape_ascii();
        for (connection, own) in [
            (proxied(V4), Some("127.0.0.1")),
            (proxied(V6), Some("::1")),
            (Connection::open_unix(&unix), None),
        ] {
            let mut connection = connection;
            let id = new_info_hash();
            connection.send(&proxy_header);
            let spoofed = format!("X-Forwarded-For: {VICTIM}\r\nForwarded: for={VICTIM}\r\n");
            let header = if client.is_some() { &spoofed } else { "" };
            for _ in 0..2 {
                let response = announce_with(&mut connection, &id, header).dictionary();
                let expected = match client.or(own) {
                    Some(_) => SERVED,
                    None => NO_CLIENT_ADDRESS,
                };
                assert_eq!(outcome(&response), expected, "{shown}");
            }
            let peer = client.or(own).map(|peer| peer.parse().unwrap());
            let peer = peer.map(|peer| SocketAddr::new(peer, 1).to_string());
            assert_eq!(swarm(&tracker, &id), peer.as_slice(), "{shown}");
        }
    }
    // The header and the request also arrive byte by byte.
    let id = new_info_hash();
    let mut connection = proxied(V4);
    let target = announce(&id, "port=1&left=1");
    let request = format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n");
    let all = [version_2_from("203.0.113.5"), request.into_bytes()].concat();
    all.chunks(1).for_each(|byte| connection.send(byte));
    assert_eq!(outcome(&connection.response().dictionary()), SERVED);
    assert_eq!(swarm(&tracker, &id), ["203.0.113.5:1"]);
}

#[test]
fn closes_connection_without_valid_trusted_proxy_header() {
    let mirror = Mirror::new();
    let unix = mirror.path("proxied.socket");
    let tracker = Tracker::open(&format!(
        "[proxy]\ntrusted = ['127.0.0.1', '::1']\nlisten = ['[::]:0', 'unix:{}']",
        unix.display()
    ));
    let port = tracker.daemon.port("http-proxy");
    let id = new_info_hash();
    let target = announce(&id, "port=1&left=1");
    let request = format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n");
    let assert_closed = |mut connection: Connection, proxy_header: &[u8]| {
        let all = [proxy_header, request.as_bytes()].concat();
        // The tracker may close the connection before all is sent.
        let _ = connection.stream().write_all(&all);
        assert_eq!(connection.rest(), b"", "{}", proxy_header.escape_ascii());
    };
    let proxied = |from: IpAddr| Connection::open_from(from, SocketAddr::new(loopback(from), port));
    let v1 = format!("PROXY TCP4 {VICTIM} 192.0.2.1 4711 80\r\n");
    for proxy_header in [v1.as_bytes(), &version_2_from(VICTIM), b""] {
        for untrusted in [2, 9] {
            assert_closed(proxied([127, 0, 0, untrusted].into()), proxy_header);
        }
    }
    let long = [b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n"].concat();
    let no_port = format!("PROXY TCP4 {VICTIM} 192.0.2.1 4711 65536\r\n");
    let wrong_family = format!("PROXY TCP6 {VICTIM} 192.0.2.1 4711 80\r\n");
    let invalid: &[&[u8]] = &[
        b"",
        b"\r\n",
        b"proxy UNKNOWN\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4 garbage\r\n",
        no_port.as_bytes(),
        wrong_family.as_bytes(),
        &long,
        &version_2(0x11, 0x11, &[0; 12]),
        &version_2(0x22, 0x11, &[0; 12]),
        &version_2(0x21, 0x44, &[0; 12]),
        &version_2(0x21, 0x11, &[0; 11]),
        &version_2(0x21, 0x21, &[0; 35]),
        &version_2(0x21, 0x00, &[0; 5000]),
    ];
    for proxy_header in invalid {
        assert_closed(proxied(V4), proxy_header);
        assert_closed(proxied(V6), proxy_header);
        assert_closed(Connection::open_unix(&unix), proxy_header);
    }
    // The other addresses do not accept a PROXY header from any sender.
    for (from, proxy_header) in [(V4, v1.into_bytes()), (V6, version_2_from(VICTIM_V6))] {
        let mut connection = tracker.connect(from);
        let _ = connection
            .stream()
            .write_all(&[proxy_header, request.clone().into_bytes()].concat());
        let response = String::from_utf8(connection.rest()).unwrap();
        assert!(
            response.is_empty() || response.starts_with("HTTP/1.1 400 "),
            "{response}"
        );
    }
    assert_eq!(swarm(&tracker, &id), [""; 0]);
    assert_eq!(
        outcome(&tracker.client("127.0.0.2").announce(&id, "port=1")),
        SERVED
    );
}

#[test]
fn forwarding_header_is_required_over_unix_socket() {
    let mirror = Mirror::new();
    let unix = mirror.path("http.socket");
    let daemon = Daemon::start(&format!(
        "[http]\nlisten = ['unix:{}', '[::]:0']\n[torrents]\nopen = true\n\
         [access]\nannounce_deny = ['203.0.113.6']\n\
         [limits]\nannounces = 1\nannounces_burst = 2\nconnections = 1\nconnections_burst = 1",
        unix.display()
    ));
    let tracker = Tracker {
        http: daemon.port("http"),
        udp: 0,
        daemon,
    };
    let id = new_info_hash();
    let mut kept = Connection::open_unix(&unix);
    for (header, expected) in [
        ("X-Forwarded-For: 203.0.113.5\r\n", SERVED),
        ("X-Forwarded-For: 198.51.100.66, 2001:db8::5\r\n", SERVED),
        ("X-Forwarded-For: 203.0.113.6\r\n", ADDRESS_REFUSED),
        ("", NO_CLIENT_ADDRESS),
        ("X-Forwarded-For: unknown\r\n", NO_CLIENT_ADDRESS),
        ("Forwarded: for=198.51.100.66\r\n", NO_CLIENT_ADDRESS),
        ("X-Forwarded-For: 203.0.113.5\r\n", SERVED),
        ("X-Forwarded-For: 203.0.113.5\r\n", RATE_LIMITED),
        ("X-Forwarded-For: 203.0.113.7\r\n", SERVED),
    ] {
        let mut fresh = Connection::open_unix(&unix);
        let response = match header.contains("113.5") {
            true => announce_with(&mut kept, &id, header),
            false => announce_with(&mut fresh, &id, header),
        };
        assert_eq!(outcome(&response.dictionary()), expected, "{header}");
    }
    assert_eq!(
        tracker.peers_returned_to("127.0.0.77", &id),
        ["203.0.113.5:1", "203.0.113.7:1"]
    );
    assert_eq!(tracker.peers_returned_to("::1", &id), ["[2001:db8::5]:1"]);
}
