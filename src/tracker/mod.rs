//! What a tracker contains, and the one way in to it.
#![forbid(unsafe_code)]

pub mod access;
mod departures;
mod dump;
mod ip_ranges;
mod prefetch;
pub mod rate_limit;
mod replication;
mod retired_counters;
mod rng;
pub mod settings;
mod shard;
mod swarm;
pub mod types;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock, RwLockReadGuard};

use siphasher::sip::SipHasher13;

pub use dump::{DumpCursor, Restore, Restored};
pub use prefetch::Lookup;
pub use replication::ApplyResult;
pub use rng::Rng;
pub use settings::{AccessPolicy, HostKey, Notice, Settings};
pub use shard::Totals;
pub use types::{
    Admission, Announce, Answer, Class, CorruptBlock, Event, InfoHash, InfoHashV2, Key, PeerId,
    PeerUpdate, Refusal, Retry, ScrapeEntry, Time, TimedUpdate, UnixTime,
};

use crate::lock::{lock, read, write};
use departures::Departures;
use shard::{Shard, ShardGuard, Usage};
use swarm::Swarm;
use swarm::peer::Peer;

/// So many that two workers seldom meet at one, and that a sweep of one is short.
const SHARDS: usize = 1024;

/// Every torrent and its swarm. Shared by all workers; each call takes one short lock.
pub struct Tracker {
    settings: RwLock<Settings>,
    shards: Box<[Mutex<Shard>]>,
    usage: Usage,
    /// Keyed, so that no stranger can choose hashes or addresses that fall on one bucket_hash.
    keyed: SipHasher13,
    /// ShardGuard, if at all, within a shard's lock. Empty unless there is a [`HostKey`].
    departures: Departures,
    /// How often a torrent has come to be listed.
    listings: AtomicU64,
}

