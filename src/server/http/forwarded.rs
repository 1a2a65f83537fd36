//! Finds the client's address in the headers that proxies add: `Forwarded` and `X-Forwarded-For`.
//!
//! Any client can send such a header, so only the part that trusted proxies wrote counts. Each proxy appends, on the right,
//! the address that it received the request from. The search starts at the socket's own address and moves left as long
//! as the current address is a trusted proxy. So addresses that an untrusted sender wrote, further left, never count.
//! Only the configured header may be read, because proxies pass the other header on as the client sent it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::tracker::access::Networks;

/// The operator's settings for proxies.
#[derive(Clone, Debug)]
pub struct Settings {
    pub trusted: Networks,
    pub header: ForwardingHeader,
}

/// The header that the trusted proxies write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`: addresses separated by commas, also in brackets or with ports.
    XForwardedFor,
    /// `Forwarded` (RFC 7239): the `for` parameter of each element.
    Forwarded,
}

impl ForwardingHeader {
    /// Returns the name of the header in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

/// Returns the address of the client that a request is from.
///
/// `sender` is the peer address of the socket, or `None` for a proxy on this host that connects over a Unix socket. `lines`
/// are the values of the header, in the order in which they were received.
///
/// Returns `None` if a trusted proxy does not name its client by an address: `unknown`, `_hidden`, or a malformed value. Then
/// no address can be given to peers, and the proxy's own address would be wrong. If a trusted sender sends no such header,
/// its own address is returned.
pub fn client_address<'h>(
    header: ForwardingHeader,
    trusted: &Networks,
    sender: Option<IpAddr>,
    lines: impl DoubleEndedIterator<Item = &'h [u8]>,
) -> Option<IpAddr> {
    let mut search = ClientSearch {
        trusted,
        is_local: sender.is_none(),
        client: sender.map(|sender| sender.to_canonical()),
    };
    for line in lines.rev() {
        if !search.continues() {
            break;
        }
        match header {
            ForwardingHeader::XForwardedFor => search.x_forwarded_for(line),
            ForwardingHeader::Forwarded => search.forwarded(line),
        }
    }
    search.client
}

/// The search for the client: the current address is the sender's, or was written by a trusted proxy.
struct ClientSearch<'t> {
    trusted: &'t Networks,
    /// Whether the search is still at the proxy on this host, which has no address.
    is_local: bool,
    client: Option<IpAddr>,
}

impl ClientSearch<'_> {
    fn continues(&self) -> bool {
        self.is_local || self.client.is_some_and(|client| self.trusted.contains(client))
    }

    fn move_to(&mut self, hop: Option<IpAddr>) {
        self.is_local = false;
        self.client = hop;
    }

    fn x_forwarded_for(&mut self, line: &[u8]) {
        for hop in line.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if !self.continues() {
                return;
            }
            if !hop.is_empty() {
                self.move_to(parse_node(hop));
            }
        }
    }

    /// Searches a `Forwarded` line. The line is parsed from the left, because otherwise commas in quotes cannot be
    /// recognized. So the search keeps the last address that is not a trusted proxy, or the first address if all are. A
    /// malformed line names no client, because the position of its parts is uncertain.
    fn forwarded(&mut self, line: &[u8]) {
        let mut parser = ForwardedParser(line);
        let mut is_first = true;
        loop {
            match parser.next_element() {
                Ok(Some(element)) => {
                    let hop = element.node.and_then(parse_node);
                    if is_first || !hop.is_some_and(|hop| self.trusted.contains(hop)) {
                        self.move_to(hop);
                    }
                    is_first = false;
                }
                Ok(None) => return,
                Err(InvalidForwarded) => {
                    return self.move_to(None);
                }
            }
        }
    }
}

/// A parser of a `Forwarded` line, with the bytes that are not parsed yet.
struct ForwardedParser<'h>(&'h [u8]);

/// An element of a `Forwarded` line.
struct ForwardedElement<'h> {
    /// The value of `for`, without quotes.
    node: Option<&'h [u8]>,
}

struct InvalidForwarded;

impl<'h> ForwardedParser<'h> {
    fn next_element(&mut self) -> Result<Option<ForwardedElement<'h>>, InvalidForwarded> {
        self.skip(|byte| byte == b',' || is_space(byte));
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut element = ForwardedElement { node: None };
        loop {
            self.skip(|byte| byte == b';' || is_space(byte));
            if matches!(self.0.first(), None | Some(b',')) {
                return Ok(Some(element));
            }
            let name = self.take_while(|byte| {
                byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
            });
            if name.is_empty() || self.take_one() != Some(b'=') {
                return Err(InvalidForwarded);
            }
            let value = self.value()?;
            if name.eq_ignore_ascii_case(b"for") && element.node.replace(value).is_some() {
                return Err(InvalidForwarded);
            }
            self.skip(is_space);
            if !matches!(self.0.first(), None | Some(b',' | b';')) {
                return Err(InvalidForwarded);
            }
        }
    }

    /// Parses a value: a quoted string, or a run of characters without a separator. The grammar is stricter about the latter,
    /// but addresses with ports often lack their quotes.
    fn value(&mut self) -> Result<&'h [u8], InvalidForwarded> {
        if self.0.first() != Some(&b'"') {
            let value = self.take_while(|byte| byte.is_ascii_graphic() && !b",;\"".contains(&byte));
            return if value.is_empty() {
                Err(InvalidForwarded)
            } else {
                Ok(value)
            };
        }
        let quoted = &self.0[1..];
        let mut at = 0;
        while let Some(byte) = quoted.get(at) {
            match byte {
                b'"' => {
                    self.0 = &quoted[at + 1..];
                    return Ok(&quoted[..at]);
                }
                // An address contains no escape. So the escape is kept, and the value is not an address.
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        Err(InvalidForwarded)
    }

    fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'h [u8] {
        let count = self.0.iter().take_while(|byte| belongs(**byte)).count();
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn skip(&mut self, belongs: impl Fn(u8) -> bool) {
        self.take_while(belongs);
    }

    fn take_one(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Parses an address, which may have brackets or a port. Returns `None` for `unknown` and for obfuscated names.
fn parse_node(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let bare = match node.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']')?;
            let is_valid = port.is_empty() || port.strip_prefix(':').is_some_and(is_node_port);
            let address: Option<Ipv6Addr> = address.parse().ok();
            address.filter(|_| is_valid).map(IpAddr::V6)
        }
        None => node.parse().ok(),
    };
    let with_port = || {
        let (address, port) = node.split_once(':')?;
        let address: Option<Ipv4Addr> = address.parse().ok();
        address.filter(|_| is_node_port(port)).map(IpAddr::V4)
    };
    Some(bare.or_else(with_port)?.to_canonical())
}

/// Returns whether the text is a port number or an obfuscated port (RFC 7239, section 6.3).
fn is_node_port(port: &str) -> bool {
    let hidden = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !port.is_empty() && port.bytes().all(hidden)
}

#[cfg(test)]
mod tests {
    use super::ForwardingHeader::{Forwarded, XForwardedFor};
    use super::*;

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
        let mut state = SEED;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
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
}
