//! How one tracker tells another of its peers: what an announce changed, what others changed, and all over redelivered.

use siphasher::sip::SipHasher13;

use super::dump;
use super::shard::Shard;
use super::swarm::peer::Peer;
use super::types::{PeerUpdate, Time, TimedUpdate, age_minutes};
use super::{DumpCursor, Tracker};

/// How much younger than told a change may be: batches wait for tens of milliseconds, and ages are whole seconds of a clock
/// that is met across a network. Who stops here and starts there a moment later shall not be taken for gone.
const SLACK_SECS: u32 = 2;

/// How many peers a part of a dump_updates has at least: enough to fill a few batches for each stream.
const RECOUNTED_AT_ONCE: usize = 16_384;

/// How many parts of a tracker it is made of at most.
const BLOCKS_AT_ONCE: usize = 128;

/// What became of a change that another tracker told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApplyResult {
    Applied,
    /// What is known is as new or newer, or the peer has been silent for too long by now.
    Stale,
    /// The torrent is not tracked here, the address is not welcome, or its network has too many peers in the swarm.
    Rejected,
}

/// When another tracker's change was, as this one keeps time.
#[derive(Clone, Copy)]
struct Moment {
    now: Time,
    age_secs: u32,
}

impl Moment {
    /// How many minutes were begun since; a peer heard in the same minute has the same.
    fn age_minutes(self) -> u32 {
        let then = i64::from(self.now.0) - i64::from(self.age_secs);
        (i64::from(self.now.0 / 60) - then.div_euclid(60)) as u32
    }

    /// [`Time::minute`] of then, which may be before time 0.
    fn minute(self) -> u8 {
        self.now.minute().wrapping_sub(self.age_minutes() as u8)
    }
}

impl Tracker {
    /// Hears from another tracker what became of a peer, `passed_secs` after that was told. An older change undoes no newer
    /// one, in whichever order they come, as far as their ages tell.
    ///
    /// No download is counted: the other tracker has done that. Admission, access list and cap hold as for an announce;
    /// budgets do not.
    pub fn apply_update(&self, now: Time, passed_secs: u32, told: &TimedUpdate) -> ApplyResult {
        let settings = self.settings();
        let change = &told.change;
        let slack = if told.redelivered { 0 } else { SLACK_SECS };
        let age_secs = told.age_secs.saturating_add(passed_secs);
        let at = Moment {
            now,
            age_secs: age_secs.saturating_sub(slack),
        };
        if at.age_minutes() > settings.timeout_minutes().into() {
            return ApplyResult::Stale;
        }
        let peer = Peer::told(change, &settings.local_networks);
        let hash = self.hash(&change.info_hash);
        if change.class.is_none() {
            return self.hear_leave(hash, told, &peer, at);
        }
        if !settings.announces.access.admits(change.address)
            || settings.check_withdrawn(&change.info_hash).is_err()
        {
            return ApplyResult::Rejected;
        }
        let (endpoint, keyed) = (peer.endpoint(), &self.keyed);
        let mut shard = self.shard(hash);
        // TimedUpdate redelivered, a join is surely no news after a leave, even one in the same second.
        let age_secs = match told.redelivered {
            true => at.age_secs.saturating_add(SLACK_SECS),
            false => at.age_secs,
        };
        if self
            .departures
            .departed_within(&change.info_hash, endpoint, now, age_secs, keyed)
        {
            return ApplyResult::Stale;
        }
        let unknown = self.room_for_torrent(&settings);
        match shard.admitted(&change.info_hash, hash, settings.open, unknown, keyed) {
            Ok(torrent) => {
                let most = self.most_peers(&settings);
                shard.hear_join(torrent, &peer, at, told.redelivered, most, keyed)
            }
            Err(_) => ApplyResult::Rejected,
        }
    }

