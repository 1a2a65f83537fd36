//! Batches from a cluster's store, applied to a tracker. Parsed batches can be written and parsed again, an update that is
//! not applied changes nothing, and the limits and the admissions hold for any input.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use tbtt::cluster::download_counters::{DownloadCounter, DownloadCounters, NodeId};
use tbtt::cluster::wire::{
    BatchSender, ReplicationBatch, ReplicationRecord, write_header, write_record,
};
use tbtt::tracker::Tracker;
use tbtt::tracker::access::{AccessList, LocalNetworks};
use tbtt::tracker::dump::DumpCursor;
use tbtt::tracker::replication::ApplyResult;
use tbtt::tracker::settings::{HostKey, Notice, Settings};
use tbtt::tracker::types::{Admission, InfoHash, ScrapeEntry, Time, TimedUpdate, Totals};

/// Torrents that are not merely unlisted.
const LISTED: InfoHash = InfoHash([1; 20]);
const DENIED: InfoHash = InfoHash([2; 20]);
const WITHDRAWN: InfoHash = InfoHash([3; 20]);

const MAX_TORRENTS: usize = 6;
const MAX_PEERS: usize = 24;
const MAX_PEERS_PER_NETWORK: usize = 3;
/// Maximum number of nodes that count one torrent's downloads.
const MAX_NODES: usize = 256;

/// Start times: ages may reach back to before time 0, and minutes wrap around.
const START_TIMES: [Time; 4] = [Time(0), Time(59), Time(1_000_000), Time(u32::MAX - 10_000)];
/// How long a batch was in its stream, in seconds.
const PASSED: [u32; 8] = [0, 1, 2, 59, 60, 2700, 1 << 24, u32::MAX];

