//! Who a request is from when a proxy hands it on: from the headers it adds, or from the PROXY protocol before them.
//!
//! Anyone can write such a header. It counts only as far as trusted proxies wrote it: each adds, on the right, whom it was route by.
//! So the walk begins at the socket's own address and goes left for as long as it stands on a trusted proxy; what an untrusted
//! sender wrote lies further left and is never read as an address. Only the one header that the operator's proxies write may be
//! route for: the other is handed through by them as the client sent it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::tracker::access::Networks;

/// Which proxies are believed, and how they name their clients.
#[derive(Clone, Debug)]
pub struct Settings {
    pub trusted: Networks,
    pub header: ForwardingHeader,
}

/// Which header the trusted proxies write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`: addresses with commas between, also in brackets or with ports.
    XForwardedFor,
    /// `Forwarded` (RFC 7239): the `for` of each element.
    Forwarded,
}

impl ForwardingHeader {
    /// As HTTP has it, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

/// Whom a request is from. `sender` is the socket's other end, `None` for a proxy on this host that came over a Unix socket;
/// `lines` are the header's values in the order in which they came.
///
/// `None`: a trusted proxy does not name its client by an address (`unknown`, `_hidden`, or nothing that can be read). Then
/// there is none to hand out, and the proxy's own would be wrong. A trusted sender without any such header speaks for itself.
pub fn client_address<'h>(
    header: ForwardingHeader,
    trusted: &Networks,
    sender: Option<IpAddr>,
    lines: impl DoubleEndedIterator<Item = &'h [u8]>,
) -> Option<IpAddr> {
    let mut walk = Walk {
        trusted,
        is_local: sender.is_none(),
        client: sender.map(|sender| sender.to_canonical()),
    };
    for line in lines.rev() {
        if !walk.goes_on() {
            break;
        }
        match header {
            ForwardingHeader::XForwardedFor => walk.x_forwarded_for(line),
            ForwardingHeader::Forwarded => walk.forwarded(line),
        }
    }
    walk.client
}

/// Stands on the sender or on a hop that a trusted proxy named.
struct Walk<'t> {
    trusted: &'t Networks,
    /// Still on the proxy of this host, which has no address.
    is_local: bool,
    client: Option<IpAddr>,
}

impl Walk<'_> {
    fn goes_on(&self) -> bool {
        self.is_local
            || self
                .client
                .is_some_and(|client| self.trusted.contains(client))
    }

    fn step_to(&mut self, hop: Option<IpAddr>) {
        self.is_local = false;
        self.client = hop;
    }

    fn x_forwarded_for(&mut self, line: &[u8]) {
        for hop in line.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if !self.goes_on() {
                return;
            }
            if !hop.is_empty() {
                self.step_to(parse_node(hop));
            }
        }
    }

    /// Quoted commas can only be told from others by reading from the left, so this keeps the last hop that is not a trusted
    /// proxy, or else the first of all. A line that breaks the grammar names nobody: what stands where in it is a guess.
    fn forwarded(&mut self, line: &[u8]) {
        let mut rest = Forwarded(line);
        let mut is_first = true;
        loop {
            match rest.next_element() {
                Ok(Some(element)) => {
                    let hop = element.node.and_then(parse_node);
                    if is_first || !hop.is_some_and(|hop| self.trusted.contains(hop)) {
                        self.step_to(hop);
                    }
                    is_first = false;
                }
                Ok(None) => return,
                Err(InvalidProxyHeader) => {
                    return self.step_to(None);
                }
            }
        }
    }
}

/// What is left to read of a `Forwarded` line.
struct Forwarded<'h>(&'h [u8]);

struct Element<'h> {
    /// What `for` is, without quotes.
    node: Option<&'h [u8]>,
}

struct InvalidProxyHeader;

impl<'h> Forwarded<'h> {
    fn next_element(&mut self) -> Result<Option<Element<'h>>, InvalidProxyHeader> {
        self.skip(|byte| byte == b',' || is_space(byte));
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut element = Element { node: None };
        loop {
            self.skip(|byte| byte == b';' || is_space(byte));
            if matches!(self.0.first(), None | Some(b',')) {
                return Ok(Some(element));
            }
            let name = self
                .take(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
            if name.is_empty() || self.take_one() != Some(b'=') {
                return Err(InvalidProxyHeader);
            }
            let value = self.value()?;
            if name.eq_ignore_ascii_case(b"for") && element.node.replace(value).is_some() {
                return Err(InvalidProxyHeader);
            }
            self.skip(is_space);
            if !matches!(self.0.first(), None | Some(b',' | b';')) {
                return Err(InvalidProxyHeader);
            }
        }
    }

