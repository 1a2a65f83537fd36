//! The tracker: swarms by info-hash, and the call that serves an announce.
#![forbid(unsafe_code)]

pub mod access;
mod departures;
pub mod dump;
mod hash_key;
mod ip_ranges;
pub mod prefetch;
pub mod rate_limit;
pub mod replication;
mod retired_counters;
pub mod rng;
pub mod settings;
mod shard;
mod swarm;
pub mod types;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock, RwLockReadGuard};

use crate::lock::{lock, read, write};
use departures::Departures;
use hash_key::HashKey;
use rng::Rng;
use settings::{HostKey, Notice, Settings};
use shard::{Shard, ShardGuard, Usage};
use swarm::Swarm;
use swarm::peer::Peer;
use types::{
    Admission, Announce, AnnounceResponse, Class, Event, InfoHash, PerFamily, Refusal, ScrapeEntry,
    Time, Totals,
};

/// Number of shards: so many that two workers seldom need the same shard, and that the sweep of a shard is short.
const SHARDS: usize = 1024;

/// All torrents and their swarms, shared by all workers. Each call holds the lock of a shard for a short time.
pub struct Tracker {
    settings: RwLock<Settings>,
    shards: Box<[Mutex<Shard>]>,
    usage: Usage,
    key: HashKey,
    /// Its locks are taken after a shard's lock, never before. Empty unless there is a [`HostKey`].
    departures: Departures,
    /// Number of times that a torrent has become listed.
    listings: AtomicU64,
}

