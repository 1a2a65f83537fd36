//! The process's clock: turns monotonic time into the tracker's time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::tracker::{Time, UnixTime};

/// Turns the process's monotonic clock into the core's time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// The time at the origin.
    first: Time,
    /// What the system's clock says at the origin.
    origin_unix: UnixTime,
}

impl Clock {
    /// Time 0 is now.
    pub fn start() -> Self {
        Self::resume(Time(0))
    }

    /// It is `now`, as a snapshot says that the time goes on from there.
    pub fn resume(now: Time) -> Self {
        Self {
            origin: Instant::now(),
            first: now,
            origin_unix: UnixTime(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs()),
            ),
        }
    }

    pub fn now(self) -> Time {
        self.at(Instant::now())
    }

    pub fn at(self, instant: Instant) -> Time {
        Time(self.first.0.saturating_add(self.elapsed_secs(instant)))
    }

    /// Goes on from the start's without steps, whatever becomes of the system's clock.
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
    fn a_clock_goes_on_from_where_another_left_off() {
        let (first, second) = (Clock::start(), Clock::resume(Time(500)));
        let later = |clock: Clock| clock.origin + Duration::from_millis(61_900);
        assert_eq!(first.at(later(first)), Time(61));
        assert_eq!(second.at(later(second)), Time(561));
        assert_eq!(second.at(second.origin - Duration::from_secs(1)), Time(500));
        let unix = UnixTime(second.origin_unix.0 + 61);
        assert_eq!(second.unix_at(later(second)), unix);
    }
}
