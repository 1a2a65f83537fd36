//! Converts the system's monotonic time to the tracker's time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::tracker::types::{Time, UnixTime};

/// Converts monotonic time to the tracker's [`Time`] and [`UnixTime`].
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// The tracker's time at the origin.
    origin_time: Time,
    /// The system's wall clock at the origin.
    origin_unix: UnixTime,
}

impl Clock {
    /// Creates a clock whose time is 0 now.
    pub fn start() -> Self {
        Self::resume(Time(0))
    }

    /// Creates a clock whose time is `now`. After a restart, the time continues from the time in the snapshot.
    pub fn resume(now: Time) -> Self {
        Self {
            origin: Instant::now(),
            origin_time: now,
            origin_unix: UnixTime(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs()),
            ),
        }
    }

    /// Returns the tracker's current time.
    pub fn now(self) -> Time {
        self.at(Instant::now())
    }

    /// Returns the current Unix time; see [`Clock::unix_at`].
    pub fn unix_now(self) -> UnixTime {
        self.unix_at(Instant::now())
    }

    /// Returns the tracker's time at this instant. An instant before the origin counts as the origin.
    pub fn at(self, instant: Instant) -> Time {
        Time(
            self.origin_time
                .0
                .saturating_add(self.elapsed_secs(instant)),
        )
    }

    /// Returns the Unix time at this instant. It advances with the monotonic clock, so later changes of the wall clock
    /// have no effect.
    pub fn unix_at(self, instant: Instant) -> UnixTime {
        UnixTime(self.origin_unix.0 + u64::from(self.elapsed_secs(instant)))
    }

    fn elapsed_secs(self, instant: Instant) -> u32 {
        instant.saturating_duration_since(self.origin).as_secs() as u32
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn resumed_clock_continues_from_given_time() {
        let (first, second) = (Clock::start(), Clock::resume(Time(500)));
        let later = |clock: Clock| clock.origin + Duration::from_millis(61_900);
        assert_eq!(first.at(later(first)), Time(61));
        assert_eq!(second.at(later(second)), Time(561));
        assert_eq!(second.at(second.origin - Duration::from_secs(1)), Time(500));
        let unix = UnixTime(second.origin_unix.0 + 61);
        assert_eq!(second.unix_at(later(second)), unix);
    }
}
