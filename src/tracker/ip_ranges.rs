//! Networks of both families, compiled into sorted ranges of addresses.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// The addresses at which the verdict turns, in order. It starts as `at_zero`, so an odd number of turns up to an address
/// means its opposite; ranges need no more than that.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    at_zero: bool,
    v4: Index<u32>,
    v6: WideIndex,
}

impl Ranges {
    pub(super) fn new(networks: impl Iterator<Item = (IpNet, bool)>, otherwise: bool) -> Self {
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

    pub(super) fn verdict(&self, address: IpAddr) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_verdict_become_one_range() {
        let ranges = |allow: &[&str], deny: &[&str]| {
            let allow = allow.iter().map(|network| (network.parse().unwrap(), true));
            let deny = deny.iter().map(|network| (network.parse().unwrap(), false));
            Ranges::new(allow.clone().chain(deny), allow.len() == 0)
        };
        let halves = ranges(
            &[],
            &[
                "192.0.2.0/25",
                "192.0.2.128/25",
                "192.0.3.0/24",
                "192.0.2.64/26",
            ],
        );
        assert_eq!(halves.v4.list, [0xc000_0200, 0xc000_0400]);
        let useless = ranges(&["10.0.0.0/8", "10.1.0.0/16"], &["::/0"]);
        assert_eq!(useless.v4.list.len(), 2);
        assert!(useless.v6.lower.is_empty());
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
}
