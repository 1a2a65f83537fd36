//! The command line of tbtt-torrent. Imports no other module of the tool, so that completions can be generated from this
//! file.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

/// Create, show, verify, edit and check torrent files.
///
/// tbtt-torrent(1) has examples and the exit statuses.
#[derive(Parser)]
#[command(name = "tbtt-torrent", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create a torrent for each file or directory.
    Create(Create),
    /// Print the content of each torrent.
    Show(Show),
    /// Print each torrent as a magnet link.
    Magnet(Magnet),
    /// Compare a file or directory with its torrent.
    Verify(Verify),
    /// Change the trackers, web seeds, DHT nodes, comment or creation date, but not the info-hashes.
    Edit(Edit),
    /// Check torrents before they are published.
    Lint(Lint),
}

#[derive(Args)]
pub(crate) struct Create {
    /// File or directory; the torrent is written to the same directory, with .torrent appended to the name.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// Announce URLs of trackers; give the option again for trackers that are used only if none of these responds (BEP
    /// 12).
    #[arg(long, short, value_name = "URL[,URL]")]
    pub(crate) announce: Vec<String>,

    /// URL of a mirror that has the files: of the directory, with a slash at the end, or of PATH (BEP 19).
    #[arg(long, short, value_name = "URL")]
    pub(crate) web_seed: Vec<String>,

    /// DHT node with which clients start (BEP 5).
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) node: Vec<String>,

    /// Version of the torrent.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,

    /// Bytes in each piece, such as 262144, 256K or 1M; by default, a length that suits the size.
    #[arg(long, short = 'l', value_name = "SIZE", value_parser = size)]
    pub(crate) piece_length: Option<u64>,

    /// Leave out files and directories with this name, or with this path below PATH.
    #[arg(long, short = 'x', value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,

    /// Name of the torrent, instead of the name of PATH.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Comment for people.
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) comment: Option<String>,

    /// Mark the torrent as private: clients get peers only from its trackers (BEP 27).
    #[arg(long, short)]
    pub(crate) private: bool,

    /// Source of the torrent; the same files with another source are another torrent.
    #[arg(long, value_name = "TEXT")]
    pub(crate) source: Option<String>,

    /// Version 1 info-hash of a torrent that has files in common with this torrent (BEP 38).
    #[arg(long, value_name = "HASH")]
    pub(crate) similar: Vec<String>,

    /// Name shared by torrents that have files in common (BEP 38).
    #[arg(long, value_name = "NAME")]
    pub(crate) collection: Vec<String>,

    /// Write the torrent to PATH: a file, a directory, or - for standard output.
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,

    /// Overwrite an existing torrent.
    #[arg(long, short)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) work: Work,
}

/// Options for reading and hashing.
#[derive(Args)]
pub(crate) struct Work {
    /// Number of threads that read and hash; by default, one for each processor.
    #[arg(long, short, value_name = "NUMBER")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Print only errors.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For all clients (BEP 3).
    V1,
    /// For new clients only (BEP 52).
    V2,
    /// Both versions, so that old and new clients share with each other.
    #[default]
    Hybrid,
}

#[derive(Args)]
pub(crate) struct Show {
    /// Torrents; - means standard input.
    #[arg(required = true, value_name = "TORRENT")]
    pub(crate) torrents: Vec<PathBuf>,

    /// Print one line of JSON for each torrent.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Magnet {
    /// Torrents; - means standard input.
    #[arg(required = true, value_name = "TORRENT")]
    pub(crate) torrents: Vec<PathBuf>,

    /// Print only the info-hashes, without the name, the trackers and the web seeds.
    #[arg(long)]
    pub(crate) bare: bool,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// Torrent; - means standard input.
    pub(crate) torrent: PathBuf,

    /// File or directory, if it is not next to the torrent.
    pub(crate) path: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) work: Work,
}

#[derive(Args)]
pub(crate) struct Edit {
    /// Torrents; - means standard input.
    #[arg(required = true, value_name = "TORRENT")]
    pub(crate) torrents: Vec<PathBuf>,

    /// Replace all trackers; written as for create.
    #[arg(long, short, value_name = "URL[,URL]")]
    pub(crate) announce: Vec<String>,

    /// Remove all trackers.
    #[arg(long, conflicts_with = "announce")]
    pub(crate) no_announce: bool,

    /// Replace all web seeds; written as for create.
    #[arg(long, short, value_name = "URL")]
    pub(crate) web_seed: Vec<String>,

    /// Remove all web seeds, those of BEP 17 as well.
    #[arg(long, conflicts_with = "web_seed")]
    pub(crate) no_web_seeds: bool,

    /// Replace all DHT nodes.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) node: Vec<String>,

    /// Remove all DHT nodes.
    #[arg(long, conflicts_with = "node")]
    pub(crate) no_nodes: bool,

    /// Replace the comment; an empty text removes it.
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) comment: Option<String>,

    /// Remove the creation date.
    #[arg(long)]
    pub(crate) no_creation_date: bool,

    /// Write to PATH, and do not change the torrent itself: a file, a directory, or - for standard output.
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Lint {
    /// Torrents, or directories that are searched for torrents at any depth.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// The trackers that each torrent must have; it must have no others.
    #[arg(long, short, value_name = "URL[,URL]")]
    pub(crate) announce: Vec<String>,

    /// Directory of the files, if they are not next to their torrents.
    #[arg(long, short, value_name = "DIRECTORY")]
    pub(crate) data: Option<PathBuf>,

    /// Send a HEAD request to each web seed for each file, and compare the length.
    #[cfg(feature = "online")]
    #[arg(long)]
    pub(crate) online: bool,

    /// Print only errors.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Returns the parser of the command line.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

/// Parses a size in bytes, from 1 to 1024M.
fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 1 << 10),
        None => match text.strip_suffix(['M', 'm']) {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1),
        },
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .filter(|size| (1..=1 << 30).contains(size))
        .ok_or_else(|| {
            "a size is a number of bytes from 1 to 1024M, such as 262144, 256K or 1M".to_owned()
        })
}
