//! Which of the listed torrents have seeds, since when and until when, and what of that an operator should hear.

use std::collections::HashMap;

use crate::tracker::types::{CorruptBlock, InfoHash, Time, UnixTime};

/// How long a torrent that is listed no more is remembered, for it may come back.
const KEPT_SECS: u32 = 86_400;

/// What is known of a torrent's seeds. A seed counts from the update that first finds it, until it stops or is silent for
/// too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seeds {
    pub listed_since: UnixTime,
    /// When a seed was first seen, and last.
    pub first: Option<UnixTime>,
    pub last: Option<UnixTime>,
    /// It has been without one for longer than a torrent may be, and that has been told.
    pub overdue: bool,
    /// How often its loss was told.
    pub losses: u32,
}

/// What an operator should hear of one torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeedEvent {
    /// No seed has come since it was listed.
    NeverSeeded,
    /// It had seeds, and has been without for a while; for so many times by now.
    LostSeeds { times: u32 },
    /// One of the two was told, and now there is a seed.
    Seeded,
}

/// Each listed torrent's seeds, by the first of its ids.
#[derive(Default, Debug)]
pub struct SeedHealth {
    records: HashMap<InfoHash, HealthRecord>,
    first_look: Option<Time>,
    last_look: Option<Time>,
}

#[derive(Debug)]
struct HealthRecord {
    seeds: Seeds,
    /// When it was last seen listed; never yet, if it is known from a snapshot.
    listed: Option<Time>,
    /// From when on it has been listed without a seed in this process's sight: a restart is nobody's loss.
    quiet_since: Time,
}

impl SeedHealth {
    /// Looks at every listed torrent and whether it has a seed, and tells what is new: a torrent that has been without for
    /// `patience_secs`, and one of these that has a seed again.
    pub fn update(
        &mut self,
        now: Time,
        unix: UnixTime,
        patience_secs: u32,
        listed: impl IntoIterator<Item = (InfoHash, bool)>,
    ) -> Vec<(InfoHash, SeedEvent)> {
        let first_look = *self.first_look.get_or_insert(now);
        let last_look = self.last_look.replace(now);
        let mut news = Vec::new();
        for (id, seeded) in listed {
            let record = self
                .records
                .entry(id)
                .or_insert_with(|| HealthRecord::new(Seeds::listed(unix)));
            if record.listed.is_none() || record.listed != last_look {
                record.quiet_since = now;
            }
            record.listed = Some(now);
            let told = match seeded {
                true => record.seeded(now, unix),
                false => record.unseeded(now, patience_secs),
            };
            news.extend(told.map(|told| (id, told)));
        }
        self.records.retain(|_, record| {
            let since = record.listed.unwrap_or(first_look);
            now.0.saturating_sub(since.0) < KEPT_SECS
        });
        news
    }

    /// `None` for a torrent that was not listed yet when last looked at.
    pub fn seeds(&self, id: &InfoHash) -> Option<Seeds> {
        self.records.get(id).map(|record| record.seeds)
    }

    /// How many bytes one torrent takes in a snapshot: its id, three times, a count, a flag.
    pub const SAVED: usize = 20 + 3 * 8 + 4 + 1;

    /// All as bytes for a snapshot to keep. Numbers are big-endian, a time that is not known is 0.
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.records.len() * Self::SAVED);
        for (id, HealthRecord { seeds, .. }) in &self.records {
            bytes.extend_from_slice(&id.0);
            for time in [Some(seeds.listed_since), seeds.first, seeds.last] {
                let secs = time.map_or(0, |time| time.0);
                bytes.extend_from_slice(&secs.to_be_bytes());
            }
            bytes.extend_from_slice(&seeds.losses.to_be_bytes());
            bytes.push(seeds.overdue.into());
        }
        bytes
    }

    /// Takes in what [`SeedHealth::save`] wrote, or a part of it that ends with a torrent.
    ///
    /// # Errors
    /// When it ends in the middle of one.
    pub fn restore(&mut self, mut bytes: &[u8]) -> Result<(), CorruptBlock> {
        while let Some((id, rest)) = bytes.split_first_chunk() {
            let (times, rest) = rest.split_first_chunk::<24>().ok_or(CorruptBlock)?;
            let (losses, rest) = rest.split_first_chunk().ok_or(CorruptBlock)?;
            let (overdue, rest) = rest.split_first().ok_or(CorruptBlock)?;
            bytes = rest;
            let time = |at: usize| {
                let secs = times[at..at + 8].iter();
                UnixTime(secs.fold(0, |secs, byte| secs << 8 | u64::from(*byte)))
            };
            let known = |time: UnixTime| (time.0 > 0).then_some(time);
            let seeds = Seeds {
                listed_since: time(0),
                first: known(time(8)),
                last: known(time(16)),
                losses: u32::from_be_bytes(*losses),
                overdue: *overdue != 0,
            };
            self.records.insert(InfoHash(*id), HealthRecord::new(seeds));
        }
        match bytes {
            [] => Ok(()),
            _ => Err(CorruptBlock),
        }
    }
}

