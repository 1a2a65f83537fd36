//! What a snapshot costs: on disk, in time, and for those who announce meanwhile.
//!
//! `cargo bench --bench snapshot`; `TMPDIR` says where to write.

mod population;

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};
use population::{NOW, PEERS, SPREADS, Spread, announce};
use tbtt::snapshot::{self, Beside, SavePriority, Secrets};
use tbtt::tracker::dump::DumpCursor;
use tbtt::tracker::{Rng, Settings, Tracker};

const SEED: u64 = 7;

fn main() {
    let directory = std::env::temp_dir().join(format!("tbtt-bench-{}", std::process::id()));
    for (name, spread) in SPREADS {
        fs::create_dir(&directory).expect("a directory to write to");
        println!("{name}");
        measure(&directory, spread);
        fs::remove_dir_all(&directory).expect("it was made above");
    }
}

fn measure(directory: &Path, spread: Spread) {
    let tracker = open_tracker(SEED);
    let mut random = Rng::new(SEED);
    for peer in 0..PEERS {
        let announce = announce(peer, spread(peer, &mut random));
        tracker
            .announce(NOW, &announce, &mut Vec::new())
            .expect("it is open");
    }
    let secrets = Secrets {
        seed: SEED,
        connection_id: [0; 16],
    };
    let save = |pace| {
        let at = SystemTime::now();
        snapshot::save(
            directory,
            &tracker,
            Beside::default(),
            NOW,
            at,
            &secrets,
            pace,
        )
        .expect("room for a snapshot")
    };

    let (saved, took) = timed(|| save(SavePriority::Shutdown));
    let peers = saved.totals.peers.sum() as f64;
    println!(
        "  on disk        {:.1} bytes a peer",
        saved.bytes as f64 / peers
    );
    println!("  save           {took} at the stop");
    let (_, took) = timed(|| save(SavePriority::Background));
    println!("  save           {took} beside service");
    let mut loads: Vec<Took> = (0..5)
        .map(|_| {
            let (loaded, took) = timed(|| {
                let loaded = snapshot::load(directory, SystemTime::now(), open_tracker);
                loaded.expect("whole").expect("just written")
            });
            assert_eq!(loaded.tracker.totals(), tracker.totals());
            took
        })
        .collect();
    loads.sort_by_key(|took| took.wall);
    println!("  load           {}, the median of 5", loads[2]);

    let mut holds = Vec::new();
    let (mut walk, mut block) = (DumpCursor::default(), Vec::new());
    loop {
        let start = Instant::now();
        if tracker.dump_block(NOW, &mut walk, &mut block).is_none() {
            break;
        }
        holds.push(start.elapsed());
    }
    println!("  a block copied {}", Spectrum(holds));

    println!(
        "  announces      {}",
        Spectrum(announce_for(&tracker, spread, || {}))
    );
    let with = announce_for(&tracker, spread, || {
        save(SavePriority::Background);
    });
    println!("  while saving   {}", Spectrum(with));
}

fn open_tracker(seed: u64) -> Tracker {
    let settings = Settings {
        open: true,
        ..Settings::default()
    };
    Tracker::new(settings, seed)
}

/// Announces from two threads for two seconds, as fast as they can, while `beside` is done over and over.
fn announce_for(tracker: &Tracker, spread: Spread, beside: impl Fn()) -> Vec<Duration> {
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
                            .expect("it is open");
                        took.push(start.elapsed());
                    }
                    took
                })
            })
            .collect();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            beside();
            thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
        let took = announcers.into_iter().map(|announcer| announcer.join());
        took.flat_map(|took| took.expect("no announcer panics"))
            .collect()
    })
}

/// What something took; the two differ by what others did on the machine, and the disk.
struct Took {
    wall: Duration,
    cpu: Duration,
}

fn timed<T>(what: impl FnOnce() -> T) -> (T, Took) {
    let cpu = || {
        let used = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
        Duration::from(used.expect("the clock is always there"))
    };
    let (start, cpu_start) = (Instant::now(), cpu());
    let result = what();
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

struct Spectrum(Vec<Duration>);

impl fmt::Display for Spectrum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort();
        let at = |part: f64| {
            sorted[((sorted.len() - 1) as f64 * part) as usize].as_nanos() as f64 / 1000.0
        };
        write!(
            f,
            "{:.2} us p50, {:.2} p99, {:.1} p99.9, {:.0} at worst",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        )
    }
}
