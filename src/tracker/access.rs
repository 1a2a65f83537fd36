//! Which addresses are welcome: networks of both families, compiled once into ranges.
//!
//! The most specific network that holds an address decides; where the same network is both allowed and denied, it is denied.
//! An address that no network holds is admitted if nothing is allowed expressly, and refused otherwise.
//! An IPv4-mapped address or network (`::ffff:a.b.c.d`) is its IPv4 self, and `::/0` holds IPv6 alone.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

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

/// The addresses at which the verdict turns, in order. It starts as `at_zero`, so an odd number of turns up to an address
/// means its opposite; ranges need no more than that.
#[derive(Clone, Debug, Default)]
struct Ranges {
    at_zero: bool,
    v4: Index<u32>,
    v6: WideIndex,
}

impl Ranges {
    fn new(networks: impl Iterator<Item = (IpNet, bool)>, otherwise: bool) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, verdict) in networks {
            match unmapped(network) {
                IpNet::V4(network) => v4.push(Range {
                    first: network.network().to_bits().into(),
                    last: network.broadcast().to_bits().into(),
                    verdict,
                }),
                IpNet::V6(network) => v6.push(Range {
                    first: network.network().to_bits(),
                    last: network.broadcast().to_bits(),
                    verdict,
                }),
            }
        }
        let v4 = turns(v4, otherwise, u32::MAX.into()).into_iter();
        Self {
            at_zero: otherwise,
            v4: Index::new(v4.filter_map(|turn| u32::try_from(turn).ok()).collect()),
            v6: WideIndex::new(&turns(v6, otherwise, u128::MAX)),
        }
    }

    fn verdict(&self, address: IpAddr) -> bool {
        let turned = match address.to_canonical() {
            IpAddr::V4(address) => self.v4.count_up_to(address.to_bits()),
            IpAddr::V6(address) => self.v6.count_up_to(address.to_bits()),
        };
        self.at_zero ^ (turned % 2 == 1)
    }
}

/// A sorted list and where to look in it: its values' span cut into about as many equal slots as there are values, and where
/// in the list each slot begins. A question then costs two memory accesses, where a binary search of 100,000 networks has 18
/// steps. The first and the last slot are open-ended and take what lies far from the rest, as `::1` does.
#[derive(Clone, Debug)]
struct Index<T> {
    list: Vec<T>,
    /// Where each slot begins, and at last where the list ends.
    slots: Vec<u32>,
    /// Where the second slot begins, and each is 2^`shift` wide from there on.
    first: u64,
    shift: u32,
}

impl<T: Ord + Copy + Into<u64>> Index<T> {
    fn new(list: Vec<T>) -> Self {
        let far = list.len() / 64;
        let value = |place: usize| list.get(place).map_or(0, |value| (*value).into());
        let first = value(far);
        let span = value(list.len().saturating_sub(far + 1)).saturating_sub(first);
        let mut shift = 0;
        while span >> shift > list.len() as u64 {
            shift += 1;
        }
        let mut index = Self {
            list,
            slots: Vec::new(),
            first,
            shift,
        };
        for slot in 0..=index.slot(first.saturating_add(span)) {
            let begin = index
                .list
                .partition_point(|value| index.slot((*value).into()) < slot);
            index.slots.push(u32::try_from(begin).unwrap_or(u32::MAX));
        }
        index
            .slots
            .push(u32::try_from(index.list.len()).unwrap_or(u32::MAX));
        index
    }

    fn slot(&self, value: u64) -> u64 {
        value
            .checked_sub(self.first)
            .map_or(0, |distance| (distance >> self.shift).saturating_add(1))
    }

    /// How many values are at most `limit`.
    fn count_up_to(&self, limit: T) -> usize {
        let slot = usize::try_from(self.slot(limit.into())).unwrap_or(usize::MAX);
        let slot = slot.min(self.slots.len().saturating_sub(2));
        let Some(&[start, end]) = self.slots.get(slot..slot + 2) else {
            return 0;
        };
        let (start, end) = (start as usize, end as usize);
        start + self.list[start..end].partition_point(|value| *value <= limit)
    }
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            slots: Vec::new(),
            first: 0,
            shift: 0,
        }
    }
}

/// An [`Index`] of the upper halves, where nearly all networks already differ, with the lower halves beside it.
#[derive(Clone, Debug, Default)]
struct WideIndex {
    upper: Index<u64>,
    lower: Vec<u64>,
}

impl WideIndex {
    fn new(list: &[u128]) -> Self {
        Self {
            upper: Index::new(list.iter().map(|value| upper_half(*value)).collect()),
            lower: list.iter().map(|value| lower_half(*value)).collect(),
        }
    }

