//! Dates and times of day in UTC.

use std::fmt;

/// Seconds since 1970 (UTC).
pub type UnixSecs = u64;

const DAY: i64 = 86_400;

/// A moment in UTC by the Gregorian calendar, to the second. Displays as `2026-11-30 12:34:56 UTC`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Utc {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Utc {
    /// Converts seconds since 1970. Any number is a moment.
    pub fn from_unix(seconds: i64) -> Self {
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // Days since 0000-03-01: in years that begin in March, a leap day is the last day. 400 years are 146,097 days.
        let days = days + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        Self {
            year: era * 400 + year + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }

    /// Converts seconds since 1970 as other modules hold them.
    pub fn from_unix_secs(seconds: UnixSecs) -> Self {
        Self::from_unix(i64::try_from(seconds).unwrap_or(i64::MAX))
    }

    /// Returns the date: `2026-11-30`.
    pub fn date(self) -> String {
        let Self {
            year, month, day, ..
        } = self;
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// Returns the time of day: `12:34:56`.
    pub fn time(self) -> String {
        let Self {
            hour,
            minute,
            second,
            ..
        } = self;
        format!("{hour:02}:{minute:02}:{second:02}")
    }

    /// Returns ISO 8601 (RFC 3339): `2026-11-30T12:34:56Z`.
    pub fn iso(self) -> String {
        format!("{}T{}Z", self.date(), self.time())
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} UTC", self.date(), self.time())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_unix_time_by_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_700_000_000, "2023-11-14 22:13:20 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (-62_167_219_200, "0000-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(Utc::from_unix(seconds).to_string(), text);
        }
        assert_eq!(Utc::from_unix(951_827_696).iso(), "2000-02-29T12:34:56Z");
        // Files may hold any number.
        let _ = (Utc::from_unix(i64::MAX), Utc::from_unix(i64::MIN));
    }

    #[test]
    fn agrees_with_httpdate() {
        for day in (0..60_000).step_by(17) {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(day * 86_400 + 1);
            let http = httpdate::fmt_http_date(at);
            let date = Utc::from_unix(day as i64 * DAY).date();
            assert_eq!(&http[12..16], &date[..4], "{http}");
            assert_eq!(&http[5..7], &date[8..], "{http}");
        }
    }
}
