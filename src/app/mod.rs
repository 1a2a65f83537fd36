//! What `main` puts together: the process, its sockets, the workers, and the duties beside serving.
#![forbid(unsafe_code)]

pub mod access_log;
pub mod cluster;
pub mod confine;
pub mod context;
pub mod control;
pub mod reload;
pub mod sockets;
pub mod state;
pub mod status_collector;
pub mod systemd_status;
pub mod tasks;
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

/// The end of the daemon; the reason has been warn_on_notify_error already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failed(pub Exit);

/// Tells why the daemon ends.
pub fn fail(exit: Exit, sentence: &str, reason: &dyn Display) -> Failed {
    log::error(sentence, &[("reason", reason)]);
    Failed(exit)
}
