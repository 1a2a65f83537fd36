//! Access lists and sets of networks.
//!
//! The most specific network that contains an address decides. A network that is both allowed and denied is denied. An
//! address in no network is admitted if the allow list is empty, and refused otherwise. An IPv4-mapped address or network
//! (`::ffff:a.b.c.d`) counts as IPv4, and `::/0` contains IPv6 addresses only.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ip_ranges::IpRanges;

/// The networks that an operator allows and denies.
#[derive(Clone, Debug)]
pub struct AccessList(IpRanges);

impl AccessList {
    /// Builds an access list. If `allow` is empty, all addresses are admitted except those in `deny`.
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        let otherwise = allow.is_empty();
        let allow = allow.into_iter().map(|network| (network, true));
        let deny = deny.into_iter().map(|network| (network, false));
        Self(IpRanges::new(allow.chain(deny), otherwise))
    }

    pub fn admits(&self, address: IpAddr) -> bool {
        self.0.verdict(address)
    }
}

impl Default for AccessList {
    /// Admits every address.
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new())
    }
}

/// A set of networks, for example of trusted proxies. The empty set contains no address.
#[derive(Clone, Debug, Default)]
pub struct Networks(IpRanges);

impl Networks {
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(IpRanges::new(
            networks.into_iter().map(|network| (network, true)),
            false,
        ))
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.verdict(address)
    }
}

/// Networks whose addresses are reachable only from within the same network, such as 10.0.0.0/8.
#[derive(Clone, Debug, Default)]
pub struct LocalNetworks(Vec<IpNet>);

impl LocalNetworks {
    /// Expects a short list, because every lookup compares the address with all networks in turn.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Returns the index of the network that contains `address`.
    pub fn index_of(&self, address: IpAddr) -> Option<usize> {
        self.0.iter().position(|network| network.contains(&address))
    }

