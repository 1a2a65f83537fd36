//! A population for benchmarks: a million peers, in torrents of several distributions.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use tbtt::tracker::rng::Rng;
use tbtt::tracker::types::{Announce, Event, InfoHash, Key, PeerId, Time};

pub(crate) const PEERS: u32 = 1_000_000;
/// The current time in all benchmarks.
pub(crate) const NOW: Time = Time(100_000);

/// Returns the number of the torrent that a peer is in.
pub(crate) type Spread = fn(peer: u32, random: &mut Rng) -> u32;

/// The distributions, with the names that the benchmarks print.
pub(crate) const SPREADS: [(&str, Spread); 4] = [
    ("1 M peers in 100,000 torrents", |peer, _| peer % 100_000),
    ("1 M peers in 10,000 torrents by Zipf", |_, random| {
        zipf(random)
    }),
    ("1 M peers in a torrent each", |peer, _| peer),
    ("1 M peers in 1 torrent", |_, _| 0),
];

/// Returns one of 10,000 numbers. Number n is about 1/n as likely as number 1.
fn zipf(random: &mut Rng) -> u32 {
    let uniform = f64::from(random.next_u32()) / f64::from(u32::MAX);
    (10_000f64.powf(uniform) as u32).min(10_000) - 1
}

/// Returns the announce of the peer with this number. Each peer has its own address, and every third is a seeder.
pub(crate) fn announce(peer: u32, torrent: u32) -> Announce {
    let mut info_hash = InfoHash([0; 20]);
    info_hash.0[..4].copy_from_slice(&torrent.to_be_bytes());
    let mut peer_id = PeerId([b'-'; 20]);
    peer_id.0[..4].copy_from_slice(&peer.to_be_bytes());
    Announce {
        info_hash,
        peer_id,
        key: Some(Key(peer)),
        address: Ipv4Addr::from(0x0a00_0000 + peer).into(),
        port: NonZeroU16::MIN,
        event: Event::None,
        complete: peer % 3 == 0,
        numwant: Some(50),
    }
}
