//! Rate limits: token buckets by address prefix, in memory that no attack can grow.
//!
//! IPv4 is limited by address. IPv6 is limited by /64, the smallest prefix that a customer has, and by the enclosing
//! /56 and /48, which a customer may have. A request must fit into all three buckets.
//!
//! **Memory.** The buckets are in a table of fixed size, in sets of [`WAYS`] that fill a cache line each. A keyed hash of
//! the prefix chooses its set and its tag within the set, so that nobody can choose prefixes that collide. A page of
//! sets is allocated when the first request falls into it. A new prefix in a full set replaces the bucket that is full
//! again first: its prefix has taken the fewest tokens and has been idle for longest. A full bucket carries no
//! information, so nothing is lost unless the table is too small for the prefixes that were active recently. A growing
//! map would be exact, but anybody with an IPv6 /32 could fill memory.
//!
//! **The gain of an attacker.** With more active prefixes than the table has buckets, each prefix starts with a new burst
//! whenever its bucket was replaced. The attacker then has as many bursts as if every request came from a new prefix, but
//! the most active prefixes stay limited, and others are served. The alternative, to give a new prefix the state of the
//! bucket that it replaces, would refuse clients for requests of others. A prefix shares its tag, and thus its bucket, with
//! another in its set with a probability of 1 in 130,000 (2^20 / [`WAYS`]), and nobody can predict with which.

use std::hash::Hasher as _;
use std::hint::black_box;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use siphasher::sip::SipHasher13;

use super::access::Networks;
use super::types::Time;

/// Buckets per set: as many as fit into a cache line.
const WAYS: usize = 8;

/// Sets per page, which are allocated together: 4 KiB.
const SETS_PER_PAGE: usize = 64;

const TICKS_PER_SEC: u64 = 4096;

/// The number of tokens that a prefix gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Tokens that a bucket regains per minute. Values above 245,760 count as 245,760.
    pub per_minute: NonZeroU32,
    /// Tokens in a full bucket: the number of requests that may arrive at once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// Multiplies the rate and the burst, for a prefix that many clients share.
    pub fn times(self, factor: NonZeroU32) -> Self {
        Self {
            per_minute: self.per_minute.saturating_mul(factor),
            burst: self.burst.saturating_mul(factor),
        }
    }
}

/// The limits for a kind of request.
#[derive(Clone, Debug)]
pub struct Settings {
    pub v4: Rate,
    pub v6_64: Rate,
    pub v6_56: Rate,
    pub v6_48: Rate,
    /// Networks that are never limited.
    pub exempt: Networks,
    /// Buckets in the table, of 8 bytes each; rounded down to whole sets of 8, but at least one set.
    /// An IPv4 address takes one bucket, an IPv6 address up to three.
    pub table_entries: usize,
}

/// The error for a refused request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimited {
    /// Seconds until the next request may succeed, at least 1.
    pub retry_secs: u32,
}

/// The buckets for a kind of request. Threads share it without a lock.
pub struct RateLimiter {
    v4: TokenRate,
    /// Prefix lengths and their rates, the longest prefix first.
    v6: [(u32, TokenRate); 3],
    exempt: Networks,
    seed: (u64, u64),
    sets: usize,
    pages: Box<[OnceLock<BucketPage>]>,
}

type BucketPage = Box<[BucketSet; SETS_PER_PAGE]>;

impl RateLimiter {
    /// `seed` keys the hash. It must be random and secret, or an attacker could choose prefixes that collide.
    pub fn new(settings: Settings, seed: [u64; 2]) -> Self {
        let sets = (settings.table_entries / WAYS).max(1);
        Self {
            v4: TokenRate::new(settings.v4),
            // The narrowest prefix comes first, so that its refusals are not charged to its neighbors.
            v6: [
                (64, settings.v6_64),
                (56, settings.v6_56),
                (48, settings.v6_48),
            ]
            .map(|(length, rate)| (length, TokenRate::new(rate))),
            exempt: settings.exempt,
            seed: (seed[0], seed[1]),
            sets,
            pages: (0..sets.div_ceil(SETS_PER_PAGE))
                .map(|_| OnceLock::new())
                .collect(),
        }
    }

