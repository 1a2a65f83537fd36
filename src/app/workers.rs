//! The threads that serve, and no connection or packet ever leaves its own.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::config::Config;
use crate::os::systemd;
use crate::server::http::server::HttpServer;
use crate::server::http::{self, HttpListener};
use crate::server::udp::{self, UdpServer};

use crate::app::sockets::Sockets;
use crate::app::{Exit, Failed, fail};

/// The threads that serve: each worker has one for HTTP, and one for UDP where that is served.
pub struct Workers {
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// While it is open, UDP is served.
    udp_running: OwnedFd,
    pub heartbeats: Arc<systemd::Heartbeats>,
}

impl Workers {
    pub fn start(
        config: &Config,
        http: &Arc<HttpServer>,
        udp: &Arc<UdpServer>,
        sockets: &Sockets,
        stopped: &watch::Receiver<bool>,
    ) -> Result<Self, Failed> {
        let no_worker = |error| fail(Exit::Internal, "cannot start a worker", &error);
        let count = config.worker_count();
        let udp_count = if sockets.udp.is_empty() { 0 } else { count };
        let heartbeats = Arc::new(systemd::Heartbeats::new(count + udp_count));
        // The unit lets no pipe be made.
        let (udp_stopped, udp_running) = UnixStream::pair().map_err(no_worker)?;
        let (udp_stopped, udp_running) = (OwnedFd::from(udp_stopped), OwnedFd::from(udp_running));
        let start_http = |number: usize| {
            let listeners = sockets
                .http
                .iter()
                .map(HttpListener::try_clone)
                .collect::<io::Result<Vec<_>>>()?;
            let (server, stopped, heartbeats) = (http.clone(), stopped.clone(), heartbeats.clone());
            spawn(format!("worker-{number}"), move || {
                let alive = move || heartbeats.beat(number);
                LocalSet::new()
                    .block_on(&runtime()?, http::serve(server, listeners, stopped, alive))
            })
        };
        let start_udp = |number: usize| {
            let udp_sockets = sockets
                .udp
                .iter()
                .skip(number)
                .step_by(count)
                .map(UdpSocket::try_clone)
                .collect::<io::Result<Vec<_>>>()?;
            let (server, stopped, heartbeats) =
                (udp.clone(), udp_stopped.try_clone()?, heartbeats.clone());
            spawn(format!("worker-{number}-udp"), move || {
                udp::serve(&server, udp_sockets, &stopped, || {
                    heartbeats.beat(count + number)
                })
            })
        };
        let threads = (0..count)
            .map(start_http)
            .chain((0..udp_count).map(start_udp))
            .collect::<io::Result<_>>()
            .map_err(no_worker)?;
        Ok(Self {
            threads,
            udp_running,
            heartbeats,
        })
    }

    /// Stops UDP, and waits for the end of all.
    pub fn join(self) -> Result<(), Failed> {
        drop(self.udp_running);
        for thread in self.threads {
            let served = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            served.map_err(|error| fail(Exit::Internal, "a worker failed", &error))?;
        }
        Ok(())
    }
}

fn spawn(
    name: String,
    serve: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    thread::Builder::new().name(name).spawn(serve)
}

pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
