//! Counters and histograms that several threads update.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A counter that only increases.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn add(&self, number: u64) {
        // Most batches add 0. Skipping the write keeps the cache line shared between workers.
        if number > 0 {
            self.0.fetch_add(number, Ordering::Relaxed);
        }
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram of durations.
#[derive(Default, Debug)]
pub struct Histogram {
    /// Number of durations in each bucket. A bucket holds durations up to its bound in [`Histogram::BOUNDS`] and above the
    /// previous bound. The last bucket holds all durations above the last bound.
    counts: [Counter; Self::BOUNDS.len() + 1],
    nanoseconds: Counter,
}

impl Histogram {
    /// Upper bounds of the buckets, in nanoseconds.
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

    pub fn record(&self, duration: Duration) {
        let nanoseconds = duration.as_nanos() as u64;
        self.counts[Self::BOUNDS.partition_point(|&bound| bound < nanoseconds)].add_one();
        self.nanoseconds.add(nanoseconds);
    }

    /// Returns the number of durations in each bucket.
    pub fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(Counter::get).collect()
    }

    /// Returns the sum of all durations.
    pub fn total_seconds(&self) -> f64 {
        self.nanoseconds.get() as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_counted_up_to_its_upper_bound() {
        let histogram = Histogram::default();
        for nanoseconds in [0, 500, 501, 1_000, 100_000_000, 100_000_001] {
            histogram.record(Duration::from_nanos(nanoseconds));
        }
        assert_eq!(histogram.counts(), [2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(histogram.total_seconds(), 0.200_002_002);
    }
}
