//! Tests of forwarding headers.

use super::ForwardingHeader::{Forwarded, XForwardedFor};
use super::*;
use crate::tracker::rng::Rng;

const CLIENT: &str = "203.0.113.9";
const PROXY: &str = "10.0.0.1";
const OTHER_PROXY: &str = "10.0.0.2";
const VICTIM: &str = "198.51.100.66";

fn trusted() -> Networks {
    Networks::new(vec![
        "10.0.0.0/8".parse().unwrap(),
        "2001:db8:aaaa::/48".parse().unwrap(),
    ])
}

fn client(header: ForwardingHeader, sender: &str, lines: &[&str]) -> Option<String> {
    let lines = lines.iter().map(|line| line.as_bytes());
    client_address(header, &trusted(), Some(sender.parse().unwrap()), lines)
        .map(|client| client.to_string())
}

#[track_caller]
fn names(header: ForwardingHeader, lines: &[&str], expected: &str) {
    assert_eq!(
        client(header, PROXY, lines).as_deref(),
        Some(expected),
        "{lines:?}"
    );
}

#[track_caller]
fn names_no_client(header: ForwardingHeader, lines: &[&str]) {
    assert_eq!(client(header, PROXY, lines), None, "{lines:?}");
}

#[test]
fn ignores_header_of_untrusted_sender() {
    for lines in [
        &[][..],
        &[VICTIM],
        &["10.0.0.1, 198.51.100.66"],
        &["10.0.0.1"],
        &["garbage"],
        &[""],
    ] {
        assert_eq!(
            client(XForwardedFor, CLIENT, lines).as_deref(),
            Some(CLIENT)
        );
    }
    for lines in [
        &[][..],
        &["for=198.51.100.66"],
        &["for=10.0.0.1"],
        &["for="],
        &["for=unknown"],
    ] {
        assert_eq!(client(Forwarded, CLIENT, lines).as_deref(), Some(CLIENT));
    }
    assert_eq!(
        client(XForwardedFor, "::ffff:203.0.113.9", &[VICTIM]).as_deref(),
        Some(CLIENT)
    );
    let no_networks = Networks::default();
    let lines = [VICTIM.as_bytes()].into_iter();
    let sender = Some(PROXY.parse().unwrap());
    assert_eq!(
        client_address(XForwardedFor, &no_networks, sender, lines),
        sender
    );
}

#[test]
fn unix_socket_requires_header() {
    let client = |lines: &[&str]| {
        let lines = lines.iter().map(|line| line.as_bytes());
        client_address(XForwardedFor, &trusted(), None, lines).map(|client| client.to_string())
    };
    assert_eq!(client(&[]), None);
    assert_eq!(client(&["garbage"]), None);
    assert_eq!(
        client(&[&format!("{VICTIM}, {CLIENT}")]).as_deref(),
        Some(CLIENT)
    );
    assert_eq!(
        client(&[&format!("{CLIENT}, {PROXY}")]).as_deref(),
        Some(CLIENT)
    );
}

#[test]
fn trusted_sender_without_header_is_the_client() {
    names(XForwardedFor, &[], PROXY);
    names(Forwarded, &[], PROXY);
    names(XForwardedFor, &["", " , "], PROXY);
    names(Forwarded, &["", " , "], PROXY);
    assert_eq!(
        client(XForwardedFor, "::ffff:10.0.0.1", &[CLIENT]).as_deref(),
        Some(CLIENT)
    );
}

