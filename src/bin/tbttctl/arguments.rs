//! The command line. This file uses no other file of the program, so that completions can be generated from it.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

/// Inspects and controls a running tbtt.
#[derive(Parser, Debug)]
#[command(name = "tbttctl", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Path of the control socket; see [control] listen in tbtt.toml.
    #[arg(
        long,
        short,
        global = true,
        value_name = "PATH",
        default_value = "/run/tbtt/control"
    )]
    pub(crate) socket: PathBuf,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show the state of the tracker: peers, announces, refusals, releases without a seeder.
    Status {
        /// Print everything as JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the releases.
    Torrents(Torrents),
    /// Show everything about a release.
    Torrent {
        /// Info-hash or at least its first six digits, name, or a part of the name that no other release has.
        #[arg(value_name = "HASH|NAME")]
        which: String,

        /// Print the release as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Reload the configuration, its lists and the torrent directories.
    Reload,
    /// Save the state now, and wait until it is on the disk.
    Snapshot,
    /// Check the tracker for a monitoring system. Exit status: 0 OK, 1 warning, 2 critical, 3 unknown.
    ///
    /// An alert is raised when a value exceeds its limit. The limits are a number for a warning, a comma, and a number for
    /// critical; omit either number to disable it. A release counts once it has been without a seeder for longer than
    /// [torrents] seedless_after.
    Check(Check),
    /// Show the state of the tracker and its busiest releases, continuously updated. Press q to quit.
    Top {
        /// Seconds between updates.
        #[arg(long, short, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=3600))]
        interval: u16,

        /// Order of the releases.
        #[arg(long, value_enum, default_value_t = Sort::Leechers)]
        sort: Sort,
    },
    /// Print the least important level that is logged, or set it until the next reload or restart.
    LogLevel {
        /// New level.
        level: Option<Level>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Torrents {
    /// List only releases whose name contains this text. With * or ?, it must match the whole name.
    pub(crate) pattern: Option<String>,

    /// List only releases that have no seeder now.
    #[arg(long)]
    pub(crate) unseeded: bool,

    /// Order of the releases: names from A to Z, anything else from the largest or latest.
    #[arg(long, value_enum, default_value_t = Sort::Name)]
    pub(crate) sort: Sort,

    /// Reverse the order.
    #[arg(long, short)]
    pub(crate) reverse: bool,

    /// Print the releases as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The limits of `check`.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// Limits for the number of releases that never had a seeder.
    #[arg(long, value_name = "WARNING,CRITICAL", default_value = "0,")]
    pub(crate) never_seeded: Thresholds,

    /// Limits for the number of releases that lost their last seeder.
    #[arg(long, value_name = "WARNING,CRITICAL", default_value = ",0")]
    pub(crate) lost_seeds: Thresholds,

    /// Limits for the age of the last snapshot in seconds [default: 3 times and 12 times [state] interval].
    #[arg(long, value_name = "WARNING,CRITICAL")]
    pub(crate) snapshot_age: Option<Thresholds>,

    /// Limits for the percentage of requests refused in the last 10 seconds. Up to 1 refusal a second is ignored.
    #[arg(long, value_name = "WARNING,CRITICAL", default_value = "50,90")]
    pub(crate) refusals: Thresholds,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Sort {
    Name,
    Size,
    Seeders,
    Leechers,
    Downloads,
    /// When the release was listed.
    Listed,
    /// When a seeder was last seen.
    LastSeed,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Level {
    Error,
    Warning,
    Notice,
    Info,
    Debug,
}

/// Limits of a check. A value above a limit raises an alert; `None` disables it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Thresholds {
    pub(crate) warning: Option<u64>,
    pub(crate) critical: Option<u64>,
}

impl FromStr for Thresholds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (warning, critical) = text.split_once(',').unwrap_or((text, ""));
        let number = |text: &str| match text.trim() {
            "" => Ok(None),
            digits => digits.parse().map(Some),
        };
        match (number(warning), number(critical)) {
            (Ok(warning), Ok(critical)) => Ok(Self { warning, critical }),
            _ => {
                Err("expected two whole numbers separated by a comma, such as 1,5 or ,5".to_owned())
            }
        }
    }
}

/// Returns the command line, as clap and the generator of completions need it.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_valid() {
        command().debug_assert();
    }

    #[test]
    fn parses_thresholds_with_either_omitted() {
        let parse = |text: &str| {
            let Thresholds { warning, critical } = text.parse().unwrap();
            (warning, critical)
        };
        assert_eq!(parse("1,5"), (Some(1), Some(5)));
        assert_eq!(parse("1"), (Some(1), None));
        assert_eq!(parse("1,"), (Some(1), None));
        assert_eq!(parse(", 5"), (None, Some(5)));
        assert_eq!(parse(","), (None, None));
        for invalid in ["x", "1,2,3", "-1", "1.5"] {
            assert!(invalid.parse::<Thresholds>().is_err(), "{invalid}");
        }
    }
}