    /// Quoted, or, more than the grammar allows, any run without a separator: addresses with ports often lack their quotes.
    fn value(&mut self) -> Result<&'h [u8], InvalidProxyHeader> {
        if self.0.first() != Some(&b'"') {
            let value = self.take(|byte| byte.is_ascii_graphic() && !b",;\"".contains(&byte));
            return if value.is_empty() {
                Err(InvalidProxyHeader)
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
                // No address has an escape in it, so its value need not be undone: it names nobody.
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        Err(InvalidProxyHeader)
    }

    fn take(&mut self, belongs: impl Fn(u8) -> bool) -> &'h [u8] {
        let count = self.0.iter().take_while(|byte| belongs(**byte)).count();
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn skip(&mut self, belongs: impl Fn(u8) -> bool) {
        self.take(belongs);
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

/// An address, alone or with brackets or a port. `unknown` and obfuscated names are none.
fn parse_node(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let bare = match node.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']')?;
            let is_sound = port.is_empty() || port.strip_prefix(':').is_some_and(is_node_port);
            let address: Option<Ipv6Addr> = address.parse().ok();
            address.filter(|_| is_sound).map(IpAddr::V6)
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

/// A number, or a name that hides it (RFC 7239, 6.3).
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
    fn names_nobody(header: ForwardingHeader, lines: &[&str]) {
        assert_eq!(client(header, PROXY, lines), None, "{lines:?}");
    }

    #[test]
    fn an_untrusted_sender_speaks_for_himself_alone() {
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
        let nobody = Networks::default();
        let lines = [VICTIM.as_bytes()].into_iter();
        let sender = Some(PROXY.parse().unwrap());
        assert_eq!(
            client_address(XForwardedFor, &nobody, sender, lines),
            sender
        );
    }

    #[test]
    fn over_a_unix_socket_only_the_header_speaks() {
        let ask = |lines: &[&str]| {
            let lines = lines.iter().map(|line| line.as_bytes());
            client_address(XForwardedFor, &trusted(), None, lines).map(|client| client.to_string())
        };
        assert_eq!(ask(&[]), None);
        assert_eq!(ask(&["garbage"]), None);
        assert_eq!(
            ask(&[&format!("{VICTIM}, {CLIENT}")]).as_deref(),
            Some(CLIENT)
        );
        assert_eq!(
            ask(&[&format!("{CLIENT}, {PROXY}")]).as_deref(),
            Some(CLIENT)
        );
    }

    #[test]
    fn a_trusted_sender_without_the_header_speaks_for_itself() {
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
    fn x_forwarded_for_is_walked_from_the_right() {
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
    fn forwarded_is_walked_from_the_right() {
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
    fn a_hop_without_an_address_ends_the_walk() {
        names_nobody(XForwardedFor, &["unknown"]);
        names_nobody(XForwardedFor, &["203.0.113.9, unknown"]);
        names_nobody(XForwardedFor, &["203.0.113.9, unknown, 10.0.0.2"]);
        names_nobody(XForwardedFor, &["203.0.113.9", "example.org"]);
        names_nobody(Forwarded, &["for=unknown"]);
        names_nobody(Forwarded, &["for=203.0.113.9, for=_hidden, for=10.0.0.2"]);
        names_nobody(Forwarded, &["for=\"_SEVKISEK:4711\""]);
        names_nobody(Forwarded, &["for=203.0.113.9, proto=https"]);
        names_nobody(Forwarded, &["for=203.0.113.9", "for=unknown"]);
        names_nobody(Forwarded, &["for=\"203.0.113\\.9\""]);
    }

    #[test]
    fn a_broken_line_names_nobody_rather_than_someone_else() {
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
            names_nobody(Forwarded, &[line]);
        }
    }

    #[test]
    fn nodes_may_have_brackets_and_ports() {
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
            names_nobody(XForwardedFor, &[node]);
            names_nobody(Forwarded, &[&format!("for=\"{node}\"")]);
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

    /// Whatever a client sends, behind proxies that add whom they were route by he is himself or nobody.
    #[test]
    fn spoofed_headers_never_name_another() {
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
