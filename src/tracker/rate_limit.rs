//! How often an address may ask: token buckets by address prefix, in memory that no attack can grow.
//!
//! IPv4 is limited by address. IPv6 is limited by /64, which is what one customer surely has, and by the /56 and the /48 around
//! it, which is what he may have: a request must fit into all three.
//!
//! **Memory.** The buckets lie in a table of fixed size, in sets of [`WAYS`] that are one cache line each. A prefix chooses its
//! set and its mark within by a keyed hash, so that nobody can choose prefixes that meet. What nobody has asked for takes no
//! memory yet: a page of sets is made with the first question that falls into it. A newcomer to a full set takes the place
//! of whoever has spent least, which is also whoever was quiet for longest. A full bucket is as good as none, so until a table is
//! too small for those that were loud lately, nothing is lost. A map that grows would be exact, and a way in for whoever has a /32.
//!
//! **What an attacker can gain.** With more loud prefixes than the table has places, each begins anew with its burst whenever it
//! was displaced: he has then as many bursts as if each were new, but the loudest stay limited, and others are served. The
//! other way out, to let a newcomer inherit what the displaced had spent, would refuse the innocent instead. One prefix
//! in 130,000 (2^20 / [`WAYS`]) shares a mark with one in its set and thus a bucket, but which one, nobody can tell.

use std::hash::Hasher as _;
use std::hint::black_box;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use siphasher::sip::SipHasher13;

use super::access::Networks;
use crate::tracker::Time;

/// Buckets of a set: what fits into a cache line.
const WAYS: usize = 8;

/// Sets made at once: 4 KiB.
const PAGE: usize = 64;

/// Ticks of a bucket's clock in a second.
const TICKS: u64 = 4096;

/// How many tokens a prefix gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Tokens that come back in a minute. More than 245,760 count as that.
    pub per_minute: NonZeroU32,
    /// Tokens of a full bucket: how many requests may come at once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// The same for many: `factor` times as often, and as many at once.
    pub fn times(self, factor: NonZeroU32) -> Self {
        Self {
            per_minute: self.per_minute.saturating_mul(factor),
            burst: self.burst.saturating_mul(factor),
        }
    }
}

/// What one kind of request may cost whom.
#[derive(Clone, Debug)]
pub struct Settings {
    pub v4: Rate,
    pub v6_64: Rate,
    pub v6_56: Rate,
    pub v6_48: Rate,
    /// Never limited.
    pub exempt: Networks,
    /// Places in the table, at 8 bytes each; rounded down to whole sets of 8, one at least.
    /// An IPv4 address takes one, an IPv6 address up to three.
    pub places: usize,
}

/// A refused request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimited {
    /// Seconds until the next request may succeed, at least 1.
    pub retry_secs: u32,
}

/// The buckets for one kind of request. Any number of threads may ask at once.
pub struct RateLimiter {
    v4: TokenRate,
    v6: [(u32, TokenRate); 3],
    exempt: Networks,
    seed: (u64, u64),
    sets: usize,
    pages: Box<[OnceLock<Page>]>,
}

type Page = Box<[BucketSet; PAGE]>;

impl RateLimiter {
    /// `seed` keys the hash: drawn at random at the start, told to nobody.
    pub fn new(settings: Settings, seed: [u64; 2]) -> Self {
        let sets = (settings.places / WAYS).max(1);
        Self {
            v4: TokenRate::new(settings.v4),
            // The narrowest first: what it refuses is not charged to its neighbours.
            v6: [
                (64, settings.v6_64),
                (56, settings.v6_56),
                (48, settings.v6_48),
            ]
            .map(|(length, rate)| (length, TokenRate::new(rate))),
            exempt: settings.exempt,
            seed: (seed[0], seed[1]),
            sets,
            pages: (0..sets.div_ceil(PAGE)).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Takes a token for `address`, or says when to come back; who is refused pays nothing.
    pub fn take(&self, now: Time, address: IpAddr) -> Result<(), RateLimited> {
        if self.exempt.contains(address) {
            return Ok(());
        }
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let place = self.place(32, address.to_bits().into());
                self.v4.take(now, self.set(&place), place.mark)
            }
            IpAddr::V6(address) => self.take_v6(now, address.to_bits()),
        }
    }

