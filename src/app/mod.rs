//! Wiring of the daemon: start-up, shutdown, periodic tasks, and the requests of the operator.
#![forbid(unsafe_code)]

pub mod access_log;
pub mod cluster;
pub mod confine;
pub mod context;
pub mod control;
pub mod reload;
pub mod sockets;
pub mod startup;
pub mod state;
pub mod status_collector;
mod step_timer;
pub mod systemd_status;
pub mod tasks;
pub mod workers;

use std::fmt::Display;

use crate::log;

/// The reason why the daemon exits, as an exit status (sysexits.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    Usage = 64,
    Unavailable = 69,
    Internal = 70,
    NoPermission = 77,
    Config = 78,
}

/// Error: the daemon must exit. The reason has been logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failed(pub Exit);

/// Logs why the daemon must exit.
pub fn fail(exit: Exit, message: &str, reason: &dyn Display) -> Failed {
    log::error(message, &[("reason", reason)]);
    Failed(exit)
}
