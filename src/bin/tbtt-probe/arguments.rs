//! The command line. It uses nothing of the program's own, so that completions can be made from it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser};
use tbtt::bytes::parse_hex;

/// Tests a BitTorrent tracker: asks it what clients ask, and tells where its answers break a standard or differ from
/// what clients are used to.
///
/// A tracker at an address of this machine is asked everything that is not hostile, any other a handful of requests.
#[derive(Parser)]
#[command(name = "tbtt-probe", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Announce URLs, such as http://tracker.example.org:6969/announce or udp://tracker.example.org:6969.
    #[arg(value_name = "URL", required_unless_present = "list")]
    pub(crate) urls: Vec<String>,

    #[command(flatten)]
    pub(crate) effort: Efforts,

    /// With --hostile: whoever runs the tracker has allowed this, so do it at an address of another machine too.
    #[arg(long, requires = "hostile")]
    pub(crate) with_permission: bool,

    /// Also wait out the life of a UDP connection id, which takes over two minutes.
    #[arg(long)]
    pub(crate) wait: bool,

    /// A torrent that the tracker tracks, in 40 hex digits; a second one lets more be tested. Without any, a random
    /// one is announced.
    #[arg(long, value_name = "HASH", value_parser = info_hash)]
    pub(crate) info_hash: Vec<[u8; 20]>,

    /// The same from a .torrent file.
    #[arg(long, value_name = "FILE")]
    pub(crate) torrent: Vec<PathBuf>,

    /// Only over IPv4.
    #[arg(short = '4', conflicts_with = "only_v6")]
    pub(crate) only_v4: bool,

    /// Only over IPv6.
    #[arg(short = '6')]
    pub(crate) only_v6: bool,

    /// How long an answer may take, from 1 to 60 seconds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) output: Outputs,

    /// Tell what was seen in cases that are well, too.
    #[arg(long, short)]
    pub(crate) verbose: bool,

    /// Ask nothing: print the TXT records (BEP 34) for these URLs, and exit.
    #[arg(long, conflicts_with_all = ["json", "tap", "list"])]
    pub(crate) txt: bool,

    /// Name every case, and exit.
    #[arg(long)]
    pub(crate) list: bool,
}

/// How much a tracker is asked.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct Efforts {
    /// A handful of requests, as one client sends them; what another machine's tracker gets by default.
    #[arg(long)]
    pub(crate) gentle: bool,

    /// All that is not hostile, some 80 to 160 requests; what a tracker of this machine gets by default.
    #[arg(long)]
    pub(crate) full: bool,

    /// Garbage, oversize, slow and forged requests as well; only at an address of this machine.
    #[arg(long)]
    pub(crate) hostile: bool,
}

/// How the report is written.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct Outputs {
    /// Write the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// Write the report for the Test Anything Protocol; what differs from practice is a TODO there.
    #[arg(long)]
    pub(crate) tap: bool,
}

/// The whole of it, as a program that writes completions wants it too.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

fn info_hash(text: &str) -> Result<[u8; 20], String> {
    parse_hex(text.as_bytes()).ok_or_else(|| "an info-hash has 40 hexadecimal digits".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=60) => Ok(Duration::from_secs(seconds)),
        _ => Err("from 1 to 60 seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn an_info_hash_has_40_hex_digits() {
        assert_eq!(info_hash(&"aB".repeat(20)), Ok([0xab; 20]));
        for bad in [
            "",
            "ab",
            &"ab".repeat(21),
            &"gg".repeat(20),
            &"é".repeat(20),
        ] {
            assert!(info_hash(bad).is_err(), "{bad}");
        }
    }
}
