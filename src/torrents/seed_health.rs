//! Tracks which listed torrents have a seeder, and reports torrents that have been without a seeder for too long.

use std::collections::HashMap;

use crate::bytes::take;
use crate::tracker::types::{CorruptBlock, InfoHash, Time, UnixTime};

/// Seconds for which the record of a torrent is kept after the torrent is no longer listed, in case the torrent returns.
const RETENTION_SECS: u32 = 86_400;

/// The times at which a torrent had seeders. A seeder counts from the update that first finds it until it stops or
/// times out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeederHistory {
    pub listed_since: UnixTime,
    /// When a seeder was first seen. `None` if the torrent never had a seeder.
    pub first_seen: Option<UnixTime>,
    /// When a seeder was last seen.
    pub last_seen: Option<UnixTime>,
    /// The torrent has been without a seeder for longer than the threshold, and this was reported.
    pub overdue: bool,
    /// Number of times that the loss of the last seeder was reported.
    pub losses: u32,
}

/// A change that is reported to the operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeedEvent {
    /// The torrent has never had a seeder.
    NeverSeeded,
    /// The torrent had seeders and has been without for the threshold. `times` counts these losses, including the present
    /// loss.
    LostLastSeeder { times: u32 },
    /// The torrent was reported as seedless, and now has a seeder.
    Seeded,
}

/// The seeder history of each listed torrent, by the first id of the torrent.
#[derive(Default, Debug)]
pub struct SeedHealth {
    records: HashMap<InfoHash, HealthRecord>,
    first_update: Option<Time>,
    last_update: Option<Time>,
}

#[derive(Debug)]
struct HealthRecord {
    history: SeederHistory,
    /// The last update that listed the torrent. `None` if the record was restored and the torrent was not listed since.
    last_listed: Option<Time>,
    /// Since when this process has seen the torrent listed without a seeder. Downtime does not count: a restart would
    /// otherwise report losses.
    unseeded_since: Time,
}

impl SeedHealth {
    /// Records which of the listed torrents have a seeder (`true`). Returns the torrents that have been without a
    /// seeder for `threshold_secs`, each once, and the reported torrents that have a seeder again.
    pub fn update(
        &mut self,
        now: Time,
        unix: UnixTime,
        threshold_secs: u32,
        listed: impl IntoIterator<Item = (InfoHash, bool)>,
    ) -> Vec<(InfoHash, SeedEvent)> {
        let first_update = *self.first_update.get_or_insert(now);
        let last_update = self.last_update.replace(now);
        let mut events = Vec::new();
        for (id, seeded) in listed {
            let record = self
                .records
                .entry(id)
                .or_insert_with(|| HealthRecord::new(SeederHistory::new(unix)));
            if record.last_listed.is_none() || record.last_listed != last_update {
                record.unseeded_since = now;
            }
            record.last_listed = Some(now);
            let event = match seeded {
                true => record.seeded(now, unix),
                false => record.unseeded(now, threshold_secs),
            };
            events.extend(event.map(|event| (id, event)));
        }
        self.records.retain(|_, record| {
            let since = record.last_listed.unwrap_or(first_update);
            now.0.saturating_sub(since.0) < RETENTION_SECS
        });
        events
    }

    /// Returns the history of a torrent by its first id; `None` for a torrent without a record, for example if it was
    /// listed after the last update.
    pub fn history(&self, id: &InfoHash) -> Option<SeederHistory> {
        self.records.get(id).map(|record| record.history)
    }

    /// Bytes per torrent in a snapshot: id, three times, a count and a flag.
    pub const SAVED_BYTES: usize = 20 + 3 * 8 + 4 + 1;

    /// Writes all records for a snapshot. Numbers are big-endian; 0 stands for an unknown time.
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.records.len() * Self::SAVED_BYTES);
        for (id, HealthRecord { history, .. }) in &self.records {
            bytes.extend_from_slice(&id.0);
            for time in [
                Some(history.listed_since),
                history.first_seen,
                history.last_seen,
            ] {
                let secs = time.map_or(0, |time| time.0);
                bytes.extend_from_slice(&secs.to_be_bytes());
            }
            bytes.extend_from_slice(&history.losses.to_be_bytes());
            bytes.push(history.overdue.into());
        }
        bytes
    }

    /// Adds the records that [`SeedHealth::save`] wrote. `bytes` may be a part of them that ends after a whole record.
    ///
    /// # Errors
    /// Fails if `bytes` ends within a record.
    pub fn restore(&mut self, mut bytes: &[u8]) -> Result<(), CorruptBlock> {
        while !bytes.is_empty() {
            let (id, history) = SeederHistory::read(&mut bytes).ok_or(CorruptBlock)?;
            self.records.insert(id, HealthRecord::new(history));
        }
        Ok(())
    }
}

