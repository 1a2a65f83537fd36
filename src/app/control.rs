//! The control socket: its thread, and the functions behind its requests.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::app::context::AppContext;
use crate::app::reload::reload;
use crate::app::sockets::unix_path;
use crate::app::workers::runtime;
use crate::app::{Exit, Failed, fail};
use crate::log::{self, Level};
use crate::server::control::{
    self, ControlAccess, ControlCommands, LogLevel, Problem, SnapshotSummary,
};
use crate::snapshot::SavePriority;
use crate::status::report::StatusReport;

/// Serves the control socket in a thread of its own until `stopped` is true. Returns `None` if there is no socket.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(
    listener: Option<UnixListener>,
    context: &Arc<AppContext>,
    stopped: &watch::Receiver<bool>,
) -> Result<Option<JoinHandle<()>>, Failed> {
    let Some(listener) = listener else {
        return Ok(None);
    };
    let (context, stopped) = (context.clone(), stopped.clone());
    let access = ControlAccess {
        path: unix_path(&listener),
    };
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            let serving = control::serve(listener, access, context, stopped);
            let served = runtime().and_then(|runtime| LocalSet::new().block_on(&runtime, serving));
            if let Err(reason) = served {
                log::error("cannot serve the control socket", &[("reason", &reason)]);
            }
        })
        .map(Some)
        .map_err(|error| fail(Exit::Internal, "cannot start the control thread", &error))
}

impl ControlCommands for AppContext {
    fn status(&self) -> StatusReport {
        self.status_collector.report()
    }

    fn reload(&self) -> Result<(), Problem> {
        reload(self).map_err(|errors| Problem {
            faults: errors.0.iter().map(ToString::to_string).collect(),
        })
    }

    fn snapshot(&self) -> Result<SnapshotSummary, Problem> {
        match self.state_saver.save(SavePriority::Background) {
            Ok(Some(saved)) => Ok(SnapshotSummary {
                torrents: saved.totals.torrents as u64,
                peers: saved.totals.peers.sum() as u64,
                bytes: saved.bytes,
            }),
            Ok(None) => Err(problem(
                "no state is kept; set directory in [state] and restart tbtt",
            )),
            Err(error) => Err(problem(error)),
        }
    }

    fn log_level(&self) -> LogLevel {
        LogLevel {
            level: log::level().to_string(),
        }
    }

    fn set_log_level(&self, level: &str) -> Result<LogLevel, Problem> {
        let level: Level = level.parse().map_err(problem)?;
        log::set_level(level);
        log::notice("log level changed", &[("level", &level)]);
        Ok(self.log_level())
    }
}

fn problem(reason: impl ToString) -> Problem {
    Problem {
        faults: vec![reason.to_string()],
    }
}
