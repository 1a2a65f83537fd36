//! Measures the cost of replication: updates for other trackers, batches, and updates applied. A single thread, without a
//! store.
//!
//! `cargo bench --bench changes`

mod population;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use population::{NOW, PEERS, SPREADS, announce};
use tbtt::cluster::download_counters::NodeId;
use tbtt::cluster::wire::{self, BatchSender, ReplicationBatch, ReplicationRecord};
use tbtt::tracker::Tracker;
use tbtt::tracker::dump::DumpCursor;
use tbtt::tracker::replication::ApplyResult;
use tbtt::tracker::rng::Rng;
use tbtt::tracker::settings::{HostKey, Settings};
use tbtt::tracker::types::{Announce, TimedUpdate};

const BATCH: usize = 256;

fn main() {
    for (name, spread) in SPREADS {
        println!("{name}");
        let mut random = Rng::new(7);
        let announces: Vec<_> = (0..PEERS)
            .map(|peer| announce(peer, spread(peer, &mut random)))
            .collect();
        let source = tracker(true);
        let (updates, took) = timed(|| announce_all(&source, &announces));
        println!("  announce, new      {took}");
        let (_, took) = timed(|| announce_all(&source, &announces));
        println!("  announce, known    {took}");
        let standalone = tracker(false);
        announce_all(&standalone, &announces);
        let (_, took) = timed(|| announce_all(&standalone, &announces));
        println!("    without cluster  {took}");

        let (batches, took) = timed(|| pack(&updates));
        let bytes: usize = batches.iter().map(Vec::len).sum();
        println!(
            "  write batches      {took}, {:.1} bytes per update",
            bytes as f64 / f64::from(PEERS)
        );
        let other = tracker(true);
        let ((), took) = timed(|| apply_all(&other, &batches, ApplyResult::Applied));
        assert_eq!(other.totals(), source.totals());
        println!("  apply, new         {took}");
        let ((), took) = timed(|| apply_all(&other, &batches, ApplyResult::Applied));
        println!("  apply, known       {took}");

        let (redelivered, took) = timed(|| {
            let (mut cursor, mut updates) = (DumpCursor::default(), Vec::new());
            while source.dump_updates(NOW, u32::MAX, &mut cursor, &mut updates) {}
            updates
        });
        println!("  dump               {took}");
        let ((), took) = timed(|| apply_all(&other, &pack(&redelivered), ApplyResult::Stale));
        println!("  apply dump, stale  {took}");
        let departures: Vec<_> = updates.into_iter().map(departure).collect();
        let ((), took) = timed(|| apply_all(&other, &pack(&departures), ApplyResult::Applied));
        assert_eq!(other.totals(), tracker(true).totals());
        println!("  apply departures   {took}");
    }
}

fn tracker(in_cluster: bool) -> Tracker {
    let settings = Settings {
        open: true,
        host_key: in_cluster.then(|| HostKey::new("tbtt")),
        ..Settings::default()
    };
    Tracker::new(settings, 7)
}

fn announce_all(tracker: &Tracker, announces: &[Announce]) -> Vec<TimedUpdate> {
    let (mut updates, mut peers) = (Vec::with_capacity(announces.len()), Vec::new());
    for announce in announces {
        peers.clear();
        let response = tracker.announce(NOW, announce, &mut peers);
        let update = response.expect("the tracker is open").update;
        updates.extend(update.map(|update| TimedUpdate {
            update,
            age_secs: 0,
            redelivered: false,
        }));
    }
    updates
}

fn departure(mut update: TimedUpdate) -> TimedUpdate {
    update.update.class = None;
    update
}

fn pack(updates: &[TimedUpdate]) -> Vec<Vec<u8>> {
    let sender = BatchSender {
        node: NodeId(1),
        run: 1,
    };
    let batches = updates.chunks(BATCH).map(|updates| {
        let mut batch = Vec::new();
        wire::write_header(sender, &mut batch);
        for update in updates {
            wire::write_record(&ReplicationRecord::Peer(*update), &mut batch);
        }
        batch
    });
    batches.collect()
}

fn apply_all(tracker: &Tracker, batches: &[Vec<u8>], expected: ApplyResult) {
    for batch in batches {
        let batch = ReplicationBatch::parse(batch).expect("the batch was written above");
        for record in batch.records() {
            let ReplicationRecord::Peer(update) = record else {
                continue;
            };
            assert_eq!(tracker.apply_update(NOW, 1, &update), expected);
        }
    }
}

/// Returns the result of `action`, and the CPU time it took in all and per peer. CPU time excludes other processes.
fn timed<T>(action: impl FnOnce() -> T) -> (T, String) {
    let cpu = || {
        let used = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
        Duration::from(used.expect("Linux has this clock"))
    };
    let start = cpu();
    let result = action();
    let took = cpu() - start;
    let each = took.as_nanos() as f64 / f64::from(PEERS);
    (
        result,
        format!("{:.3} s, {each:.0} ns each", took.as_secs_f64()),
    )
}