    /// Where the bucket is that [`RateLimiter::take`] asks first.
    pub(super) fn narrowest(&self, address: IpAddr) -> BucketPosition {
        match address.to_canonical() {
            IpAddr::V4(address) => self.place(32, address.to_bits().into()),
            IpAddr::V6(address) => self.place(64, (address.to_bits() >> 64) as u64),
        }
    }

    /// Has the processor fetch it.
    pub(super) fn touch(&self, place: &BucketPosition) {
        black_box(self.set(place).0[0].load(Relaxed));
    }

    fn take_v6(&self, now: Time, address: u128) -> Result<(), RateLimited> {
        let upper = (address >> 64) as u64;
        let places = self
            .v6
            .each_ref()
            .map(|(length, _)| self.place(*length, upper >> (64 - length)));
        // All three at first, so that the waits for them fall together.
        let firsts = places.each_ref().map(|place| &self.set(place).0[0]);
        black_box(firsts.map(|first| first.load(Relaxed)));
        for (level, (place, (_, bucket))) in places.iter().zip(&self.v6).enumerate() {
            if let Err(exhausted) = bucket.take(now, self.set(place), place.mark) {
                for (place, (_, bucket)) in places.iter().zip(&self.v6).take(level) {
                    bucket.refund(self.set(place), place.mark);
                }
                return Err(exhausted);
            }
        }
        Ok(())
    }

    fn set(&self, place: &BucketPosition) -> &BucketSet {
        let page = self.pages[place.set / PAGE]
            .get_or_init(|| Box::new(std::array::from_fn(|_| BucketSet::default())));
        &page[place.set % PAGE]
    }

    fn place(&self, length: u32, prefix: u64) -> BucketPosition {
        let mut hasher = SipHasher13::new_with_keys(self.seed.0, self.seed.1);
        hasher.write_u64(prefix);
        hasher.write_u32(length);
        let hash = hasher.finish();
        // Scales the upper 32 bits to the number of sets.
        let set = ((hash >> 32) * self.sets as u64) >> 32;
        BucketPosition {
            set: usize::try_from(set).unwrap_or(0),
            mark: BucketMark((hash & BucketMark::MASK) as u32),
        }
    }
}

/// Where a prefix's bucket is.
pub(super) struct BucketPosition {
    set: usize,
    mark: BucketMark,
}

/// 20 bits of the hash.
#[derive(Clone, Copy, PartialEq, Eq)]
struct BucketMark(u32);

impl BucketMark {
    const BITS: u32 = 20;
    const MASK: u64 = (1 << Self::BITS) - 1;
}

/// A bucket as one number, which is all there is to it: until when the tokens taken so far last at the rate at which they come
/// back. In the past, the bucket is full. The lower 20 bits are the mark of whose it is.
#[derive(Clone, Copy, Default)]
struct Slot(u64);

impl Slot {
    const MAX_UNTIL: u64 = u64::MAX >> BucketMark::BITS;

    fn new(mark: BucketMark, until: u64) -> Self {
        Self(until.min(Self::MAX_UNTIL) << BucketMark::BITS | u64::from(mark.0))
    }

    fn is_of(self, mark: BucketMark) -> bool {
        self.0 & BucketMark::MASK == u64::from(mark.0)
    }

    fn until(self) -> u64 {
        self.0 >> BucketMark::BITS
    }
}

/// A cache line of [`Slot`]s. Each is changed by itself: what two threads do at once may at worst give a newcomer a second
/// bucket, which then falls quiet.
#[derive(Default)]
#[repr(align(64))]
struct BucketSet([AtomicU64; WAYS]);

