//! What it costs to tell other trackers, and to hear them: one thread, no engine.
//!
//! `cargo bench --bench changes`

mod population;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use population::{NOW, PEERS, SPREADS, announce};
use tbtt::cluster::download_counters::NodeId;
use tbtt::cluster::wire::{self, Batch, Record, Sender};
use tbtt::tracker::{Announce, Heard, HostKey, Random, Settings, Told, Tracker, Walk};

const BATCH: usize = 256;

fn main() {
    for (name, spread) in SPREADS {
        println!("{name}");
        let mut random = Random::new(7);
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
        let ((), took) = timed(|| hear(&other, &batches, Heard::Taken));
        assert_eq!(other.totals(), source.totals());
        println!("  read and hear, new {took}");
        let ((), took) = timed(|| hear(&other, &batches, Heard::Taken));
        println!("  the same, known    {took}");

        let (again, took) = timed(|| {
            let (mut walk, mut told) = (Walk::default(), Vec::new());
            while source.recount(NOW, u32::MAX, &mut walk, &mut told) {}
            told
        });
        println!("  recount            {took}");
        let ((), took) = timed(|| hear(&other, &pack(&again), Heard::Older));
        println!("  tell it again      {took}");
        let gone: Vec<_> = told.into_iter().map(left).collect();
        let ((), took) = timed(|| hear(&other, &pack(&gone), Heard::Taken));
        assert_eq!(other.totals(), tracker(true).totals());
        println!("  write, hear leaves {took}");
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

fn tell(tracker: &Tracker, announces: &[Announce]) -> Vec<Told> {
    let (mut told, mut peers) = (Vec::with_capacity(announces.len()), Vec::new());
    for announce in announces {
        peers.clear();
        let answer = tracker.announce(NOW, announce, &mut peers);
        told.extend(answer.expect("it is open").change.map(|change| Told {
            change,
            age_secs: 0,
            again: false,
        }));
    }
    told
}

fn left(mut told: Told) -> Told {
    told.change.class = None;
    told
}

fn pack(told: &[Told]) -> Vec<Vec<u8>> {
    let sender = Sender {
        node: NodeId(1),
        run: 1,
    };
    let batches = told.chunks(BATCH).map(|told| {
        let mut batch = Vec::new();
        wire::write_head(sender, &mut batch);
        for told in told {
            wire::write_record(&Record::Peer(*told), &mut batch);
        }
        batch
    });
    batches.collect()
}

fn hear(tracker: &Tracker, batches: &[Vec<u8>], expected: Heard) {
    for batch in batches {
        for record in Batch::parse(batch).expect("just written").records() {
            let Record::Peer(told) = record else { continue };
            assert_eq!(tracker.hear(NOW, 1, &told), expected);
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
