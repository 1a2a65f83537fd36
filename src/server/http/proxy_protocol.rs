//! The PROXY protocol, versions 1 and 2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the bytes at the beginning of a connection say, by the PROXY protocol (haproxy's `proxy-protocol.txt`, versions 1 and 2).
///
/// To be route of a trusted sender only, on a listener where every connection begins so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyHeader {
    /// More bytes are needed; never more than [`MAX_PREAMBLE`] in all.
    Incomplete,
    /// The connection is from `client`, and its own bytes admit_connection after `length`.
    Proxied { length: usize, client: SocketAddr },
    /// The proxy speaks for itself or does not say for whom: the socket's own address counts.
    Local { length: usize },
    /// No such header, or one that breaks its rules: the connection is to be closed.
    Invalid,
}

/// The longest header that is taken; haproxy's own, certificates' names among them, stay far below.
pub const MAX_PREAMBLE: usize = 4096;

/// The longest of version 1, its line's end included.
const MAX_V1: usize = 107;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

impl ProxyHeader {
    /// Reads the bytes that came so far.
    pub fn parse(bytes: &[u8]) -> Self {
        if starts_alike(bytes, V2_SIGNATURE) {
            parse_v2(bytes)
        } else if starts_alike(bytes, b"PROXY ") {
            parse_v1(bytes)
        } else {
            Self::Invalid
        }
    }
}

/// As far as both go.
fn starts_alike(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(one, other)| one == other)
}

fn parse_v1(bytes: &[u8]) -> ProxyHeader {
    let line = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = line.windows(2).position(|window| window == b"\r\n") else {
        return if line.len() < MAX_V1 {
            ProxyHeader::Incomplete
        } else {
            ProxyHeader::Invalid
        };
    };
    let length = end + 2;
    let Ok(line) = std::str::from_utf8(&line[..end]) else {
        return ProxyHeader::Invalid;
    };
    let words: Vec<&str> = line.split(' ').collect();
    let client = match words[..] {
        // Whatever follows is to be passed over.
        ["PROXY", "UNKNOWN", ..] => return ProxyHeader::Local { length },
        ["PROXY", "TCP4", source, target, source_port, target_port] => {
            let is_sound = target.parse::<Ipv4Addr>().is_ok() && parse_port(target_port).is_some();
            source
                .parse::<Ipv4Addr>()
                .ok()
                .filter(|_| is_sound)
                .map(IpAddr::V4)
                .zip(parse_port(source_port))
        }
        ["PROXY", "TCP6", source, target, source_port, target_port] => {
            let is_sound = target.parse::<Ipv6Addr>().is_ok() && parse_port(target_port).is_some();
            source
                .parse::<Ipv6Addr>()
                .ok()
                .filter(|_| is_sound)
                .map(IpAddr::V6)
                .zip(parse_port(source_port))
        }
        _ => None,
    };
    match client {
        Some((address, port)) => proxied(length, address, port),
        None => ProxyHeader::Invalid,
    }
}

/// Digits alone: Rust's own parser would take a plus.
fn parse_port(port: &str) -> Option<u16> {
    let is_canonical = port.bytes().all(|byte| byte.is_ascii_digit())
        && (port.len() == 1 || !port.starts_with('0'));
    port.parse().ok().filter(|_| is_canonical)
}

