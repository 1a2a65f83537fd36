//! Numbers, times and words as people read them.

use std::io::IsTerminal;

use tbtt::status::report::ReleaseHealth;
use tbtt::utc::{UnixSecs, Utc};

/// Emphasis, on a terminal alone.
#[derive(Clone, Copy)]
pub(crate) struct Style(bool);

impl Style {
    /// Of standard output, unless `NO_COLOR` is set (no-color.org).
    pub(crate) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self(std::io::stdout().is_terminal() && !unwanted && !dumb)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self.0 {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// A release's health in words, red where it is told as a fault.
    pub(crate) fn health(self, health: ReleaseHealth, overdue: bool) -> String {
        let word = match health {
            ReleaseHealth::Seeded => return self.green("seeded"),
            ReleaseHealth::NeverSeeded => "never seeded",
            ReleaseHealth::LostSeeds => "lost its seeds",
        };
        match overdue {
            true => self.red(word),
            false => self.yellow(word),
        }
    }
}

/// `1 torrent`, `2 torrents`.
pub(crate) fn count(number: u64, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    }
}

/// Bytes in the unit that leaves at most four digits.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be rounded up to 1024 is one of the next.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time that has passed, in its two largest units.
pub(crate) fn duration(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        (..) => format!("{days} d {hours} h"),
    }
}

/// How long ago it was.
pub(crate) fn ago(now: UnixSecs, then: Option<UnixSecs>) -> String {
    then.map_or_else(
        || "never".to_owned(),
        |then| format!("{} ago", duration(now.saturating_sub(then))),
    )
}

/// Date and time of day, in UTC.
pub(crate) fn date(unix: UnixSecs) -> String {
    Utc::from_unix(i64::try_from(unix).unwrap_or(i64::MAX)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_keep_few_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (4_700_000_000, "4.4 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (secs, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_599, "59 min"),
            (3_660, "1 h 1 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(secs), text);
        }
    }
}
