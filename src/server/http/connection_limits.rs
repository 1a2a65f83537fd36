//! How many connections there may be, in all and from one network.

use crate::lock::lock;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

/// Limits the connections of all workers.
#[derive(Debug)]
pub struct ConnectionLimits {
    open: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    max: usize,
    max_per_network: u32,
    total: usize,
    by_network: HashMap<Network, u32>,
}

/// Those who share one of these share a limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Network {
    V4([u8; 4]),
    V6Slash64([u8; 8]),
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6Slash64([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// One connection's place among the others, given back when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    connections: Arc<ConnectionLimits>,
    network: Option<Network>,
}

impl ConnectionLimits {
    /// At most `max` in all, and `max_per_network` from one IPv4 address or one IPv6 /64.
    pub fn new(max: usize, max_per_network: u32) -> Self {
        let (total, by_network) = (0, HashMap::new());
        Self {
            open: Mutex::new(Counts {
                max,
                max_per_network,
                total,
                by_network,
            }),
        }
    }

    /// Takes new limits: connections over them stay.
    pub fn set_limits(&self, max: usize, max_per_network: u32) {
        let mut open = lock(&self.open);
        (open.max, open.max_per_network) = (max, max_per_network);
    }

    /// `None` when all places, or all of the address's network, are taken. Who has no address, on a Unix socket, counts in
    /// the total alone.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<ConnectionPermit> {
        let network = address.map(Network::of);
        let mut open = lock(&self.open);
        if open.total >= open.max {
            return None;
        }
        if let Some(network) = network {
            let count = open.by_network.get(&network).copied().unwrap_or(0);
            if count >= open.max_per_network {
                return None;
            }
            open.by_network.insert(network, count + 1);
        }
        open.total += 1;
        Some(ConnectionPermit {
            connections: self.clone(),
            network,
        })
    }

    pub fn total(&self) -> usize {
        lock(&self.open).total
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = lock(&self.connections.open);
        open.total -= 1;
        let Some(network) = self.network else { return };
        if let Entry::Occupied(mut count) = open.by_network.entry(network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_network_is_limited_and_gets_its_places_back() {
        let connections = Arc::new(ConnectionLimits::new(10, 2));
        let first = connections.admit(address("192.0.2.1"));
        let second = connections.admit(address("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(connections.admit(address("192.0.2.1")).is_none());
        assert!(
            connections.admit(address("192.0.2.2")).is_some(),
            "another address has places of its own"
        );
        drop(first);
        assert!(connections.admit(address("192.0.2.1")).is_some());
    }

    #[test]
    fn one_slash_64_is_one_network() {
        let connections = Arc::new(ConnectionLimits::new(10, 1));
        let _held = connections.admit(address("2001:db8:0:1::1")).unwrap();
        assert!(connections.admit(address("2001:db8:0:1:ffff::2")).is_none());
        assert!(connections.admit(address("2001:db8:0:2::1")).is_some());
    }

    #[test]
    fn all_together_are_limited_and_nothing_is_kept_of_the_gone() {
        let connections = Arc::new(ConnectionLimits::new(3, 3));
        let held: Vec<_> = (1..=4)
            .map(|i| connections.admit(address(&format!("192.0.2.{i}"))))
            .collect();
        assert_eq!(held.iter().flatten().count(), 3);
        assert_eq!(connections.total(), 3);
        drop(held);
        assert_eq!(connections.total(), 0);
        assert!(connections.open.lock().unwrap().by_network.is_empty());
    }
}