    /// Takes a token for `address`.
    ///
    /// # Errors
    /// Returns when to retry, and takes no token, if a bucket is empty.
    pub fn take(&self, now: Time, address: IpAddr) -> Result<(), RateLimited> {
        if self.exempt.contains(address) {
            return Ok(());
        }
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let position = self.position(32, address.to_bits().into());
                self.v4.take(now, self.set(&position), position.tag)
            }
            IpAddr::V6(address) => self.take_v6(now, address.to_bits()),
        }
    }

    /// Returns the position of the bucket that [`RateLimiter::take`] reads first.
    pub(super) fn narrowest(&self, address: IpAddr) -> BucketPosition {
        match address.to_canonical() {
            IpAddr::V4(address) => self.position(32, address.to_bits().into()),
            IpAddr::V6(address) => self.position(64, (address.to_bits() >> 64) as u64),
        }
    }

    /// Loads the bucket into the processor's cache.
    pub(super) fn touch(&self, position: &BucketPosition) {
        black_box(self.set(position).0[0].load(Relaxed));
    }

    fn take_v6(&self, now: Time, address: u128) -> Result<(), RateLimited> {
        let upper = (address >> 64) as u64;
        let positions = self
            .v6
            .each_ref()
            .map(|(length, _)| self.position(*length, upper >> (64 - length)));
        // Loads all three sets first, so that the processor waits for them at the same time.
        let firsts = positions
            .each_ref()
            .map(|position| &self.set(position).0[0]);
        black_box(firsts.map(|first| first.load(Relaxed)));
        for (level, (position, (_, rate))) in positions.iter().zip(&self.v6).enumerate() {
            if let Err(limited) = rate.take(now, self.set(position), position.tag) {
                for (position, (_, rate)) in positions.iter().zip(&self.v6).take(level) {
                    rate.refund(self.set(position), position.tag);
                }
                return Err(limited);
            }
        }
        Ok(())
    }

    fn set(&self, position: &BucketPosition) -> &BucketSet {
        let page = self.pages[position.set / SETS_PER_PAGE]
            .get_or_init(|| Box::new(std::array::from_fn(|_| BucketSet::default())));
        &page[position.set % SETS_PER_PAGE]
    }

    fn position(&self, length: u32, prefix: u64) -> BucketPosition {
        let mut hasher = SipHasher13::new_with_keys(self.seed.0, self.seed.1);
        hasher.write_u64(prefix);
        hasher.write_u32(length);
        let hash = hasher.finish();
        // Scales the upper 32 bits to the number of sets.
        let set = ((hash >> 32) * self.sets as u64) >> 32;
        BucketPosition {
            set: usize::try_from(set).unwrap_or(0),
            tag: PrefixTag((hash & PrefixTag::MASK) as u32),
        }
    }
}

/// The position of a prefix's bucket in the table.
pub(super) struct BucketPosition {
    set: usize,
    tag: PrefixTag,
}

/// Identifies a prefix within its set: 20 bits of its hash.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PrefixTag(u32);

impl PrefixTag {
    const BITS: u32 = 20;
    const MASK: u64 = (1 << Self::BITS) - 1;
}

/// A bucket packed in one word: the time at which it will be full again (a time in the past means full) and, in the low 20
/// bits, the prefix tag.
#[derive(Clone, Copy, Default)]
struct PackedBucket(u64);

impl PackedBucket {
    const MAX_FULL_AT: u64 = u64::MAX >> PrefixTag::BITS;

    fn new(tag: PrefixTag, full_at: u64) -> Self {
        Self(full_at.min(Self::MAX_FULL_AT) << PrefixTag::BITS | u64::from(tag.0))
    }

    fn has_tag(self, tag: PrefixTag) -> bool {
        self.0 & PrefixTag::MASK == u64::from(tag.0)
    }

    /// Returns the time at which the bucket is full, in ticks.
    fn full_at(self) -> u64 {
        self.0 >> PrefixTag::BITS
    }
}

/// A cache line of [`PackedBucket`]s. Each is changed on its own. At worst, two threads at once give a new prefix two
/// buckets, of which the second is then unused.
#[derive(Default)]
#[repr(align(64))]
struct BucketSet([AtomicU64; WAYS]);

