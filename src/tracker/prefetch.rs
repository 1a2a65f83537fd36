//! Reads the memory that a batch of requests will need, so that their waits for memory overlap.
//!
//! Finding a torrent and a peer in it takes half a dozen reads, each of which depends on the previous. The processor
//! can wait for several requests at once, but only for reads that are close together in the program, with no lock taken
//! or released between them. So each step is done for all requests before the next step, with all their shards locked.
//! A prefetch changes nothing and returns nothing, so no request depends on it.

use std::array;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::MutexGuard;

use super::rate_limit::RateLimiter;
use super::settings::Settings;
use super::shard::{Shard, TrackedTorrent};
use super::swarm::peer_set::IndexKey;
use super::types::{Announce, InfoHash};
use super::{Tracker, shard_number};

/// The number of requests in a step: about as many as the processor can wait for at once.
const REQUESTS_PER_STEP: usize = 16;

/// The lookup that a request will make.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    Announce(Announce),
    /// A torrent of a scrape. The first torrent of each scrape has the client's address with it.
    Scrape(InfoHash, Option<IpAddr>),
}

impl Lookup {
    fn info_hash(&self) -> &InfoHash {
        match self {
            Self::Announce(announce) => &announce.info_hash,
            Self::Scrape(info_hash, _) => info_hash,
        }
    }
}

impl Tracker {
    /// Makes the processor fetch the memory that these requests will read.
    pub fn prefetch(&self, batch: &[Lookup]) {
        let settings = self.settings();
        for lookups in batch.chunks(REQUESTS_PER_STEP) {
            prefetch_rate_limits(&settings, lookups);
            self.prefetch_torrents(lookups);
        }
    }

    fn prefetch_torrents(&self, lookups: &[Lookup]) {
        let hashes: [u64; REQUESTS_PER_STEP] = array::from_fn(|nth| {
            let lookup = lookups.get(nth);
            lookup.map_or(0, |lookup| self.hash(lookup.info_hash()))
        });
        let index_keys: [Option<IndexKey>; REQUESTS_PER_STEP] =
            array::from_fn(|nth| match lookups.get(nth)? {
                Lookup::Announce(announce) => {
                    Some(IndexKey::new(announce.address, announce.port, self.key))
                }
                Lookup::Scrape(..) => None,
            });
        let shards = hashes.map(shard_number);
        let firsts: [usize; REQUESTS_PER_STEP] = array::from_fn(|nth| {
            let same = shards[..nth].iter().position(|shard| *shard == shards[nth]);
            same.unwrap_or(nth)
        });
        // A shard that another worker has locked is skipped: to wait for it while holding others could be a deadlock.
        let locked: [Option<MutexGuard<'_, Shard>>; REQUESTS_PER_STEP] = array::from_fn(|nth| {
            let wanted = nth < lookups.len() && firsts[nth] == nth;
            wanted.then(|| self.shards[shards[nth]].try_lock().ok())?
        });
        let shard_of = |nth: usize| locked[firsts[nth]].as_deref();

        let found: [Option<&TrackedTorrent>; REQUESTS_PER_STEP] = array::from_fn(|nth| {
            let shard = shard_of(nth)?;
            let at = shard.find(lookups.get(nth)?.info_hash(), hashes[nth])?;
            shard.torrents.get(at)
        });
        for torrent in found {
            black_box(torrent.map(|torrent| torrent.swarm.index_len()));
        }
        for (key, torrent) in index_keys.iter().zip(found) {
            if let (Some(key), Some(torrent)) = (key, torrent) {
                black_box(torrent.swarm.touch(key));
            }
        }
    }
}