impl BucketSet {
    /// The bucket of whoever has this mark, or the one that a newcomer takes over; and what is in it.
    fn bucket(&self, mark: BucketMark) -> (&AtomicU64, Slot) {
        let slots = self.0.each_ref();
        let slots = slots.map(|atomic| (atomic, Slot(atomic.load(Relaxed))));
        let own = slots.iter().find(|(_, slot)| slot.is_of(mark));
        let quietest = || slots.iter().min_by_key(|(_, slot)| slot.until());
        *own.or_else(quietest).unwrap_or(&slots[0])
    }
}

/// A rate in ticks.
struct TokenRate {
    /// What one token costs.
    token: u64,
    /// What a full bucket holds.
    full: u64,
}

impl TokenRate {
    fn new(rate: Rate) -> Self {
        let token = (60 * TICKS).div_ceil(rate.per_minute.get().into());
        let full = token * u64::from(rate.burst.get());
        let full = full.min(Slot::MAX_UNTIL / 2);
        Self { token, full }
    }

    fn take(&self, now: Time, set: &BucketSet, mark: BucketMark) -> Result<(), RateLimited> {
        let now = u64::from(now.0) * TICKS;
        loop {
            let (bucket, slot) = set.bucket(mark);
            let until = if slot.is_of(mark) { slot.until() } else { 0 };
            // More than an empty bucket cannot be, unless the time was set back.
            let until = until.clamp(now, now + self.full) + self.token;
            let missing = until.saturating_sub(now + self.full);
            if missing > 0 {
                let retry_secs = u32::try_from(missing.div_ceil(TICKS)).unwrap_or(u32::MAX);
                return Err(RateLimited { retry_secs });
            }
            let taken = Slot::new(mark, until).0;
            // Another thread may have been quicker.
            if bucket
                .compare_exchange_weak(slot.0, taken, Relaxed, Relaxed)
                .is_ok()
            {
                return Ok(());
            }
        }
    }

