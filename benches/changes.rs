//! What it costs to tell other trackers, and to apply_update them: one thread, no engine.
//!
//! `cargo bench --bench changes`

mod population;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use population::{NOW, PEERS, SPREADS, announce};
use tbtt::cluster::download_counters::NodeId;
use tbtt::cluster::wire::{self, Batch, ReplicationRecord, Sender};
use tbtt::tracker::dump::DumpCursor;
use tbtt::tracker::replication::ApplyResult;
use tbtt::tracker::{Announce, HostKey, Rng, Settings, TimedUpdate, Tracker};

const BATCH: usize = 256;

fn main() {
    for (name, spread) in SPREADS {
        println!("{name}");
        let mut random = Rng::new(7);
        let announces: Vec<_> = (0..PEERS)
            .map(|peer| announce(peer, spread(peer, &mut random)))
            .collect();
        let source = tracker(true);
        let (told, took) = timed(|| tell(&source, &announces));
        println!("  announce, new      {took}");
        let (_, took) = timed(|| tell(&source, &announces));
        println!("  announce, known    {took}");
        let lone = tracker(false);
        tell(&lone, &announces);
        let (_, took) = timed(|| tell(&lone, &announces));
        println!("    without cluster  {took}");

        let (batches, took) = timed(|| pack(&told));
        let bytes: usize = batches.iter().map(Vec::len).sum();
        println!(
            "  write batches      {took}, {:.1} bytes a change",
            bytes as f64 / f64::from(PEERS)
        );
        let other = tracker(true);
        let ((), took) = timed(|| apply_update(&other, &batches, ApplyResult::Applied));
        assert_eq!(other.totals(), source.totals());
        println!("  read and apply_update, new {took}");
        let ((), took) = timed(|| apply_update(&other, &batches, ApplyResult::Applied));
        println!("  the same, known    {took}");

        let (redelivered, took) = timed(|| {
            let (mut walk, mut told) = (DumpCursor::default(), Vec::new());
            while source.dump_updates(NOW, u32::MAX, &mut walk, &mut told) {}
            told
        });
        println!("  dump_updates            {took}");
        let ((), took) = timed(|| apply_update(&other, &pack(&redelivered), ApplyResult::Stale));
        println!("  tell it redelivered      {took}");
        let gone: Vec<_> = told.into_iter().map(left).collect();
        let ((), took) = timed(|| apply_update(&other, &pack(&gone), ApplyResult::Applied));
        assert_eq!(other.totals(), tracker(true).totals());
        println!("  write, apply_update leaves {took}");
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

fn tell(tracker: &Tracker, announces: &[Announce]) -> Vec<TimedUpdate> {
    let (mut told, mut peers) = (Vec::with_capacity(announces.len()), Vec::new());
    for announce in announces {
        peers.clear();
        let answer = tracker.announce(NOW, announce, &mut peers);
        told.extend(
            answer
                .expect("it is open")
                .update
                .map(|update| TimedUpdate {
                    update,
                    age_secs: 0,
                    redelivered: false,
                }),
        );
    }
    told
}

fn left(mut told: TimedUpdate) -> TimedUpdate {
    told.update.class = None;
    told
}

fn pack(told: &[TimedUpdate]) -> Vec<Vec<u8>> {
    let sender = BatchSender {
        node: NodeId(1),
        run: 1,
    };
    let batches = told.chunks(BATCH).map(|told| {
        let mut batch = Vec::new();
        wire::write_header(sender, &mut batch);
        for told in told {
            wire::write_record(&ReplicationRecord::Peer(*told), &mut batch);
        }
        batch
    });
    batches.collect()
}

fn apply_update(tracker: &Tracker, batches: &[Vec<u8>], expected: ApplyResult) {
    for batch in batches {
        for record in ReplicationBatch::parse(batch)
            .expect("just written")
            .records()
        {
            let ReplicationRecord::Peer(told) = record else {
                continue;
            };
            assert_eq!(tracker.apply_update(NOW, 1, &told), expected);
        }
    }
}

/// Tells how much of the processor's time it took, and of that for one of a million: what others do on the machine shall not
/// count.
fn timed<T>(what: impl FnOnce() -> T) -> (T, String) {
    let cpu = || {
        let used = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
        Duration::from(used.expect("the clock is always there"))
    };
    let start = cpu();
    let result = what();
    let took = cpu() - start;
    let each = took.as_nanos() as f64 / f64::from(PEERS);
    (
        result,
        format!("{:.3} s, {each:.0} ns each", took.as_secs_f64()),
    )
}
