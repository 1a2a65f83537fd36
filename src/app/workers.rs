//! The worker threads. A connection and a packet stay on the thread that received them.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::app::context::AppContext;
use crate::app::sockets::Sockets;
use crate::app::{Exit, Failed, fail};
use crate::os::systemd::Heartbeats;
use crate::server::http::{self, HttpListener};
use crate::server::udp;

/// The worker threads: each worker has a thread for HTTP, and a thread for UDP if UDP is served.
pub struct Workers {
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// The UDP threads stop when this is closed.
    udp_running: OwnedFd,
    pub heartbeats: Arc<Heartbeats>,
}

impl Workers {
    /// Starts all threads. The HTTP threads stop when `stopped` is true.
    ///
    /// # Errors
    /// When the system refuses a thread or a file descriptor.
    pub fn start(
        context: &AppContext,
        sockets: &Sockets,
        stopped: &watch::Receiver<bool>,
    ) -> Result<Self, Failed> {
        let cannot_start = |error| fail(Exit::Internal, "cannot start a worker thread", &error);
        let count = context.initial_config.worker_count();
        let udp_count = if sockets.udp.is_empty() { 0 } else { count };
        let heartbeats = Arc::new(Heartbeats::new(count + udp_count));
        // A pair of sockets, because the service unit forbids pipes.
        let (udp_stopped, udp_running) = UnixStream::pair().map_err(cannot_start)?;
        let (udp_stopped, udp_running) = (OwnedFd::from(udp_stopped), OwnedFd::from(udp_running));
        let start_http = |number: usize| {
            let listeners = sockets
                .http
                .iter()
                .map(HttpListener::try_clone)
                .collect::<io::Result<Vec<_>>>()?;
            let (server, stopped) = (context.http.clone(), stopped.clone());
            let heartbeats = heartbeats.clone();
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
            let (server, stopped) = (context.udp.clone(), udp_stopped.try_clone()?);
            let heartbeats = heartbeats.clone();
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
            .map_err(cannot_start)?;
        Ok(Self {
            threads,
            udp_running,
            heartbeats,
        })
    }

    /// Stops UDP and waits until all threads have ended.
    ///
    /// # Errors
    /// When a worker thread failed.
    pub fn join(self) -> Result<(), Failed> {
        drop(self.udp_running);
        for thread in self.threads {
            let served = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")));
            served.map_err(|error| fail(Exit::Internal, "worker thread failed", &error))?;
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

/// Creates a single-threaded runtime.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
