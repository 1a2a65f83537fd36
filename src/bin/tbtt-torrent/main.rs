//! tbtt-torrent: makes, shows, checks and changes `.torrent` files.
#![forbid(unsafe_code)]

/// What it can be asked for.
mod arguments;

/// Files and hashes to a torrent.
mod create;

/// What stands around the files, changed.
mod edit;

/// Reads and hashes on all cores.
mod hash;

/// A torrent as a link.
mod magnet;

/// Web seeds, asked.
#[cfg(feature = "online")]
mod online;

/// Reading and writing `.torrent` files, and what goes into them.
mod file;

/// Torrents as they are to be published.
mod lint;

/// What a torrent holds, for people and programs.
mod show;

/// The URLs of trackers and web seeds.
mod url;

/// Files against their torrent.
mod verify;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::FromArgMatches as _;
use clap::error::ErrorKind;

use arguments::{Arguments, Command};

/// The exit status, if it is not 0 (sysexits.h; `lint` has its own as well).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Exit {
    /// Files are not those of the torrent.
    Differs = 1,
    Usage = 64,
    /// What was read is no torrent, or cannot become one.
    Data = 65,
    /// It is not there, or cannot be read.
    NoInput = 66,
    /// There is one already, or it cannot be written.
    CannotCreate = 73,
}

/// Why it ends, to be told.
#[derive(Debug)]
struct Failed {
    exit: u8,
    /// Nothing, if all is told.
    reason: String,
}

fn failed(exit: Exit, reason: impl Into<String>) -> Failed {
    let (exit, reason) = (exit as u8, reason.into());
    Failed { exit, reason }
}

fn main() -> ExitCode {
    let matches = arguments::command().try_get_matches();
    let arguments = match matches.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Standard output or error being closed is no reason to say more.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(Exit::Usage as u8),
            };
        }
    };
    let done = match &arguments.command {
        Command::Create(create) => create::run(create),
        Command::Show(show) => show::run(show),
        Command::Magnet(magnet) => magnet::run(magnet),
        Command::Verify(verify) => verify::run(verify),
        Command::Edit(edit) => edit::run(edit),
        Command::Lint(lint) => lint::run(lint),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { exit, reason }) => {
            if !reason.is_empty() {
                let _ = writeln!(io::stderr(), "tbtt-torrent: {reason}");
            }
            ExitCode::from(exit)
        }
    }
}

/// Prints what was asked for. A reader that has seen enough, as head has, is no fault.
fn print(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

#[cfg(test)]
#[path = "../../../tests/harness/completions.rs"]
mod completions;

#[test]
fn completions_are_those_of_the_arguments() {
    completions::check::<arguments::Arguments>("tbtt-torrent");
}