    fn count_up_to(&self, limit: u128) -> usize {
        let (upper, lower) = (upper_half(limit), lower_half(limit));
        let end = self.upper.count_up_to(upper);
        if end == 0 || self.upper.list[end - 1] < upper {
            return end;
        }
        let start = upper
            .checked_sub(1)
            .map_or(0, |before| self.upper.count_up_to(before));
        start + self.lower[start..end].partition_point(|value| *value <= lower)
    }
}

fn upper_half(bits: u128) -> u64 {
    (bits >> 64) as u64
}

fn lower_half(bits: u128) -> u64 {
    bits as u64
}

/// One network: any two are apart, or one lies in the other.
struct Range {
    first: u128,
    last: u128,
    verdict: bool,
}

/// Goes over the networks from the lowest address up, with those that are open on a stack, the most specific on top.
fn turns(mut networks: Vec<Range>, otherwise: bool, highest: u128) -> Vec<u128> {
    // Wider ones first, and of two that are the same the denied one last, on top.
    networks.sort_unstable_by_key(|range| (range.first, u128::MAX - range.last, !range.verdict));
    let mut open: Vec<Range> = Vec::new();
    let mut turns = Turns {
        list: Vec::with_capacity(2 * networks.len()),
        verdict: otherwise,
    };
    let close = |open: &mut Vec<Range>, turns: &mut Turns, before: u128| {
        while open.last().is_some_and(|range| range.last < before) {
            let after = open.pop().map_or(0, |range| range.last + 1);
            turns.set(after, open.last().map_or(otherwise, |range| range.verdict));
        }
    };
    for range in networks {
        close(&mut open, &mut turns, range.first);
        turns.set(range.first, range.verdict);
        open.push(range);
    }
    close(&mut open, &mut turns, highest);
    turns.list.shrink_to_fit();
    turns.list
}

struct Turns {
    list: Vec<u128>,
    verdict: bool,
}

impl Turns {
    fn set(&mut self, address: u128, verdict: bool) {
        if verdict == self.verdict {
            return;
        }
        self.verdict = verdict;
        // Two turns at one address are none.
        if self.list.last() == Some(&address) {
            self.list.pop();
        } else {
            self.list.push(address);
        }
    }
}

fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else {
        return network;
    };
    let Some(address) = v6.network().to_ipv4_mapped() else {
        return network;
    };
    let prefix = v6.prefix_len().checked_sub(96);
    match prefix.and_then(|prefix| Ipv4Net::new(address, prefix).ok()) {
        Some(v4) => IpNet::V4(v4),
        None => network,
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
    fn neighbours_of_one_verdict_become_one_range() {
        let halves = list(
            &[],
            &[
                "192.0.2.0/25",
                "192.0.2.128/25",
                "192.0.3.0/24",
                "192.0.2.64/26",
            ],
        );
        assert_eq!(halves.0.v4.list, [0xc000_0200, 0xc000_0400]);
        let useless = list(&["10.0.0.0/8", "10.1.0.0/16"], &["::/0"]);
        assert_eq!(useless.0.v4.list.len(), 2);
        assert!(useless.0.v6.lower.is_empty());
    }

    #[test]
    fn an_index_counts_as_the_list_does() {
        let lists: [&[u32]; 9] = [
            &[],
            &[0],
            &[7],
            &[u32::MAX],
            &[0, u32::MAX],
            &[0, 1, 2, 3, u32::MAX - 1],
            &[5, 6, 7, 8, 9, 1 << 31, u32::MAX],
            &[1, 3, 5, 7, 9, 11, 13, 15],
            &[100, 200, 300, 1_000, 1_001, 1_002, 1_003, 70_000],
        ];
        for list in lists {
            let index = Index::new(list.to_vec());
            let near = list
                .iter()
                .flat_map(|value| [value.wrapping_sub(1), *value, value.wrapping_add(1)]);
            for limit in near.chain([0, 1 << 30, u32::MAX]) {
                let expected = list.iter().filter(|value| **value <= limit).count();
                assert_eq!(index.count_up_to(limit), expected, "{limit} in {list:?}");
            }
        }
    }

    #[test]
    fn a_wide_index_counts_as_the_list_does() {
        let halves = [0, 1, 2, 1 << 63, u64::MAX - 1, u64::MAX];
        let all: Vec<u128> = halves
            .iter()
            .flat_map(|upper| halves.map(|lower| u128::from(*upper) << 64 | u128::from(lower)))
            .collect();
        for step in 1..8 {
            let list: Vec<u128> = all.iter().copied().step_by(step).collect();
            let index = WideIndex::new(&list);
            for limit in &all {
                let expected = list.iter().filter(|value| *value <= limit).count();
                assert_eq!(
                    index.count_up_to(*limit),
                    expected,
                    "{limit:#x}, every {step}"
                );
            }
        }
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
