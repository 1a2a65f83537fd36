//! Counters and histograms that many threads add to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn add(&self, number: u64) {
        // Most batches have nothing to add, and workers share the line.
        if number > 0 {
            self.0.fetch_add(number, Ordering::Relaxed);
        }
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long things took.
#[derive(Default, Debug)]
pub struct Histogram {
    /// How many took up to each of [`Histogram::BOUNDS`] and longer than the one before; the last: longer than all.
    counts: [Counter; Self::BOUNDS.len() + 1],
    nanoseconds: Counter,
}

impl Histogram {
    /// In nanoseconds.
    pub const BOUNDS: [u64; 12] = [
        500,
        1_000,
        2_000,
        5_000,
        10_000,
        20_000,
        50_000,
        100_000,
        500_000,
        1_000_000,
        10_000_000,
        100_000_000,
    ];

    pub fn note(&self, took: Duration) {
        let nanoseconds = took.as_nanos() as u64;
        self.counts[Self::BOUNDS.partition_point(|&bound| bound < nanoseconds)].add_one();
        self.nanoseconds.add(nanoseconds);
    }

    pub fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(Counter::get).collect()
    }

    pub fn total_seconds(&self) -> f64 {
        self.nanoseconds.get() as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_with_those_up_to_the_same_bound() {
        let histogram = Histogram::default();
        for nanoseconds in [0, 500, 501, 1_000, 100_000_000, 100_000_001] {
            histogram.note(Duration::from_nanos(nanoseconds));
        }
        assert_eq!(histogram.counts(), [2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(histogram.total_seconds(), 0.200_002_002);
    }
}
