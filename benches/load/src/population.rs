//! The torrents and peers of a run, computed from a seed instead of stored.

use std::net::Ipv4Addr;

/// How peers spread over torrents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// The torrent of rank r has a share of 1/r, as popularity tends to.
    Zipf,
    /// Each torrent is as likely as any other.
    Uniform,
    /// Peer i is in torrent i, modulo the number of torrents.
    Even,
}

/// One client in one swarm.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: Ipv4Addr,
    pub port: u16,
    pub peer_id: [u8; 20],
    pub key: u32,
    pub info_hash: [u8; 20],
    pub seeder: bool,
}

#[derive(Clone, Debug)]
pub struct Population {
    seed: u64,
    torrents: u32,
    peers: u32,
    addresses: u32,
    spread: Spread,
    /// For Zipf: the upper end of each rank's share of the 64-bit numbers.
    shares: Vec<u64>,
}

/// Each address is alone in its /24: 250 * 256 of them.
const MAX_ADDRESSES: u32 = 64_000;
const FIRST_PORT: u32 = 1024;

impl Population {
    /// `peers` spread over `torrents`, coming from `addresses` addresses in 127.0.0.0/8.
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
                "addresses must be 1 to {MAX_ADDRESSES} and at most peers"
            ));
        }
        if peers / addresses >= 65_536 - FIRST_PORT {
            return Err("too many peers for an address: raise addresses".into());
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

    /// Address number `index`, 127.x.y.1: no two in one /24, for trackers limit by network.
    pub fn address(index: u32) -> Ipv4Addr {
        let [.., high, low] = index.to_be_bytes();
        Ipv4Addr::new(127, 1 + high, low, 1)
    }

    pub fn address_index_of(&self, peer: u32) -> u32 {
        peer % self.addresses
    }

    /// How many peers come from address number `address`: they are `address + n * addresses()`.
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

    /// A torrent picked by `random`, with the likelihood that `Spread` gives it.
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

/// A seeded generator good enough to choose by (splitmix64).
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

    /// A number below `limit`, which must not be 0.
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
    fn peers_at_adds_up() {
        let all = population(Spread::Uniform);
        let sum: u32 = (0..all.addresses()).map(|a| all.peers_at(a)).sum();
        assert_eq!(sum, all.peers());
        let last = all.addresses() - 1 + (all.peers_at(all.addresses() - 1) - 1) * all.addresses();
        assert!(last < all.peers());
    }

    #[test]
    fn zipf_favours_the_first() {
        let all = population(Spread::Zipf);
        let count = |torrent| {
            let hash = all.info_hash(torrent);
            (0..all.peers())
                .filter(|&index| all.peer(index).info_hash == hash)
                .count()
        };
        // The sum of 1/r to 100 is 5.187: the first has 19.3 %, the tenth 1.9 %.
        assert!((3_600..4_100).contains(&count(0)), "{}", count(0));
        assert!((320..460).contains(&count(9)), "{}", count(9));
    }

    #[test]
    fn even_fills_each_torrent_alike() {
        let all = population(Spread::Even);
        let hash = all.info_hash(42);
        let members = (0..all.peers()).filter(|&i| all.peer(i).info_hash == hash);
        assert_eq!(members.count(), 200);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(Population::new(1, 0, 1, 1, Spread::Zipf).is_err());
        assert!(Population::new(1, 1, 1, 2, Spread::Zipf).is_err());
        assert!(Population::new(1, 1, 64_512, 1, Spread::Zipf).is_err());
        assert!(Population::new(1, 1, 64_511, 1, Spread::Zipf).is_ok());
    }
}
