//! What the operator asks over the control socket: the thread that hears it, and what is done then.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::log::{self, Level};
use crate::server::control::{self, Door, LogLevel, Operator, Problem, Saved};
use crate::snapshot::Pace;
use crate::status::report::Figures;

use crate::app::tasks::Site;
use crate::app::workers::runtime;
use crate::app::{Exit, Failed, failed};

/// Answers the operator, in a thread of its own, until `stopped` says so.
pub fn start(
    listener: Option<UnixListener>,
    site: &Arc<Site>,
    stopped: &watch::Receiver<bool>,
) -> Result<Option<JoinHandle<()>>, Failed> {
    let Some(listener) = listener else {
        return Ok(None);
    };
    let (site, stopped) = (site.clone(), stopped.clone());
    let path = listener
        .local_addr()
        .ok()
        .and_then(|at| at.as_pathname().map(Path::to_owned));
    let door = Door {
        path: path.unwrap_or_default(),
    };
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            let serving = control::serve(listener, door, site, stopped);
            let served = runtime().and_then(|runtime| LocalSet::new().block_on(&runtime, serving));
            if let Err(reason) = served {
                log::error("the control socket is not served", &[("reason", &reason)]);
            }
        })
        .map(Some)
        .map_err(|error| failed(Exit::Internal, "cannot start the control thread", &error))
}

impl Operator for Site {
    fn figures(&self) -> Figures {
        self.survey.figures()
    }

    fn reload(&self) -> Result<(), Problem> {
        Self::reload(self).map_err(|faults| Problem {
            faults: faults.0.iter().map(ToString::to_string).collect(),
        })
    }

    fn snapshot(&self) -> Result<Saved, Problem> {
        match self.keeper.save(Pace::BesideService) {
            Ok(Some(saved)) => Ok(Saved {
                torrents: saved.totals.torrents as u64,
                peers: (saved.totals.peers_v4 + saved.totals.peers_v6) as u64,
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
