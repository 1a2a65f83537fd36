//! The results of a run: successful responses and their latency, and the failed requests by their fault.

use crate::response::Checked;
use crate::system::thread_cpu_time;
use std::collections::BTreeMap;
use std::time::Duration;

/// A histogram of durations. The width of a bucket is at most 1/32 of its value.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

const STEPS_BITS: u32 = 5;
const STEPS: u64 = 1 << STEPS_BITS;

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; (64 - STEPS_BITS as usize + 1) << STEPS_BITS],
            count: 0,
        }
    }
}

impl Histogram {
    pub fn record(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[Self::bucket(nanoseconds)] += 1;
        self.count += 1;
    }

    /// Returns the duration that `share` (0 to 1) of the recorded durations do not exceed; zero if nothing is recorded.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.count as f64).ceil() as u64;
        let mut seen = 0;
        for (bucket, &count) in self.buckets.iter().enumerate() {
            seen += count;
            if count > 0 && seen >= rank {
                return Duration::from_nanos(Self::upper_end(bucket));
            }
        }
        Duration::ZERO
    }

    /// Returns the bucket of a value. Each value below 32 has its own bucket; then each power of two has 32 buckets.
    fn bucket(value: u64) -> usize {
        if value < STEPS {
            return value as usize;
        }
        let shift = value.ilog2() - STEPS_BITS;
        ((u64::from(shift) << STEPS_BITS) + (value >> shift)) as usize
    }

    /// Returns the largest value in a bucket.
    fn upper_end(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        if bucket < 2 * STEPS {
            return bucket;
        }
        let shift = (bucket >> STEPS_BITS) - 1;
        let start = u128::from(bucket - (shift << STEPS_BITS)) << shift;
        u64::try_from(start + (1 << shift) - 1).unwrap_or(u64::MAX)
    }
}

/// The results of a run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Number of successful responses.
    pub answered: u64,
    /// Number of peers, or of torrents in scrapes, in all successful responses.
    pub entries: u64,
    /// Size of all successful responses.
    pub bytes: u64,
    /// Number of failed requests, by fault.
    pub faults: BTreeMap<&'static str, u64>,
    pub latency: Histogram,
    /// CPU time that the load generator spent polling without anything to do.
    pub idle: Duration,
    /// CPU time of the thread when the current idle period began.
    idle_since: Option<Duration>,
}

impl Tally {
    /// Counts a response, its size and its latency.
    pub fn record_response(&mut self, checked: Checked, bytes: usize, took: Duration) {
        match checked {
            Ok(entries) => {
                self.answered += 1;
                self.entries += u64::from(entries);
                self.bytes += bytes as u64;
                self.latency.record(took);
            }
            Err(fault) => self.record_fault(fault),
        }
    }

    /// Updates the idle time. Must be called after each iteration of the main loop; `idle` means that the iteration had
    /// nothing to do.
    pub fn record_iteration(&mut self, idle: bool) {
        match self.idle_since {
            None if idle => self.idle_since = Some(thread_cpu_time()),
            Some(since) if !idle => {
                self.idle += thread_cpu_time().saturating_sub(since);
                self.idle_since = None;
            }
            _ => {}
        }
    }

    pub fn record_fault(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub fn failed(&self) -> u64 {
        self.faults.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_a_bucket() {
        let mut histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        let near = |share, micros: f64| {
            let got = histogram.quantile(share).as_nanos() as f64 / 1000.0;
            assert!(
                got >= micros && got <= micros * 1.04,
                "{share}: {got} for {micros}"
            );
        };
        near(0.5, 500.0);
        near(0.99, 990.0);
        near(0.999, 999.0);
    }

    #[test]
    fn smallest_and_largest_value_have_buckets() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        histogram.record(Duration::ZERO);
        histogram.record(Duration::MAX);
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        assert_eq!(histogram.quantile(1.0), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn buckets_are_adjacent() {
        for value in [31, 32, 63, 64, 65, 1 << 20, (1 << 20) + (1 << 15)] {
            let bucket = Histogram::bucket(value);
            assert!(Histogram::upper_end(bucket) >= value);
            assert!(Histogram::upper_end(bucket - 1) < value);
        }
    }
}