    fn refund(&self, set: &BucketSet, mark: BucketMark) {
        let (bucket, _) = set.bucket(mark);
        let given = |slot| {
            let until = Slot(slot).until().saturating_sub(self.token);
            Slot(slot).is_of(mark).then(|| Slot::new(mark, until).0)
        };
        // Where another has displaced it meanwhile, there is nobody to give to.
        let _ = bucket.fetch_update(Relaxed, Relaxed, given);
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
            places: 7_000,
        }
    }

    fn budget(per_minute: u32, burst: u32) -> RateLimiter {
        RateLimiter::new(settings(rate(per_minute, burst)), SEED)
    }

    /// How many of `count` requests at once are admitted.
    fn admitted(budget: &RateLimiter, now: u32, address: &str, count: u32) -> u32 {
        let address = address.parse().unwrap();
        (0..count)
            .map(|_| u32::from(budget.take(Time(now), address).is_ok()))
            .sum()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let budget = budget(6, 3);
        for address in ["192.0.2.1", "2001:db8::1"] {
            assert_eq!(admitted(&budget, 1_000, address, 10), 3);
            assert_eq!(admitted(&budget, 1_009, address, 10), 0);
            assert_eq!(admitted(&budget, 1_010, address, 10), 1);
            assert_eq!(admitted(&budget, 1_030, address, 10), 2);
            assert_eq!(admitted(&budget, 1_060, address, 10), 3);
            assert_eq!(admitted(&budget, 9_000, address, 10), 3);
        }
        assert_eq!(admitted(&budget, 9_000, "192.0.2.2", 1), 1);
    }

    #[test]
    fn a_minute_of_steady_asking_gets_the_rate() {
        for per_minute in [1, 7, 30, 60, 61, 600] {
            let budget = budget(per_minute, 2);
            let seconds = 600;
            let total: u32 = (0..seconds)
                .map(|now| admitted(&budget, now, "192.0.2.1", 1))
                .sum();
            let expected = per_minute.min(60) * seconds / 60;
            assert!(
                total.abs_diff(expected) <= 2 + expected / 500,
                "{per_minute} a minute: {total}"
            );
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let budget = budget(2, 1);
        let address = "192.0.2.1".parse().unwrap();
        assert_eq!(budget.take(Time(100), address), Ok(()));
        assert_eq!(
            budget.take(Time(100), address),
            Err(RateLimited { retry_secs: 30 })
        );
        assert_eq!(
            budget.take(Time(129), address),
            Err(RateLimited { retry_secs: 1 })
        );
        assert_eq!(budget.take(Time(130), address), Ok(()));
    }

    #[test]
    fn time_may_stand_still_and_jump() {
        let budget = budget(60, 2);
        assert_eq!(admitted(&budget, 0, "192.0.2.1", 1_000), 2);
        assert_eq!(admitted(&budget, u32::MAX / 2, "192.0.2.1", 1_000), 2);
        assert_eq!(admitted(&budget, u32::MAX / 2, "192.0.2.1", 1_000), 0);
        // BucketSet back: what was spent later is not owed for years.
        assert_eq!(admitted(&budget, 100, "192.0.2.1", 1_000), 0);
        assert_eq!(admitted(&budget, 101, "192.0.2.1", 1_000), 0);
        let address = "192.0.2.1".parse().unwrap();
        assert_eq!(
            budget.take(Time(5), address),
            Err(RateLimited { retry_secs: 1 })
        );
    }

    #[test]
    fn extreme_rates_hold() {
        let most = rate(u32::MAX, u32::MAX);
        let budget = RateLimiter::new(settings(most.times(NonZeroU32::MAX)), SEED);
        assert_eq!(admitted(&budget, u32::MAX / 2, "192.0.2.1", 1_000), 1_000);
        let budget = RateLimiter::new(settings(rate(1, u32::MAX)), SEED);
        assert_eq!(admitted(&budget, u32::MAX / 2, "2001:db8::1", 1_000), 1_000);
        let none = Settings {
            places: 0,
            ..settings(rate(1, 2))
        };
        assert_eq!(
            admitted(&RateLimiter::new(none, SEED), 0, "192.0.2.1", 10),
            2
        );
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_self() {
        let budget = budget(1, 2);
        assert_eq!(admitted(&budget, 0, "192.0.2.1", 1), 1);
        assert_eq!(admitted(&budget, 0, "::ffff:192.0.2.1", 2), 1);
        assert_eq!(admitted(&budget, 0, "::ffff:192.0.2.2", 3), 2);
    }

    #[test]
    fn the_exempt_are_never_limited() {
        let exempt = Networks::new(vec![
            "192.0.2.0/24".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ]);
        let budget = RateLimiter::new(
            Settings {
                exempt,
                ..settings(rate(1, 1))
            },
            SEED,
        );
        for address in ["192.0.2.255", "::ffff:192.0.2.0", "2001:db8:ffff::1"] {
            assert_eq!(admitted(&budget, 0, address, 100), 100);
        }
        for address in ["192.0.3.0", "2001:db9::1"] {
            assert_eq!(admitted(&budget, 0, address, 100), 1);
        }
    }

    #[test]
    fn wider_ipv6_prefixes_bound_as_well() {
        let settings = Settings {
            v6_64: rate(1, 3),
            v6_56: rate(1, 5),
            v6_48: rate(1, 8),
            ..settings(rate(1, 1))
        };
        let budget = RateLimiter::new(settings, SEED);
        // One /64, whatever the lower half.
        assert_eq!(admitted(&budget, 0, "2001:db8::1", 10), 3);
        assert_eq!(admitted(&budget, 0, "2001:db8::ffff:ffff:ffff:ffff", 10), 0);
        // Another /64 of the same /56, which has 2 left.
        assert_eq!(admitted(&budget, 0, "2001:db8:0:ff::1", 10), 2);
        // Another /56 of the same /48, which has 3 left.
        assert_eq!(admitted(&budget, 0, "2001:db8:0:100::1", 10), 3);
        assert_eq!(admitted(&budget, 0, "2001:db8:0:ffff::1", 10), 0);
        assert_eq!(admitted(&budget, 0, "2001:db8:1::1", 10), 3);
    }

    #[test]
    fn a_refusal_by_a_wider_prefix_costs_the_narrower_nothing() {
        let settings = Settings {
            v6_64: rate(1, 2),
            v6_56: rate(60, 2),
            v6_48: rate(60, 2),
            ..settings(rate(1, 1))
        };
        let budget = RateLimiter::new(settings, SEED);
        assert_eq!(admitted(&budget, 0, "2001:db8::1", 2), 2);
        assert_eq!(admitted(&budget, 0, "2001:db8:0:1::1", 50), 0);
        // The /56 has its tokens back, and the refused /64 still has both of its own.
        assert_eq!(admitted(&budget, 2, "2001:db8:0:1::1", 50), 2);
        // Nor does a refusal by the /64 cost the /56.
        assert_eq!(admitted(&budget, 4, "2001:db8::1", 50), 0);
        assert_eq!(admitted(&budget, 4, "2001:db8:0:2::1", 50), 2);
    }

    /// How many sets there are by now.
    fn made(budget: &RateLimiter) -> usize {
        let pages = budget.pages.iter().filter_map(OnceLock::get);
        pages.map(|page| page.len()).sum()
    }

    #[test]
    fn memory_comes_with_the_first_question() {
        let budget = budget(1, 2);
        assert_eq!(made(&budget), 0);
        assert_eq!(admitted(&budget, 0, "192.0.2.1", 3), 2);
        assert_eq!(made(&budget), PAGE);
    }

    #[test]
    fn a_million_prefixes_change_neither_size_nor_who_is_limited() {
        let many = Settings {
            places: 70_000,
            ..settings(rate(6, 10))
        };
        let budget = RateLimiter::new(many, SEED);
        let loud: Vec<IpAddr> = (0..1_000u32)
            .map(|host| Ipv4Addr::from_bits(10 << 24 | host).into())
            .collect();
        let mut served = 0;
        let mut innocent = 0;
        for number in 0..1_000_000u32 {
            // A hundred seconds of 10,000 new prefixes each, and 1,000 that ask without end.
            let now = Time(number / 10_000);
            let one = if number % 2 == 0 {
                Ipv4Addr::from_bits(0xc000_0000 | number).into()
            } else {
                Ipv6Addr::from_bits(0x2001 << 112 | u128::from(number) << 80).into()
            };
            innocent += u32::from(budget.take(now, one).is_ok());
            let loud = loud[number as usize % loud.len()];
            served += u32::from(budget.take(now, loud).is_ok());
        }
        // Bursts of 10, then 9 more in 99 seconds; asked for was a million.
        assert!((19_000..19_100).contains(&served), "{served}");
        assert!(innocent > 999_900, "{innocent}");
        assert_eq!(made(&budget), (70_000 / WAYS).div_ceil(PAGE) * PAGE);
    }

    #[test]
    fn another_seed_is_another_table() {
        let (one, other) = (budget(1, 1), RateLimiter::new(settings(rate(1, 1)), [3, 4]));
        let differ = (0..100u64)
            .filter(|prefix| one.place(32, *prefix).set != other.place(32, *prefix).set)
            .count();
        assert!(differ > 90);
        assert!(one.place(64, 7).mark != one.place(56, 7).mark);
    }

    #[test]
    fn threads_share_a_bucket() {
        let budget = budget(1, 1_000);
        let total: u32 = std::thread::scope(|scope| {
            let ask = || admitted(&budget, 0, "192.0.2.1", 2_000);
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(total, 1_000);
    }
}
