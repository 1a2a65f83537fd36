//! What tbtt-torrent can be asked for. Uses nothing else of it, so that completions can be made from it alone.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

/// Make, show, check and change .torrent files.
///
/// tbtt-torrent(1) has examples, and the exit statuses.
#[derive(Parser)]
#[command(name = "tbtt-torrent", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a torrent of each file or directory.
    Create(Create),
    /// Tell what torrents hold.
    Show(Show),
    /// Print torrents as magnet links.
    Magnet(Magnet),
    /// Compare a file or directory with its torrent.
    Verify(Verify),
    /// Change what stands around the files; the info-hashes stay.
    Edit(Edit),
    /// Check torrents as they are to be published.
    Lint(Lint),
}

#[derive(Args)]
pub(crate) struct Create {
    /// What to publish: one torrent each, beside it, with .torrent behind its name.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// Trackers that stand for each other; given again, the next choice (BEP 12).
    #[arg(long, short, value_name = "URL[,URL]")]
    pub(crate) announce: Vec<String>,

    /// A mirror: the URL of the directory, ending in /, or of the file itself (BEP 19).
    #[arg(long, short, value_name = "URL")]
    pub(crate) web_seed: Vec<String>,

    /// A DHT node to begin with (BEP 5).
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) node: Vec<String>,

    /// The version: both, or one of them.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,

    /// Bytes of a piece, as 262144, 256K or 1M, instead of a length that suits the size.
    #[arg(long, short = 'l', value_name = "SIZE", value_parser = size)]
    pub(crate) piece_length: Option<u64>,

    /// Leave out what has this name, or this path below PATH.
    #[arg(long, short = 'x', value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,

    /// Another name than the file's or directory's own.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// A remark for people.
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) comment: Option<String>,

    /// No peers but those of the trackers (BEP 27).
    #[arg(long, short)]
    pub(crate) private: bool,

    /// Where it comes from; makes another torrent of the same files.
    #[arg(long, value_name = "TEXT")]
    pub(crate) source: Option<String>,

    /// The v1 info-hash of a torrent that shares files with it (BEP 38).
    #[arg(long, value_name = "HASH")]
    pub(crate) similar: Vec<String>,

    /// A name that torrents with common files have in common (BEP 38).
    #[arg(long, value_name = "NAME")]
    pub(crate) collection: Vec<String>,

    /// Write here instead: a file, a directory, or - for standard output.
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,

    /// Write over a torrent that is there.
    #[arg(long, short)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) work: Work,
}

/// How the reading is done.
#[derive(Args)]
pub(crate) struct Work {
    /// Threads that read and hash, instead of one for each processor.
    #[arg(long, short, value_name = "NUMBER")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Print nothing but faults.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For every client (BEP 3).
    V1,
    /// For new clients only (BEP 52).
    V2,
    #[default]
    Hybrid,
}

#[derive(Args)]
pub(crate) struct Show {
    #[arg(required = true, value_name = "TORRENT")]
    pub(crate) torrents: Vec<PathBuf>,

    /// One line of JSON for each.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Magnet {
    #[arg(required = true, value_name = "TORRENT")]
    pub(crate) torrents: Vec<PathBuf>,

    /// The info-hashes alone, without name, trackers and web seeds.
    #[arg(long)]
    pub(crate) bare: bool,
}

#[derive(Args)]
pub(crate) struct Verify {
    pub(crate) torrent: PathBuf,

    /// The file or directory, instead of the one beside the torrent.
    pub(crate) path: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) work: Work,
}

#[derive(Args)]
pub(crate) struct Edit {
    #[arg(required = true, value_name = "TORRENT")]
    pub(crate) torrents: Vec<PathBuf>,

    /// These trackers instead; as for create.
    #[arg(long, short, value_name = "URL[,URL]")]
    pub(crate) announce: Vec<String>,

    /// No trackers.
    #[arg(long, conflicts_with = "announce")]
    pub(crate) no_announce: bool,

    /// These web seeds instead; as for create.
    #[arg(long, short, value_name = "URL")]
    pub(crate) web_seed: Vec<String>,

    /// No web seeds, those of BEP 17 with them.
    #[arg(long, conflicts_with = "web_seed")]
    pub(crate) no_web_seeds: bool,

    /// These DHT nodes instead.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) node: Vec<String>,

    /// No DHT nodes.
    #[arg(long, conflicts_with = "node")]
    pub(crate) no_nodes: bool,

    /// Another comment; none, if it is empty.
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) comment: Option<String>,

    /// No creation date.
    #[arg(long)]
    pub(crate) no_creation_date: bool,

    /// Write here, instead of over the torrent: a file, a directory, or - for standard output.
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Lint {
    /// Torrents, or directories in which they lie, at any depth.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// A tracker of ours: each torrent must have all of these, and no other.
    #[arg(long, short, value_name = "URL")]
    pub(crate) announce: Vec<String>,

    /// Where the files lie, instead of beside their torrents.
    #[arg(long, short, value_name = "DIRECTORY")]
    pub(crate) data: Option<PathBuf>,

    /// Ask each web seed whether it has the file, whole and without a redirect.
    #[cfg(feature = "online")]
    #[arg(long)]
    pub(crate) online: bool,

    /// Print nothing but faults.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// For completions and manuals.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

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
        .ok_or_else(|| "a size is a number of bytes, as 262144, 256K or 1M, up to 1024M".to_owned())
}
