//! The plan of a run, and announces and scrapes as today's clients send them.

use crate::population::{Peer, Population, Rng};
use std::io::Write as _;
use std::net::SocketAddrV4;
use std::time::Duration;

/// The requests of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Announces of random peers.
    Announce,
    /// One announce of each peer, in order.
    Fill,
    /// Scrapes of [`SCRAPE_TORRENTS`] random torrents.
    Scrape,
}

/// Number of torrents in a scrape.
pub const SCRAPE_TORRENTS: usize = 5;

/// The plan of a run: the tracker, the requests, and when the run ends.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Address of the tracker.
    pub to: SocketAddrV4,
    pub kind: RequestKind,
    /// Maximum number of requests. A fill ends after one announce of each peer.
    pub requests: u64,
    /// Maximum duration of the run.
    pub max_duration: Duration,
    /// Number of requests in flight at a time.
    pub window: usize,
    /// Number of peers that an announce requests.
    pub numwant: u32,
    /// Whether each HTTP request uses a new connection.
    pub close: bool,
    /// Number of connects in 1000 UDP requests.
    pub connects: u32,
    /// Seed for the random choices of the run.
    pub seed: u64,
}

/// Returns the info-hashes of distinct random torrents, for a scrape.
pub fn pick_torrents(population: &Population, rng: &mut Rng) -> [[u8; 20]; SCRAPE_TORRENTS] {
    let mut torrents = [u32::MAX; SCRAPE_TORRENTS];
    for index in 0..SCRAPE_TORRENTS {
        while torrents[index] == u32::MAX || torrents[..index].contains(&torrents[index]) {
            torrents[index] = population.torrent(rng.next_u64());
        }
    }
    torrents.map(|torrent| population.info_hash(torrent))
}

/// Writes an HTTP announce as libtorrent sends it (`close`), or as Transmission does.
pub fn http_announce(out: &mut Vec<u8>, peer: &Peer, numwant: u32, close: bool) {
    out.clear();
    out.extend_from_slice(b"GET /announce?info_hash=");
    percent_encode(out, &peer.info_hash);
    out.extend_from_slice(b"&peer_id=");
    percent_encode(out, &peer.peer_id);
    let left = if peer.seeder { 0 } else { 734_003_200 };
    let Peer { port, key, .. } = peer;
    // Writing to a Vec cannot fail.
    let _ = if close {
        write!(
            out,
            "&port={port}&uploaded=0&downloaded=0&left={left}&corrupt=0&key={key:08X}&numwant={numwant}\
             &compact=1&no_peer_id=1&supportcrypto=1&redundant=0"
        )
    } else {
        write!(
            out,
            "&port={port}&uploaded=0&downloaded=0&left={left}&numwant={numwant}&key={key:08X}\
             &compact=1&supportcrypto=1"
        )
    };
    http_head(out, close);
}

/// Writes an HTTP scrape of `hashes`.
pub fn http_scrape(out: &mut Vec<u8>, hashes: &[[u8; 20]], close: bool) {
    out.clear();
    out.extend_from_slice(b"GET /scrape");
    for (index, hash) in hashes.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"?" } else { b"&" });
        out.extend_from_slice(b"info_hash=");
        percent_encode(out, hash);
    }
    http_head(out, close);
}

fn http_head(out: &mut Vec<u8>, close: bool) {
    out.extend_from_slice(if close {
        b" HTTP/1.1\r\nHost: tracker.example.org:6969\r\nUser-Agent: qBittorrent/4.6.5\r\n\
          Accept-Encoding: gzip\r\nConnection: close\r\n\r\n"
    } else {
        b" HTTP/1.1\r\nHost: tracker.example.org:6969\r\nUser-Agent: Transmission/4.0.6\r\n\
          Accept: */*\r\nAccept-Encoding: deflate, gzip, br, zstd\r\n\r\n"
    });
}

