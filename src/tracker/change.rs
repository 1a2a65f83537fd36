//! How one tracker tells another of its peers: what an announce changed, what others changed, and all over again.

use std::net::IpAddr;
use std::num::NonZeroU16;

use siphasher::sip::SipHasher13;

use super::saved::{self, age_minutes};
use super::swarm::Peer;
use super::types::{Class, InfoHash, Time};
use super::{Shard, Tracker, Walk};

/// How much younger than told a change may be: batches wait for tens of milliseconds, and ages are whole seconds of a clock
/// that is met across a network. Who stops here and starts there a moment later shall not be taken for gone.
const SLACK_SECS: u32 = 2;

/// What an announce changed, as other trackers are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    pub info_hash: InfoHash,
    /// Where the peer is reached; an IPv4-mapped address is already its IPv4 self.
    pub address: IpAddr,
    pub port: NonZeroU16,
    /// The host's fingerprint, in the upper 28 bits; the others are 0. The same to all trackers with one [`HostKey`].
    pub host: u32,
    /// `None`: it has left.
    pub class: Option<Class>,
    /// Its download has been counted, now or earlier.
    pub completed: bool,
}

/// A change and when it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    pub change: Change,
    /// Seconds from the announce until this was told.
    pub age_secs: u32,
    /// Told from memory, by [`Tracker::recount`]: the age is known to the minute, and the youngest that it can be. What was
    /// heard in that minute from elsewhere may be newer, and stays.
    pub again: bool,
}

/// What became of a change that another tracker told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    Taken,
    /// What is known is as new or newer, or the peer has been silent for too long by now.
    Older,
    /// The torrent is not tracked here, the address is not welcome, or its network has too many peers in the swarm.
    Refused,
}

/// Keys the hosts' fingerprints, for trackers that are to know each other's hosts.
#[derive(Clone, Copy)]
pub struct HostKey(pub(super) SipHasher13);

impl HostKey {
    /// The same for the same name. It may be known: that a client's own `key` is not keeps others from passing for it.
    pub fn new(name: &str) -> Self {
        let half = |number| SipHasher13::new_with_keys(0, number).hash(name.as_bytes());
        Self(SipHasher13::new_with_keys(half(1), half(2)))
    }
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
    pub fn hear(&self, now: Time, passed_secs: u32, told: &Told) -> Heard {
        let settings = self.settings();
        let change = &told.change;
        let slack = if told.again { 0 } else { SLACK_SECS };
        let age_secs = told.age_secs.saturating_add(passed_secs);
        let at = Moment {
            now,
            age_secs: age_secs.saturating_sub(slack),
        };
        if at.age_minutes() > settings.timeout_minutes().into() {
            return Heard::Older;
        }
        let peer = Peer::told(change, &settings.localities);
        let hash = self.hash(&change.info_hash);
        if change.class.is_none() {
            return self.hear_leave(hash, change, &peer, at);
        }
        if !settings.announces.access.admits(change.address)
            || settings.withdrawn(&change.info_hash).is_err()
        {
            return Heard::Refused;
        }
        let (endpoint, keyed) = (peer.endpoint(), &self.keyed);
        let mut shard = self.shard(hash);
        if (self.left).since(&change.info_hash, endpoint, now, at.age_secs, keyed) {
            return Heard::Older;
        }
        match shard.admitted(&change.info_hash, hash, settings.open, keyed) {
            Ok(torrent) => {
                let most = settings.max_peers_per_network;
                shard.hear_join(torrent, &peer, at, told.again, most, keyed)
            }
            Err(_) => Heard::Refused,
        }
    }

    fn hear_leave(&self, hash: u64, change: &Change, peer: &Peer, at: Moment) -> Heard {
        let (info_hash, endpoint) = (&change.info_hash, peer.endpoint());
        let mut shard = self.shard(hash);
        // Also where it is not known: word of its coming may be on the way.
        self.left
            .note(info_hash, endpoint, at.now, at.age_secs, &self.keyed);
        match shard.find(info_hash, hash) {
            Some(torrent) => shard.hear_leave(torrent, peer, at, &self.keyed),
            None => Heard::Older,
        }
    }

    /// Appends the walk's next part of all peers that were heard in the last `since_secs`, as they are told again, and tells
    /// whether that was not the end. A part is of some ten thousands, and may be empty; one shard is locked while its part is
    /// copied. While announces go on, a peer of a large swarm may be told twice, or not if it is heard meanwhile.
    pub fn recount(
        &self,
        now: Time,
        since_secs: u32,
        walk: &mut Walk,
        told: &mut Vec<Told>,
    ) -> bool {
        let mut block = Vec::new();
        if self.save(now, walk, &mut block).is_none() {
            return false;
        }
        let timeout = self.settings().timeout_minutes();
        // The age is known to the minute begun.
        let oldest = u8::try_from(since_secs / 60 + 1).unwrap_or(u8::MAX);
        let read = saved::for_each_swarm(&block, now, oldest.min(timeout), |info_hash, v4, v6| {
            told.extend(v4.iter().filter_map(|record| record.told(info_hash, now)));
            told.extend(v6.iter().filter_map(|record| record.told(info_hash, now)));
        });
        debug_assert_eq!(read, Ok(()), "as it was just written");
        true
    }
}

impl Shard {
    fn hear_join(
        &mut self,
        at: usize,
        peer: &Peer,
        moment: Moment,
        again: bool,
        most: usize,
        keyed: &SipHasher13,
    ) -> Heard {
        let swarm = &mut self.torrents[at].swarm;
        let before = swarm.len();
        let told = moment.age_minutes();
        let known = swarm.heard(peer, keyed).map(|heard| {
            let known = u32::from(age_minutes(moment.now, heard));
            known < told || again && known == told
        });
        let heard = match known {
            Some(true) => Heard::Older,
            _ => match swarm.join(moment.minute(), peer, most, keyed).at {
                Some(_) => Heard::Taken,
                None => Heard::Refused,
            },
        };
        self.settle(at, before, keyed);
        heard
    }

    fn hear_leave(&mut self, at: usize, peer: &Peer, moment: Moment, keyed: &SipHasher13) -> Heard {
        let swarm = &mut self.torrents[at].swarm;
        let before = swarm.len();
        let heard = match swarm.heard(peer, keyed) {
            Some(heard) if u32::from(age_minutes(moment.now, heard)) >= moment.age_minutes() => {
                swarm.leave(peer, keyed);
                Heard::Taken
            }
            _ => Heard::Older,
        };
        self.settle(at, before, keyed);
        heard
    }
}