fn parse_v2(bytes: &[u8]) -> ProxyHeader {
    let Some(&[version_and_command, family, high, low]) = bytes.get(12..16) else {
        return ProxyHeader::Incomplete;
    };
    let length = 16 + usize::from(u16::from_be_bytes([high, low]));
    let is_known = matches!(family, 0x00 | 0x11 | 0x12 | 0x21 | 0x22 | 0x31 | 0x32);
    if !matches!(version_and_command, 0x20 | 0x21) || !is_known || length > MAX_PREAMBLE {
        return ProxyHeader::Invalid;
    }
    let Some(addresses) = bytes.get(16..length) else {
        return ProxyHeader::Incomplete;
    };
    if version_and_command == 0x20 {
        return ProxyHeader::Local { length };
    }
    // Source and target address, then both ports; what follows is of no interest here.
    match family >> 4 {
        1 => match addresses.first_chunk::<12>() {
            Some([a, b, c, d, _, _, _, _, high, low, ..]) => proxied(
                length,
                Ipv4Addr::new(*a, *b, *c, *d).into(),
                u16::from_be_bytes([*high, *low]),
            ),
            None => ProxyHeader::Invalid,
        },
        2 => match (addresses.first_chunk::<16>(), addresses.get(32..36)) {
            (Some(source), Some([high, low, ..])) => proxied(
                length,
                Ipv6Addr::from(*source).into(),
                u16::from_be_bytes([*high, *low]),
            ),
            _ => ProxyHeader::Invalid,
        },
        _ => ProxyHeader::Local { length },
    }
}

