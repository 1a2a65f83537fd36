//! The operator's tool: asks the running daemon over its control socket, and shows what it says.
#![forbid(unsafe_code)]

mod arguments;
mod check;
mod client;
mod releases;
mod status;
mod text;
mod top;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{FromArgMatches, ValueEnum};
use tbtt::server::control::{LogLevel, Saved};
use tbtt::status::report::StatusReport;

use arguments::{Arguments, Command, Level};
use client::{Ask, Error};
use text::{Style, count};

/// As sysexits.h has them, but for the first two; `check` has its own.
#[derive(Clone, Copy)]
enum Exit {
    Success = 0,
    /// No release is like that.
    NotFound = 1,
    Usage = 64,
    Unavailable = 69,
    Failed = 70,
    NoPermission = 77,
    /// The daemon refused it.
    Refused = 78,
}

fn main() -> ExitCode {
    let arguments = arguments::command()
        .try_get_matches()
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    let arguments = match arguments {
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
    if let Command::Check(thresholds) = &arguments.command {
        let (line, state) = check::check(&arguments.socket, thresholds);
        print(&line);
        return ExitCode::from(state as u8);
    }
    let exit = run(&arguments.socket, &arguments.command).unwrap_or_else(|error| {
        eprintln!("tbttctl: {error}");
        match error {
            Error::NotRunning(_) => Exit::Unavailable,
            Error::NoPermission(_) => Exit::NoPermission,
            Error::Refused(_) => Exit::Refused,
            Error::Failed(_) => Exit::Failed,
        }
    });
    ExitCode::from(exit as u8)
}

fn run(socket: &Path, command: &Command) -> Result<Exit, Error> {
    match command {
        Command::Status { json: true } => print_json(&client::ask(socket, Ask::Get(STATUS))?),
        Command::Status { json: false } => {
            print(&status::overview(&figures(socket)?, Style::of_stdout()));
        }
        Command::Torrents(wanted) => {
            let figures = figures(socket)?;
            let chosen = releases::chosen(&figures.releases, wanted);
            match wanted.json {
                true => print_json(&releases::json(&chosen)),
                false => print(&releases::table(&chosen, figures.now, Style::of_stdout())),
            }
        }
        Command::Torrent { which, json } => {
            let figures = figures(socket)?;
            match releases::find(&figures.releases, which) {
                Ok(release) if *json => print_json(&releases::json(release)),
                Ok(release) => print(&releases::card(release, figures.now, Style::of_stdout())),
                Err(why) => {
                    eprintln!("tbttctl: {why}");
                    return Ok(Exit::NotFound);
                }
            }
        }
        Command::Reload => {
            client::ask(socket, Ask::Post("/reload"))?;
            print("reloaded\n");
        }
        Command::Snapshot => {
            let saved: Saved = client::read(&client::ask(socket, Ask::Post("/snapshot"))?)?;
            let (torrents, peers) = (count(saved.torrents, "torrent"), count(saved.peers, "peer"));
            let size = text::size(saved.bytes);
            print(&format!("saved {peers} of {torrents}, {size}\n"));
        }
        // Answered before, as it has exit codes of its own.
        Command::Check(_) => {}
        Command::Top { interval, sort } => return top::top(socket, *interval, *sort),
        Command::LogLevel { level } => {
            let said: LogLevel = match level {
                None => client::get(socket, LOG_LEVEL)?,
                Some(level) => {
                    client::read(&client::ask(socket, Ask::Put(LOG_LEVEL, &word(*level)))?)?
                }
            };
            print(&format!("{}\n", said.level));
        }
    }
    Ok(Exit::Success)
}

const STATUS: &str = "/status.json";
const LOG_LEVEL: &str = "/log-level";

fn figures(socket: &Path) -> Result<StatusReport, Error> {
    client::get(socket, STATUS)
}

fn word(level: Level) -> String {
    let value = level.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn print_json(json: &[u8]) {
    print(&format!("{}\n", String::from_utf8_lossy(json)));
}

/// A reader that has seen enough, as head has, is no fault.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
#[path = "../../../tests/harness/completions.rs"]
mod completions;

#[test]
fn completions_are_those_of_the_arguments() {
    completions::check::<arguments::Arguments>("tbttctl");
}
