//! Which addresses are welcome: networks of both families, compiled once into ranges.
//!
//! The most specific network that holds an address decides; where the same network is both allowed and denied, it is denied.
//! An address that no network holds is admitted if nothing is allowed expressly, and refused otherwise.
//! An IPv4-mapped address or network (`::ffff:a.b.c.d`) is its IPv4 self, and `::/0` holds IPv6 alone.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ip_ranges::Ranges;
use super::list::{ListFault, parse_lines};

/// Whom an operator allows and denies.
#[derive(Clone, Debug)]
pub struct AccessList(Ranges);

impl AccessList {
    /// Empty `allow`: all but the denied. Otherwise: only the allowed, less what is denied within.
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        let otherwise = allow.is_empty();
        let allow = allow.into_iter().map(|network| (network, true));
        let deny = deny.into_iter().map(|network| (network, false));
        Self(Ranges::new(allow.chain(deny), otherwise))
    }

    pub fn admits(&self, address: IpAddr) -> bool {
        self.0.verdict(address)
    }
}

impl Default for AccessList {
    /// Everyone is admitted.
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new())
    }
}

/// A set of networks, as of trusted proxies or exempt mirrors. Empty, it holds no address.
#[derive(Clone, Debug, Default)]
pub struct Networks(Ranges);

impl Networks {
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(Ranges::new(
            networks.into_iter().map(|network| (network, true)),
            false,
        ))
    }

    pub fn hold(&self, address: IpAddr) -> bool {
        self.0.verdict(address)
    }
}

/// Networks whose addresses mean something only within, such as 10.0.0.0/8: a peer there is of use to its neighbours alone.
#[derive(Clone, Debug, Default)]
pub struct LocalNetworks(Vec<IpNet>);

impl LocalNetworks {
    /// A few: each address is held against all of them.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// The number of the network that holds an address.
    pub fn of(&self, address: IpAddr) -> Option<usize> {
        self.0.iter().position(|network| network.contains(&address))
    }

    /// Whether the network of this number, if it is one, holds an address.
    pub fn holds(&self, number: Option<usize>, address: IpAddr) -> bool {
        number
            .and_then(|number| self.0.get(number))
            .is_some_and(|network| network.contains(&address))
    }
}

/// Reads a list of one network or address a line; `#` begins a comment.
pub fn parse_list(text: &str) -> Result<Vec<IpNet>, ListFault> {
    parse_lines(text, parse_network)
}

/// One network or address; the error is a sentence for the operator.
pub fn parse_network(entry: &str) -> Result<IpNet, String> {
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let Ok(network) = entry.parse::<IpNet>() else {
        return Err(format!(
            "`{}` is neither an address nor a network such as 192.0.2.0/24 or 2001:db8::/32",
            entry.escape_debug()
        ));
    };
    if network.addr() != network.network() {
        let (address, whole) = (network.addr(), network.trunc());
        return Err(format!(
            "`{entry}` has bits set beyond its prefix; write {whole} for the network or {address} for the address"
        ));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<IpNet> {
        list.iter()
            .map(|entry| parse_network(entry).unwrap())
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
    fn nothing_said_admits_everyone() {
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
    fn denied_only_admits_the_rest() {
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
    fn allowed_in_one_family_refuses_the_other() {
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
    fn the_most_specific_network_decides_and_deny_wins_a_tie() {
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
    fn both_ends_of_the_address_space_count() {
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
    fn a_mapped_address_is_its_ipv4_self_in_list_and_question() {
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
    fn a_set_of_networks_holds_those_alone() {
        let local = Networks::new(networks(&["127.0.0.0/8", "::1"]));
        let holds = |address: &str| local.hold(address.parse().unwrap());
        assert!(holds("127.0.0.1") && holds("::1") && holds("::ffff:127.9.9.9"));
        assert!(!holds("128.0.0.0") && !holds("::") && !holds("::2"));
        assert!(!Networks::default().hold("127.0.0.1".parse().unwrap()));
        assert!(!Networks::new(Vec::new()).hold("::1".parse().unwrap()));
    }

    /// The slow way to say what the module says at its head.
    fn plain(allow: &[IpNet], deny: &[IpNet], address: IpAddr) -> bool {
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
    fn agrees_with_the_plain_rule_on_random_lists() {
        const SEED: u64 = 7;
        let mut state = SEED;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(state >> 32).unwrap()
        };
        for round in 0..300 {
            let mut some = |count: u32| -> Vec<IpNet> {
                (0..count)
                    .map(|_| {
                        // Few distinct bits, so that networks lie within one another and side by side.
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
                            plain(&allow, &deny, address),
                            "seed {SEED}, round {round}, {address}: {allow:?} {deny:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn reads_lists_of_networks_and_addresses() {
        let text = "# our mirrors\n192.0.2.0/24 # rack\n\n  2001:db8::/32\t\n198.51.100.7\r\n::1#me\n0.0.0.0/0\n#";
        let expected = networks(&[
            "192.0.2.0/24",
            "2001:db8::/32",
            "198.51.100.7/32",
            "::1/128",
            "0.0.0.0/0",
        ]);
        assert_eq!(parse_list(text).unwrap(), expected);
        assert_eq!(parse_list("").unwrap(), []);
    }

    #[test]
    fn faults_in_lists_name_the_line() {
        let fault = |text: &str| parse_list(text).unwrap_err().to_string();
        assert_eq!(
            fault("::1\n\n10.0.0.1/8"),
            "line 3: `10.0.0.1/8` has bits set beyond its prefix; write 10.0.0.0/8 for the network or 10.0.0.1 for the address"
        );
        for wrong in [
            "10.0.0.0/33",
            "10.0.0",
            "10.0.0.0/",
            "/8",
            "::/129",
            "example.org",
            "10.0.0.0/8 x",
            "10.0.0.0/255.0.0.0",
            "[::1]",
            "1.2.3.4:5",
        ] {
            assert!(
                fault(wrong).starts_with(&format!(
                    "line 1: `{wrong}` is neither an address nor a network"
                )),
                "{wrong}"
            );
        }
        assert!(!fault("\u{1b}[31m").contains('\u{1b}'));
    }
}
