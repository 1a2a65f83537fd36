//! The threads that serve: one runtime each, and no connection ever leaves its own.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};

use crate::config::Config;
use crate::daemon::notify;
use crate::server::http::{self, Door, Front};
use crate::server::udp;

use super::open::Sockets;
use super::{Exit, Failed, failed};

/// The threads that serve.
pub struct Workers {
    threads: Vec<JoinHandle<io::Result<()>>>,
    pub seen: Arc<notify::Workers>,
}

impl Workers {
    pub fn start(
        config: &Config,
        front: &Arc<Front>,
        udp_front: &Arc<udp::Front>,
        sockets: &Sockets,
        stopped: &watch::Receiver<bool>,
    ) -> Result<Self, Failed> {
        let count = config.worker_count();
        let seen = Arc::new(notify::Workers::new(count));
        let start = |number: usize| {
            let listeners = sockets
                .http
                .iter()
                .map(Door::try_clone)
                .collect::<io::Result<Vec<_>>>()?;
            let udp_sockets = sockets
                .udp
                .iter()
                .skip(number)
                .step_by(count)
                .map(UdpSocket::try_clone)
                .collect::<io::Result<Vec<_>>>()?;
            let (front, stopped, seen) = (front.clone(), stopped.clone(), seen.clone());
            let udp_front = udp_front.clone();
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    LocalSet::new().block_on(&runtime()?, async {
                        let udp = spawn_local(udp::serve(udp_front, udp_sockets, stopped.clone()));
                        http::serve(front, listeners, stopped, move || seen.seen(number)).await?;
                        udp.await?
                    })
                })
        };
        let threads = (0..count).map(start).collect::<io::Result<_>>();
        let threads =
            threads.map_err(|error| failed(Exit::Internal, "cannot start a worker", &error))?;
        Ok(Self { threads, seen })
    }

    pub fn join(self) -> Result<(), Failed> {
        for thread in self.threads {
            let served = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            served.map_err(|error| failed(Exit::Internal, "a worker failed", &error))?;
        }
        Ok(())
    }
}

pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