impl SeederHistory {
    /// Returns the history of a torrent that is listed now.
    fn new(since: UnixTime) -> Self {
        Self {
            listed_since: since,
            first_seen: None,
            last_seen: None,
            overdue: false,
            losses: 0,
        }
    }

    /// Removes a saved record from `bytes`.
    fn read(bytes: &mut &[u8]) -> Option<(InfoHash, Self)> {
        let id = InfoHash(take(bytes)?);
        let mut time = || Some(UnixTime(u64::from_be_bytes(take(bytes)?)));
        let (listed_since, first, last) = (time()?, time()?, time()?);
        let known = |time: UnixTime| (time.0 > 0).then_some(time);
        let losses = u32::from_be_bytes(take(bytes)?);
        let [overdue] = take(bytes)?;
        let history = Self {
            listed_since,
            first_seen: known(first),
            last_seen: known(last),
            overdue: overdue != 0,
            losses,
        };
        Some((id, history))
    }
}

impl HealthRecord {
    fn new(history: SeederHistory) -> Self {
        Self {
            history,
            last_listed: None,
            unseeded_since: Time(0),
        }
    }

    fn seeded(&mut self, now: Time, unix: UnixTime) -> Option<SeedEvent> {
        self.unseeded_since = now;
        self.history.first_seen.get_or_insert(unix);
        self.history.last_seen = Some(unix);
        std::mem::take(&mut self.history.overdue).then_some(SeedEvent::Seeded)
    }

