//! Formatting of numbers, times and colors for a terminal.

use std::io::IsTerminal;

use tbtt::status::report::ReleaseHealth;
use tbtt::utc::{UnixSecs, Utc};

/// The style of the output: with or without colors.
#[derive(Clone, Copy)]
pub(crate) struct Style(bool);

impl Style {
    /// Returns the style for standard output: colors if it is a terminal, unless `NO_COLOR` is set (no-color.org).
    pub(crate) fn of_stdout() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self(std::io::stdout().is_terminal() && !no_color && !dumb)
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

    /// Formats the health of a release: red if it is overdue, yellow if it has no seeder.
    pub(crate) fn health(self, health: ReleaseHealth, overdue: bool) -> String {
        let text = match health {
            ReleaseHealth::Seeded => return self.green("seeded"),
            ReleaseHealth::NeverSeeded => "never seeded",
            ReleaseHealth::LostSeeds => "lost its last seeder",
        };
        match overdue {
            true => self.red(text),
            false => self.yellow(text),
        }
    }
}

/// Formats a number with its noun: `1 torrent`, `2 torrents`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// Formats a number of bytes in a unit that leaves at most four digits before the point.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // From here on, rounding would give 1024.0 instead of 1.0 of the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Formats a number of seconds in its two largest units.
pub(crate) fn duration(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        (..) => format!("{days} d {hours} h"),
    }
}

/// Formats how long ago a time was.
pub(crate) fn ago(now: UnixSecs, then: Option<UnixSecs>) -> String {
    then.map_or_else(
        || "never".to_owned(),
        |then| format!("{} ago", duration(now.saturating_sub(then))),
    )
}

/// Formats date and time of day, in UTC.
pub(crate) fn date(unix: UnixSecs) -> String {
    Utc::from_unix_secs(unix).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_sizes_and_durations() {
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