impl BucketSet {
    /// Returns the bucket with this tag, or else the bucket that a new prefix replaces, and its value.
    fn bucket(&self, tag: PrefixTag) -> (&AtomicU64, PackedBucket) {
        let buckets = self.0.each_ref();
        let buckets = buckets.map(|word| (word, PackedBucket(word.load(Relaxed))));
        let own = buckets.iter().find(|(_, bucket)| bucket.has_tag(tag));
        let idlest = || buckets.iter().min_by_key(|(_, bucket)| bucket.full_at());
        *own.or_else(idlest).unwrap_or(&buckets[0])
    }
}

/// A [`Rate`] in ticks.
struct TokenRate {
    /// The time in which a bucket regains one token.
    per_token: u64,
    /// The time in which an empty bucket becomes full.
    per_burst: u64,
}

impl TokenRate {
    fn new(rate: Rate) -> Self {
        let per_token = (60 * TICKS_PER_SEC).div_ceil(rate.per_minute.get().into());
        let per_burst = per_token * u64::from(rate.burst.get());
        let per_burst = per_burst.min(PackedBucket::MAX_FULL_AT / 2);
        Self {
            per_token,
            per_burst,
        }
    }

    fn take(&self, now: Time, set: &BucketSet, tag: PrefixTag) -> Result<(), RateLimited> {
        let now = u64::from(now.0) * TICKS_PER_SEC;
        loop {
            let (word, bucket) = set.bucket(tag);
            let full_at = if bucket.has_tag(tag) {
                bucket.full_at()
            } else {
                0
            };
            // A bucket cannot be emptier than empty, except after the clock was set back.
            let full_at = full_at.clamp(now, now + self.per_burst) + self.per_token;
            let missing = full_at.saturating_sub(now + self.per_burst);
            if missing > 0 {
                let retry_secs = u32::try_from(missing.div_ceil(TICKS_PER_SEC)).unwrap_or(u32::MAX);
                return Err(RateLimited { retry_secs });
            }
            let taken = PackedBucket::new(tag, full_at).0;
            // Fails if another thread changed the bucket in the meantime.
            if word
                .compare_exchange_weak(bucket.0, taken, Relaxed, Relaxed)
                .is_ok()
            {
                return Ok(());
            }
        }
    }

