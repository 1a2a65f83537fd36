//! A look at what some requests will need, so that their waits for memory fall together.
//!
//! A torrent and a peer in it are found in half a dozen steps through memory, each of which waits for the one before. The
//! processor can wait for several requests at once, but only for what stands close together in the program, with no lock
//! taken or given back between: so here each step is taken for all before the next, with all their shards locked. Nothing is
//! changed or told, so no request depends on having been here.

use std::array;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::MutexGuard;

use super::rate_limit::RateLimiter;
use super::settings::Settings;
use super::shard::{Shard, Torrent};
use super::swarm::peer::IndexKey;
use super::{Announce, InfoHash, SHARDS, Tracker};

/// How many are looked at together: about what a processor waits for at once.
const TOGETHER: usize = 16;

/// What a request names.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    Announce(Announce),
    /// One torrent of a scrape. The address is told with the first of them.
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
    /// Has the processor fetch what these requests will look at.
    pub fn prefetch(&self, batch: &[Lookup]) {
        let settings = self.settings();
        for some in batch.chunks(TOGETHER) {
            self.look_at_budgets(&settings, some);
            self.look_at_torrents(some);
        }
    }

    fn look_at_budgets(&self, settings: &Settings, some: &[Lookup]) {
        let asked: [Option<(&RateLimiter, _)>; TOGETHER] = array::from_fn(|nth| {
            let (gate, address) = match some.get(nth)? {
                Lookup::Announce(announce) => (&settings.announces, announce.address),
                Lookup::Scrape(_, from) => (&settings.scrapes, (*from)?),
            };
            let budget = gate.rate_limiter.as_deref()?;
            Some((budget, budget.narrowest(address)))
        });
        for (budget, place) in asked.iter().flatten() {
            budget.touch(place);
        }
    }

    fn look_at_torrents(&self, some: &[Lookup]) {
        let hashes: [u64; TOGETHER] =
            array::from_fn(|nth| some.get(nth).map_or(0, |s| self.hash(s.info_hash())));
        let places: [Option<IndexKey>; TOGETHER] = array::from_fn(|nth| match some.get(nth)? {
            Lookup::Announce(it) => Some(IndexKey::new(it.address, it.port, &self.keyed)),
            Lookup::Scrape(..) => None,
        });
        let shards = hashes.map(|hash| hash as usize % SHARDS);
        let firsts: [usize; TOGETHER] = array::from_fn(|nth| {
            let same = shards[..nth].iter().position(|shard| *shard == shards[nth]);
            same.unwrap_or(nth)
        });
        // One that another worker has at the moment is left out: to wait for it with others in hand could be for ever.
        let locked: [Option<MutexGuard<'_, Shard>>; TOGETHER] = array::from_fn(|nth| {
            let wanted = nth < some.len() && firsts[nth] == nth;
            wanted.then(|| self.shards[shards[nth]].try_lock().ok())?
        });
        let shard_of = |nth: usize| locked[firsts[nth]].as_deref();

        let found: [Option<&Torrent>; TOGETHER] = array::from_fn(|nth| {
            let shard = shard_of(nth)?;
            let at = shard.find(some.get(nth)?.info_hash(), hashes[nth])?;
            shard.torrents.get(at)
        });
        for torrent in found {
            black_box(torrent.map(|torrent| torrent.swarm.indexed()));
        }
        for (place, torrent) in places.iter().zip(found) {
            if let (Some(place), Some(torrent)) = (place, torrent) {
                black_box(torrent.swarm.heard_at(place));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroU32};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::tracker::access::Networks;
    use crate::tracker::rate_limit::{self, Rate};
    use crate::tracker::{Admission, Event, PeerId, Rng, Time};

    /// An announce of a peer of either family, in a torrent that has many peers or few.
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

    /// Five announces each.
    fn budget() -> RateLimiter {
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
    fn what_another_worker_has_is_not_waited_for() {
        let tracker = Tracker::new(Settings::default(), 1);
        let batch: Vec<_> = (0..40)
            .map(|torrent| Lookup::Scrape(InfoHash([torrent; 20]), None))
            .collect();
        for sought in &batch {
            tracker.admit(sought.info_hash(), Admission::Listed);
        }
        let hash = tracker.hash(batch[20].info_hash());
        let others = tracker.shard(hash);
        tracker.prefetch(&batch);
        drop(others);
        let free = |shard: &Mutex<Shard>| shard.try_lock().is_ok();
        assert!(tracker.shards.iter().all(free));
    }

    #[test]
    fn answers_are_the_same_with_and_without() {
        let [with, without] = [(); 2].map(|()| {
            let mut settings = Settings {
                open: true,
                ..Settings::default()
            };
            settings.announces.rate_limiter = Some(Arc::new(budget()));
            Tracker::new(settings, 1)
        });
        let mut random = Rng::new(2);
        let mut refused = 0;
        for _ in 0..200 {
            let batch: Vec<_> = (0..64).map(|_| announce(&mut random)).collect();
            let mut sought = vec![Lookup::Scrape(InfoHash([0; 20]), None)];
            sought.extend(batch.iter().map(|announce| Lookup::Announce(*announce)));
            with.prefetch(&sought);
            for announce in &batch {
                let answers = [&with, &without].map(|tracker| {
                    let mut peers = Vec::new();
                    let answer = tracker.announce(Time(0), announce, &mut peers);
                    (answer, peers)
                });
                refused += u32::from(answers[0].0.is_err());
                assert_eq!(answers[0], answers[1]);
            }
            assert_eq!(with.totals(), without.totals());
        }
        assert!(refused > 1000, "{refused}");
        let large = with.scrape(&InfoHash([0; 20])).unwrap();
        assert!(large.complete + large.incomplete > 1000, "{large:?}");
    }
}
