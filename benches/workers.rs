//! Measures the gain of a second worker: announces per second of one thread, of two threads with a shared tracker, and
//! of two threads with a tracker each. The last is the maximum that the machine allows.
//!
//! `cargo bench --bench workers`, on a machine with two idle processors.

mod population;

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use population::{NOW, PEERS, SPREADS, announce};
use tbtt::tracker::Tracker;
use tbtt::tracker::rng::Rng;
use tbtt::tracker::settings::Settings;
use tbtt::tracker::types::Announce;

const ROUNDS: usize = 9;

fn main() {
    for (name, spread) in SPREADS {
        let settings = Settings {
            open: true,
            ..Settings::default()
        };
        let mut random = Rng::new(7);
        let announces: Vec<_> = (0..PEERS)
            .map(|peer| announce(peer, spread(peer, &mut random)))
            .collect();
        let trackers = [1, 2].map(|seed| Tracker::new(settings.clone(), seed));
        for tracker in &trackers {
            work(tracker, &announces);
        }
        let [a, b] = &trackers;
        let orders = [1, 2].map(|seed| shuffled(&announces, seed));
        let [c, d] = &orders;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let alone = rate(&[(a, c)]);
            let together = rate(&[(a, c), (a, d)]);
            let apart = rate(&[(a, c), (b, d)]);
            rounds.push([alone, together / alone, apart / alone]);
        }
        let [alone, together, apart] = [0, 1, 2].map(|of| {
            let mut column: Vec<_> = rounds.iter().map(|round| round[of]).collect();
            column.sort_by(f64::total_cmp);
            column[ROUNDS / 2]
        });
        println!(
            "{name}: {alone:.0} announces/s; two workers {together:.2} times as many, with a tracker each {apart:.2}"
        );
    }
}

/// Returns the announces per second of all workers together. Each has a thread of its own.
fn rate(workers: &[(&Tracker, &Vec<Announce>)]) -> f64 {
    let start = Barrier::new(workers.len() + 1);
    let started = thread::scope(|scope| {
        for (tracker, announces) in workers {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                work(tracker, announces);
            });
        }
        start.wait();
        Instant::now()
    });
    let secs = started.elapsed().as_secs_f64();
    let total: usize = workers.iter().map(|(_, announces)| announces.len()).sum();
    total as f64 / secs
}

fn work(tracker: &Tracker, announces: &[Announce]) {
    let mut peers = Vec::new();
    for announce in announces {
        peers.clear();
        tracker
            .announce(NOW, announce, &mut peers)
            .expect("the tracker is open");
    }
}

fn shuffled(announces: &[Announce], seed: u64) -> Vec<Announce> {
    let (mut announces, mut random) = (announces.to_vec(), Rng::new(seed));
    for last in (1..announces.len()).rev() {
        announces.swap(last, random.below(last as u32 + 1) as usize);
    }
    announces
}
