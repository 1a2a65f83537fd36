//! Test cases, their verdicts, and the function that runs all cases of a protocol.

use std::fmt;

/// How many requests are sent. Each effort includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Effort {
    Gentle,
    Full,
    Hostile,
    /// Takes minutes. Added to any of the others by `--wait`.
    Wait,
}

/// Where the requirement of a case is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Bep(u16),
    Rfc(u16),
    /// Common practice, not a standard: what clients and operators expect, or what keeps the tracker and others safe.
    Practice,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bep(number) => f.pad(&format!("BEP {number}")),
            Self::Rfc(number) => f.pad(&format!("RFC {number}")),
            Self::Practice => f.pad("practice"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Ok,
    /// The tracker does not do what a standard requires.
    Fault,
    /// The tracker does not do what is common practice.
    Differs,
    Skipped,
}

impl Verdict {
    pub(crate) const ALL: [Self; 4] = [Self::Fault, Self::Differs, Self::Ok, Self::Skipped];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fault => "fault",
            Self::Differs => "differs",
            Self::Skipped => "skipped",
        }
    }
}

/// The result of a case: what was seen if the tracker does what the case requires.
pub(crate) type Finding = Result<String, NotOk>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NotOk {
    /// The tracker does something else, which was seen.
    Failed(String),
    /// The case could not be tested, for this reason.
    Skipped(String),
}

pub(crate) fn failed<T>(seen: impl Into<String>) -> Result<T, NotOk> {
    Err(NotOk::Failed(seen.into()))
}

pub(crate) fn skipped<T>(reason: impl Into<String>) -> Result<T, NotOk> {
    Err(NotOk::Skipped(reason.into()))
}

/// The reason for which cases are skipped if the user gave no torrent.
pub(crate) const RANDOM_REFUSED: &str =
    "the tracker refuses a random torrent; give one that it tracks, with --info-hash or --torrent";

/// The reason for which cases of refused torrents are skipped.
pub(crate) const ANY_TRACKED: &str = "the tracker tracks any torrent";

/// The reason for which cases that announce the seeder again are skipped.
pub(crate) const SECOND_REFUSED: &str =
    "the second announce of the seeder was refused, maybe because it was too early";

/// Returns `Ok` with what was seen if there are no problems, or else all problems.
pub(crate) fn ok_if_none(problems: Vec<String>, seen: impl Into<String>) -> Finding {
    match problems.is_empty() {
        true => Ok(seen.into()),
        false => failed(problems.join("; ")),
    }
}

/// A requirement, and the function that tests it in a session `S` with a tracker.
pub(crate) struct Case<S> {
    pub(crate) id: &'static str,
    pub(crate) effort: Effort,
    pub(crate) source: Source,
    /// The requirement.
    pub(crate) title: &'static str,
    pub(crate) check: fn(&mut S) -> Finding,
}

/// The result of a case for the report.
pub(crate) struct Outcome {
    pub(crate) id: &'static str,
    pub(crate) source: Source,
    pub(crate) title: &'static str,
    pub(crate) verdict: Verdict,
    /// What was seen, or the reason why the case was skipped.
    pub(crate) seen: String,
}

/// Runs the cases of the wanted efforts in their order.
pub(crate) fn run<S>(
    tables: &[&[Case<S>]],
    session: &mut S,
    is_wanted: impl Fn(Effort) -> bool,
) -> Vec<Outcome> {
    let cases = tables
        .iter()
        .copied()
        .flatten()
        .filter(|case| is_wanted(case.effort));
    let outcome = |case: &Case<S>| {
        let (verdict, seen) = match ((case.check)(session), case.source) {
            (Ok(seen), _) => (Verdict::Ok, seen),
            (Err(NotOk::Skipped(reason)), _) => (Verdict::Skipped, reason),
            (Err(NotOk::Failed(seen)), Source::Practice) => (Verdict::Differs, seen),
            (Err(NotOk::Failed(seen)), _) => (Verdict::Fault, seen),
        };
        Outcome {
            id: case.id,
            source: case.source,
            title: case.title,
            verdict,
            seen,
        }
    };
    cases.map(outcome).collect()
}

/// Returns the beginning of untrusted bytes, in quotes, with control characters escaped for a terminal.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const MAX: usize = 60;
    match bytes.get(..MAX) {
        Some(start) if bytes.len() > MAX => format!("\"{}...\"", start.escape_ascii()),
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// Returns a number with its noun: `1 peer`, `2 peers`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{s}")
}
