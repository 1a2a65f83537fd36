//! Updates of peers that other trackers send, and the dump of all peers as updates for them.

use super::Tracker;
use super::dump::{DumpCursor, for_each_swarm};
use super::shard::Shard;
use super::swarm::peer::Peer;
use super::types::{PeerUpdate, Time, TimedUpdate, age_minutes};

/// Number of seconds by which an update may be younger than its age says: batches wait for tens of milliseconds, and
/// ages are whole seconds of a clock on another machine. A peer that stops here and starts on another tracker a moment
/// later must not count as departed.
const SLACK_SECS: u32 = 2;

/// Minimum number of peers in a part of a dump, except for the last: enough to fill a few batches for each stream.
const MIN_UPDATES: usize = 16_384;

/// Maximum number of blocks that a part of a dump is made from.
const MAX_BLOCKS: usize = 128;

/// The result of applying an update from another tracker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApplyResult {
    Applied,
    /// The tracker's state is as new or newer, or the peer has expired.
    Stale,
    /// The torrent is not tracked, the address is denied, or the peer's network has too many peers in the swarm.
    Rejected,
}

/// The time of another tracker's update by this tracker's clock.
#[derive(Clone, Copy)]
struct Moment {
    now: Time,
    age_secs: u32,
}

impl Moment {
    /// Returns how many minutes have begun since; 0 if the moment is in the present minute.
    fn age_minutes(self) -> u32 {
        let then = i64::from(self.now.0) - i64::from(self.age_secs);
        (i64::from(self.now.0 / 60) - then.div_euclid(60)) as u32
    }

    /// Returns the [`Time::minute`] of the moment, which may be before time 0.
    fn minute(self) -> u8 {
        self.now.minute().wrapping_sub(self.age_minutes() as u8)
    }
}

impl Tracker {
    /// Applies an update of another tracker, which was sent `passed_secs` ago. Updates may come in any order: as far as
    /// their ages show which is older, an older update does not undo a newer update.
    ///
    /// The listing of torrents, the access list and the limit per network apply as for an announce; rate limits do not. No
    /// download is counted, as the other tracker has counted it.
    pub fn apply_update(&self, now: Time, passed_secs: u32, timed: &TimedUpdate) -> ApplyResult {
        let settings = self.settings();
        let update = &timed.update;
        let slack = if timed.redelivered { 0 } else { SLACK_SECS };
        let age_secs = timed.age_secs.saturating_add(passed_secs);
        let moment = Moment {
            now,
            age_secs: age_secs.saturating_sub(slack),
        };
        if moment.age_minutes() > settings.timeout_minutes().into() {
            return ApplyResult::Stale;
        }
        let peer = Peer::from_update(update, &settings.local_networks);
        let hash = self.hash(&update.info_hash);
        if update.class.is_none() {
            return self.apply_departure(hash, timed, &peer, moment);
        }
        if !settings.announces.access.admits(update.address)
            || settings.check_withdrawn(&update.info_hash).is_err()
        {
            return ApplyResult::Rejected;
        }
        let mut shard = self.shard(hash);
        // A redelivered join is older than a departure in the same second.
        let age_secs = match timed.redelivered {
            true => moment.age_secs.saturating_add(SLACK_SECS),
            false => moment.age_secs,
        };
        if self
            .departures
            .departed_within(&update.info_hash, peer.endpoint(), now, age_secs)
        {
            return ApplyResult::Stale;
        }
        let unknown = self.check_unknown(&settings);
        match shard.find_or_add(&update.info_hash, hash, settings.open, unknown) {
            Ok(at) => {
                let max_per_network = self.max_per_network(&settings);
                shard.apply_join(at, &peer, moment, timed.redelivered, max_per_network)
            }
            Err(_) => ApplyResult::Rejected,
        }
    }

