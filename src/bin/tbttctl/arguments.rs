//! The command line. It uses nothing of the program's own, so that completions can be made from it.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

/// Looks into a running tbtt, and tells it what to do.
#[derive(Parser, Debug)]
#[command(name = "tbttctl", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// The daemon's control socket, as [control] listen in its configuration has it.
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
    /// Tell how the tracker does: peers, announces, refusals, releases without a seed.
    Status {
        /// Print all figures as JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the releases.
    Torrents(Torrents),
    /// Tell all about one release.
    Torrent {
        /// Its info-hash or the beginning of that, its name, or a part that only its name has.
        #[arg(value_name = "HASH|NAME")]
        which: String,

        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Have the configuration, its lists and the torrent directories read again, and tell what came of it.
    Reload,
    /// Have the state saved now, and wait until it is.
    Snapshot,
    /// Check for a monitoring system: exits with 0 if all is well, 1 for a warning, 2 if it is critical, 3 if unknown.
    Check(Check),
    /// Show the tracker's figures and its busiest releases, living, until q or Ctrl-C.
    Top {
        /// Seconds between two looks.
        #[arg(long, short, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=3600))]
        interval: u16,

        /// What comes first.
        #[arg(long, value_enum, default_value_t = Sort::Leechers)]
        sort: Sort,
    },
    /// Tell the least important level that is logged, or set it until the next reload or restart.
    LogLevel { level: Option<Level> },
}

#[derive(Args, Debug)]
pub(crate) struct Torrents {
    /// Only those whose name has this; with * and ? only those whose whole name is like this.
    pub(crate) pattern: Option<String>,

    /// Only those that have no seed now.
    #[arg(long)]
    pub(crate) unseeded: bool,

    /// What comes first: names from A on, of the others the most or the latest.
    #[arg(long, value_enum, default_value_t = Sort::Name)]
    pub(crate) sort: Sort,

    /// The other way round.
    #[arg(long, short)]
    pub(crate) reverse: bool,

    /// Print them as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Each of these thresholds is WARNING, then a comma, then CRITICAL; either may be left out. More than that is worth it.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// How many releases may have been published without a seed, for longer than they may be.
    #[arg(long, value_name = "WARNING,CRITICAL", default_value = "0,")]
    pub(crate) never_seeded: Thresholds,

    /// How many releases may have lost their seeds, for longer than they may be without.
    #[arg(long, value_name = "WARNING,CRITICAL", default_value = ",0")]
    pub(crate) lost_seeds: Thresholds,

    /// How many seconds old the last snapshot may be [default: three times and twelve times what [state] interval says].
    #[arg(long, value_name = "WARNING,CRITICAL")]
    pub(crate) snapshot_age: Option<Thresholds>,

    /// How many percent of the last seconds' requests may be refused, once it is more than one a second.
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
    /// When it was published.
    Listed,
    /// When a seed was last seen.
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

/// What is still well, if a limit is set: more is not.
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
            _ => Err("write two whole numbers with a comma between, as 1,5 or ,5".to_owned()),
        }
    }
}

/// The whole of it, as a program that writes completions wants it too.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn either_threshold_may_be_left_out() {
        let read = |text: &str| {
            let Thresholds { warning, critical } = text.parse().unwrap();
            (warning, critical)
        };
        assert_eq!(read("1,5"), (Some(1), Some(5)));
        assert_eq!(read("1"), (Some(1), None));
        assert_eq!(read("1,"), (Some(1), None));
        assert_eq!(read(", 5"), (None, Some(5)));
        assert_eq!(read(","), (None, None));
        for wrong in ["x", "1,2,3", "-1", "1.5"] {
            assert!(wrong.parse::<Thresholds>().is_err(), "{wrong}");
        }
    }
}
