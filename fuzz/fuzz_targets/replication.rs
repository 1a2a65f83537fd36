//! Batches that a cluster's engine hands out, to a living tracker: what is read can be written and read redelivered, what is not
//! taken changes nothing, and whatever is told the caps and the catalog hold.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use tbtt::cluster::download_counters::{Counter, Downloads, NodeId};
use tbtt::cluster::wire::{Batch, ReplicationRecord, write_head, write_record};
use tbtt::tracker::access::{AccessList, LocalNetworks};
use tbtt::tracker::settings::Notice;
use tbtt::tracker::{
    Admission, ApplyResult, DumpCursor, HostKey, InfoHash, ScrapeEntry, Settings, Time,
    TimedUpdate, Totals, Tracker,
};

/// The torrents that have a say of their own.
const LISTED: InfoHash = InfoHash([1; 20]);
const DENIED: InfoHash = InfoHash([2; 20]);
const WITHDRAWN: InfoHash = InfoHash([3; 20]);

const MAX_TORRENTS: usize = 6;
const MAX_PEERS: usize = 24;
const MAX_PEERS_PER_NETWORK: usize = 3;
/// The most that count one torrent's downloads.
const MAX_NODES: usize = 256;

/// When it begins, for ages reach back to before time 0, and minutes wrap around.
const BEGINNINGS: [Time; 4] = [Time(0), Time(59), Time(1_000_000), Time(u32::MAX - 10_000)];
/// How long a batch lay in its stream, in seconds.
const PASSED: [u32; 8] = [0, 1, 2, 59, 60, 2700, 1 << 24, u32::MAX];

