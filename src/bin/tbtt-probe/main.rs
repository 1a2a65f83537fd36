//! tbtt-probe: tests a tracker. Parses the arguments, tests each URL at its addresses, and prints the report.
#![forbid(unsafe_code)]

mod arguments;
mod bencode;
mod case;
mod http;
mod peer;
mod report;
mod target;
mod udp;

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::ErrorKind;
use tbtt::metainfo::Metainfo;

use arguments::{Arguments, command};
use case::{Case, Effort, Outcome, Verdict};
use peer::InfoHash;
use report::{Report, Target};
use target::{Protocol, TrackerUrl, is_local, txt_records};

/// The exit statuses (sysexits.h, except for the second).
#[derive(Clone, Copy)]
enum Exit {
    /// No fault was found. There may be differences from common practice.
    Success = 0,
    Faults = 1,
    Usage = 64,
    Unreachable = 69,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

fn main() -> ExitCode {
    let arguments = command()
        .try_get_matches()
        .and_then(|mut matches| Arguments::from_arg_matches_mut(&mut matches));
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(error) => {
            // If standard output or error is closed, nobody can read another message.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Success.into(),
                _ => Exit::Usage.into(),
            };
        }
    };
    match run(&arguments) {
        Ok(exit) => exit.into(),
        Err(reason) => {
            eprintln!("tbtt-probe: {reason}");
            Exit::Usage.into()
        }
    }
}

/// # Errors
/// The reason why the command line is wrong.
fn run(arguments: &Arguments) -> Result<Exit, String> {
    if arguments.list {
        print(&list());
        return Ok(Exit::Success);
    }
    let urls = arguments.urls.iter().map(|text| {
        let url = text.parse::<TrackerUrl>();
        url.map_err(|reason| format!("{text}: {reason}"))
    });
    let urls = urls.collect::<Result<Vec<_>, _>>()?;
    if arguments.txt {
        let records = txt_records(&urls);
        if records.is_empty() {
            return Err("addresses have no TXT records; use host names in the URLs".to_owned());
        }
        print(&(records.join("\n") + "\n"));
        return Ok(Exit::Success);
    }
    let mut torrents = arguments.info_hash.clone();
    for file in &arguments.torrent {
        torrents.push(info_hash_of(file)?);
    }
    let mut targets = Vec::new();
    for url in &urls {
        targets.extend(addresses(arguments, url)?);
    }
    let mut done = Vec::new();
    for mut target in targets {
        if let Some(address) = target.address {
            let other = other_family(&done, &target.url, address);
            target.result = probe(arguments, &torrents, &target, address, other);
        }
        done.push(target);
    }
    let report = Report {
        torrents,
        targets: done,
    };
    let output = &arguments.output;
    print(&match (output.json, output.tap) {
        (true, _) => report.json(),
        (_, true) => report.tap(),
        _ => report.human(arguments.verbose),
    });
    Ok(if report.unreachable() > 0 {
        Exit::Unreachable
    } else if report.count(Verdict::Fault) > 0 {
        Exit::Faults
    } else {
        Exit::Success
    })
}

/// Prints to standard output. A closed pipe, as behind `head`, is not an error.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn list() -> String {
    fn lines<S>(tables: &[&[Case<S>]]) -> String {
        let all = tables.iter().copied().flatten();
        let line = |case: &Case<S>| format!("{:<22}{:<10}{}\n", case.id, case.source, case.title);
        all.map(line).collect()
    }
    lines(http::CASES) + &lines(udp::CASES)
}

/// Returns the info-hash that clients announce; for a hybrid torrent, that of version 1.
fn info_hash_of(file: &Path) -> Result<InfoHash, String> {
    let path = file.display();
    let bytes = fs::read(file).map_err(|error| format!("cannot read {path}: {error}"))?;
    let metainfo = Metainfo::parse(&bytes).map_err(|error| format!("{path}: {error}"))?;
    match (metainfo.v1, metainfo.v2) {
        (Some(v1), _) => Ok(v1.0),
        (None, Some(v2)) => Ok(v2.truncated().0),
        (None, None) => Err(format!("{path}: not a torrent")),
    }
}

/// Resolves the host of a URL, and returns a target for each address, which is not tested yet.
fn addresses(arguments: &Arguments, url: &TrackerUrl) -> Result<Vec<Target>, String> {
    let target = |address: Option<SocketAddr>, effort, reason: &str| Target {
        url: url.clone(),
        address,
        effort,
        result: Err(reason.to_owned()),
    };
    let found = match url.addresses(!arguments.only_v6, !arguments.only_v4) {
        Ok(found) if found.is_empty() => Err("the host has no address of this family".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(error.to_string()),
    };
    let found = match found {
        Ok(found) => found,
        Err(reason) => return Ok(vec![target(None, Effort::Gentle, &reason)]),
    };
    let mut targets = Vec::new();
    for address in found {
        let effort = effort(arguments, url, address)?;
        targets.push(target(Some(address), effort, "not tested"));
    }
    Ok(targets)
}

/// Returns the effort for an address; fails for `--hostile` at an address of another machine.
fn effort(arguments: &Arguments, url: &TrackerUrl, address: SocketAddr) -> Result<Effort, String> {
    let (given, is_local) = (&arguments.effort, is_local(address.ip()));
    if given.hostile && !is_local && !arguments.with_permission {
        return Err(format!(
            "{}: {} is not an address of this machine; --hostile requires --with-permission",
            url.text,
            address.ip()
        ));
    }
    Ok(match (given.hostile, given.full, given.gentle) {
        (true, _, _) => Effort::Hostile,
        (_, true, _) => Effort::Full,
        (_, _, true) => Effort::Gentle,
        _ if is_local => Effort::Full,
        _ => Effort::Gentle,
    })
}

/// Returns the address of the other family at which a tracker with the same protocol and path was reached before, which is
/// probably the same tracker. If it is another tracker, no case fails because of that.
fn other_family(before: &[Target], url: &TrackerUrl, address: SocketAddr) -> Option<SocketAddr> {
    let all = before.iter().filter(|target| target.result.is_ok());
    all.filter(|target| target.url.protocol == url.protocol && target.url.path == url.path)
        .filter_map(|target| target.address)
        .find(|other| other.is_ipv4() != address.is_ipv4())
}

/// Runs the cases against a target.
///
/// # Errors
/// The reason why the tracker cannot be reached.
fn probe(
    arguments: &Arguments,
    torrents: &[InfoHash],
    target: &Target,
    address: SocketAddr,
    other: Option<SocketAddr>,
) -> Result<Vec<Outcome>, String> {
    let (url, timeout) = (&target.url, arguments.timeout);
    let is_wanted = |effort| match effort {
        Effort::Wait => arguments.wait,
        effort => effort <= target.effort,
    };
    Ok(match url.protocol {
        Protocol::Http => {
            let mut session = http::Session::open(url, address, other, timeout, torrents)?;
            let outcomes = case::run(http::CASES, &mut session, is_wanted);
            session.stop_all();
            outcomes
        }
        Protocol::Udp => {
            let mut session = udp::Session::open(url, address, timeout, torrents)?;
            let outcomes = case::run(udp::CASES, &mut session, is_wanted);
            session.stop_all();
            outcomes
        }
    })
}

#[cfg(test)]
#[path = "../../../tests/harness/completions.rs"]
mod completions;

#[test]
fn completions_match_the_arguments() {
    completions::check::<arguments::Arguments>("tbtt-probe");
}