fn percent_encode(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// Writes a connect request (BEP 15), and returns its length.
pub fn udp_connect(out: &mut [u8], transaction: u32) -> usize {
    out[..8].copy_from_slice(&0x0417_2710_1980_u64.to_be_bytes());
    out[8..12].copy_from_slice(&0_u32.to_be_bytes());
    out[12..16].copy_from_slice(&transaction.to_be_bytes());
    16
}

/// Writes an announce request (BEP 15), and returns its length.
pub fn udp_announce(
    out: &mut [u8],
    connection_id: u64,
    transaction: u32,
    peer: &Peer,
    numwant: u32,
) -> usize {
    let left: u64 = if peer.seeder { 0 } else { 734_003_200 };
    out[..98].fill(0);
    out[..8].copy_from_slice(&connection_id.to_be_bytes());
    out[8..12].copy_from_slice(&1_u32.to_be_bytes());
    out[12..16].copy_from_slice(&transaction.to_be_bytes());
    out[16..36].copy_from_slice(&peer.info_hash);
    out[36..56].copy_from_slice(&peer.peer_id);
    out[64..72].copy_from_slice(&left.to_be_bytes());
    out[88..92].copy_from_slice(&peer.key.to_be_bytes());
    out[92..96].copy_from_slice(&numwant.to_be_bytes());
    out[96..98].copy_from_slice(&peer.port.to_be_bytes());
    98
}

/// Writes a scrape request (BEP 15), and returns its length.
pub fn udp_scrape(
    out: &mut [u8],
    connection_id: u64,
    transaction: u32,
    hashes: &[[u8; 20]],
) -> usize {
    out[..8].copy_from_slice(&connection_id.to_be_bytes());
    out[8..12].copy_from_slice(&2_u32.to_be_bytes());
    out[12..16].copy_from_slice(&transaction.to_be_bytes());
    for (index, hash) in hashes.iter().enumerate() {
        out[16 + index * 20..36 + index * 20].copy_from_slice(hash);
    }
    16 + hashes.len() * 20
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn peer() -> Peer {
        Peer {
            address: Ipv4Addr::LOCALHOST,
            port: 6881,
            peer_id: *b"-qB4650-abcdefghijkl",
            key: 0xab,
            info_hash: *b"\x00\xff a~bcdefghijklmnop",
            seeder: true,
        }
    }

    #[test]
    fn http_announce_is_percent_encoded_and_complete() {
        let mut out = Vec::new();
        http_announce(&mut out, &peer(), 50, true);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(
            "GET /announce?info_hash=%00%FF%20a~bcdefghijklmnop&peer_id=-qB4650-abcdefghijkl&port=6881&"
        ));
        assert!(text.contains("&left=0&") && text.contains("&key=000000AB&"));
        assert!(text.contains("\r\nConnection: close\r\n") && text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn udp_announce_has_the_fields_of_bep_15() {
        let mut out = [7; 98];
        assert_eq!(udp_announce(&mut out, 1, 2, &peer(), 50), 98);
        assert_eq!(out[..16], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(out[92..], [0, 0, 0, 50, 0x1a, 0xe1]);
    }

    #[test]
    fn scraped_torrents_are_distinct() {
        let few = Population::new(1, 5, 9, 3, crate::population::Spread::Zipf).unwrap();
        let mut hashes = pick_torrents(&few, &mut Rng::new(3)).to_vec();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), SCRAPE_TORRENTS);
    }

    #[test]
    fn scrape_contains_each_hash() {
        let mut out = Vec::new();
        http_scrape(&mut out, &[*b"aaaaaaaaaaaaaaaaaaaa"; 2], false);
        assert!(out.starts_with(
            b"GET /scrape?info_hash=aaaaaaaaaaaaaaaaaaaa&info_hash=aaaaaaaaaaaaaaaaaaaa HTTP"
        ));
        assert_eq!(udp_scrape(&mut [0; 56], 1, 2, &[[0; 20]; 2]), 56);
    }
}
