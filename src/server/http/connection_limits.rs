//! Limits on the number of open connections, in total and per network.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::lock::lock;

/// Counts and limits the open connections of all workers.
#[derive(Debug)]
pub struct ConnectionLimits {
    counts: Mutex<Counts>,
}

/// The limits, and the open connections that they are compared with.
#[derive(Debug)]
struct Counts {
    max: usize,
    max_per_network: u32,
    total: usize,
    by_network: HashMap<Network, u32>,
}

/// A group of addresses that share a limit.
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

/// Permission for a connection. Dropping it frees its place.
#[derive(Debug)]
pub struct ConnectionPermit {
    connections: Arc<ConnectionLimits>,
    network: Option<Network>,
}

impl ConnectionLimits {
    /// Allows `max` connections in total, and `max_per_network` for each IPv4 address or IPv6 /64.
    pub fn new(max: usize, max_per_network: u32) -> Self {
        let (total, by_network) = (0, HashMap::new());
        Self {
            counts: Mutex::new(Counts {
                max,
                max_per_network,
                total,
                by_network,
            }),
        }
    }

    /// Replaces the limits. Connections over the new limits stay open.
    pub fn set_limits(&self, max: usize, max_per_network: u32) {
        let mut counts = lock(&self.counts);
        (counts.max, counts.max_per_network) = (max, max_per_network);
    }

    /// Returns a permit for a new connection, or `None` if the total or the network of the address has reached its limit. A
    /// connection without an address, over a Unix socket, counts only in the total.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<ConnectionPermit> {
        let network = address.map(Network::of);
        let mut counts = lock(&self.counts);
        if counts.total >= counts.max {
            return None;
        }
        if let Some(network) = network {
            let count = counts.by_network.get(&network).copied().unwrap_or(0);
            if count >= counts.max_per_network {
                return None;
            }
            counts.by_network.insert(network, count + 1);
        }
        counts.total += 1;
        Some(ConnectionPermit {
            connections: self.clone(),
            network,
        })
    }

    /// Returns the number of open connections.
    pub fn total(&self) -> usize {
        lock(&self.counts).total
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = lock(&self.connections.counts);
        counts.total -= 1;
        let Some(network) = self.network else { return };
        if let Entry::Occupied(mut count) = counts.by_network.entry(network) {
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
    fn limits_one_address_and_frees_places() {
        let connections = Arc::new(ConnectionLimits::new(10, 2));
        let first = connections.admit(address("192.0.2.1"));
        let second = connections.admit(address("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(connections.admit(address("192.0.2.1")).is_none());
        assert!(
            connections.admit(address("192.0.2.2")).is_some(),
            "another address has its own limit"
        );
        drop(first);
        assert!(connections.admit(address("192.0.2.1")).is_some());
    }

    #[test]
    fn ipv6_slash_64_is_one_network() {
        let connections = Arc::new(ConnectionLimits::new(10, 1));
        let _held = connections.admit(address("2001:db8:0:1::1")).unwrap();
        assert!(connections.admit(address("2001:db8:0:1:ffff::2")).is_none());
        assert!(connections.admit(address("2001:db8:0:2::1")).is_some());
    }

    #[test]
    fn limits_total_and_forgets_closed_connections() {
        let connections = Arc::new(ConnectionLimits::new(3, 3));
        let held: Vec<_> = (1..=4)
            .map(|i| connections.admit(address(&format!("192.0.2.{i}"))))
            .collect();
        assert_eq!(held.iter().flatten().count(), 3);
        assert_eq!(connections.total(), 3);
        drop(held);
        assert_eq!(connections.total(), 0);
        assert!(connections.counts.lock().unwrap().by_network.is_empty());
    }
}