impl Tracker {
    /// Creates a tracker without torrents. `seed` makes hashes and the selection of peers unpredictable for clients,
    /// and repeatable in tests.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let mut random = Rng::new(seed);
        let key = HashKey::new(random.next_u64(), random.next_u64());
        let shards = (0..SHARDS)
            .map(|_| Mutex::new(Shard::new(Rng::new(random.next_u64()), key)))
            .collect();
        Self {
            settings: RwLock::new(settings),
            shards,
            usage: Usage::default(),
            key,
            departures: Departures::new(key),
            listings: AtomicU64::new(0),
        }
    }

    /// Replaces the settings except for the notices, which [`Tracker::set_notices`] replaces. Swarms stay as they are.
    pub fn set_settings(&self, settings: Settings) {
        let mut current = write(&self.settings);
        let notices = std::mem::take(&mut current.notices);
        *current = Settings {
            notices,
            ..settings
        };
    }

    /// Replaces the notices of all torrents.
    pub fn set_notices(&self, notices: HashMap<InfoHash, Notice>) {
        write(&self.settings).notices = notices;
    }

    /// Replaces or removes the notice of a torrent.
    pub fn set_notice(&self, info_hash: InfoHash, notice: Option<Notice>) {
        let mut settings = write(&self.settings);
        match notice {
            Some(notice) => settings.notices.insert(info_hash, notice),
            None => settings.notices.remove(&info_hash),
        };
    }

    /// Processes an announce. Appends the endpoints of other peers of the same address family to `peers`, in compact form.
    ///
    /// # Errors
    /// When the client or the torrent is refused; then nothing has changed, except that the request counts for the rate
    /// limit.
    pub fn announce(
        &self,
        now: Time,
        announce: &Announce,
        peers: &mut Vec<u8>,
    ) -> Result<AnnounceResponse, Refusal> {
        let settings = self.settings();
        settings.announces.admit(now, announce.address)?;
        settings.check_withdrawn(&announce.info_hash)?;
        let want = announce.numwant.unwrap_or(settings.numwant);
        let want = want.min(settings.max_numwant);
        let host_key = settings.host_key.map_or(self.key, |HostKey(key)| key);
        let peer = Peer::new(announce, want, &settings.local_networks, host_key);
        let hash = self.hash(&announce.info_hash);
        let mut shard = self.shard(hash);
        let unknown = self.check_unknown(&settings);
        let at = shard.find_or_add(&announce.info_hash, hash, settings.open, unknown)?;
        let (counts, outcome) = match announce.event {
            Event::Stopped => {
                if settings.host_key.is_some() {
                    self.departures
                        .record(&announce.info_hash, peer.endpoint(), now, 0);
                }
                (shard.leave(at, &peer), None)
            }
            _ => {
                let outcome = shard.join(at, now, &peer, self.max_per_network(&settings));
                let networks = &settings.local_networks;
                let counts = shard.select_peers(at, &peer, &outcome, networks, peers);
                (counts, Some(outcome))
            }
        };
        drop(shard);
        Ok(AnnounceResponse {
            counts,
            interval: settings.interval,
            min_interval: settings.min_interval,
            warning: settings.warning_for(&announce.info_hash),
            update: peer.to_update(announce, outcome.as_ref()),
            new_download: outcome.is_some_and(|outcome| outcome.first_completed),
        })
    }

    /// Checks whether an address may scrape now. Called once for each request, however many torrents it names.
    ///
    /// # Errors
    /// When the access list or the rate limit refuses the address.
    pub fn admit_scrape(&self, now: Time, address: IpAddr) -> Result<Scrape<'_>, Refusal> {
        let settings = self.settings();
        settings.scrapes.admit(now, address)?;
        Ok(Scrape {
            tracker: self,
            open: settings.open,
        })
    }

    /// Returns the counts of a torrent, for operators; `None` if it is not tracked.
    pub fn scrape(&self, info_hash: &InfoHash) -> Option<ScrapeEntry> {
        let open = self.settings().open;
        Scrape {
            tracker: self,
            open,
        }
        .counts(info_hash)
    }

    /// Raises the download counter of a torrent to `downloads`, which other trackers may have counted; never lowers it. If
    /// the torrent is not tracked, the counter is kept for when it is, unless the tracker is open.
    pub fn raise_downloads(&self, info_hash: &InfoHash, downloads: u32) {
        let open = self.settings().open;
        let hash = self.hash(info_hash);
        let mut shard = self.shard(hash);
        match shard.find(info_hash, hash) {
            Some(at) => {
                let counter = &mut shard.torrents[at].downloaded;
                *counter = downloads.max(*counter);
            }
            None if !open => shard.retired_counters.put(*info_hash, downloads),
            None => {}
        }
    }

    /// Sets whether a torrent is listed, denied or neither. A torrent that is denied loses its peers.
    pub fn set_admission(&self, info_hash: &InfoHash, admission: Admission) {
        let hash = self.hash(info_hash);
        let mut shard = self.shard(hash);
        let at = shard
            .find(info_hash, hash)
            .unwrap_or_else(|| shard.add(info_hash, hash));
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
        shard.update_totals_and_prune(at, before);
    }

    /// Returns how many times a torrent has become listed. When this has changed, an update that was rejected before may be
    /// accepted.
    pub fn listings(&self) -> u64 {
        self.listings.load(Ordering::Relaxed)
    }

    /// Returns the counts of a torrent over all its info-hashes, with each host counted once: clients announce a hybrid
    /// torrent under both of its info-hashes (BEP 52). Visits every peer, so this is for the status
    /// page and not for clients.
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
            // The larger counter, not the sum: a client that completes announces that under both info-hashes.
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
                .filter(|torrent| torrent.check_served(open).is_ok())
                .for_each(|torrent| each(&torrent.info_hash, torrent.counts()));
        }
    }

    /// Removes expired peers from a slice of the shards. Called for each slice in turn, so that a round of
    /// [`Tracker::SLICES`] calls visits every peer, and no announce waits for longer than a part of a slice takes.
    ///
    /// Ages wrap at 256 minutes. After the process was stopped for hours, the sweep therefore removes all peers except
    /// those that have announced since. A peer from before stays for another timeout only if its age seems to be 0 to 2
    /// minutes.
    pub fn expire(&self, now: Time, slice: usize) {
        let timeout_minutes = self.settings().timeout_minutes();
        self.departures
            .expire(now, slice, 60 * u32::from(timeout_minutes));
        let mut slices = self.shards.chunks(SHARDS / Self::SLICES);
        for shard in slices.nth(slice % Self::SLICES).into_iter().flatten() {
            let timeout_minutes = lock(shard).begin_sweep(now, timeout_minutes);
            let mut next = Some((0, 0));
            while let Some(from) = next {
                let mut shard = ShardGuard::lock(shard, &self.usage);
                next = shard.expire(now, timeout_minutes, from);
            }
        }
    }

    /// The number of calls of [`Tracker::expire`] that make a round.
    pub const SLICES: usize = 64;

    /// Returns the number of torrents that have peers or are listed or denied, and the number of peers.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in &self.shards {
            let shard = lock(shard);
            totals += Totals {
                torrents: shard.torrents.len(),
                peers: shard.peers,
            };
        }
        totals
    }

    /// Returns whether the tracker has as many torrents or peers as it may have.
    pub fn is_full(&self) -> bool {
        let settings = self.settings();
        let torrents = self.usage.torrents.load(Ordering::Relaxed);
        let peers = self.usage.peers.load(Ordering::Relaxed);
        settings.open && torrents >= settings.max_torrents || peers >= settings.max_peers
    }

    /// Returns the number of peers that are seeders. Visits every torrent, so this is for the status
    /// page.
    pub fn seeders(&self) -> PerFamily<usize> {
        let mut seeders = PerFamily::default();
        for shard in &self.shards {
            for torrent in &lock(shard).torrents {
                seeders += torrent.swarm.seeders();
            }
        }
        seeders
    }

    /// Checks whether a torrent that the tracker does not have may be added: if the tracker is open and not full.
    fn check_unknown(&self, settings: &Settings) -> Result<(), Refusal> {
        match settings.open {
            true if self.usage.torrents.load(Ordering::Relaxed) >= settings.max_torrents => {
                Err(Refusal::TooManyTorrents)
            }
            true => Ok(()),
            false => Err(Refusal::UnknownTorrent),
        }
    }

    /// Returns how many peers of a network a swarm may have now: 0, so that no peer is added, when all swarms together have
    /// [`Settings::max_peers`].
    fn max_per_network(&self, settings: &Settings) -> usize {
        match self.usage.peers.load(Ordering::Relaxed) < settings.max_peers {
            true => settings.max_peers_per_network,
            false => 0,
        }
    }

    fn settings(&self) -> RwLockReadGuard<'_, Settings> {
        read(&self.settings)
    }

    fn hash(&self, info_hash: &InfoHash) -> u64 {
        self.key.hash(&info_hash.0)
    }

    /// Locks the shard of a hash.
    fn shard(&self, hash: u64) -> ShardGuard<'_> {
        ShardGuard::lock(self.unlocked_shard(hash), &self.usage)
    }

    fn unlocked_shard(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[shard_number(hash)]
    }
}