impl Tracker {
    /// `seed` makes choices and hashing unforeseeable to strangers, and repeatable for tests.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let mut random = Rng::new(seed);
        let keyed = SipHasher13::new_with_keys(random.next_u64(), random.next_u64());
        let shards = (0..SHARDS)
            .map(|_| Mutex::new(Shard::new(Rng::new(random.next_u64()))))
            .collect();
        Self {
            settings: RwLock::new(settings),
            shards,
            usage: Usage::default(),
            keyed,
            departures: Departures::new(),
            listings: AtomicU64::new(0),
        }
    }

    /// Takes what single torrents' clients are told from now on.
    pub fn set_notices(&self, notices: HashMap<InfoHash, Notice>) {
        write(&self.settings).notices = notices;
    }

    /// Takes what one torrent's clients are told from now on.
    pub fn set_notice(&self, info_hash: InfoHash, notice: Option<Notice>) {
        let mut settings = write(&self.settings);
        match notice {
            Some(notice) => settings.notices.insert(info_hash, notice),
            None => settings.notices.remove(&info_hash),
        };
    }

    /// Takes new settings but for the notices, which are set apart; swarms stay as they are.
    pub fn set(&self, settings: Settings) {
        let mut current = write(&self.settings);
        let notices = std::mem::take(&mut current.notices);
        *current = Settings {
            notices,
            ..settings
        };
    }

    /// Hears a peer, and appends the endpoints of others of its family to `peers`, in compact form.
    pub fn announce(
        &self,
        now: Time,
        announce: &Announce,
        peers: &mut Vec<u8>,
    ) -> Result<Answer, Refusal> {
        let settings = self.settings();
        settings.announces.admit(now, announce.address)?;
        settings.check_withdrawn(&announce.info_hash)?;
        let peer = Peer::new(announce, &settings, &self.keyed);
        let hash = self.hash(&announce.info_hash);
        let mut shard = self.shard(hash);
        let unknown = self.room_for_torrent(&settings);
        let at = shard.admitted(
            &announce.info_hash,
            hash,
            settings.open,
            unknown,
            &self.keyed,
        )?;
        let (counts, joined) = match announce.event {
            Event::Stopped => {
                if settings.host_key.is_some() {
                    let endpoint = peer.endpoint();
                    self.departures
                        .record(&announce.info_hash, endpoint, now, 0, &self.keyed);
                }
                (shard.leave(at, &peer, &self.keyed), None)
            }
            _ => {
                let most = self.most_peers(&settings);
                let joined = shard.join(at, now, &peer, most, &self.keyed);
                let counts = shard.choose(at, &peer, &joined, &settings.local_networks, peers);
                (counts, Some(joined))
            }
        };
        drop(shard);
        Ok(Answer {
            counts,
            interval: settings.interval,
            min_interval: settings.min_interval,
            warning: settings.warning_for(&announce.info_hash),
            change: peer.change(announce, joined.as_ref()),
            counted: joined.is_some_and(|joined| joined.first_completed),
        })
    }

    /// Lets an address scrape, if it may now; asked once for each request, however many torrents that names.
    pub fn admit_scrape(&self, now: Time, address: IpAddr) -> Result<Scrape<'_>, Refusal> {
        let settings = self.settings();
        settings.scrapes.admit(now, address)?;
        Ok(Scrape {
            tracker: self,
            open: settings.open,
        })
    }

    /// One torrent's counts, for the operator; `None` for one that is not tracked here.
    pub fn scrape(&self, info_hash: &InfoHash) -> Option<ScrapeEntry> {
        let open = self.settings().open;
        Scrape {
            tracker: self,
            open,
        }
        .counts(info_hash)
    }

    /// Shows no fewer downloads of a torrent than `downloads`, which others may have counted. Where it is not tracked, that is
    /// remembered for when it is, unless the tracker is open.
    pub fn show_downloads(&self, info_hash: &InfoHash, downloads: u32) {
        let open = self.settings().open;
        let hash = self.hash(info_hash);
        let mut shard = self.shard(hash);
        match shard.find(info_hash, hash) {
            Some(at) => {
                let shown = &mut shard.torrents[at].downloaded;
                *shown = downloads.max(*shown);
            }
            None if !open => shard.remembered.put(*info_hash, downloads, &self.keyed),
            None => {}
        }
    }

    /// Names a torrent as tracked or denied, or takes that back.
    pub fn admit(&self, info_hash: &InfoHash, admission: Admission) {
        let hash = self.hash(info_hash);
        let mut shard = self.shard(hash);
        let at = shard
            .find(info_hash, hash)
            .unwrap_or_else(|| shard.add(info_hash, hash, &self.keyed));
        let torrent = &mut shard.torrents[at];
        let before = torrent.swarm.len();
        if admission == Admission::Listed && torrent.admission != admission {
            self.listings.fetch_add(1, Ordering::Relaxed);
        }
        torrent.admission = admission;
        torrent.was_listed |= admission == Admission::Listed;
        if admission == Admission::Denied {
            torrent.swarm = Swarm::default();
        }
        shard.update_totals_and_prune(at, before, &self.keyed);
    }

    /// How often a torrent has come to be listed: when this changes, what was refused may be welcome.
    pub fn listings(&self) -> u64 {
        self.listings.load(Ordering::Relaxed)
    }

    /// One torrent's counts over all its ids, each host once: a hybrid's clients announce under both (BEP 52). Looks at every
    /// peer, so it is for the operator's views, not for clients.
    pub fn counts_together(&self, ids: impl IntoIterator<Item = InfoHash>) -> ScrapeEntry {
        let mut hosts = HashMap::new();
        let mut downloaded = 0;
        for id in ids {
            let hash = self.hash(&id);
            let shard = self.shard(hash);
            let Some(at) = shard.find(&id, hash) else {
                continue;
            };
            let torrent = &shard.torrents[at];
            // Who completes says so under both ids.
            downloaded = torrent.downloaded.max(downloaded);
            torrent.swarm.for_each_host(|host, class| {
                let best = hosts.entry(host).or_insert(class);
                *best = class.max(*best);
            });
        }
        let count = |class| hosts.values().filter(|&&of| of == class).count() as u32;
        let partial = count(Class::Partial);
        ScrapeEntry {
            complete: count(Class::Seeder),
            incomplete: count(Class::Leecher) + partial,
            partial,
            downloaded,
        }
    }

    /// Calls `each` with every tracked torrent and its counts, shard by shard, in no order.
    pub fn for_each_torrent(&self, mut each: impl FnMut(&InfoHash, ScrapeEntry)) {
        let open = self.settings().open;
        for shard in &self.shards {
            let shard = lock(shard);
            shard
                .torrents
                .iter()
                .filter(|t| t.admitted(open).is_ok())
                .for_each(|t| each(&t.info_hash, t.counts()));
        }
    }

    /// Forgets silent peers in one slice of all: called for each slice in turn, every peer is seen once a round, and no
    /// announce waits for more than a part of a slice.
    ///
    /// A process that was stopped for hours finds everyone too old but those that have come since, and forgets them, though
    /// ages wrap: only who happens to seem new, a minute or two in 256, stays for one more timeout.
    pub fn expire(&self, now: Time, slice: usize) {
        let timeout_minutes = self.settings().timeout_minutes();
        self.departures
            .expire(now, slice, 60 * u32::from(timeout_minutes));
        for shard in self
            .shards
            .chunks(SHARDS / Self::SLICES)
            .nth(slice % Self::SLICES)
            .into_iter()
            .flatten()
        {
            let timeout_minutes = lock(shard).begin_sweep(now, timeout_minutes);
            let mut next = Some((0, 0));
            while let Some(from) = next {
                let mut shard = self.locked(shard);
                next = shard.expire(now, timeout_minutes, from, &self.keyed);
            }
        }
    }

    /// How many calls of [`Tracker::expire`] make a round.
    pub const SLICES: usize = 64;

    /// How many torrents have peers or are listed, and how many endpoints there are of IPv4 and of IPv6.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in &self.shards {
            let shard = lock(shard);
            totals.torrents += shard.torrents.len();
            totals.peers_v4 += shard.peers[0];
            totals.peers_v6 += shard.peers[1];
        }
        totals
    }

    /// Whether it keeps as many torrents or peers as it may.
    pub fn is_full(&self) -> bool {
        let settings = self.settings();
        let torrents = self.usage.torrents.load(Ordering::Relaxed);
        let peers = self.usage.peers.load(Ordering::Relaxed);
        settings.open && torrents >= settings.max_torrents || peers >= settings.max_peers
    }

    /// How many of the endpoints are seeders: IPv4, IPv6. Looks at every torrent, so it is for the operator's views.
    pub fn seeders(&self) -> [usize; 2] {
        let mut seeders = [0, 0];
        for shard in &self.shards {
            for torrent in &lock(shard).torrents {
                let [v4, v6] = torrent.swarm.seeders();
                seeders = [seeders[0] + v4, seeders[1] + v6];
            }
        }
        seeders
    }

    /// Whether a torrent that is not known yet may be kept.
    fn room_for_torrent(&self, settings: &Settings) -> Result<(), Refusal> {
        match settings.open {
            true if self.usage.torrents.load(Ordering::Relaxed) >= settings.max_torrents => {
                Err(Refusal::TooManyTorrents)
            }
            true => Ok(()),
            false => Err(Refusal::UnknownTorrent),
        }
    }

    /// How many peers of a network a swarm may keep now: no new one where all swarms together are full.
    fn most_peers(&self, settings: &Settings) -> usize {
        match self.usage.peers.load(Ordering::Relaxed) < settings.max_peers {
            true => settings.max_peers_per_network,
            false => 0,
        }
    }

    fn settings(&self) -> RwLockReadGuard<'_, Settings> {
        read(&self.settings)
    }

    fn hash(&self, info_hash: &InfoHash) -> u64 {
        self.keyed.hash(&info_hash.0)
    }

    fn shard(&self, hash: u64) -> ShardGuard<'_> {
        self.locked(self.shard_of(hash))
    }

    fn shard_of(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[hash as usize % SHARDS]
    }

    fn locked<'a>(&'a self, shard: &'a Mutex<Shard>) -> ShardGuard<'a> {
        let shard = lock(shard);
        ShardGuard {
            before: shard.held(),
            shard,
            usage: &self.usage,
        }
    }
}

