//! Parses the PROXY protocol header at the start of a connection (haproxy's `proxy-protocol.txt`, versions 1 and 2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The result of parsing the first bytes of a connection as a PROXY protocol header.
///
/// Use it only for trusted proxies, and only on a listener where every connection starts with a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyHeader {
    /// The header needs more bytes. A header never needs more than [`MAX_HEADER_LEN`] bytes in total.
    Incomplete,
    /// The connection is from `client`. The client's own bytes start after `length` bytes.
    Proxied { length: usize, client: SocketAddr },
    /// The proxy connects on its own behalf or does not name the client. The address of the socket counts.
    Local { length: usize },
    /// The bytes are not a valid header. The connection has to be closed.
    Invalid,
}

/// Maximum length of a header in bytes. Headers from haproxy are far shorter, even with names of certificates.
pub const MAX_HEADER_LEN: usize = 4096;

/// Maximum length of a version 1 header in bytes, including the end of the line.
const MAX_V1_LEN: usize = 107;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

impl ProxyHeader {
    /// Parses the bytes that were received so far.
    pub fn parse(bytes: &[u8]) -> Self {
        if matches_signature(bytes, V2_SIGNATURE) {
            parse_v2(bytes)
        } else if matches_signature(bytes, b"PROXY ") {
            parse_v1(bytes)
        } else {
            Self::Invalid
        }
    }
}

/// Returns whether the bytes and the signature are equal up to the shorter length.
fn matches_signature(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8]) -> ProxyHeader {
    let line = &bytes[..bytes.len().min(MAX_V1_LEN)];
    let Some(end) = line.windows(2).position(|window| window == b"\r\n") else {
        return if line.len() < MAX_V1_LEN {
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
        // The protocol requires to ignore the rest of the line.
        ["PROXY", "UNKNOWN", ..] => return ProxyHeader::Local { length },
        ["PROXY", "TCP4", source, target, source_port, target_port] => {
            let is_valid = target.parse::<Ipv4Addr>().is_ok() && parse_port(target_port).is_some();
            source
                .parse::<Ipv4Addr>()
                .ok()
                .filter(|_| is_valid)
                .map(IpAddr::V4)
                .zip(parse_port(source_port))
        }
        ["PROXY", "TCP6", source, target, source_port, target_port] => {
            let is_valid = target.parse::<Ipv6Addr>().is_ok() && parse_port(target_port).is_some();
            source
                .parse::<Ipv6Addr>()
                .ok()
                .filter(|_| is_valid)
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

/// Parses a port that consists of digits only, without leading zeros. Rust's own parser would also accept a plus.
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
    if !matches!(version_and_command, 0x20 | 0x21) || !is_known || length > MAX_HEADER_LEN {
        return ProxyHeader::Invalid;
    }
    let Some(addresses) = bytes.get(16..length) else {
        return ProxyHeader::Incomplete;
    };
    if version_and_command == 0x20 {
        return ProxyHeader::Local { length };
    }
    // Source address, target address, source port, target port. The rest is ignored.
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

    /// Checks that a header is parsed with and without further bytes, and that every proper prefix is incomplete.
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
    fn parses_version_1() {
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
        line.resize(MAX_V1_LEN - 2, b'x');
        parses(&[&line[..], b"\r\n"].concat(), None);
        assert_eq!(
            ProxyHeader::parse(&[&line[..], b"x\r\n"].concat()),
            ProxyHeader::Invalid
        );
    }

    #[test]
    fn rejects_malformed_version_1() {
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
    fn parses_version_2() {
        parses(&v2_tcp4(), Some("203.0.113.9:4242"));
        parses(&v2_tcp6(), Some("[2001:db8:1::9]:4242"));
        let with_more = v2(
            0x21,
            0x11,
            &[&v2_tcp4()[16..], &[0x04, 0, 2, 1, 2]].concat(),
        );
        parses(&with_more, Some("203.0.113.9:4242"));
        parses(&v2(0x21, 0x12, &v2_tcp4()[16..]), Some("203.0.113.9:4242"));
        // The proxy's own health checks, with any family; and families without an IP address.
        parses(&v2(0x20, 0x00, &[]), None);
        parses(&v2(0x20, 0x11, &v2_tcp4()[16..]), None);
        parses(&v2(0x20, 0x21, &[1]), None);
        parses(&v2(0x21, 0x00, &[1, 2, 3]), None);
        parses(&v2(0x21, 0x31, &[0; 216]), None);
        parses(&v2(0x20, 0x00, &[0; MAX_HEADER_LEN - 16]), None);
    }

    #[test]
    fn rejects_malformed_version_2() {
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
            (0x20, 0x00, MAX_HEADER_LEN - 15),
            (0x21, 0x11, 65535),
        ] {
            let header = v2(version_and_command, family, &vec![0; rest]);
            assert_eq!(
                ProxyHeader::parse(&header),
                ProxyHeader::Invalid,
                "{version_and_command:#x} {family:#x} {rest}"
            );
        }
        // A header that is too long is rejected before all of it is received.
        assert_eq!(
            ProxyHeader::parse(&v2(0x21, 0x11, &[0; 65535])[..16]),
            ProxyHeader::Invalid
        );
    }
}
