//! A case, what may come of it, and the run of all cases of one protocol.

use std::fmt;

/// How much a tracker is asked; each includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Effort {
    Gentle,
    Full,
    Hostile,
    /// With any of them, if the user has the time.
    Wait,
}

/// Whose word a case holds a tracker to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Bep(u16),
    Rfc(u16),
    /// What clients and operators are used to, or what keeps a tracker safe; no standard has it.
    Practice,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bep(number) => write!(f, "BEP {number}"),
            Self::Rfc(number) => write!(f, "RFC {number}"),
            Self::Practice => f.write_str("practice"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Ok,
    /// Against a standard.
    Fault,
    /// From practice.
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

/// What was seen, where it is as the case wants it; else why it is not judged so.
pub(crate) type Finding = Result<String, Miss>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Miss {
    /// The tracker does otherwise: what was seen, and what was expected.
    Broken(String),
    /// It could not be seen: why.
    Skipped(String),
}

pub(crate) fn broken<T>(seen: impl Into<String>) -> Result<T, Miss> {
    Err(Miss::Broken(seen.into()))
}

pub(crate) fn skipped<T>(why: impl Into<String>) -> Result<T, Miss> {
    Err(Miss::Skipped(why.into()))
}

/// What was seen where there is nothing odd, else all that is.
pub(crate) fn none_of(odd: Vec<String>, well: impl Into<String>) -> Finding {
    match odd.is_empty() {
        true => Ok(well.into()),
        false => broken(odd.join("; ")),
    }
}

/// One thing that a tracker should do, and how `S`, a session with it, sees whether it does.
pub(crate) struct Case<S> {
    pub(crate) id: &'static str,
    pub(crate) effort: Effort,
    pub(crate) source: Source,
    /// What should be.
    pub(crate) title: &'static str,
    pub(crate) check: fn(&mut S) -> Finding,
}

/// What came of a case.
pub(crate) struct Outcome {
    pub(crate) id: &'static str,
    pub(crate) source: Source,
    pub(crate) title: &'static str,
    pub(crate) verdict: Verdict,
    /// One sentence.
    pub(crate) seen: String,
}

/// Runs the cases whose effort is wanted, in their order.
pub(crate) fn run<S>(
    tables: &[&[Case<S>]],
    session: &mut S,
    wanted: impl Fn(Effort) -> bool,
) -> Vec<Outcome> {
    let cases = tables
        .iter()
        .copied()
        .flatten()
        .filter(|case| wanted(case.effort));
    let outcome = |case: &Case<S>| {
        let (verdict, seen) = match ((case.check)(session), case.source) {
            (Ok(seen), _) => (Verdict::Ok, seen),
            (Err(Miss::Skipped(why)), _) => (Verdict::Skipped, why),
            (Err(Miss::Broken(seen)), Source::Practice) => (Verdict::Differs, seen),
            (Err(Miss::Broken(seen)), _) => (Verdict::Fault, seen),
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

/// Bytes of a stranger, made fit for a terminal, and cut.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const MAX: usize = 60;
    match bytes.get(..MAX) {
        Some(start) if bytes.len() > MAX => format!("\"{}...\"", start.escape_ascii()),
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}