fn prefetch_rate_limits(settings: &Settings, lookups: &[Lookup]) {
    let positions: [Option<(&RateLimiter, _)>; REQUESTS_PER_STEP] = array::from_fn(|nth| {
        let (policy, address) = match lookups.get(nth)? {
            Lookup::Announce(announce) => (&settings.announces, announce.address),
            Lookup::Scrape(_, from) => (&settings.scrapes, (*from)?),
        };
        let rate_limiter = policy.rate_limiter.as_deref()?;
        Some((rate_limiter, rate_limiter.narrowest(address)))
    });
    for (rate_limiter, position) in positions.iter().flatten() {
        rate_limiter.touch(position);
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroU32};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::tracker::access::Networks;
    use crate::tracker::rate_limit::{self, Rate};
    use crate::tracker::rng::Rng;
    use crate::tracker::types::{Admission, Event, PeerId, Time};

    /// Returns an announce over IPv4 or IPv6. Its torrent is number 0, which has many peers, or 1 to 9.
    fn announce(random: &mut Rng) -> Announce {
        let torrent = random.below(20).saturating_sub(10) as u8;
        let host = random.below(1000);
        let v4 = IpAddr::from(host.to_be_bytes());
        let v6 = IpAddr::from((0x2001_0db8_u128 << 96 | u128::from(host) << 64).to_be_bytes());
        Announce {
            info_hash: InfoHash([torrent; 20]),
            peer_id: PeerId([host as u8; 20]),
            key: None,
            address: if random.below(2) == 0 { v4 } else { v6 },
            port: NonZeroU16::MIN,
            event: match random.below(8) {
                0 => Event::Stopped,
                _ => Event::None,
            },
            complete: random.below(2) == 0,
            numwant: None,
        }
    }

    /// Returns a rate limiter that admits five announces from each address.
    fn rate_limiter() -> RateLimiter {
        let per_minute = NonZeroU32::MIN;
        let rate = Rate {
            per_minute,
            burst: per_minute.saturating_add(4),
        };
        let many = per_minute.saturating_add(1000);
        let settings = rate_limit::Settings {
            v4: rate,
            v6_64: rate,
            v6_56: rate.times(many),
            v6_48: rate.times(many),
            exempt: Networks::default(),
            table_entries: 10_000,
        };
        RateLimiter::new(settings, [3, 4])
    }

    #[test]
    fn skips_shard_that_is_locked() {
        let tracker = Tracker::new(Settings::default(), 1);
        let batch: Vec<_> = (0..40)
            .map(|torrent| Lookup::Scrape(InfoHash([torrent; 20]), None))
            .collect();
        for lookup in &batch {
            tracker.set_admission(lookup.info_hash(), Admission::Listed);
        }
        let hash = tracker.hash(batch[20].info_hash());
        let locked = tracker.shard(hash);
        tracker.prefetch(&batch);
        drop(locked);
        let is_free = |shard: &Mutex<Shard>| shard.try_lock().is_ok();
        assert!(tracker.shards.iter().all(is_free));
    }

    #[test]
    fn responses_are_the_same_with_and_without_prefetch() {
        let [with, without] = [(); 2].map(|()| {
            let mut settings = Settings {
                open: true,
                ..Settings::default()
            };
            settings.announces.rate_limiter = Some(Arc::new(rate_limiter()));
            Tracker::new(settings, 1)
        });
        let mut random = Rng::new(2);
        let mut refused = 0;
        for _ in 0..200 {
            let batch: Vec<_> = (0..64).map(|_| announce(&mut random)).collect();
            let mut lookups = vec![Lookup::Scrape(InfoHash([0; 20]), None)];
            lookups.extend(batch.iter().map(|announce| Lookup::Announce(*announce)));
            with.prefetch(&lookups);
            for announce in &batch {
                let responses = [&with, &without].map(|tracker| {
                    let mut peers = Vec::new();
                    let response = tracker.announce(Time(0), announce, &mut peers);
                    (response, peers)
                });
                refused += u32::from(responses[0].0.is_err());
                assert_eq!(responses[0], responses[1]);
            }
            assert_eq!(with.totals(), without.totals());
        }
        assert!(refused > 1000, "{refused}");
        let large = with.scrape(&InfoHash([0; 20])).unwrap();
        assert!(large.complete + large.incomplete > 1000, "{large:?}");
    }
}