fuzz_target!(|input: &[u8]| {
    let Some((&first, mut rest)) = input.split_first() else {
        return;
    };
    let open = first & 1 != 0;
    let mut now = START_TIMES[usize::from(first >> 1 & 3)];
    let tracker = tracker(open, 1);
    let mut downloads = DownloadCounters::default();
    if first & 8 != 0 {
        // Leaves room for three more nodes.
        for node in 0..MAX_NODES as u64 - 3 {
            let info_hash = LISTED;
            let counter = DownloadCounter {
                info_hash,
                node: NodeId(1 << 32 | node),
                downloads: 1,
            };
            assert_eq!(downloads.apply(&counter), Some(node as u32 + 1));
        }
    }
    // Each batch follows its length and a byte. The byte says how much time passes before the batch is read, and how long
    // the batch was in its stream.
    while let Some((&[length_high, length_low, how], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let (bytes, after) = after.split_at(length.min(after.len()));
        rest = after;
        now.0 = now.0.saturating_add(u32::from(how >> 4) * 7);
        tracker.expire(now, usize::from(how));
        let Ok(batch) = ReplicationBatch::parse(bytes) else {
            continue;
        };
        let records: Vec<_> = batch.records().collect();
        let mut written = Vec::new();
        write_header(batch.sender, &mut written);
        for record in &records {
            write_record(record, &mut written);
        }
        let parsed = ReplicationBatch::parse(&written).expect("written batches are valid");
        assert_eq!(parsed.sender, batch.sender);
        assert!(parsed.records().eq(records.iter().copied()));
        let passed_secs = PASSED[usize::from(how & 7)];
        // Totals are passed on from record to record: computing them visits all shards.
        let mut totals = tracker.totals();
        for record in &records {
            match record {
                ReplicationRecord::Counter(counter) => count(&tracker, &mut downloads, counter),
                ReplicationRecord::Peer(update) => {
                    apply_update(&tracker, now, passed_secs, update, &mut totals)
                }
            }
            assert!(within_limits(&totals, open), "{totals:?}");
        }
        assert_eq!(tracker.totals(), totals);
    }
    resend(&tracker, now, open);
    let mut bytes = downloads.save();
    let mut restored = DownloadCounters::default();
    restored.restore(&bytes).expect("saved counters are valid");
    downloads.iter().for_each(|known| {
        assert_eq!(restored.apply(&known), None, "already applied");
    });
    bytes.pop();
    assert_eq!(
        DownloadCounters::default().restore(&bytes).is_ok(),
        bytes.is_empty()
    );
    expire(&tracker, now, open);
});

fn tracker(open: bool, seed: u64) -> Tracker {
    let mut settings = Settings {
        open,
        max_torrents: MAX_TORRENTS,
        max_peers: MAX_PEERS,
        max_peers_per_network: MAX_PEERS_PER_NETWORK,
        local_networks: LocalNetworks::new(vec!["10.0.0.0/8".parse().unwrap()]),
        host_key: Some(HostKey::new("tbtt")),
        ..Settings::default()
    };
    let denied_networks =
        ["192.0.2.0/24", "2001:db8:bad::/48"].map(|network| network.parse().unwrap());
    settings.announces.access = AccessList::new(Vec::new(), denied_networks.to_vec());
    let tracker = Tracker::new(settings, seed);
    tracker.set_admission(&LISTED, Admission::Listed);
    tracker.set_admission(&DENIED, Admission::Denied);
    tracker.set_admission(&WITHDRAWN, Admission::Listed);
    let notice = Notice {
        failure: Some("withdrawn".into()),
        ..Default::default()
    };
    tracker.set_notice(WITHDRAWN, Some(notice));
    tracker
}

/// Applies a counter as a node does.
fn count(tracker: &Tracker, downloads: &mut DownloadCounters, counter: &DownloadCounter) {
    let before = downloads.total(&counter.info_hash);
    let Some(total) = downloads.apply(counter) else {
        assert_eq!(downloads.total(&counter.info_hash), before);
        return;
    };
    assert!(total >= before && total >= counter.downloads);
    assert_eq!(total, downloads.total(&counter.info_hash));
    assert_eq!(downloads.apply(counter), None, "already applied");
    let nodes = downloads
        .iter()
        .filter(|known| known.info_hash == counter.info_hash);
    assert!(nodes.count() <= MAX_NODES);
    tracker.raise_downloads(&counter.info_hash, total);
    if let (LISTED, Some(shown)) = (counter.info_hash, tracker.scrape(&counter.info_hash)) {
        assert!(shown.downloaded >= total);
    }
}

/// Applies an update twice. `totals` are the tracker's.
fn apply_update(
    tracker: &Tracker,
    now: Time,
    passed_secs: u32,
    update: &TimedUpdate,
    totals: &mut Totals,
) {
    let (info_hash, joins) = (&update.update.info_hash, update.update.class.is_some());
    let before = (*totals, tracker.scrape(info_hash));
    let result = tracker.apply_update(now, passed_secs, update);
    let redelivered = TimedUpdate {
        redelivered: true,
        ..*update
    };
    assert_ne!(
        tracker.apply_update(now, passed_secs, &redelivered),
        ApplyResult::Applied,
        "already applied"
    );
    *totals = tracker.totals();
    let after = (*totals, tracker.scrape(info_hash));
    match result {
        ApplyResult::Applied if joins => {
            assert!(after.1.expect("the torrent is tracked").peers() > 0);
            assert!(*info_hash != DENIED && *info_hash != WITHDRAWN);
        }
        ApplyResult::Applied => assert_eq!(peers(&after.0) + 1, peers(&before.0)),
        ApplyResult::Stale | ApplyResult::Rejected => assert_eq!(after, before),
    }
    if let (Some(before), Some(after)) = (before.1, after.1) {
        assert_eq!(
            after.downloaded, before.downloaded,
            "the other node counts the download"
        );
    }
}

trait Peers {
    fn peers(&self) -> u32;
}

impl Peers for ScrapeEntry {
    fn peers(&self) -> u32 {
        self.complete + self.incomplete
    }
}

fn peers(totals: &Totals) -> usize {
    totals.peers.sum()
}

fn within_limits(totals: &Totals, open: bool) -> bool {
    let torrents = match open {
        true => totals.torrents <= MAX_TORRENTS,
        false => totals.torrents == 3,
    };
    // The first peer of a torrent is stored even beyond the limit.
    torrents && peers(totals) <= MAX_PEERS + totals.torrents
}

/// Sends all peers of the tracker to an empty tracker: none is lost, and the first tracker finds its own updates stale.
fn resend(tracker: &Tracker, now: Time, open: bool) {
    // Peers that have been silent for too long are not sent.
    (0..Tracker::SLICES).for_each(|slice| tracker.expire(now, slice));
    let (mut cursor, mut updates) = (DumpCursor::default(), Vec::new());
    while tracker.dump_updates(now, u32::MAX, &mut cursor, &mut updates) {}
    if updates.is_empty() {
        return;
    }
    let other = self::tracker(open, 2);
    let mut written = Vec::new();
    let sender = BatchSender {
        node: NodeId(1),
        run: 1,
    };
    write_header(sender, &mut written);
    for update in &updates {
        write_record(&ReplicationRecord::Peer(*update), &mut written);
    }
    let batch = ReplicationBatch::parse(&written).expect("written batches are valid");
    let records = updates.iter().copied().map(ReplicationRecord::Peer);
    assert!(batch.records().eq(records));
    let totals = tracker.totals();
    for update in &updates {
        assert_eq!(
            tracker.apply_update(now, 0, update),
            ApplyResult::Stale,
            "{update:?}"
        );
        let result = other.apply_update(now, 0, update);
        assert!(
            result == ApplyResult::Applied || tracker.is_full(),
            "{update:?}"
        );
    }
    assert_eq!(tracker.totals(), totals);
    if !tracker.is_full() {
        assert_eq!(
            (peers(&other.totals()), peers(&totals)),
            (updates.len(), updates.len())
        );
        for tracker in [tracker, &other] {
            tracker.for_each_torrent(|id, entry| {
                let of_torrent = updates
                    .iter()
                    .filter(|update| update.update.info_hash == *id);
                assert_eq!(
                    (entry.complete, entry.incomplete, entry.partial),
                    counts(of_torrent),
                    "{id}"
                );
            });
        }
    }
}

/// Returns how many hosts are complete, incomplete and partial. An IPv4 and an IPv6 endpoint of a host count once.
fn counts<'u>(updates: impl Iterator<Item = &'u TimedUpdate>) -> (u32, u32, u32) {
    let mut endpoints = HashMap::new();
    let mut hosts = [0; 3];
    for TimedUpdate { update: change, .. } in updates {
        let class = change.class.expect("a peer in memory has not left") as usize;
        let of_host: &mut [u32; 2] = endpoints.entry((change.host, class)).or_default();
        let family = usize::from(change.address.is_ipv6());
        of_host[family] += 1;
        hosts[class] += u32::from(of_host[family] > of_host[1 - family]);
    }
    let [leechers, partial, complete] = hosts;
    (complete, leechers + partial, partial)
}

/// Lets an hour pass, in which all peers expire.
fn expire(tracker: &Tracker, now: Time, open: bool) {
    let Some(later) = now.0.checked_add(3600) else {
        return;
    };
    (0..Tracker::SLICES).for_each(|slice| tracker.expire(Time(later), slice));
    let totals = tracker.totals();
    assert_eq!(peers(&totals), 0);
    assert!(
        within_limits(&totals, open) && totals.torrents == 3,
        "{totals:?}"
    );
}