#[test]
fn searches_x_forwarded_for_from_the_right() {
    names(XForwardedFor, &["203.0.113.9"], CLIENT);
    names(XForwardedFor, &["198.51.100.66, 203.0.113.9"], CLIENT);
    names(
        XForwardedFor,
        &["198.51.100.66, 203.0.113.9, 10.0.0.2"],
        CLIENT,
    );
    names(
        XForwardedFor,
        &["10.9.9.9,203.0.113.9 ,\t10.0.0.2,10.0.0.3"],
        CLIENT,
    );
    names(XForwardedFor, &["not an address, 203.0.113.9"], CLIENT);
    names(XForwardedFor, &["203.0.113.9,"], CLIENT);
    names(XForwardedFor, &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
    names(XForwardedFor, &["198.51.100.66", "203.0.113.9"], CLIENT);
    names(
        XForwardedFor,
        &["198.51.100.66", "10.9.9.9, 203.0.113.9", "10.0.0.2", ""],
        CLIENT,
    );
    names(
        XForwardedFor,
        &["203.0.113.9, 10.0.0.3", "10.0.0.2"],
        CLIENT,
    );
}

#[test]
fn searches_forwarded_from_the_right() {
    names(Forwarded, &["for=203.0.113.9"], CLIENT);
    names(
        Forwarded,
        &["For=\"203.0.113.9\";proto=https;by=10.0.0.1;host=tracker.example.org"],
        CLIENT,
    );
    names(
        Forwarded,
        &["by=10.0.0.1 ; FOR=203.0.113.9;; ext=\"a,b;for=198.51.100.66\""],
        CLIENT,
    );
    names(
        Forwarded,
        &["for=198.51.100.66, for=203.0.113.9, for=10.0.0.2"],
        CLIENT,
    );
    names(Forwarded, &["for=198.51.100.66,,for=203.0.113.9"], CLIENT);
    names(
        Forwarded,
        &["for=\"[2001:db8:1::9]:4711\", for=\"[2001:db8:aaaa::1]\""],
        "2001:db8:1::9",
    );
    names(
        Forwarded,
        &[
            "for=198.51.100.66",
            "for=203.0.113.9",
            "for=10.0.0.2, for=10.0.0.3",
        ],
        CLIENT,
    );
    names(Forwarded, &["for=10.0.0.3, for=10.0.0.2"], "10.0.0.3");
    names(Forwarded, &["for=\"", "for=203.0.113.9"], CLIENT);
    names(Forwarded, &["for=unknown, for=203.0.113.9"], CLIENT);
}

#[test]
fn hop_without_address_ends_the_search() {
    names_no_client(XForwardedFor, &["unknown"]);
    names_no_client(XForwardedFor, &["203.0.113.9, unknown"]);
    names_no_client(XForwardedFor, &["203.0.113.9, unknown, 10.0.0.2"]);
    names_no_client(XForwardedFor, &["203.0.113.9", "example.org"]);
    names_no_client(Forwarded, &["for=unknown"]);
    names_no_client(Forwarded, &["for=203.0.113.9, for=_hidden, for=10.0.0.2"]);
    names_no_client(Forwarded, &["for=\"_SEVKISEK:4711\""]);
    names_no_client(Forwarded, &["for=203.0.113.9, proto=https"]);
    names_no_client(Forwarded, &["for=203.0.113.9", "for=unknown"]);
    names_no_client(Forwarded, &["for=\"203.0.113\\.9\""]);
}

#[test]
fn malformed_line_names_no_client() {
    for line in [
        "for",
        "for=",
        "=203.0.113.9",
        "for=203.0.113.9 for=198.51.100.66",
        "for =203.0.113.9",
        "for= 203.0.113.9",
        "for=203.0.113.9;for=198.51.100.66",
        "for=\"203.0.113.9",
        "for=\"203.0.113.9\\",
        "for=\"203.0.113.9\"x",
        "203.0.113.9",
        "for=198.51.100.66;x=\", for=\"[2001:db8::1]\"",
        "for=198.51.100.66;x=\", for=203.0.113.9",
        "for=203.0.113.9\u{7f}",
        "for=203.0.113.9, (",
        "f\u{f6}r=203.0.113.9",
    ] {
        names_no_client(Forwarded, &[line]);
    }
}

#[test]
fn accepts_brackets_and_ports() {
    for (node, address) in [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("192.0.2.1:_port", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:DB8::1]:80", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
    ] {
        names(XForwardedFor, &[node], address);
        names(Forwarded, &[&format!("for=\"{node}\"")], address);
        names(Forwarded, &[&format!("for={node}")], address);
    }
    for node in [
        "192.0.2",
        "192.0.2.256",
        "192.0.2.01",
        "192.0.2.1:80:80",
        "[192.0.2.1]",
        "[2001:db8::1",
        "2001:db8::1]",
        "[2001:db8::1]80",
        "[2001:db8::1]:",
        "192.0.2.1:",
        "[]",
        "fe80::1%eth0",
        "1",
        "::g",
        "192.0.2.1 198.51.100.66",
        "\u{661}92.0.2.1",
    ] {
        names_no_client(XForwardedFor, &[node]);
        names_no_client(Forwarded, &[&format!("for=\"{node}\"")]);
    }
    let lines = [&b"\xff"[..]].into_iter();
    assert_eq!(
        client_address(
            XForwardedFor,
            &trusted(),
            Some(PROXY.parse().unwrap()),
            lines
        ),
        None
    );
}

/// Behind proxies that append the address of their client, a client with a spoofed header is found with its own address
/// or not at all.
#[test]
fn spoofed_header_never_names_another_client() {
    const SEED: u64 = 11;
    let mut rng = Rng::new(SEED);
    let mut random = |below: usize| rng.below(below as u32) as usize;
    let pieces = [
        VICTIM,
        PROXY,
        OTHER_PROXY,
        "for=",
        "\"",
        ",",
        ";",
        " ",
        "\\",
        "=",
        "[",
        "]",
        ":",
        "x",
        "unknown",
        "proto=https",
    ];
    let mut named = 0;
    for round in 0..50_000 {
        let spoofed: String = (0..random(12))
            .map(|_| pieces[random(pieces.len())])
            .collect();
        let same_line = random(2) == 0;
        for (header, own, second) in [
            (XForwardedFor, CLIENT.to_owned(), OTHER_PROXY.to_owned()),
            (
                Forwarded,
                format!("for={CLIENT};proto=https"),
                format!("for={OTHER_PROXY}"),
            ),
            (
                Forwarded,
                format!("proto=https;for=\"{CLIENT}:80\""),
                format!("for=\"{OTHER_PROXY}:80\""),
            ),
        ] {
            let lines = if same_line {
                vec![format!("{spoofed}, {own}, {second}")]
            } else {
                vec![spoofed.clone(), own, second]
            };
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let client = client(header, PROXY, &lines);
            assert!(
                client.is_none() || client.as_deref() == Some(CLIENT),
                "seed {SEED}, round {round}: {lines:?} named {client:?}"
            );
            named += u32::from(client.is_some());
        }
    }
    assert!(named > 50_000, "{named}");
}
