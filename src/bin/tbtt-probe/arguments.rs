//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser};

use crate::target::Url;

/// Tests a BitTorrent tracker: asks it what clients ask, and tells where its answers break a standard or differ from
/// what clients are used to.
///
/// A tracker at an address of this machine is asked everything that is not hostile, any other a handful of requests.
#[derive(Parser)]
#[command(name = "tbtt-probe", version, max_term_width = 100)]
pub struct Arguments {
    /// Announce URLs, such as http://tracker.example.org:6969/announce or udp://tracker.example.org:6969.
    #[arg(value_name = "URL", required_unless_present = "list")]
    pub urls: Vec<Url>,

    #[command(flatten)]
    pub effort: Efforts,

    /// With --hostile: whoever runs the tracker has allowed this, so do it at an address of another machine too.
    #[arg(long, requires = "hostile")]
    pub with_permission: bool,

    /// Also wait out the life of a UDP connection id, which takes over two minutes.
    #[arg(long)]
    pub wait: bool,

    /// A torrent that the tracker tracks, in 40 hex digits; a second one lets more be tested. Without any, a random
    /// one is announced.
    #[arg(long, value_name = "HASH", value_parser = info_hash)]
    pub info_hash: Vec<[u8; 20]>,

    /// The same from a .torrent file.
    #[arg(long, value_name = "FILE")]
    pub torrent: Vec<PathBuf>,

    /// Only over IPv4.
    #[arg(short = '4', conflicts_with = "only_v6")]
    pub only_v4: bool,

    /// Only over IPv6.
    #[arg(short = '6')]
    pub only_v6: bool,

    /// How long an answer may take, from 1 to 60 seconds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub timeout: Duration,

    #[command(flatten)]
    pub output: Outputs,

    /// Tell what was seen in cases that are well, too.
    #[arg(long, short)]
    pub verbose: bool,

    /// Ask nothing: print the TXT records (BEP 34) for these URLs, and exit.
    #[arg(long, conflicts_with_all = ["json", "tap", "list"])]
    pub txt: bool,

    /// Name every case, and exit.
    #[arg(long)]
    pub list: bool,
}

/// How much a tracker is asked.
#[derive(Args)]
#[group(multiple = false)]
pub struct Efforts {
    /// A handful of requests, as one client sends them; what another machine's tracker gets by default.
    #[arg(long)]
    pub gentle: bool,

    /// All that is not hostile, some hundred requests; what a tracker of this machine gets by default.
    #[arg(long)]
    pub full: bool,

    /// Garbage, oversize, slow and forged requests as well; only at an address of this machine.
    #[arg(long)]
    pub hostile: bool,
}

/// How the report is written.
#[derive(Args)]
#[group(multiple = false)]
pub struct Outputs {
    /// Write the report as JSON.
    #[arg(long)]
    pub json: bool,

    /// Write the report for the Test Anything Protocol; what differs from practice is a TODO there.
    #[arg(long)]
    pub tap: bool,
}

/// For shells' completions, and to read the arguments by.
pub fn command() -> clap::Command {
    Arguments::command()
}

fn info_hash(text: &str) -> Result<[u8; 20], String> {
    let digits = text.as_bytes();
    let mut hash = [0; 20];
    if digits.len() != 40 {
        return Err("an info-hash has 40 hex digits".to_owned());
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            return Err("an info-hash has hex digits alone".to_owned());
        };
        *byte = (high << 4 | low) as u8;
    }
    Ok(hash)
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=60) => Ok(Duration::from_secs(seconds)),
        _ => Err("from 1 to 60 seconds".to_owned()),
    }
}