    /// Whether the peer that has changed is here now.
    pub fn contains(&self, change: &PeerUpdate) -> bool {
        let hash = self.hash(&change.info_hash);
        let peer = Peer::told(change, &self.settings().local_networks);
        let shard = self.shard(hash);
        shard.find(&change.info_hash, hash).is_some_and(|at| {
            let swarm = &shard.torrents[at].swarm;
            swarm.heard(&peer, &self.keyed).is_some()
        })
    }

    fn hear_leave(&self, hash: u64, told: &TimedUpdate, peer: &Peer, at: Moment) -> ApplyResult {
        let (info_hash, endpoint) = (&told.change.info_hash, peer.endpoint());
        let mut shard = self.shard(hash);
        let known = |secs| {
            self.departures
                .departed_within(info_hash, endpoint, at.now, secs, &self.keyed)
        };
        if told.redelivered && known(at.age_secs + SLACK_SECS + 1) {
            // Who is here has come back since.
            return ApplyResult::Stale;
        }
        // Also where it is not known: word of its coming may be on the way.
        self.departures
            .record(info_hash, endpoint, at.now, at.age_secs, &self.keyed);
        match shard.find(info_hash, hash) {
            Some(torrent) => shard.hear_leave(torrent, peer, at, &self.keyed),
            None => ApplyResult::Stale,
        }
    }

    /// Appends the walk's next part of all peers that were heard in the last `since_secs`, as they are told redelivered, and tells
    /// whether that was not the end. A part is of some ten thousands, or takes some ten milliseconds to find less; one shard is
    /// locked while its peers are copied. While announces go on, a few of a large swarm may be told twice, or not before their
    /// next announce.
    pub fn dump_updates(
        &self,
        now: Time,
        since_secs: u32,
        walk: &mut DumpCursor,
        told: &mut Vec<TimedUpdate>,
    ) -> bool {
        let timeout = self.settings().timeout_minutes();
        // The age is known to the minute begun.
        let oldest = u8::try_from(since_secs / 60 + 1).unwrap_or(u8::MAX);
        let enough = told.len() + RECOUNTED_AT_ONCE;
        let mut block = Vec::new();
        for _ in 0..BLOCKS_AT_ONCE {
            if told.len() >= enough {
                break;
            }
            if self.save(now, walk, &mut block).is_none() {
                return false;
            }
            let read = dump::for_each_swarm(&block, now, oldest.min(timeout), |id, v4, v6| {
                told.extend(v4.iter().filter_map(|record| record.told(id, now)));
                told.extend(v6.iter().filter_map(|record| record.told(id, now)));
            });
            debug_assert_eq!(read, Ok(()), "as it was just written");
        }
        true
    }
}

impl Shard {
    fn hear_join(
        &mut self,
        at: usize,
        peer: &Peer,
        moment: Moment,
        redelivered: bool,
        most: usize,
        keyed: &SipHasher13,
    ) -> ApplyResult {
        let swarm = &mut self.torrents[at].swarm;
        let before = swarm.len();
        let told = moment.age_minutes();
        let outdated = swarm.heard(peer, keyed).is_some_and(|heard| {
            let known = u32::from(age_minutes(moment.now, heard));
            known < told || redelivered && known == told
        });
        let heard = if outdated {
            ApplyResult::Stale
        } else {
            match swarm.join(moment.minute(), peer, most, keyed).at {
                Some(_) => ApplyResult::Applied,
                None => ApplyResult::Rejected,
            }
        };
        self.update_totals_and_prune(at, before, keyed);
        heard
    }

    fn hear_leave(
        &mut self,
        at: usize,
        peer: &Peer,
        moment: Moment,
        keyed: &SipHasher13,
    ) -> ApplyResult {
        let swarm = &mut self.torrents[at].swarm;
        let before = swarm.len();
        let heard = match swarm.heard(peer, keyed) {
            Some(heard) if u32::from(age_minutes(moment.now, heard)) >= moment.age_minutes() => {
                swarm.leave(peer, keyed);
                ApplyResult::Applied
            }
            _ => ApplyResult::Stale,
        };
        self.update_totals_and_prune(at, before, keyed);
        heard
    }
}

#[cfg(test)]
mod tests;
