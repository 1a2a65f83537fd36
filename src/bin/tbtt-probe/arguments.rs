//! The command line of tbtt-probe. Imports no other module of the tool, so that completions can be generated from this
//! file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser};
use tbtt::bytes::parse_hex;

/// Test a BitTorrent tracker.
///
/// Sends the tracker the requests that clients send, and some that they should not send. Reports where the responses break
/// a standard or differ from what clients expect.
///
/// By default, a tracker at an address of this machine gets the requests of --full, and any other tracker those of
/// --gentle.
#[derive(Parser)]
#[command(name = "tbtt-probe", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Announce URLs, such as http://tracker.example.org:6969/announce or udp://tracker.example.org:6969.
    #[arg(value_name = "URL", required_unless_present = "list")]
    pub(crate) urls: Vec<String>,

    #[command(flatten)]
    pub(crate) effort: Efforts,

    /// With --hostile, allow an address of another machine; requires the permission of the operators of the tracker and of
    /// the network.
    #[arg(long, requires = "hostile")]
    pub(crate) with_permission: bool,

    /// Also test how long a UDP connection ID is valid, which takes more than two minutes.
    #[arg(long)]
    pub(crate) wait: bool,

    /// Announce this torrent, given as 40 hexadecimal digits, instead of a random one; with a second hash, the order in the
    /// response to a scrape is tested too.
    #[arg(long, value_name = "HASH", value_parser = info_hash)]
    pub(crate) info_hash: Vec<[u8; 20]>,

    /// Announce the torrent of this .torrent file.
    #[arg(long, value_name = "FILE")]
    pub(crate) torrent: Vec<PathBuf>,

    /// Test only over IPv4.
    #[arg(short = '4', conflicts_with = "only_v6")]
    pub(crate) only_v4: bool,

    /// Test only over IPv6.
    #[arg(short = '6')]
    pub(crate) only_v6: bool,

    /// Wait this long for a response, from 1 to 60 seconds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) output: Outputs,

    /// Print what was seen in successful cases too.
    #[arg(long, short)]
    pub(crate) verbose: bool,

    /// Send nothing, print the TXT records for these URLs (BEP 34), and exit.
    #[arg(long, conflicts_with_all = ["json", "tap", "list"])]
    pub(crate) txt: bool,

    /// List all cases with their sources, and exit.
    #[arg(long)]
    pub(crate) list: bool,
}

/// How many requests are sent.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct Efforts {
    /// Send five to ten requests, as one or two clients do.
    #[arg(long)]
    pub(crate) gentle: bool,

    /// Send about 80 requests over UDP, or 160 over HTTP, some of them malformed.
    #[arg(long)]
    pub(crate) full: bool,

    /// Send garbage, oversized, incomplete and forged requests as well; only to an address of this machine.
    #[arg(long)]
    pub(crate) hostile: bool,
}

/// The format of the report.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct Outputs {
    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    /// Print the report in the Test Anything Protocol, version 14; a difference is a failed test marked TODO.
    #[arg(long)]
    pub(crate) tap: bool,
}

/// Returns the parser of the command line.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

fn info_hash(text: &str) -> Result<[u8; 20], String> {
    parse_hex(text.as_bytes()).ok_or_else(|| "an info-hash has 40 hexadecimal digits".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=60) => Ok(Duration::from_secs(seconds)),
        _ => Err("the timeout must be from 1 to 60 seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn info_hash_requires_40_hex_digits() {
        assert_eq!(info_hash(&"aB".repeat(20)), Ok([0xab; 20]));
        for invalid in [
            "",
            "ab",
            &"ab".repeat(21),
            &"gg".repeat(20),
            &"é".repeat(20),
        ] {
            assert!(info_hash(invalid).is_err(), "{invalid}");
        }
    }
}
