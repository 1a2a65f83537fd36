//! HTTP/1 server: listeners, and accepting and limiting connections.
//!
//! A connection is accepted here and served in [`connection`]. Simple requests take the [`fast_path`], hyper serves all
//! others, and both call the [`handler`].
//!
//! Each worker has a thread with its own runtime, and a connection stays on the thread that accepted it. Most clients
//! send a single request per connection. Such a connection takes four system calls: accept4, recv, send and close. It is
//! registered with the reactor only if it has to wait.

mod connection;
pub mod connection_limits;
mod fast_path;
pub mod forwarded;
mod handler;
pub mod proxy_protocol;
pub mod server;
pub mod settings;
pub(super) mod stream;
pub(super) mod timeouts;

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::{spawn_local, yield_now};
use tokio::time::sleep;

use crate::server::Shared;
use crate::server::http::connection::serve_connection;
use crate::server::http::server::{HttpServer, MAX_HEAD_LEN, Worker};
use crate::server::http::settings::ListenerRole;
use crate::server::http::stream::register;
use crate::server::http::timeouts::InFlight;

/// Maximum time for which shutdown waits for requests in flight.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Number of connections that are accepted in a row before open connections are served. Without this limit, a flood of new
/// connections would block the open ones.
const ACCEPT_BURST: usize = 32;

/// Pause after the system could not accept a connection. Other connections may end in that time.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);

/// A listening socket and its options.
#[derive(Debug)]
pub struct HttpListener {
    pub listener: ListenSocket,
    /// Whether each connection starts with a PROXY protocol header. If so, only trusted proxies may connect.
    pub proxy_header: bool,
    pub role: ListenerRole,
}

impl HttpListener {
    /// Duplicates the listener for another worker. All duplicates accept from the same queue of connections.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            listener: self.listener.try_clone()?,
            proxy_header: self.proxy_header,
            role: self.role,
        })
    }
}

/// A TCP socket for clients and proxies, or a Unix socket for proxies on this host.
#[derive(Debug)]
pub enum ListenSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl ListenSocket {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener) => Self::Unix(listener.try_clone()?),
        })
    }
}

/// Serves on the calling thread until `stop` becomes true. Then responds to requests in flight and closes idle connections.
/// Calls `alive` each second from the serving thread.
pub async fn serve(
    server: Arc<HttpServer>,
    listeners: Vec<HttpListener>,
    mut stop: watch::Receiver<bool>,
    alive: impl Fn() + 'static,
) -> io::Result<()> {
    let worker = Rc::new(Worker {
        server,
        stop: stop.clone(),
        in_flight: InFlight::default(),
        response: RefCell::default(),
        input: Rc::new(RefCell::new(vec![0; MAX_HEAD_LEN].into())),
        output: RefCell::default(),
        date: RefCell::new(date()),
    });
    let mut tasks = Vec::new();
    for HttpListener {
        listener,
        proxy_header,
        role,
    } in listeners
    {
        tasks.push(match listener {
            ListenSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let listener = register(mio::net::TcpListener::from_std(listener))?;
                spawn_local(accept(worker.clone(), listener, proxy_header, role))
            }
            ListenSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let listener = register(mio::net::UnixListener::from_std(listener))?;
                spawn_local(accept(worker.clone(), listener, proxy_header, role))
            }
        });
    }
    tasks.push(spawn_local({
        let worker = worker.clone();
        async move {
            loop {
                alive();
                worker.date.replace(date());
                sleep(Duration::from_secs(1)).await;
            }
        }
    }));
    // An error means that the sender was dropped, which also stops the server.
    let _ = stop.wait_for(|&stop| stop).await;
    tasks.iter().for_each(|task| task.abort());
    drain(&worker).await;
    Ok(())
}

/// Reads what was received already, then waits up to [`DRAIN_TIMEOUT`] for requests in flight.
async fn drain(worker: &Worker) {
    let end = Instant::now() + DRAIN_TIMEOUT;
    loop {
        sleep(Duration::from_millis(5)).await;
        // On a busy machine, connections with new bytes wake up together with this task. They must read the bytes
        // before the requests in flight are counted.
        yield_now().await;
        if worker.in_flight.get() == 0 || Instant::now() >= end {
            return;
        }
    }
}

/// Returns the current time as a `Date` header.
fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

/// A socket that accepts connections.
trait Accept: AsRawFd {
    type Client: Read + Write + AsRawFd + Unpin + 'static;

    /// Accepts a connection. Returns it with its peer address, which a Unix socket does not have.
    fn accept(&self) -> io::Result<(Self::Client, Option<IpAddr>)>;
}

impl Accept for mio::net::TcpListener {
    type Client = mio::net::TcpStream;

    fn accept(&self) -> io::Result<(Self::Client, Option<IpAddr>)> {
        self.accept()
            .map(|(client, peer)| (client, Some(peer.ip())))
    }
}

impl Accept for mio::net::UnixListener {
    type Client = mio::net::UnixStream;

    fn accept(&self) -> io::Result<(Self::Client, Option<IpAddr>)> {
        self.accept().map(|(client, _)| (client, None))
    }
}

/// Accepts connections from a listener until the runtime shuts down.
async fn accept<L: Accept>(
    worker: Rc<Worker>,
    listener: AsyncFd<L>,
    proxy_header: bool,
    role: ListenerRole,
) {
    for accepts in 1_usize.. {
        if accepts % ACCEPT_BURST == 0 {
            yield_now().await;
        }
        // An error means that the runtime shuts down.
        let Ok(mut ready) = listener.readable().await else {
            return;
        };
        match listener.get_ref().accept() {
            Ok((client, peer)) => admit_connection(&worker, client, peer, proxy_header, role),
            Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                ) => {}
            // A lack of file descriptors or memory, or a network error. The listener stays usable.
            Err(_) => {
                worker.server.shared.counters.accept_errors.add_one();
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Applies the connection limits to a new connection and serves it, or closes it if a limit is exceeded.
fn admit_connection<S: Read + Write + AsRawFd + Unpin + 'static>(
    worker: &Rc<Worker>,
    client: S,
    peer: Option<IpAddr>,
    proxy_header: bool,
    role: ListenerRole,
) {
    let HttpServer {
        shared,
        connections,
        ..
    } = &*worker.server;
    let Shared {
        clock, counters, ..
    } = &**shared;
    let settings = worker.server.settings();
    // A proxy carries the connections of many clients, so the limits per network do not apply to it.
    let limited = peer.filter(|&peer| !settings.proxies.trusted.contains(peer));
    if proxy_header && limited.is_some() {
        return counters.untrusted_proxies.add_one();
    }
    if let (Some(rate), Some(address)) = (&settings.connection_rate, limited) {
        if rate.take(clock.now(), address).is_err() {
            return counters.connections_rate_limited.add_one();
        }
    }
    match connections.admit(limited) {
        Some(permit) => {
            counters.connections.add_one();
            let mut connection = Box::pin(serve_connection(
                worker.clone(),
                settings,
                client,
                peer,
                proxy_header,
                role,
                permit,
            ));
            // With TCP_DEFER_ACCEPT, most connections have received their request already and are served without
            // waiting. So they are polled once before a task is spawned.
            let mut cx = Context::from_waker(Waker::noop());
            if connection.as_mut().poll(&mut cx).is_pending() {
                spawn_local(connection);
            }
        }
        None => counters.connections_over_limit.add_one(),
    }
}