    /// Returns whether `index` names a network and that network contains `address`.
    pub fn contains(&self, index: Option<usize>, address: IpAddr) -> bool {
        index
            .and_then(|index| self.0.get(index))
            .is_some_and(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::rng::Rng;

    fn networks(list: &[&str]) -> Vec<IpNet> {
        list.iter()
            .map(|entry| match entry.parse::<IpAddr>() {
                Ok(address) => address.into(),
                Err(_) => entry.parse().unwrap(),
            })
            .collect()
    }

    fn list(allow: &[&str], deny: &[&str]) -> AccessList {
        AccessList::new(networks(allow), networks(deny))
    }

    #[track_caller]
    fn check(list: &AccessList, admitted: &[&str], refused: &[&str]) {
        for address in admitted {
            assert!(
                list.admits(address.parse().unwrap()),
                "{address} should be admitted"
            );
        }
        for address in refused {
            assert!(
                !list.admits(address.parse().unwrap()),
                "{address} should be refused"
            );
        }
    }

    #[test]
    fn empty_lists_admit_every_address() {
        let everyone = [
            "0.0.0.0",
            "192.0.2.1",
            "255.255.255.255",
            "::",
            "2001:db8::1",
            "ffff:ffff::",
        ];
        check(&AccessList::default(), &everyone, &[]);
        check(&list(&["0.0.0.0/0", "::/0"], &[]), &everyone, &[]);
        check(&list(&[], &["0.0.0.0/0", "::/0"]), &[], &everyone);
    }

    #[test]
    fn deny_list_alone_admits_other_addresses() {
        let list = list(&[], &["192.0.2.0/24", "2001:db8::/32"]);
        check(
            &list,
            &[
                "192.0.1.255",
                "192.0.3.0",
                "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db9::",
            ],
            &[
                "192.0.2.0",
                "192.0.2.255",
                "2001:db8::",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            ],
        );
    }

    #[test]
    fn allow_list_of_one_family_refuses_the_other() {
        check(
            &list(&["192.0.2.0/24"], &[]),
            &["192.0.2.7"],
            &["192.0.3.7", "2001:db8::1", "::"],
        );
        check(
            &list(&["::/0"], &[]),
            &["2001:db8::1", "::"],
            &["192.0.2.7", "::ffff:192.0.2.7"],
        );
    }

    #[test]
    fn most_specific_network_decides_and_deny_wins_tie() {
        let list = list(
            &["10.0.0.0/8", "10.1.2.0/24", "10.9.0.0/16", "10.1.2.128"],
            &["10.1.0.0/16", "10.9.0.0/16", "10.1.2.128/25", "0.0.0.0/0"],
        );
        check(
            &list,
            &[
                "10.0.0.0",
                "10.0.255.255",
                "10.1.2.0",
                "10.1.2.127",
                "10.1.2.128",
                "10.2.0.0",
                "10.8.255.255",
                "10.10.0.0",
                "10.255.255.255",
            ],
            &[
                "9.255.255.255",
                "10.1.0.0",
                "10.1.1.255",
                "10.1.2.129",
                "10.1.2.255",
                "10.1.3.0",
                "10.1.255.255",
                "10.9.0.0",
                "10.9.255.255",
                "11.0.0.0",
            ],
        );
    }

    #[test]
    fn first_and_last_address_can_be_listed() {
        let list = list(
            &[
                "0.0.0.0",
                "255.255.255.255",
                "::",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ],
            &[],
        );
        check(
            &list,
            &[
                "0.0.0.0",
                "255.255.255.255",
                "::",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ],
            &[
                "0.0.0.1",
                "255.255.255.254",
                "::1",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe",
            ],
        );
    }

    #[test]
    fn mapped_addresses_and_networks_count_as_ipv4() {
        let denied = list(&[], &["192.0.2.0/24"]);
        check(&denied, &["::ffff:192.0.3.1"], &["::ffff:192.0.2.1"]);
        let mapped = list(&["::ffff:192.0.2.0/120", "::ffff:198.51.100.7"], &[]);
        check(
            &mapped,
            &["192.0.2.1", "::ffff:192.0.2.1", "198.51.100.7"],
            &["192.0.3.1", "198.51.100.8", "::1"],
        );
        check(
            &list(&["::ffff:0:0/96"], &[]),
            &["0.0.0.0", "203.0.113.9"],
            &["2001:db8::1"],
        );
    }

    #[test]
    fn networks_contain_only_their_addresses() {
        let local = Networks::new(networks(&["127.0.0.0/8", "::1"]));
        let contains = |address: &str| local.contains(address.parse().unwrap());
        assert!(contains("127.0.0.1") && contains("::1") && contains("::ffff:127.9.9.9"));
        assert!(!contains("128.0.0.0") && !contains("::") && !contains("::2"));
        assert!(!Networks::default().contains("127.0.0.1".parse().unwrap()));
        assert!(!Networks::new(Vec::new()).contains("::1".parse().unwrap()));
    }

    /// A slow implementation of the rule at the head of this file.
    fn reference_verdict(allow: &[IpNet], deny: &[IpNet], address: IpAddr) -> bool {
        let best = |list: &[IpNet]| {
            list.iter()
                .filter(|net| net.contains(&address))
                .map(IpNet::prefix_len)
                .max()
        };
        match (best(allow), best(deny)) {
            (None, None) => allow.is_empty(),
            (allow, deny) => allow > deny,
        }
    }

    #[test]
    fn agrees_with_reference_on_random_lists() {
        const SEED: u64 = 7;
        let mut rng = Rng::new(SEED);
        let mut random = || rng.next_u32();
        for round in 0..300 {
            let mut some = |count: u32| -> Vec<IpNet> {
                (0..count)
                    .map(|_| {
                        // Only few bits vary, so that many networks are nested or adjacent.
                        let bits = random() & 0xc000_00c3;
                        let prefix = random().to_le_bytes()[0];
                        if random() % 2 == 0 {
                            let address = std::net::Ipv4Addr::from_bits(bits);
                            IpNet::new(address.into(), prefix % 33).unwrap().trunc()
                        } else {
                            let address = std::net::Ipv6Addr::from_bits(
                                u128::from(bits) << 96 | u128::from(bits),
                            );
                            IpNet::new(address.into(), prefix % 129).unwrap().trunc()
                        }
                    })
                    .collect()
            };
            let (allow, deny) = (some(round % 17), some(round % 13));
            let list = AccessList::new(allow.clone(), deny.clone());
            for network in allow.iter().chain(&deny) {
                for address in [network.network(), network.broadcast()] {
                    let near = match address {
                        IpAddr::V4(address) => [
                            address.to_bits().wrapping_sub(1),
                            address.to_bits(),
                            address.to_bits().wrapping_add(1),
                        ]
                        .map(|bits| IpAddr::V4(std::net::Ipv4Addr::from_bits(bits))),
                        IpAddr::V6(address) => [
                            address.to_bits().wrapping_sub(1),
                            address.to_bits(),
                            address.to_bits().wrapping_add(1),
                        ]
                        .map(|bits| IpAddr::V6(std::net::Ipv6Addr::from_bits(bits))),
                    };
                    for address in near
                        .into_iter()
                        .filter(|address| *address == address.to_canonical())
                    {
                        assert_eq!(
                            list.admits(address),
                            reference_verdict(&allow, &deny, address),
                            "seed {SEED}, round {round}, {address}: {allow:?} {deny:?}"
                        );
                    }
                }
            }
        }
    }
}