impl Seeds {
    fn listed(since: UnixTime) -> Self {
        Self {
            listed_since: since,
            first: None,
            last: None,
            overdue: false,
            losses: 0,
        }
    }
}

impl HealthRecord {
    fn new(seeds: Seeds) -> Self {
        Self {
            seeds,
            listed: None,
            quiet_since: Time(0),
        }
    }

    fn seeded(&mut self, now: Time, unix: UnixTime) -> Option<SeedEvent> {
        self.quiet_since = now;
        self.seeds.first.get_or_insert(unix);
        self.seeds.last = Some(unix);
        std::mem::take(&mut self.seeds.overdue).then_some(SeedEvent::Seeded)
    }

    fn unseeded(&mut self, now: Time, patience_secs: u32) -> Option<SeedEvent> {
        let seeds = &mut self.seeds;
        if seeds.overdue || now.0.saturating_sub(self.quiet_since.0) < patience_secs {
            return None;
        }
        seeds.overdue = true;
        Some(match seeds.last {
            None => SeedEvent::NeverSeeded,
            Some(_) => {
                seeds.losses = seeds.losses.saturating_add(1);
                SeedEvent::LostSeeds {
                    times: seeds.losses,
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: u32 = 1800;
    const ONE: InfoHash = InfoHash([1; 20]);
    const TWO: InfoHash = InfoHash([2; 20]);

    /// What it says of torrents at a moment, `unix` being ten thousand seconds ahead of the tracker's time.
    fn update(
        health: &mut SeedHealth,
        now: u32,
        listed: &[(InfoHash, bool)],
    ) -> Vec<(InfoHash, SeedEvent)> {
        let unix = UnixTime(u64::from(now) + 10_000);
        health.update(Time(now), unix, PATIENCE, listed.iter().copied())
    }

    #[test]
    fn one_published_without_a_seed_is_told_once_after_its_time() {
        let mut health = SeedHealth::default();
        assert_eq!(update(&mut health, 0, &[(ONE, false)]), []);
        assert_eq!(update(&mut health, PATIENCE - 1, &[(ONE, false)]), []);
        assert!(!health.seeds(&ONE).unwrap().overdue);
        let told = [(ONE, SeedEvent::NeverSeeded)];
        assert_eq!(update(&mut health, PATIENCE, &[(ONE, false)]), told);
        assert!(health.seeds(&ONE).unwrap().overdue);
        assert_eq!(update(&mut health, 9 * PATIENCE, &[(ONE, false)]), []);
        let told = [(ONE, SeedEvent::Seeded)];
        assert_eq!(update(&mut health, 9 * PATIENCE + 1, &[(ONE, true)]), told);
        let at = UnixTime(10_000 + u64::from(9 * PATIENCE + 1));
        let expected = Seeds {
            listed_since: UnixTime(10_000),
            first: Some(at),
            last: Some(at),
            overdue: false,
            losses: 0,
        };
        assert_eq!(health.seeds(&ONE), Some(expected));
    }

    #[test]
    fn one_that_is_seeded_in_time_is_no_news() {
        let mut health = SeedHealth::default();
        update(&mut health, 0, &[(ONE, false)]);
        assert_eq!(update(&mut health, PATIENCE - 1, &[(ONE, true)]), []);
    }

    #[test]
    fn losses_are_told_after_a_while_and_counted() {
        let mut health = SeedHealth::default();
        update(&mut health, 0, &[(ONE, true)]);
        // A seed that is back in time was not lost.
        assert_eq!(update(&mut health, 10, &[(ONE, false)]), []);
        assert_eq!(update(&mut health, 1000, &[(ONE, true)]), []);
        assert_eq!(update(&mut health, 999 + PATIENCE, &[(ONE, false)]), []);
        let lost = |times| [(ONE, SeedEvent::LostSeeds { times })];
        assert_eq!(
            update(&mut health, 1000 + PATIENCE, &[(ONE, false)]),
            lost(1)
        );
        let seeds = health.seeds(&ONE).unwrap();
        let (first, last) = (UnixTime(10_000), UnixTime(11_000));
        assert_eq!((seeds.first, seeds.last), (Some(first), Some(last)));
        assert_eq!(
            update(&mut health, 8000, &[(ONE, true)]),
            [(ONE, SeedEvent::Seeded)]
        );
        assert_eq!(
            update(&mut health, 8000 + PATIENCE, &[(ONE, false)]),
            lost(2)
        );
    }

    /// As the next process has it.
    fn restarted(health: &SeedHealth) -> SeedHealth {
        let mut after = SeedHealth::default();
        after.restore(&health.save()).unwrap();
        after
    }

    #[test]
    fn a_restart_forgets_no_seed_and_cries_for_none() {
        let mut health = SeedHealth::default();
        update(&mut health, 0, &[(ONE, true), (TWO, false)]);
        update(&mut health, PATIENCE, &[(ONE, true), (TWO, false)]);
        let (one, two) = (health.seeds(&ONE).unwrap(), health.seeds(&TWO).unwrap());
        assert_eq!((one.overdue, two.overdue), (false, true));

        let mut health = restarted(&health);
        assert_eq!(
            (health.seeds(&ONE), health.seeds(&TWO)),
            (Some(one), Some(two))
        );
        let none = [(ONE, false), (TWO, false)];
        let start = 50_000;
        assert_eq!(update(&mut health, start, &none), []);
        assert_eq!(update(&mut health, start + PATIENCE - 1, &none), []);
        let lost = [(ONE, SeedEvent::LostSeeds { times: 1 })];
        assert_eq!(update(&mut health, start + PATIENCE, &none), lost);
        // What was told before stays told, until it is over.
        assert!(health.seeds(&TWO).unwrap().overdue);
        let seeded = update(&mut restarted(&health), start, &[(TWO, true)]);
        assert_eq!(seeded, [(TWO, SeedEvent::Seeded)]);
    }

    #[test]
    fn one_that_is_listed_again_gets_its_time_again() {
        let mut health = SeedHealth::default();
        update(&mut health, 0, &[(ONE, true), (TWO, true)]);
        update(&mut health, 5, &[(TWO, true)]);
        assert_eq!(
            update(&mut health, 3 * PATIENCE, &[(ONE, false), (TWO, true)]),
            []
        );
        assert_eq!(
            update(&mut health, 4 * PATIENCE, &[(ONE, false)]),
            [(ONE, SeedEvent::LostSeeds { times: 1 })]
        );
    }

    #[test]
    fn one_that_is_listed_no_more_is_forgotten_after_a_day() {
        let mut health = SeedHealth::default();
        update(&mut health, 0, &[(ONE, true)]);
        let mut health = restarted(&health);
        update(&mut health, 7, &[(TWO, true)]);
        update(&mut health, 6 + KEPT_SECS, &[(TWO, true)]);
        assert!(health.seeds(&ONE).is_some());
        update(&mut health, 7 + KEPT_SECS, &[(TWO, true)]);
        assert!(health.seeds(&ONE).is_none());
        assert!(health.seeds(&TWO).is_some());
    }

    #[test]
    fn what_is_saved_is_the_same_on_every_machine() {
        let mut health = SeedHealth::default();
        update(&mut health, 1, &[(ONE, false)]);
        update(&mut health, 2, &[(ONE, true)]);
        let expected = [
            [1; 20].as_slice(),
            &10_001_u64.to_be_bytes(),
            &10_002_u64.to_be_bytes(),
            &10_002_u64.to_be_bytes(),
            &[0; 5],
        ];
        let saved = health.save();
        assert_eq!(saved, expected.concat());
        assert_eq!(saved.len(), SeedHealth::SAVED);
        for end in 1..SeedHealth::SAVED {
            assert_eq!(
                SeedHealth::default().restore(&saved[..end]),
                Err(CorruptBlock)
            );
        }
    }
}