    fn apply_departure(
        &self,
        hash: u64,
        timed: &TimedUpdate,
        peer: &Peer,
        moment: Moment,
    ) -> ApplyResult {
        let (info_hash, endpoint) = (&timed.update.info_hash, peer.endpoint());
        let Moment { now, age_secs } = moment;
        let mut shard = self.shard(hash);
        let departed_within = |secs| {
            self.departures
                .departed_within(info_hash, endpoint, now, secs)
        };
        if timed.redelivered && departed_within(age_secs + SLACK_SECS + 1) {
            // The departure is recorded already. If the peer is here, it has joined again since.
            return ApplyResult::Stale;
        }
        // Recorded even if the peer is not here: the update of its join may still arrive.
        self.departures.record(info_hash, endpoint, now, age_secs);
        match shard.find(info_hash, hash) {
            Some(at) => shard.apply_departure(at, peer, moment),
            None => ApplyResult::Stale,
        }
    }

    /// Returns whether the peer of an update is in its swarm.
    pub fn contains(&self, update: &PeerUpdate) -> bool {
        let hash = self.hash(&update.info_hash);
        let peer = Peer::from_update(update, &self.settings().local_networks);
        let shard = self.shard(hash);
        shard
            .find(&update.info_hash, hash)
            .is_some_and(|at| shard.torrents[at].swarm.minute(&peer).is_some())
    }

    /// Appends a part of all peers that have announced in the last `since_secs`, as redelivered updates. Returns whether
    /// there is more after `cursor`. A part has some ten thousand updates, or took some ten milliseconds to find fewer. A
    /// shard is locked while its peers are copied.
    ///
    /// Announces may go on meanwhile. A few peers of a large swarm may then be sent twice, or not before their next
    /// announce.
    pub fn dump_updates(
        &self,
        now: Time,
        since_secs: u32,
        cursor: &mut DumpCursor,
        updates: &mut Vec<TimedUpdate>,
    ) -> bool {
        let timeout = self.settings().timeout_minutes();
        // Rounded up, as a peer's age is known in minutes that have begun.
        let max_age = u8::try_from(since_secs / 60 + 1).unwrap_or(u8::MAX);
        let enough = updates.len() + MIN_UPDATES;
        let mut block = Vec::new();
        for _ in 0..MAX_BLOCKS {
            if updates.len() >= enough {
                break;
            }
            if self.dump_block(now, cursor, &mut block).is_none() {
                return false;
            }
            let read = for_each_swarm(&block, now, max_age.min(timeout), |id, v4, v6| {
                updates.extend(v4.iter().filter_map(|record| record.to_update(id, now)));
                updates.extend(v6.iter().filter_map(|record| record.to_update(id, now)));
            });
            debug_assert_eq!(read, Ok(()), "the block was written above");
        }
        true
    }
}

impl Shard {
    fn apply_join(
        &mut self,
        at: usize,
        peer: &Peer,
        moment: Moment,
        redelivered: bool,
        max_per_network: usize,
    ) -> ApplyResult {
        let swarm = &mut self.torrents[at].swarm;
        let before = swarm.len();
        let age = moment.age_minutes();
        let is_stale = swarm.minute(peer).is_some_and(|minute| {
            let known_age = u32::from(age_minutes(moment.now, minute));
            known_age < age || redelivered && known_age == age
        });
        let result = if is_stale {
            ApplyResult::Stale
        } else {
            let outcome = swarm.join(moment.minute(), peer, max_per_network, self.key);
            match outcome.position {
                Some(_) => ApplyResult::Applied,
                None => ApplyResult::Rejected,
            }
        };
        self.update_totals_and_prune(at, before);
        result
    }

    fn apply_departure(&mut self, at: usize, peer: &Peer, moment: Moment) -> ApplyResult {
        let swarm = &mut self.torrents[at].swarm;
        let before = swarm.len();
        let known_age = swarm
            .minute(peer)
            .map(|minute| u32::from(age_minutes(moment.now, minute)));
        let result = match known_age {
            Some(known_age) if known_age >= moment.age_minutes() => {
                swarm.leave(peer);
                ApplyResult::Applied
            }
            _ => ApplyResult::Stale,
        };
        self.update_totals_and_prune(at, before);
        result
    }
}

#[cfg(test)]
mod tests;
