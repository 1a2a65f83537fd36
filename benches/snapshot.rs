//! Measures the cost of a snapshot: size on disk, time, and the delay of announces meanwhile.
//!
//! `cargo bench --bench snapshot`; the snapshot is written below `TMPDIR`.

mod population;

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};
use population::{NOW, PEERS, SPREADS, Spread, announce};
use tbtt::snapshot::{self, SavePriority, Secrets, Sections};
use tbtt::tracker::Tracker;
use tbtt::tracker::dump::DumpCursor;
use tbtt::tracker::rng::Rng;
use tbtt::tracker::settings::Settings;

const SEED: u64 = 7;

fn main() {
    let directory = std::env::temp_dir().join(format!("tbtt-bench-{}", std::process::id()));
    for (name, spread) in SPREADS {
        fs::create_dir(&directory).expect("the directory for temporary files is writable");
        println!("{name}");
        measure(&directory, spread);
        fs::remove_dir_all(&directory).expect("the directory was created above");
    }
}

fn measure(directory: &Path, spread: Spread) {
    let tracker = open_tracker(SEED);
    let mut random = Rng::new(SEED);
    for peer in 0..PEERS {
        let announce = announce(peer, spread(peer, &mut random));
        tracker
            .announce(NOW, &announce, &mut Vec::new())
            .expect("the tracker is open");
    }
    let secrets = Secrets {
        seed: SEED,
        connection_id: [0; 16],
    };
    let save = |priority| {
        let at = SystemTime::now();
        snapshot::save(
            directory,
            &tracker,
            Sections::default(),
            NOW,
            at,
            &secrets,
            priority,
        )
        .expect("the disk has room for a snapshot")
    };

    let (saved, took) = timed(|| save(SavePriority::Shutdown));
    let peers = saved.totals.peers.sum() as f64;
    println!(
        "  on disk        {:.1} bytes per peer",
        saved.bytes as f64 / peers
    );
    println!("  save           {took}, at shutdown");
    let (_, took) = timed(|| save(SavePriority::Background));
    println!("  save           {took}, in the background");
    let mut loads: Vec<Took> = (0..5)
        .map(|_| {
            let (loaded, took) = timed(|| {
                let loaded = snapshot::load(directory, SystemTime::now(), open_tracker);
                loaded
                    .expect("the snapshot is valid")
                    .expect("the snapshot exists")
            });
            assert_eq!(loaded.tracker.totals(), tracker.totals());
            took
        })
        .collect();
    loads.sort_by_key(|took| took.wall);
    println!("  load           {}, median of 5", loads[2]);

    let mut copies = Vec::new();
    let (mut cursor, mut block) = (DumpCursor::default(), Vec::new());
    loop {
        let start = Instant::now();
        if tracker.dump_block(NOW, &mut cursor, &mut block).is_none() {
            break;
        }
        copies.push(start.elapsed());
    }
    println!("  copy a block   {}", Percentiles(copies));

    println!(
        "  announces      {}",
        Percentiles(announce_for(&tracker, spread, || {}))
    );
    let with = announce_for(&tracker, spread, || {
        save(SavePriority::Background);
    });
    println!("  while saving   {}", Percentiles(with));
}

fn open_tracker(seed: u64) -> Tracker {
    let settings = Settings {
        open: true,
        ..Settings::default()
    };
    Tracker::new(settings, seed)
}

/// Announces from two threads for two seconds, as fast as possible, while `meanwhile` is called repeatedly. Returns how
/// long each announce took.
fn announce_for(tracker: &Tracker, spread: Spread, meanwhile: impl Fn()) -> Vec<Duration> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let announcers: Vec<_> = (0..2)
            .map(|seed| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut random = Rng::new(seed);
                    let (mut took, mut peers) = (Vec::with_capacity(1 << 24), Vec::new());
                    while !stop.load(Ordering::Relaxed) {
                        let peer = random.below(PEERS);
                        let announce = announce(peer, spread(peer, &mut random));
                        peers.clear();
                        let start = Instant::now();
                        tracker
                            .announce(NOW, &announce, &mut peers)
                            .expect("the tracker is open");
                        took.push(start.elapsed());
                    }
                    took
                })
            })
            .collect();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            meanwhile();
            thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
        let took = announcers.into_iter().map(|announcer| announcer.join());
        took.flat_map(|took| took.expect("no thread panics"))
            .collect()
    })
}

/// The time that an action took. CPU time excludes other processes and the disk.
struct Took {
    wall: Duration,
    cpu: Duration,
}

fn timed<T>(action: impl FnOnce() -> T) -> (T, Took) {
    let cpu = || {
        let used = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
        Duration::from(used.expect("Linux has this clock"))
    };
    let (start, cpu_start) = (Instant::now(), cpu());
    let result = action();
    let took = Took {
        wall: start.elapsed(),
        cpu: cpu() - cpu_start,
    };
    (result, took)
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let (wall, cpu) = (millis(self.wall), millis(self.cpu));
        write!(f, "{wall:.1} ms, {cpu:.1} ms of CPU")
    }
}

struct Percentiles(Vec<Duration>);

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort();
        let at = |part: f64| {
            sorted[((sorted.len() - 1) as f64 * part) as usize].as_nanos() as f64 / 1000.0
        };
        write!(
            f,
            "{:.2} us p50, {:.2} p99, {:.1} p99.9, {:.0} maximum",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        )
    }
}
