//! tbttctl: inspects and controls the running daemon over its control socket.
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
use tbtt::server::control::{LogLevel, SnapshotSummary};
use tbtt::status::report::StatusReport;

use arguments::{Arguments, Command, Level};
use client::{ControlRequest, Error};
use text::{Style, count};

/// The exit statuses; from 64 on, they are those of sysexits.h. `check` has exit statuses of its own.
#[derive(Clone, Copy)]
enum Exit {
    Success = 0,
    /// No release matches, or several do.
    NotFound = 1,
    Usage = 64,
    Unavailable = 69,
    Failed = 70,
    NoPermission = 77,
    /// The daemon refused the request.
    Refused = 78,
}

fn main() -> ExitCode {
    let arguments = arguments::command()
        .try_get_matches()
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(error) => {
            // If the output is closed, there is nowhere to report that.
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
        Command::Status { json: true } => {
            print_json(&client::send(socket, ControlRequest::Get(STATUS))?)
        }
        Command::Status { json: false } => {
            print(&status::overview(
                &fetch_report(socket)?,
                Style::of_stdout(),
            ));
        }
        Command::Torrents(options) => {
            let report = fetch_report(socket)?;
            let selected = releases::select(&report.releases, options);
            match options.json {
                true => print_json(&releases::json(&selected)),
                false => print(&releases::table(&selected, report.now, Style::of_stdout())),
            }
        }
        Command::Torrent { which, json } => {
            let report = fetch_report(socket)?;
            match releases::find(&report.releases, which) {
                Ok(release) if *json => print_json(&releases::json(release)),
                Ok(release) => print(&releases::details(release, report.now, Style::of_stdout())),
                Err(error) => {
                    eprintln!("tbttctl: {error}");
                    return Ok(Exit::NotFound);
                }
            }
        }
        Command::Reload => {
            client::send(socket, ControlRequest::Post("/reload"))?;
            print("reloaded\n");
        }
        Command::Snapshot => {
            let saved: SnapshotSummary =
                client::parse_json(&client::send(socket, ControlRequest::Post("/snapshot"))?)?;
            let (torrents, peers) = (count(saved.torrents, "torrent"), count(saved.peers, "peer"));
            let size = text::size(saved.bytes);
            print(&format!("saved {peers} of {torrents}, {size}\n"));
        }
        // Handled in main, as it has exit statuses of its own.
        Command::Check(_) => {}
        Command::Top { interval, sort } => return top::top(socket, *interval, *sort),
        Command::LogLevel { level } => {
            let current: LogLevel = match level {
                None => client::get(socket, LOG_LEVEL)?,
                Some(level) => client::parse_json(&client::send(
                    socket,
                    ControlRequest::Put(LOG_LEVEL, &level_name(*level)),
                )?)?,
            };
            print(&format!("{}\n", current.level));
        }
    }
    Ok(Exit::Success)
}

const STATUS: &str = "/status.json";
const LOG_LEVEL: &str = "/log-level";

fn fetch_report(socket: &Path) -> Result<StatusReport, Error> {
    client::get(socket, STATUS)
}

fn level_name(level: Level) -> String {
    let value = level.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn print_json(json: &[u8]) {
    print(&format!("{}\n", String::from_utf8_lossy(json)));
}

/// Prints text. Ignores errors: a reader such as head may close the pipe early.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
#[path = "../../../tests/harness/completions.rs"]
mod completions;

#[test]
fn completions_match_the_arguments() {
    completions::check::<arguments::Arguments>("tbttctl");
}
