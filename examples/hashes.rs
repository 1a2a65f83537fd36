//! Measures the speed of the SHA-1 and SHA-256 crates on this machine, in bytes per second of the thread's CPU time, over data
//! in the processor's cache. Used by `tests/bench-torrent`. It is an example and not a bench, because the bench profile would
//! build every program again.

use std::hint::black_box;

use nix::time::{ClockId, clock_gettime};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

const BLOCK: usize = 16 * 1024;
const ROUNDS: u32 = 4096;

fn cpu_secs() -> f64 {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
    now.tv_sec() as f64 + now.tv_nsec() as f64 / 1e9
}

fn measure(name: &str, mut hash: impl FnMut(&[u8])) {
    let data = vec![0x5a; 8 * BLOCK];
    let begin = cpu_secs();
    for _ in 0..ROUNDS {
        hash(black_box(&data));
    }
    let bytes = f64::from(ROUNDS) * data.len() as f64;
    println!("{name} {:.0}", bytes / (cpu_secs() - begin));
}

fn main() {
    let mut sha1 = Sha1::new();
    measure("sha1", |data| sha1.update(data));
    black_box(sha1.finalize());
    measure("sha256", |data| {
        for block in data.chunks(BLOCK) {
            black_box(Sha256::digest(block));
        }
    });
}
