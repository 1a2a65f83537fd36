//! The torrents and peers of a run. They are computed from a seed and not stored.

use std::net::Ipv4Addr;

/// The distribution of peers over torrents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// The torrent of rank r has a share of peers in proportion to 1/r, which is typical of popularity.
    Zipf,
    /// All torrents are equally likely.
    Uniform,
    /// Peer i is in torrent i, modulo the number of torrents.
    Even,
}

/// A client in a swarm.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: Ipv4Addr,
    pub port: u16,
    pub peer_id: [u8; 20],
    pub key: u32,
    pub info_hash: [u8; 20],
    pub seeder: bool,
}

/// The torrents and peers of a run.
#[derive(Clone, Debug)]
pub struct Population {
    seed: u64,
    torrents: u32,
    peers: u32,
    addresses: u32,
    spread: Spread,
    /// The upper end of each rank's share of the 64-bit numbers; empty unless the spread is Zipf.
    shares: Vec<u64>,
}

/// Maximum number of addresses: 250 * 256, each in its own /24.
const MAX_ADDRESSES: u32 = 64_000;
const FIRST_PORT: u32 = 1024;

impl Population {
    /// Creates `peers` peers in `torrents` torrents. The peers have `addresses` addresses in 127.0.0.0/8.
    pub fn new(
        seed: u64,
        torrents: u32,
        peers: u32,
        addresses: u32,
        spread: Spread,
    ) -> Result<Self, String> {
        if torrents == 0 || peers == 0 {
            return Err("torrents and peers must be at least 1".into());
        }
        if addresses == 0 || addresses > MAX_ADDRESSES || addresses > peers {
            return Err(format!(
                "addresses must be 1 to {MAX_ADDRESSES}, and not more than peers"
            ));
        }
        if peers / addresses >= 65_536 - FIRST_PORT {
            return Err("too many peers for each address; increase addresses".into());
        }
        let shares = if spread == Spread::Zipf {
            zipf_shares(torrents)
        } else {
            Vec::new()
        };
        Ok(Self {
            seed,
            torrents,
            peers,
            addresses,
            spread,
            shares,
        })
    }

    pub fn torrents(&self) -> u32 {
        self.torrents
    }

    pub fn peers(&self) -> u32 {
        self.peers
    }

    pub fn addresses(&self) -> u32 {
        self.addresses
    }

    /// Returns the address `index`, 127.x.y.1. Each address has its own /24, because trackers limit each network.
    pub fn address(index: u32) -> Ipv4Addr {
        let [.., high, low] = index.to_be_bytes();
        Ipv4Addr::new(127, 1 + high, low, 1)
    }

    /// Returns the index of a peer's address.
    pub fn address_index_of(&self, peer: u32) -> u32 {
        peer % self.addresses
    }

    /// Returns the number of peers at the address `address`. Their indexes are `address + n * addresses()`.
    pub fn peers_at(&self, address: u32) -> u32 {
        self.peers / self.addresses + u32::from(address < self.peers % self.addresses)
    }

    pub fn info_hash(&self, torrent: u32) -> [u8; 20] {
        let mut bytes = [0; 20];
        let first = mix(self.seed ^ (u64::from(torrent) << 2));
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        bytes[8..16].copy_from_slice(&mix(first).to_be_bytes());
        bytes[16..].copy_from_slice(&torrent.to_be_bytes());
        bytes
    }

    /// Returns the torrent that corresponds to a random number, with the distribution of the spread.
    pub fn torrent(&self, random: u64) -> u32 {
        match self.spread {
            Spread::Zipf => {
                let rank = self.shares.partition_point(|&end| end < random) as u32;
                rank.min(self.torrents - 1)
            }
            Spread::Uniform | Spread::Even => (random % u64::from(self.torrents)) as u32,
        }
    }

    pub fn peer(&self, index: u32) -> Peer {
        let random = mix(self.seed ^ 0x5eed ^ (u64::from(index) << 16));
        let torrent = match self.spread {
            Spread::Even => index % self.torrents,
            Spread::Zipf | Spread::Uniform => self.torrent(random),
        };
        let more = mix(random);
        let mut peer_id = *b"-qB4650-            ";
        for (place, byte) in peer_id[8..].iter_mut().enumerate() {
            *byte = b"abcdefghijklmnopqrstuvwxyzABCDEF"[(more >> (place * 5)) as usize & 31];
        }
        Peer {
            address: Self::address(self.address_index_of(index)),
            port: (FIRST_PORT + index / self.addresses) as u16,
            peer_id,
            key: random as u32,
            info_hash: self.info_hash(torrent),
            seeder: more >> 63 == 0,
        }
    }
}

fn zipf_shares(torrents: u32) -> Vec<u64> {
    let total: f64 = (1..=torrents).map(|rank| 1.0 / f64::from(rank)).sum();
    let mut sum = 0.0;
    (1..=torrents)
        .map(|rank| {
            sum += 1.0 / f64::from(rank);
            (sum / total * u64::MAX as f64) as u64
        })
        .collect()
}

/// A seeded random number generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Returns a random number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u32) -> u32 {
        ((u128::from(self.next_u64()) * u128::from(limit)) >> 64) as u32
    }
}

fn mix(number: u64) -> u64 {
    let mut n = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn population(spread: Spread) -> Population {
        Population::new(7, 100, 20_000, 300, spread).unwrap()
    }

    #[test]
    fn endpoints_are_distinct() {
        let all = population(Spread::Zipf);
        let endpoints: HashSet<_> = (0..all.peers())
            .map(|index| all.peer(index))
            .map(|peer| (peer.address, peer.port))
            .collect();
        assert_eq!(endpoints.len(), 20_000);
    }

    #[test]
    fn numbers_of_peers_at_addresses_add_up() {
        let all = population(Spread::Uniform);
        let sum: u32 = (0..all.addresses()).map(|a| all.peers_at(a)).sum();
        assert_eq!(sum, all.peers());
        let last = all.addresses() - 1 + (all.peers_at(all.addresses() - 1) - 1) * all.addresses();
        assert!(last < all.peers());
    }

    #[test]
    fn zipf_gives_the_first_torrent_the_most_peers() {
        let all = population(Spread::Zipf);
        let count = |torrent| {
            let hash = all.info_hash(torrent);
            (0..all.peers())
                .filter(|&index| all.peer(index).info_hash == hash)
                .count()
        };
        // The sum of 1/r up to r = 100 is 5.187, so the first torrent has 19.3 % and the tenth 1.9 %.
        assert!((3_600..4_100).contains(&count(0)), "{}", count(0));
        assert!((320..460).contains(&count(9)), "{}", count(9));
    }

    #[test]
    fn even_gives_each_torrent_the_same_number_of_peers() {
        let all = population(Spread::Even);
        let hash = all.info_hash(42);
        let members = (0..all.peers()).filter(|&i| all.peer(i).info_hash == hash);
        assert_eq!(members.count(), 200);
    }

    #[test]
    fn rejects_impossible_numbers() {
        assert!(Population::new(1, 0, 1, 1, Spread::Zipf).is_err());
        assert!(Population::new(1, 1, 1, 2, Spread::Zipf).is_err());
        assert!(Population::new(1, 1, 64_512, 1, Spread::Zipf).is_err());
        assert!(Population::new(1, 1, 64_511, 1, Spread::Zipf).is_ok());
    }
}
