//! What the operator asks over the control socket: the thread that hears it, and what is done then.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::log::{self, Level};
use crate::server::control::{
    self, ControlAccess, ControlCommands, LogLevel, Problem, SnapshotSummary,
};
use crate::snapshot::SavePriority;
use crate::status::report::StatusReport;

use crate::app::context::AppContext;
use crate::app::workers::runtime;
use crate::app::{Exit, Failed, fail};

/// Answers the operator, in a thread of its own, until `stopped` says so.
pub fn start(
    listener: Option<UnixListener>,
    context: &Arc<AppContext>,
    stopped: &watch::Receiver<bool>,
) -> Result<Option<JoinHandle<()>>, Failed> {
    let Some(listener) = listener else {
        return Ok(None);
    };
    let (context, stopped) = (context.clone(), stopped.clone());
    let path = listener
        .local_addr()
        .ok()
        .and_then(|at| at.as_pathname().map(Path::to_owned));
    let access = ControlAccess {
        path: path.unwrap_or_default(),
    };
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            let serving = control::serve(listener, access, context, stopped);
            let served = runtime().and_then(|runtime| LocalSet::new().block_on(&runtime, serving));
            if let Err(reason) = served {
                log::error("the control socket is not served", &[("reason", &reason)]);
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
        Self::reload(self).map_err(|faults| Problem {
            faults: faults.0.iter().map(ToString::to_string).collect(),
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
                "no state is kept: name a directory for it in [state], and restart",
            )),
            Err(error) => Err(problem(error.to_string())),
        }
    }

    fn log_level(&self) -> LogLevel {
        LogLevel {
            level: log::level().to_string(),
        }
    }

    fn set_log_level(&self, level: &str) -> Result<LogLevel, Problem> {
        let level: Level = level.parse().map_err(|unknown| problem(&unknown))?;
        log::set_level(level);
        log::notice("log level changed", &[("level", &level)]);
        Ok(self.log_level())
    }
}

fn problem(what: impl ToString) -> Problem {
    Problem {
        faults: vec![what.to_string()],
    }
}