fuzz_target!(|input: &[u8]| {
    let Some((&first, mut rest)) = input.split_first() else {
        return;
    };
    let open = first & 1 != 0;
    let mut now = BEGINNINGS[usize::from(first >> 1 & 3)];
    let tracker = tracker(open, 1);
    let mut downloads = Downloads::default();
    if first & 8 != 0 {
        // So many that there is room for a few.
        for node in 0..MAX_NODES as u64 - 3 {
            let info_hash = LISTED;
            let counter = Counter {
                info_hash,
                node: NodeId(1 << 32 | node),
                downloads: 1,
            };
            assert_eq!(downloads.apply_update(&counter), Some(node as u32 + 1));
        }
    }
    // Each batch behind its length and a byte that says how much later it is read, and how long after it was told.
    while let Some((&[length_high, length_low, how], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let (bytes, after) = after.split_at(length.min(after.len()));
        rest = after;
        now.0 = now.0.saturating_add(u32::from(how >> 4) * 7);
        tracker.expire(now, usize::from(how));
        let Ok(batch) = Batch::parse(bytes) else {
            continue;
        };
        let records: Vec<_> = batch.records().collect();
        let mut written = Vec::new();
        write_head(batch.sender, &mut written);
        for record in &records {
            write_record(record, &mut written);
        }
        let redelivered = Batch::parse(&written).expect("as it was written");
        assert_eq!(redelivered.sender, batch.sender);
        assert!(redelivered.records().eq(records.iter().copied()));
        let passed_secs = PASSED[usize::from(how & 7)];
        // A look at all shards takes long.
        let mut totals = tracker.totals();
        for record in &records {
            match record {
                ReplicationRecord::Counter(counter) => count(&tracker, &mut downloads, counter),
                ReplicationRecord::Peer(told) => {
                    apply_update(&tracker, now, passed_secs, told, &mut totals)
                }
            }
            assert!(within_caps(&totals, open), "{totals:?}");
        }
        assert_eq!(tracker.totals(), totals);
    }
    tell_again(&tracker, now, open);
    let mut bytes = downloads.save();
    let mut restored = Downloads::default();
    restored.restore(&bytes).expect("as it was saved");
    downloads.counters().for_each(|known| {
        assert_eq!(restored.apply_update(&known), None, "it is known");
    });
    bytes.pop();
    assert_eq!(
        Downloads::default().restore(&bytes).is_ok(),
        bytes.is_empty()
    );
    forget(&tracker, now, open);
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
    let unwelcome = ["192.0.2.0/24", "2001:db8:bad::/48"].map(|network| network.parse().unwrap());
    settings.announces.access = AccessList::new(Vec::new(), unwelcome.to_vec());
    let tracker = Tracker::new(settings, seed);
    tracker.admit(&LISTED, Admission::Listed);
    tracker.admit(&DENIED, Admission::Denied);
    tracker.admit(&WITHDRAWN, Admission::Listed);
    let notice = Notice {
        failure: Some("withdrawn".into()),
        ..Default::default()
    };
    tracker.set_notice(WITHDRAWN, Some(notice));
    tracker
}

/// Takes a counter in as a node does.
fn count(tracker: &Tracker, downloads: &mut Downloads, counter: &Counter) {
    let before = downloads.total(&counter.info_hash);
    let Some(total) = downloads.apply_update(counter) else {
        assert_eq!(downloads.total(&counter.info_hash), before);
        return;
    };
    assert!(total >= before && total >= counter.downloads);
    assert_eq!(total, downloads.total(&counter.info_hash));
    assert_eq!(downloads.apply_update(counter), None, "it is known");
    let nodes = downloads
        .counters()
        .filter(|known| known.info_hash == counter.info_hash);
    assert!(nodes.count() <= MAX_NODES);
    tracker.show_downloads(&counter.info_hash, total);
    if let (LISTED, Some(shown)) = (counter.info_hash, tracker.scrape(&counter.info_hash)) {
        assert!(shown.downloaded >= total);
    }
}

/// Hears of one peer, twice; `totals` are the tracker's.
fn apply_update(
    tracker: &Tracker,
    now: Time,
    passed_secs: u32,
    told: &TimedUpdate,
    totals: &mut Totals,
) {
    let (info_hash, joins) = (&told.change.info_hash, told.change.class.is_some());
    let before = (*totals, tracker.scrape(info_hash));
    let heard = tracker.apply_update(now, passed_secs, told);
    let redelivered = TimedUpdate {
        redelivered: true,
        ..*told
    };
    assert_ne!(
        tracker.apply_update(now, passed_secs, &redelivered),
        ApplyResult::Applied,
        "it is known"
    );
    *totals = tracker.totals();
    let after = (*totals, tracker.scrape(info_hash));
    match heard {
        ApplyResult::Applied if joins => {
            assert!(after.1.expect("it is tracked").peers() > 0);
            assert!(*info_hash != DENIED && *info_hash != WITHDRAWN);
        }
        ApplyResult::Applied => assert_eq!(peers(&after.0) + 1, peers(&before.0)),
        ApplyResult::Stale | ApplyResult::Rejected => assert_eq!(after, before),
    }
    if let (Some(before), Some(after)) = (before.1, after.1) {
        assert_eq!(
            after.downloaded, before.downloaded,
            "another has counted it"
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
    totals.peers_v4 + totals.peers_v6
}

fn within_caps(totals: &Totals, open: bool) -> bool {
    let torrents = match open {
        true => totals.torrents <= MAX_TORRENTS,
        false => totals.torrents == 3,
    };
    // A torrent's first is kept all the same.
    torrents && peers(totals) <= MAX_PEERS + totals.torrents
}

/// All that is known, told to an empty tracker: nothing is lost on the way, and nothing comes of it when it comes back.
fn tell_again(tracker: &Tracker, now: Time, open: bool) {
    // Who has been silent for too long is not told of.
    (0..Tracker::SLICES).for_each(|slice| tracker.expire(now, slice));
    let (mut walk, mut told) = (DumpCursor::default(), Vec::new());
    while tracker.dump_updates(now, u32::MAX, &mut walk, &mut told) {}
    if told.is_empty() {
        return;
    }
    let other = self::tracker(open, 2);
    let mut written = Vec::new();
    let sender = tbtt::cluster::wire::Sender {
        node: NodeId(1),
        run: 1,
    };
    write_head(sender, &mut written);
    for told in &told {
        write_record(&ReplicationRecord::Peer(*told), &mut written);
    }
    let batch = Batch::parse(&written).expect("as it was written");
    assert!(
        batch
            .records()
            .eq(told.iter().copied().map(ReplicationRecord::Peer))
    );
    let totals = tracker.totals();
    for told in &told {
        assert_eq!(
            tracker.apply_update(now, 0, told),
            ApplyResult::Stale,
            "{told:?}"
        );
        let heard = other.apply_update(now, 0, told);
        assert!(
            heard == ApplyResult::Applied || tracker.is_full(),
            "{told:?}"
        );
    }
    assert_eq!(tracker.totals(), totals);
    if !tracker.is_full() {
        assert_eq!(
            (peers(&other.totals()), peers(&totals)),
            (told.len(), told.len())
        );
        for tracker in [tracker, &other] {
            tracker.for_each_torrent(|id, entry| {
                let of_it = told.iter().filter(|told| told.change.info_hash == *id);
                assert_eq!(
                    (entry.complete, entry.incomplete, entry.partial),
                    counts(of_it),
                    "{id}"
                );
            });
        }
    }
}

/// How many hosts are complete, incomplete and partial: one for each family's endpoint, or for one of both.
fn counts<'t>(told: impl Iterator<Item = &'t TimedUpdate>) -> (u32, u32, u32) {
    let mut endpoints = HashMap::new();
    let mut hosts_of = [0; 3];
    for TimedUpdate { change, .. } in told {
        let class = change.class.expect("who has left is not told redelivered") as usize;
        let of: &mut [u32; 2] = endpoints.entry((change.host, class)).or_default();
        let family = usize::from(change.address.is_ipv6());
        of[family] += 1;
        hosts_of[class] += u32::from(of[family] > of[1 - family]);
    }
    let [leechers, partial, complete] = hosts_of;
    (complete, leechers + partial, partial)
}

/// In an hour all have been silent for too long.
fn forget(tracker: &Tracker, now: Time, open: bool) {
    let Some(later) = now.0.checked_add(3600) else {
        return;
    };
    (0..Tracker::SLICES).for_each(|slice| tracker.expire(Time(later), slice));
    let totals = tracker.totals();
    assert_eq!(peers(&totals), 0);
    assert!(
        within_caps(&totals, open) && totals.torrents == 3,
        "{totals:?}"
    );
}