    fn unseeded(&mut self, now: Time, threshold_secs: u32) -> Option<SeedEvent> {
        let history = &mut self.history;
        if history.overdue || now.0.saturating_sub(self.unseeded_since.0) < threshold_secs {
            return None;
        }
        history.overdue = true;
        Some(match history.last_seen {
            None => SeedEvent::NeverSeeded,
            Some(_) => {
                history.losses = history.losses.saturating_add(1);
                SeedEvent::LostLastSeeder {
                    times: history.losses,
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLD: u32 = 1800;
    const ONE: InfoHash = InfoHash([1; 20]);
    const TWO: InfoHash = InfoHash([2; 20]);

    /// Updates with a Unix time that is 10,000 seconds ahead of the tracker's time.
    fn update(
        health: &mut SeedHealth,
        now: u32,
        listed: &[(InfoHash, bool)],
    ) -> Vec<(InfoHash, SeedEvent)> {
        let unix = UnixTime(u64::from(now) + 10_000);
        health.update(Time(now), unix, THRESHOLD, listed.iter().copied())
    }

    #[test]
    fn torrent_without_seeder_is_reported_once_after_threshold() {
        let mut health = SeedHealth::default();
        assert_eq!(update(&mut health, 0, &[(ONE, false)]), []);
        assert_eq!(update(&mut health, THRESHOLD - 1, &[(ONE, false)]), []);
        assert!(!health.history(&ONE).unwrap().overdue);
        let expected = [(ONE, SeedEvent::NeverSeeded)];
        assert_eq!(update(&mut health, THRESHOLD, &[(ONE, false)]), expected);
        assert!(health.history(&ONE).unwrap().overdue);
        assert_eq!(update(&mut health, 9 * THRESHOLD, &[(ONE, false)]), []);
        let expected = [(ONE, SeedEvent::Seeded)];
        assert_eq!(
            update(&mut health, 9 * THRESHOLD + 1, &[(ONE, true)]),
            expected
        );
        let at = UnixTime(10_000 + u64::from(9 * THRESHOLD + 1));
        let expected = SeederHistory {
            listed_since: UnixTime(10_000),
            first_seen: Some(at),
            last_seen: Some(at),
            overdue: false,
            losses: 0,
        };
        assert_eq!(health.history(&ONE), Some(expected));
    }

    #[test]
    fn torrent_seeded_in_time_is_not_reported() {
        let mut health = SeedHealth::default();
        update(&mut health, 0, &[(ONE, false)]);
        assert_eq!(update(&mut health, THRESHOLD - 1, &[(ONE, true)]), []);
    }

    #[test]
    fn losses_are_reported_after_threshold_and_counted() {
        let mut health = SeedHealth::default();
        update(&mut health, 0, &[(ONE, true)]);
        // A seeder that returns in time was not lost.
        assert_eq!(update(&mut health, 10, &[(ONE, false)]), []);
        assert_eq!(update(&mut health, 1000, &[(ONE, true)]), []);
        assert_eq!(update(&mut health, 999 + THRESHOLD, &[(ONE, false)]), []);
        let lost = |times| [(ONE, SeedEvent::LostLastSeeder { times })];
        assert_eq!(
            update(&mut health, 1000 + THRESHOLD, &[(ONE, false)]),
            lost(1)
        );
        let history = health.history(&ONE).unwrap();
        let (first, last) = (UnixTime(10_000), UnixTime(11_000));
        assert_eq!(
            (history.first_seen, history.last_seen),
            (Some(first), Some(last))
        );
        assert_eq!(
            update(&mut health, 8000, &[(ONE, true)]),
            [(ONE, SeedEvent::Seeded)]
        );
        assert_eq!(
            update(&mut health, 8000 + THRESHOLD, &[(ONE, false)]),
            lost(2)
        );
    }

    /// Saves and restores, as in a restart.
    fn restarted(health: &SeedHealth) -> SeedHealth {
        let mut after = SeedHealth::default();
        after.restore(&health.save()).unwrap();
        after
    }

    #[test]
    fn restart_keeps_history_and_reports_nothing() {
        let mut health = SeedHealth::default();
        update(&mut health, 0, &[(ONE, true), (TWO, false)]);
        update(&mut health, THRESHOLD, &[(ONE, true), (TWO, false)]);
        let (one, two) = (health.history(&ONE).unwrap(), health.history(&TWO).unwrap());
        assert_eq!((one.overdue, two.overdue), (false, true));

        let mut health = restarted(&health);
        assert_eq!(
            (health.history(&ONE), health.history(&TWO)),
            (Some(one), Some(two))
        );
        let none = [(ONE, false), (TWO, false)];
        let start = 50_000;
        assert_eq!(update(&mut health, start, &none), []);
        assert_eq!(update(&mut health, start + THRESHOLD - 1, &none), []);
        let lost = [(ONE, SeedEvent::LostLastSeeder { times: 1 })];
        assert_eq!(update(&mut health, start + THRESHOLD, &none), lost);
        // A torrent reported before the restart stays overdue until it has a seeder.
        assert!(health.history(&TWO).unwrap().overdue);
        let seeded = update(&mut restarted(&health), start, &[(TWO, true)]);
        assert_eq!(seeded, [(TWO, SeedEvent::Seeded)]);
    }

    #[test]
    fn relisted_torrent_gets_full_threshold_again() {
        let mut health = SeedHealth::default();
        update(&mut health, 0, &[(ONE, true), (TWO, true)]);
        update(&mut health, 5, &[(TWO, true)]);
        assert_eq!(
            update(&mut health, 3 * THRESHOLD, &[(ONE, false), (TWO, true)]),
            []
        );
        assert_eq!(
            update(&mut health, 4 * THRESHOLD, &[(ONE, false)]),
            [(ONE, SeedEvent::LostLastSeeder { times: 1 })]
        );
    }

    #[test]
    fn record_is_dropped_a_day_after_torrent_is_unlisted() {
        let mut health = SeedHealth::default();
        update(&mut health, 0, &[(ONE, true)]);
        let mut health = restarted(&health);
        update(&mut health, 7, &[(TWO, true)]);
        update(&mut health, 6 + RETENTION_SECS, &[(TWO, true)]);
        assert!(health.history(&ONE).is_some());
        update(&mut health, 7 + RETENTION_SECS, &[(TWO, true)]);
        assert!(health.history(&ONE).is_none());
        assert!(health.history(&TWO).is_some());
    }

    #[test]
    fn saved_bytes_are_big_endian() {
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
        assert_eq!(saved.len(), SeedHealth::SAVED_BYTES);
        for end in 1..SeedHealth::SAVED_BYTES {
            assert_eq!(
                SeedHealth::default().restore(&saved[..end]),
                Err(CorruptBlock)
            );
        }
    }
}