/// A scrape that has been admitted.
pub struct Scrape<'a> {
    tracker: &'a Tracker,
    open: bool,
}

impl Scrape<'_> {
    /// One torrent's counts; `None` for one that is not tracked here.
    pub fn counts(&self, info_hash: &InfoHash) -> Option<ScrapeEntry> {
        let hash = self.tracker.hash(info_hash);
        let shard = lock(self.tracker.shard_of(hash));
        match shard.find(info_hash, hash) {
            Some(at) => shard.torrents[at]
                .admitted(self.open)
                .is_ok()
                .then(|| shard.torrents[at].counts()),
            None => self.open.then(|| ScrapeEntry {
                downloaded: shard.remembered.get(info_hash, hash).unwrap_or(0),
                ..ScrapeEntry::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use std::num::NonZeroU16;

    fn announce(info_hash: u8, address: &str, host: u8, event: Event, complete: bool) -> Announce {
        Announce {
            info_hash: InfoHash([info_hash; 20]),
            peer_id: PeerId([host; 20]),
            key: Some(Key(host.into())),
            address: address.parse::<IpAddr>().unwrap(),
            port: NonZeroU16::new(6881).unwrap(),
            event,
            complete,
            numwant: None,
        }
    }

    #[test]
    fn a_hybrids_hosts_count_once_under_both_ids_and_families() {
        let tracker = Tracker::new(
            Settings {
                open: true,
                ..Settings::default()
            },
            1,
        );
        let apply_update = |announce: Announce| {
            tracker
                .announce(Time(0), &announce, &mut Vec::new())
                .unwrap();
        };
        // One that completes under both ids and over both families.
        for (id, address) in [
            (1, "192.0.2.1"),
            (2, "192.0.2.1"),
            (1, "2001:db8::1"),
            (2, "2001:db8::1"),
        ] {
            apply_update(announce(id, address, 1, Event::Started, false));
            apply_update(announce(id, address, 1, Event::Completed, true));
        }
        // One that contains v1 alone, one that contains v2 alone, and a partial seed of both.
        apply_update(announce(1, "192.0.2.2", 2, Event::Started, false));
        apply_update(announce(2, "192.0.2.3", 3, Event::Started, false));
        apply_update(announce(1, "192.0.2.4", 4, Event::Paused, false));
        apply_update(announce(2, "192.0.2.4", 4, Event::Paused, false));
        let both = [InfoHash([1; 20]), InfoHash([2; 20])];
        let expected = ScrapeEntry {
            complete: 1,
            incomplete: 3,
            partial: 1,
            downloaded: 1,
        };
        assert_eq!(tracker.counts_together(both), expected);
        assert_eq!(
            tracker.counts_together([both[0]]),
            tracker.scrape(&both[0]).unwrap()
        );
        assert_eq!(
            tracker.counts_together([InfoHash([9; 20])]),
            ScrapeEntry::default()
        );
    }

    #[test]
    fn who_was_there_before_hours_of_standstill_is_forgotten() {
        let settings = Settings {
            open: true,
            ..Settings::default()
        };
        let tracker = Tracker::new(settings, 1);
        let apply_update = |now, host: u8| {
            let announce = announce(1, &format!("192.0.2.{host}"), host, Event::Started, false);
            tracker.announce(now, &announce, &mut Vec::new()).unwrap();
        };
        let sweep = |now| {
            (0..Tracker::SLICES).for_each(|slice| tracker.expire(now, slice));
            tracker.totals().peers_v4
        };
        let begin = Time(1000 * 60);
        let minutes = |minutes: u32| Time(begin.0 + minutes * 60);
        assert_eq!(sweep(begin), 0);
        apply_update(minutes(0), 1);
        // Its age seems to be 10 minutes.
        apply_update(minutes(266), 2);
        assert_eq!(sweep(minutes(266)), 1);
        // Without a standstill each stays for as long as it may.
        for minute in 267..=311 {
            assert_eq!(sweep(minutes(minute)), 1);
        }
        assert_eq!(sweep(minutes(312)), 0);
    }

    fn given(tracker: &Tracker, announce: &Announce) -> usize {
        let mut peers = Vec::new();
        tracker.announce(Time(0), announce, &mut peers).unwrap();
        peers.len() / 6
    }

    #[test]
    fn local_peers_are_given_to_their_own_network_alone() {
        let networks = ["10.0.0.0/8", "192.168.0.0/16"].map(|network| network.parse().unwrap());
        let local_networks = access::LocalNetworks::new(networks.to_vec());
        let tracker = Tracker::new(
            Settings {
                open: true,
                local_networks,
                ..Settings::default()
            },
            1,
        );
        let at = |address: &str, host| announce(1, address, host, Event::Started, false);
        assert_eq!(given(&tracker, &at("10.0.0.1", 1)), 0);
        assert_eq!(
            given(&tracker, &at("192.168.0.1", 2)),
            0,
            "of another network"
        );
        assert_eq!(given(&tracker, &at("10.9.9.9", 3)), 1, "of the same one");
        assert_eq!(given(&tracker, &at("198.51.100.1", 4)), 0, "from outside");
        assert_eq!(
            given(&tracker, &at("198.51.100.2", 5)),
            1,
            "the other outside"
        );
        assert_eq!(
            given(&tracker, &at("10.0.0.1", 1)),
            3,
            "its own and the outside"
        );
        for host in 0..40 {
            given(&tracker, &at(&format!("10.1.0.{host}"), host));
            given(&tracker, &at(&format!("203.0.113.{host}"), host));
        }
        let outside = Announce {
            numwant: Some(12),
            ..at("198.51.100.1", 4)
        };
        assert_eq!(given(&tracker, &outside), 12, "others stand in");
    }

    #[test]
    fn what_is_kept_is_bounded_and_makes_room_again() {
        let tracker = Tracker::new(
            Settings {
                open: true,
                max_peers: 3,
                max_torrents: 2,
                ..Settings::default()
            },
            1,
        );
        let at = |torrent, host: u8| {
            let address = format!("192.0.2.{host}");
            announce(torrent, &address, host, Event::Started, false)
        };
        let apply_update =
            |announce: &Announce| tracker.announce(Time(0), announce, &mut Vec::new());
        for host in 1..=3 {
            assert!(!tracker.is_full());
            apply_update(&at(1, host)).unwrap();
        }
        assert!(tracker.is_full());
        assert_eq!(given(&tracker, &at(1, 4)), 3, "answered in full");
        assert_eq!(
            apply_update(&at(1, 1)).unwrap().counts.incomplete,
            3,
            "not kept"
        );

        apply_update(&at(2, 5)).unwrap();
        assert_eq!(given(&tracker, &at(2, 6)), 1, "the first of a torrent is");
        assert_eq!(given(&tracker, &at(2, 7)), 1);
        assert_eq!(apply_update(&at(3, 1)), Err(Refusal::TooManyTorrents));
        let stopped = announce(3, "192.0.2.1", 1, Event::Stopped, false);
        assert_eq!(apply_update(&stopped), Err(Refusal::TooManyTorrents));
        apply_update(&at(1, 1)).unwrap();
        tracker.admit(&InfoHash([4; 20]), Admission::Listed);
        apply_update(&at(4, 8)).expect("a listed one is tracked");

        tracker.admit(&InfoHash([4; 20]), Admission::Denied);
        tracker.admit(&InfoHash([4; 20]), Admission::Unlisted);
        tracker.admit(&InfoHash([1; 20]), Admission::Denied);
        tracker.admit(&InfoHash([1; 20]), Admission::Unlisted);
        assert!(!tracker.is_full());
        apply_update(&at(3, 1)).expect("there is room again");
        for slice in 0..Tracker::SLICES {
            tracker.expire(Time(4000), slice);
        }
        let held = &tracker.usage;
        let held = [&held.torrents, &held.peers].map(|total| total.load(Ordering::Relaxed));
        assert_eq!(held, [0, 0]);
    }
}