fn proxied(length: usize, address: IpAddr, port: u16) -> ProxyHeader {
    let client = SocketAddr::new(address.to_canonical(), port);
    ProxyHeader::Proxied { length, client }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(rest.len()).unwrap().to_be_bytes();
        let fixed = [version_and_command, family, high, low];
        [&V2_SIGNATURE[..], &fixed, rest].concat()
    }

    fn v2_tcp4() -> Vec<u8> {
        v2(
            0x21,
            0x11,
            &[203, 0, 113, 9, 10, 0, 0, 1, 0x10, 0x92, 0x1b, 0x39],
        )
    }

    fn v2_tcp6() -> Vec<u8> {
        let (source, target): (Ipv6Addr, Ipv6Addr) = (
            "2001:db8:1::9".parse().unwrap(),
            "2001:db8::1".parse().unwrap(),
        );
        v2(
            0x21,
            0x21,
            &[
                &source.octets()[..],
                &target.octets(),
                &[0x10, 0x92, 0x1b, 0x39],
            ]
            .concat(),
        )
    }

    /// Parsed whole and with the client's own bytes behind; every beginning of it is incomplete.
    #[track_caller]
    fn parses(header: &[u8], client: Option<&str>) {
        let length = header.len();
        let expected = match client {
            Some(client) => ProxyHeader::Proxied {
                length,
                client: client.parse().unwrap(),
            },
            None => ProxyHeader::Local { length },
        };
        assert_eq!(ProxyHeader::parse(header), expected);
        assert_eq!(
            ProxyHeader::parse(&[header, b"GET /announce\r\n\r\n"].concat()),
            expected
        );
        for end in 0..length {
            assert_eq!(
                ProxyHeader::parse(&header[..end]),
                ProxyHeader::Incomplete,
                "{end} bytes"
            );
        }
    }

    #[test]
    fn proxy_protocol_version_1() {
        parses(
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4242 6969\r\n",
            Some("203.0.113.9:4242"),
        );
        parses(
            b"PROXY TCP6 2001:db8:1::9 2001:db8::1 65535 0\r\n",
            Some("[2001:db8:1::9]:65535"),
        );
        parses(
            b"PROXY TCP6 ::ffff:203.0.113.9 ::1 1 2\r\n",
            Some("203.0.113.9:1"),
        );
        parses(b"PROXY UNKNOWN\r\n", None);
        parses(b"PROXY UNKNOWN what ever \r\n", None);
        let longest = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535";
        let mut line = longest.to_vec();
        line.resize(MAX_V1 - 2, b'x');
        parses(&[&line[..], b"\r\n"].concat(), None);
        assert_eq!(
            ProxyHeader::parse(&[&line[..], b"x\r\n"].concat()),
            ProxyHeader::Invalid
        );
    }

    #[test]
    fn refuses_a_version_1_that_breaks_its_rules() {
        for line in [
            "PROXY TCP4 203.0.113.9 10.0.0.1 4242",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4242 6969 1",
            "PROXY TCP4  203.0.113.9 10.0.0.1 4242 6969",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4242 65536",
            "PROXY TCP4 203.0.113.9 10.0.0.1 65536 6969",
            "PROXY TCP4 203.0.113.9 10.0.0.1 +1 6969",
            "PROXY TCP4 203.0.113.9 10.0.0.1 01 6969",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4242 ",
            "PROXY TCP4 203.0.113.9 10.0.0.256 4242 6969",
            "PROXY TCP4 2001:db8::1 10.0.0.1 4242 6969",
            "PROXY TCP6 203.0.113.9 10.0.0.1 4242 6969",
            "PROXY tcp4 203.0.113.9 10.0.0.1 4242 6969",
            "PROXY UDP4 203.0.113.9 10.0.0.1 4242 6969",
            "PROXY ",
            "PROXY TCP4 203.0.113.9\n10.0.0.1 4242 6969",
            "PROXY \u{661}",
        ] {
            assert_eq!(
                ProxyHeader::parse(format!("{line}\r\n").as_bytes()),
                ProxyHeader::Invalid,
                "{line:?}"
            );
        }
        assert_eq!(
            ProxyHeader::parse(b"PROXY TCP4 203.0.113.\xff 10.0.0.1 4242 6969\r\n"),
            ProxyHeader::Invalid
        );
        assert_eq!(
            ProxyHeader::parse(&[&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat()),
            ProxyHeader::Invalid
        );
        for other in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"P ",
            b"PROXX",
            b"proxy",
            b"\r\n\r\n\0\r\nQUIX",
            b"\n",
            b"\0",
        ] {
            assert_eq!(
                ProxyHeader::parse(other),
                ProxyHeader::Invalid,
                "{}",
                other.escape_ascii()
            );
        }
    }

    #[test]
    fn proxy_protocol_version_2() {
        parses(&v2_tcp4(), Some("203.0.113.9:4242"));
        parses(&v2_tcp6(), Some("[2001:db8:1::9]:4242"));
        let with_more = v2(
            0x21,
            0x11,
            &[&v2_tcp4()[16..], &[0x04, 0, 2, 1, 2]].concat(),
        );
        parses(&with_more, Some("203.0.113.9:4242"));
        parses(&v2(0x21, 0x12, &v2_tcp4()[16..]), Some("203.0.113.9:4242"));
        // The proxy's own checks, whatever the family; and families without an IP address.
        parses(&v2(0x20, 0x00, &[]), None);
        parses(&v2(0x20, 0x11, &v2_tcp4()[16..]), None);
        parses(&v2(0x20, 0x21, &[1]), None);
        parses(&v2(0x21, 0x00, &[1, 2, 3]), None);
        parses(&v2(0x21, 0x31, &[0; 216]), None);
        parses(&v2(0x20, 0x00, &[0; MAX_PREAMBLE - 16]), None);
    }

    #[test]
    fn refuses_a_version_2_that_breaks_its_rules() {
        for (version_and_command, family, rest) in [
            (0x11, 0x11, 12),
            (0x31, 0x11, 12),
            (0x22, 0x11, 12),
            (0x2f, 0x11, 12),
            (0x21, 0x11, 11),
            (0x21, 0x11, 0),
            (0x21, 0x21, 35),
            (0x21, 0x10, 12),
            (0x21, 0x13, 12),
            (0x21, 0x41, 36),
            (0x21, 0xff, 36),
            (0x20, 0x00, MAX_PREAMBLE - 15),
            (0x21, 0x11, 65535),
        ] {
            let header = v2(version_and_command, family, &vec![0; rest]);
            assert_eq!(
                ProxyHeader::parse(&header),
                ProxyHeader::Invalid,
                "{version_and_command:#x} {family:#x} {rest}"
            );
        }
        // Nobody is kept waiting for what cannot become sound.
        assert_eq!(
            ProxyHeader::parse(&v2(0x21, 0x11, &[0; 65535])[..16]),
            ProxyHeader::Invalid
        );
    }
}