    /// Returns a token that was just taken.
    fn refund(&self, set: &BucketSet, tag: PrefixTag) {
        let (word, _) = set.bucket(tag);
        let refunded = |word| {
            let bucket = PackedBucket(word);
            let full_at = bucket.full_at().saturating_sub(self.per_token);
            bucket
                .has_tag(tag)
                .then(|| PackedBucket::new(tag, full_at).0)
        };
        // If the bucket was replaced in the meantime, there is nothing to refund.
        let _ = word.fetch_update(Relaxed, Relaxed, refunded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const SEED: [u64; 2] = [1, 2];

    fn rate(per_minute: u32, burst: u32) -> Rate {
        let (per_minute, burst) = (
            NonZeroU32::new(per_minute).unwrap(),
            NonZeroU32::new(burst).unwrap(),
        );
        Rate { per_minute, burst }
    }

    fn settings(rate: Rate) -> Settings {
        let many = NonZeroU32::new(1_000).unwrap();
        Settings {
            v4: rate,
            v6_64: rate,
            v6_56: rate.times(many),
            v6_48: rate.times(many),
            exempt: Networks::default(),
            table_entries: 7_000,
        }
    }

    fn limiter(per_minute: u32, burst: u32) -> RateLimiter {
        RateLimiter::new(settings(rate(per_minute, burst)), SEED)
    }

    /// Returns how many of `count` requests at once are admitted.
    fn admitted(limiter: &RateLimiter, now: u32, address: &str, count: u32) -> u32 {
        let address = address.parse().unwrap();
        (0..count)
            .map(|_| u32::from(limiter.take(Time(now), address).is_ok()))
            .sum()
    }

    #[test]
    fn allows_burst_then_rate() {
        let limiter = limiter(6, 3);
        for address in ["192.0.2.1", "2001:db8::1"] {
            assert_eq!(admitted(&limiter, 1_000, address, 10), 3);
            assert_eq!(admitted(&limiter, 1_009, address, 10), 0);
            assert_eq!(admitted(&limiter, 1_010, address, 10), 1);
            assert_eq!(admitted(&limiter, 1_030, address, 10), 2);
            assert_eq!(admitted(&limiter, 1_060, address, 10), 3);
            assert_eq!(admitted(&limiter, 9_000, address, 10), 3);
        }
        assert_eq!(admitted(&limiter, 9_000, "192.0.2.2", 1), 1);
    }

    #[test]
    fn steady_requests_get_the_rate() {
        for per_minute in [1, 7, 30, 60, 61, 600] {
            let limiter = limiter(per_minute, 2);
            let seconds = 600;
            let total: u32 = (0..seconds)
                .map(|now| admitted(&limiter, now, "192.0.2.1", 1))
                .sum();
            let expected = per_minute.min(60) * seconds / 60;
            assert!(
                total.abs_diff(expected) <= 2 + expected / 500,
                "{per_minute} per minute: {total}"
            );
        }
    }

    #[test]
    fn refusal_states_retry_time() {
        let limiter = limiter(2, 1);
        let address = "192.0.2.1".parse().unwrap();
        assert_eq!(limiter.take(Time(100), address), Ok(()));
        assert_eq!(
            limiter.take(Time(100), address),
            Err(RateLimited { retry_secs: 30 })
        );
        assert_eq!(
            limiter.take(Time(129), address),
            Err(RateLimited { retry_secs: 1 })
        );
        assert_eq!(limiter.take(Time(130), address), Ok(()));
    }

    #[test]
    fn clock_may_stand_still_and_jump() {
        let limiter = limiter(60, 2);
        assert_eq!(admitted(&limiter, 0, "192.0.2.1", 1_000), 2);
        assert_eq!(admitted(&limiter, u32::MAX / 2, "192.0.2.1", 1_000), 2);
        assert_eq!(admitted(&limiter, u32::MAX / 2, "192.0.2.1", 1_000), 0);
        // The clock was set back: tokens that were taken later do not block the prefix for years.
        assert_eq!(admitted(&limiter, 100, "192.0.2.1", 1_000), 0);
        assert_eq!(admitted(&limiter, 101, "192.0.2.1", 1_000), 0);
        let address = "192.0.2.1".parse().unwrap();
        assert_eq!(
            limiter.take(Time(5), address),
            Err(RateLimited { retry_secs: 1 })
        );
    }

    #[test]
    fn accepts_extreme_rates() {
        let max = rate(u32::MAX, u32::MAX);
        let limiter = RateLimiter::new(settings(max.times(NonZeroU32::MAX)), SEED);
        assert_eq!(admitted(&limiter, u32::MAX / 2, "192.0.2.1", 1_000), 1_000);
        let limiter = RateLimiter::new(settings(rate(1, u32::MAX)), SEED);
        assert_eq!(
            admitted(&limiter, u32::MAX / 2, "2001:db8::1", 1_000),
            1_000
        );
        let none = Settings {
            table_entries: 0,
            ..settings(rate(1, 2))
        };
        assert_eq!(
            admitted(&RateLimiter::new(none, SEED), 0, "192.0.2.1", 10),
            2
        );
    }

    #[test]
    fn mapped_address_counts_as_ipv4() {
        let limiter = limiter(1, 2);
        assert_eq!(admitted(&limiter, 0, "192.0.2.1", 1), 1);
        assert_eq!(admitted(&limiter, 0, "::ffff:192.0.2.1", 2), 1);
        assert_eq!(admitted(&limiter, 0, "::ffff:192.0.2.2", 3), 2);
    }

    #[test]
    fn exempt_networks_are_never_limited() {
        let exempt = Networks::new(vec![
            "192.0.2.0/24".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ]);
        let limiter = RateLimiter::new(
            Settings {
                exempt,
                ..settings(rate(1, 1))
            },
            SEED,
        );
        for address in ["192.0.2.255", "::ffff:192.0.2.0", "2001:db8:ffff::1"] {
            assert_eq!(admitted(&limiter, 0, address, 100), 100);
        }
        for address in ["192.0.3.0", "2001:db9::1"] {
            assert_eq!(admitted(&limiter, 0, address, 100), 1);
        }
    }

    #[test]
    fn wider_ipv6_prefixes_are_limited() {
        let settings = Settings {
            v6_64: rate(1, 3),
            v6_56: rate(1, 5),
            v6_48: rate(1, 8),
            ..settings(rate(1, 1))
        };
        let limiter = RateLimiter::new(settings, SEED);
        // The same /64 with different lower halves.
        assert_eq!(admitted(&limiter, 0, "2001:db8::1", 10), 3);
        assert_eq!(
            admitted(&limiter, 0, "2001:db8::ffff:ffff:ffff:ffff", 10),
            0
        );
        // Another /64 of the same /56, which has 2 left.
        assert_eq!(admitted(&limiter, 0, "2001:db8:0:ff::1", 10), 2);
        // Another /56 of the same /48, which has 3 left.
        assert_eq!(admitted(&limiter, 0, "2001:db8:0:100::1", 10), 3);
        assert_eq!(admitted(&limiter, 0, "2001:db8:0:ffff::1", 10), 0);
        assert_eq!(admitted(&limiter, 0, "2001:db8:1::1", 10), 3);
    }

    #[test]
    fn refusal_by_wider_prefix_refunds_narrower() {
        let settings = Settings {
            v6_64: rate(1, 2),
            v6_56: rate(60, 2),
            v6_48: rate(60, 2),
            ..settings(rate(1, 1))
        };
        let limiter = RateLimiter::new(settings, SEED);
        assert_eq!(admitted(&limiter, 0, "2001:db8::1", 2), 2);
        assert_eq!(admitted(&limiter, 0, "2001:db8:0:1::1", 50), 0);
        // The /56 has regained its tokens, and the refused /64 still has both of its own.
        assert_eq!(admitted(&limiter, 2, "2001:db8:0:1::1", 50), 2);
        // A refusal by the /64 takes no token of the /56.
        assert_eq!(admitted(&limiter, 4, "2001:db8::1", 50), 0);
        assert_eq!(admitted(&limiter, 4, "2001:db8:0:2::1", 50), 2);
    }

    /// Returns the number of allocated sets.
    fn allocated_sets(limiter: &RateLimiter) -> usize {
        let pages = limiter.pages.iter().filter_map(OnceLock::get);
        pages.map(|page| page.len()).sum()
    }

    #[test]
    fn memory_is_allocated_on_first_use() {
        let limiter = limiter(1, 2);
        assert_eq!(allocated_sets(&limiter), 0);
        assert_eq!(admitted(&limiter, 0, "192.0.2.1", 3), 2);
        assert_eq!(allocated_sets(&limiter), SETS_PER_PAGE);
    }

    #[test]
    fn million_prefixes_change_neither_size_nor_limits() {
        let many = Settings {
            table_entries: 70_000,
            ..settings(rate(6, 10))
        };
        let limiter = RateLimiter::new(many, SEED);
        let active: Vec<IpAddr> = (0..1_000u32)
            .map(|host| Ipv4Addr::from_bits(10 << 24 | host).into())
            .collect();
        let mut admitted_active = 0;
        let mut admitted_new = 0;
        for number in 0..1_000_000u32 {
            // For 100 seconds, 10,000 new prefixes per second, and 1,000 prefixes that each send 10 requests per second.
            let now = Time(number / 10_000);
            let new = if number % 2 == 0 {
                Ipv4Addr::from_bits(0xc000_0000 | number).into()
            } else {
                Ipv6Addr::from_bits(0x2001 << 112 | u128::from(number) << 80).into()
            };
            admitted_new += u32::from(limiter.take(now, new).is_ok());
            let active = active[number as usize % active.len()];
            admitted_active += u32::from(limiter.take(now, active).is_ok());
        }
        // Each active prefix gets its burst of 10, then 9 more in 99 seconds, of 1,000 requests.
        assert!(
            (19_000..19_100).contains(&admitted_active),
            "{admitted_active}"
        );
        assert!(admitted_new > 999_900, "{admitted_new}");
        assert_eq!(
            allocated_sets(&limiter),
            (70_000 / WAYS).div_ceil(SETS_PER_PAGE) * SETS_PER_PAGE
        );
    }

    #[test]
    fn positions_depend_on_seed() {
        let (first, second) = (
            limiter(1, 1),
            RateLimiter::new(settings(rate(1, 1)), [3, 4]),
        );
        let differ = (0..100u64)
            .filter(|prefix| first.position(32, *prefix).set != second.position(32, *prefix).set)
            .count();
        assert!(differ > 90);
        assert!(first.position(64, 7).tag != first.position(56, 7).tag);
    }

    #[test]
    fn threads_share_a_bucket() {
        let limiter = limiter(1, 1_000);
        let total: u32 = std::thread::scope(|scope| {
            let request = || admitted(&limiter, 0, "192.0.2.1", 2_000);
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(request)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(total, 1_000);
    }
}
