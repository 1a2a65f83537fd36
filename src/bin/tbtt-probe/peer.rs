//! The clients that the probe simulates, with random peer IDs, and the peers in responses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tbtt::os::random::random_bytes;

use crate::case::{NotOk, skipped};

pub(crate) type InfoHash = [u8; 20];

/// A client that the probe simulates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Peer {
    pub(crate) id: [u8; 20],
    pub(crate) port: u16,
    pub(crate) key: u32,
}

/// Creates peers with different ports.
pub(crate) struct Peers {
    last_port: u16,
}

impl Peers {
    pub(crate) fn new() -> io::Result<Self> {
        let last_port = 20_000 + u16::from_be_bytes(random_bytes()?) % 20_000;
        Ok(Self { last_port })
    }

    pub(crate) fn peer(&mut self) -> io::Result<Peer> {
        self.last_port += 1;
        let letters: [u8; 12] = random_bytes()?;
        let mut id = *b"-TP0100-            ";
        for (byte, letter) in id[8..].iter_mut().zip(letters) {
            *byte = b'a' + letter % 26;
        }
        Ok(Peer {
            id,
            port: self.last_port,
            key: u32::from_be_bytes(random_bytes()?) | 1,
        })
    }
}

/// Returns a random info-hash, which no tracker knows.
pub(crate) fn random_hash() -> Result<InfoHash, NotOk> {
    random_bytes().or_else(|error| skipped(format!("cannot read random bytes: {error}")))
}

/// Parses compact peers (BEP 23, 7, 15), each an address of 4 or 16 bytes and a port. Returns `None` if the last peer is
/// incomplete.
pub(crate) fn endpoints(compact: &[u8], address_len: usize) -> Option<Vec<SocketAddr>> {
    let peers = compact.chunks_exact(address_len + 2);
    if !peers.remainder().is_empty() {
        return None;
    }
    let endpoint = |peer: &[u8]| {
        let (address, port) = peer.split_at(address_len);
        let address = match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
            (Ok(v4), _) => IpAddr::from(Ipv4Addr::from(v4)),
            (_, Ok(v6)) => IpAddr::from(Ipv6Addr::from(v6)),
            _ => return None,
        };
        let port = u16::from_be_bytes(port.try_into().ok()?);
        Some(SocketAddr::new(address, port))
    };
    peers.map(endpoint).collect()
}

/// Returns whether no peer can be reached at this endpoint.
pub(crate) fn is_unreachable(endpoint: &SocketAddr) -> bool {
    endpoint.port() == 0 || endpoint.ip().is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_complete_endpoints() {
        let v4 = endpoints(b"\x7f\0\0\x01\x1b\x39\0\0\0\0\0\x01", 4).unwrap();
        assert_eq!(
            v4,
            ["127.0.0.1:6969", "0.0.0.0:1"].map(|peer| peer.parse().unwrap())
        );
        assert!(!is_unreachable(&v4[0]) && is_unreachable(&v4[1]));
        assert!(is_unreachable(&"127.0.0.1:0".parse().unwrap()));
        let v6 = endpoints(b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50", 16).unwrap();
        assert_eq!(v6, ["[::1]:80".parse().unwrap()]);
        assert_eq!(endpoints(b"", 4), Some(Vec::new()));
        assert_eq!(endpoints(b"seven b", 4), None);
        assert_eq!(endpoints(b"sixbyt", 16), None);
    }
}
