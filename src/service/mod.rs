//! What `main` puts together: the process, its sockets, the workers, and the duties beside serving.
#![forbid(unsafe_code)]

/// Other trackers with the same swarms.
pub mod clustering;

/// What the operator asks over the control socket.
pub mod control;

/// What is done now and then, and what the operator asks for.
pub mod duties;

/// Whether what is published has seeds.
pub mod health;

/// The state over a restart.
pub mod keeping;

/// Which torrents are tracked, from directories and lists.
pub mod listing;

/// Sockets, handed over or bound.
pub mod open;

/// Giving up what is not needed.
pub mod shut_in;

/// The figures that operators are shown.
pub mod survey;

/// The threads that serve.
pub mod workers;

use std::fmt::Display;

use crate::log;

/// Why the daemon ends, as its exit status says it (sysexits.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    Usage = 64,
    Unavailable = 69,
    Internal = 70,
    NoPermission = 77,
    Config = 78,
}

/// The end of the daemon; the reason has been told already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failed(pub Exit);

/// Tells why the daemon ends.
pub fn failed(exit: Exit, sentence: &str, reason: &dyn Display) -> Failed {
    log::error(sentence, &[("reason", reason)]);
    Failed(exit)
}
