//! tbtt-torrent: creates, shows, verifies, edits and checks `.torrent` files.
#![forbid(unsafe_code)]

mod arguments;
mod create;
mod edit;
mod file;
mod hash;
mod lint;
mod magnet;
#[cfg(feature = "online")]
mod online;
mod show;
mod urls;
mod verify;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::FromArgMatches as _;
use clap::error::ErrorKind;

use arguments::{Arguments, Command};

/// The exit statuses of failures (sysexits.h, except for the first two).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Exit {
    /// `verify`: files differ from the torrent.
    Differs,
    /// `lint`: the sum of the classes of errors.
    Lint(u8),
    /// The command line is wrong.
    Usage,
    /// The input is not a torrent, or a torrent cannot be created from it.
    Data,
    /// A file is missing or cannot be read.
    NoInput,
    /// The torrent exists already or cannot be written.
    CannotCreate,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Differs => 1,
            Exit::Lint(classes) => classes,
            Exit::Usage => 64,
            Exit::Data => 65,
            Exit::NoInput => 66,
            Exit::CannotCreate => 73,
        })
    }
}

/// Why a command failed.
#[derive(Debug)]
struct Failed {
    exit: Exit,
    /// The message for standard error; empty if the command has printed everything.
    reason: String,
}

/// Returns a failure with its message.
fn fail(exit: Exit, reason: impl Into<String>) -> Failed {
    let reason = reason.into();
    Failed { exit, reason }
}

fn main() -> ExitCode {
    let matches = arguments::command().try_get_matches();
    let arguments = match matches.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // If standard output or error is closed, nobody can read another message.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => Exit::Usage.into(),
            };
        }
    };
    let result = match &arguments.command {
        Command::Create(create) => create::run(create),
        Command::Show(show) => show::run(show),
        Command::Magnet(magnet) => magnet::run(magnet),
        Command::Verify(verify) => verify::run(verify),
        Command::Edit(edit) => edit::run(edit),
        Command::Lint(lint) => lint::run(lint),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { exit, reason }) => {
            if !reason.is_empty() {
                let _ = writeln!(io::stderr(), "tbtt-torrent: {reason}");
            }
            exit.into()
        }
    }
}

/// Prints to standard output. A closed pipe, as behind `head`, is not an error.
fn print(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// Returns a number with its noun: `1 torrent`, `2 torrents`.
fn count(number: u64, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{s}")
}

#[cfg(test)]
#[path = "../../../tests/harness/completions.rs"]
mod completions;

#[test]
fn completions_match_the_arguments() {
    completions::check::<arguments::Arguments>("tbtt-torrent");
}
