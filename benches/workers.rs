//! What a second worker brings: announces a second of one thread, of two on one tracker, and of two that share nothing, which is
//! what the machine can do.
//!
//! `cargo bench --bench workers`, with two processors that have nothing else to do.

mod population;

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use population::{NOW, PEERS, SPREADS, announce};
use tbtt::tracker::{Announce, Rng, Settings, Tracker};

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
            "{name}: {alone:.0} announces a second; two workers {together:.2} times as many, with a tracker each {apart:.2}"
        );
    }
}

/// How many announces a second all of these make together, each in a thread of its own.
fn rate(workers: &[(&Tracker, &Vec<Announce>)]) -> f64 {
    let start = Barrier::new(workers.len() + 1);
    let begun = thread::scope(|scope| {
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
    let took = begun.elapsed().as_secs_f64();
    let many: usize = workers.iter().map(|(_, announces)| announces.len()).sum();
    many as f64 / took
}

fn work(tracker: &Tracker, announces: &[Announce]) {
    let mut peers = Vec::new();
    for announce in announces {
        peers.clear();
        tracker
            .announce(NOW, announce, &mut peers)
            .expect("it is open");
    }
}

fn shuffled(announces: &[Announce], seed: u64) -> Vec<Announce> {
    let (mut announces, mut random) = (announces.to_vec(), Rng::new(seed));
    for last in (1..announces.len()).rev() {
        announces.swap(last, random.below(last as u32 + 1) as usize);
    }
    announces
}