/// Returns the number of the shard that has the torrents of this hash.
fn shard_number(hash: u64) -> usize {
    hash as usize % SHARDS
}

const _: () = assert!(
    Departures::PARTS == Tracker::SLICES,
    "a sweep of a slice also expires the part of the same number"
);

/// The permission to scrape, as [`Tracker::admit_scrape`] grants it.
pub struct Scrape<'a> {
    tracker: &'a Tracker,
    open: bool,
}

impl Scrape<'_> {
    /// Returns the counts of a torrent; `None` if it is not tracked.
    pub fn counts(&self, info_hash: &InfoHash) -> Option<ScrapeEntry> {
        let hash = self.tracker.hash(info_hash);
        let shard = lock(self.tracker.unlocked_shard(hash));
        match shard.find(info_hash, hash) {
            Some(at) => {
                let torrent = &shard.torrents[at];
                torrent
                    .check_served(self.open)
                    .is_ok()
                    .then(|| torrent.counts())
            }
            None => self.open.then(|| ScrapeEntry {
                downloaded: shard.retired_counters.get(info_hash, hash).unwrap_or(0),
                ..ScrapeEntry::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    use access::LocalNetworks;
    use types::{Key, PeerId};

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
    fn host_counts_once_over_both_info_hashes_and_families() {
        let tracker = Tracker::new(
            Settings {
                open: true,
                ..Settings::default()
            },
            1,
        );
        let announce_to = |announce: Announce| {
            tracker
                .announce(Time(0), &announce, &mut Vec::new())
                .unwrap();
        };
        // A host that completes under both info-hashes and over both families.
        for (id, address) in [
            (1, "192.0.2.1"),
            (2, "192.0.2.1"),
            (1, "2001:db8::1"),
            (2, "2001:db8::1"),
        ] {
            announce_to(announce(id, address, 1, Event::Started, false));
            announce_to(announce(id, address, 1, Event::Completed, true));
        }
        // A host that announces v1 only, a host that announces v2 only, and a partial seed that announces both.
        announce_to(announce(1, "192.0.2.2", 2, Event::Started, false));
        announce_to(announce(2, "192.0.2.3", 3, Event::Started, false));
        announce_to(announce(1, "192.0.2.4", 4, Event::Paused, false));
        announce_to(announce(2, "192.0.2.4", 4, Event::Paused, false));
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
    fn peers_from_before_hours_of_suspension_are_removed() {
        let settings = Settings {
            open: true,
            ..Settings::default()
        };
        let tracker = Tracker::new(settings, 1);
        let announce_at = |now, host: u8| {
            let announce = announce(1, &format!("192.0.2.{host}"), host, Event::Started, false);
            tracker.announce(now, &announce, &mut Vec::new()).unwrap();
        };
        let sweep = |now| {
            (0..Tracker::SLICES).for_each(|slice| tracker.expire(now, slice));
            tracker.totals().peers.v4
        };
        let begin = Time(1000 * 60);
        let minutes = |minutes: u32| Time(begin.0 + minutes * 60);
        assert_eq!(sweep(begin), 0);
        announce_at(minutes(0), 1);
        // The age of the first peer now seems to be 10 minutes.
        announce_at(minutes(266), 2);
        assert_eq!(sweep(minutes(266)), 1);
        // Without a suspension, a peer stays until its timeout.
        for minute in 267..=311 {
            assert_eq!(sweep(minutes(minute)), 1);
        }
        assert_eq!(sweep(minutes(312)), 0);
    }

    /// Announces and returns the number of IPv4 peers in the response.
    fn peers_received(tracker: &Tracker, announce: &Announce) -> usize {
        let mut peers = Vec::new();
        tracker.announce(Time(0), announce, &mut peers).unwrap();
        peers.len() / 6
    }

    #[test]
    fn local_peer_is_given_to_its_own_network_only() {
        let networks = ["10.0.0.0/8", "192.168.0.0/16"].map(|network| network.parse().unwrap());
        let local_networks = LocalNetworks::new(networks.to_vec());
        let tracker = Tracker::new(
            Settings {
                open: true,
                local_networks,
                ..Settings::default()
            },
            1,
        );
        let at = |address: &str, host| announce(1, address, host, Event::Started, false);
        assert_eq!(peers_received(&tracker, &at("10.0.0.1", 1)), 0);
        assert_eq!(
            peers_received(&tracker, &at("192.168.0.1", 2)),
            0,
            "a peer of another local network"
        );
        assert_eq!(
            peers_received(&tracker, &at("10.9.9.9", 3)),
            1,
            "a peer of the same local network"
        );
        assert_eq!(
            peers_received(&tracker, &at("198.51.100.1", 4)),
            0,
            "a requester outside"
        );
        assert_eq!(
            peers_received(&tracker, &at("198.51.100.2", 5)),
            1,
            "the other peer outside"
        );
        assert_eq!(
            peers_received(&tracker, &at("10.0.0.1", 1)),
            3,
            "a peer of its own network and two outside"
        );
        for host in 0..40 {
            peers_received(&tracker, &at(&format!("10.1.0.{host}"), host));
            peers_received(&tracker, &at(&format!("203.0.113.{host}"), host));
        }
        let outside = Announce {
            numwant: Some(12),
            ..at("198.51.100.1", 4)
        };
        assert_eq!(
            peers_received(&tracker, &outside),
            12,
            "other peers replace those left out"
        );
    }

    #[test]
    fn torrents_and_peers_are_limited_until_others_are_removed() {
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
        let announce_to =
            |announce: &Announce| tracker.announce(Time(0), announce, &mut Vec::new());
        for host in 1..=3 {
            assert!(!tracker.is_full());
            announce_to(&at(1, host)).unwrap();
        }
        assert!(tracker.is_full());
        assert_eq!(
            peers_received(&tracker, &at(1, 4)),
            3,
            "the response has all peers"
        );
        assert_eq!(
            announce_to(&at(1, 1)).unwrap().counts.incomplete,
            3,
            "the fourth peer was not kept"
        );

        announce_to(&at(2, 5)).unwrap();
        assert_eq!(
            peers_received(&tracker, &at(2, 6)),
            1,
            "the first peer of a torrent was kept"
        );
        assert_eq!(peers_received(&tracker, &at(2, 7)), 1);
        assert_eq!(announce_to(&at(3, 1)), Err(Refusal::TooManyTorrents));
        let stopped = announce(3, "192.0.2.1", 1, Event::Stopped, false);
        assert_eq!(announce_to(&stopped), Err(Refusal::TooManyTorrents));
        announce_to(&at(1, 1)).unwrap();
        tracker.set_admission(&InfoHash([4; 20]), Admission::Listed);
        announce_to(&at(4, 8)).expect("a listed torrent is tracked");

        tracker.set_admission(&InfoHash([4; 20]), Admission::Denied);
        tracker.set_admission(&InfoHash([4; 20]), Admission::Unlisted);
        tracker.set_admission(&InfoHash([1; 20]), Admission::Denied);
        tracker.set_admission(&InfoHash([1; 20]), Admission::Unlisted);
        assert!(!tracker.is_full());
        announce_to(&at(3, 1)).expect("two torrents were removed");
        for slice in 0..Tracker::SLICES {
            tracker.expire(Time(4000), slice);
        }
        let Usage { torrents, peers } = &tracker.usage;
        let usage = [torrents, peers].map(|total| total.load(Ordering::Relaxed));
        assert_eq!(usage, [0, 0]);
    }
}
