//! HTTP/1 over TCP: accepts, times out and limits connections. What is plain is answered in [`plain`], the rest by hyper.
//!
//! Each worker has one thread for this, with a runtime of its own, and a connection stays where it was accepted. Most clients bring
//! one request and go: such a connection costs four system calls, accept4, recv, send, close, since it meets the reactor
//! only if it must wait.

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
use crate::server::http::connection::connection;
use crate::server::http::server::{HEADER_MAX, HttpServer, Worker};
use crate::server::http::settings::ListenerRole;
use crate::server::http::stream::register;
use crate::server::http::timeouts::InFlight;

/// How long a stop waits for requests that have begun to come in.
const DRAIN: Duration = Duration::from_secs(2);

/// How many connections are accepted in a row: then those that are there have their turn, or a flood of new ones would
/// keep it from them.
const ACCEPT_BURST: usize = 32;

/// How long nothing is accepted after the system had no room for a connection: others end meanwhile.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);

/// A listening socket to serve.
#[derive(Debug)]
pub struct HttpListener {
    pub listener: ListenSocket,
    /// Each connection begins by saying for whom it is (PROXY protocol), and only trusted proxies may make one.
    pub proxy_header: bool,
    /// What is served there.
    pub serves: ListenerRole,
}

impl HttpListener {
    /// For another worker: one queue of connections, several to take from it.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            listener: self.listener.try_clone()?,
            proxy_header: self.proxy_header,
            serves: self.serves,
        })
    }
}

/// For TCP clients, or for proxies on this host.
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

/// ListenerRole on the calling thread until `stop` says so: then requests that have begun to come in are answered, and idle
/// connections are closed. Calls `alive` each second from the loop that serves.
pub async fn serve(
    server: Arc<HttpServer>,
    doors: Vec<HttpListener>,
    mut stop: watch::Receiver<bool>,
    alive: impl Fn() + 'static,
) -> io::Result<()> {
    let worker = Rc::new(Worker {
        server,
        stop: stop.clone(),
        in_flight: InFlight::default(),
        reply: RefCell::default(),
        input: Rc::new(RefCell::new(vec![0; HEADER_MAX].into())),
        output: RefCell::default(),
        date: RefCell::new(date()),
    });
    let mut tasks = Vec::new();
    for HttpListener {
        listener,
        proxy_header,
        serves,
    } in doors
    {
        tasks.push(match listener {
            ListenSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let listener = register(mio::net::TcpListener::from_std(listener))?;
                spawn_local(accept(worker.clone(), listener, proxy_header, serves))
            }
            ListenSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let listener = register(mio::net::UnixListener::from_std(listener))?;
                spawn_local(accept(worker.clone(), listener, proxy_header, serves))
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
    // A sender that is gone means the same.
    let _ = stop.wait_for(|&stop| stop).await;
    tasks.iter().for_each(|task| task.abort());
    drain(&worker).await;
    Ok(())
}

/// A last look at what has come in, then at most [`DRAIN`] for requests in flight.
async fn drain(worker: &Worker) {
    let end = Instant::now() + DRAIN;
    loop {
        sleep(Duration::from_millis(5)).await;
        // On a busy machine what came in meanwhile wakes together with this, and must be read before it is counted.
        yield_now().await;
        if worker.in_flight.get() == 0 || Instant::now() >= end {
            return;
        }
    }
}

fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

/// What connections are accepted from.
trait Accept: AsRawFd {
    type Client: Read + Write + AsRawFd + Unpin + 'static;

    /// A connection, and the address at its other end if it has one.
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

async fn accept<L: Accept>(
    worker: Rc<Worker>,
    listener: AsyncFd<L>,
    proxy_header: bool,
    serves: ListenerRole,
) {
    for turn in 1_usize.. {
        if turn % ACCEPT_BURST == 0 {
            yield_now().await;
        }
        // An error here is the runtime's end.
        let Ok(mut ready) = listener.readable().await else {
            return;
        };
        match listener.get_ref().accept() {
            Ok((client, peer)) => admit_connection(&worker, client, peer, proxy_header, serves),
            Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                ) => {}
            // No descriptor, no memory, or the network's own trouble: none of it is the end of a listener.
            Err(_) => {
                worker.server.shared.counters.accept_errors.add_one();
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

fn admit_connection<S: Read + Write + AsRawFd + Unpin + 'static>(
    worker: &Rc<Worker>,
    client: S,
    peer: Option<IpAddr>,
    proxy_header: bool,
    serves: ListenerRole,
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
    // A proxy brings everyone's connections: what limits one network does not fit it.
    let own = peer.filter(|&peer| !settings.proxies.trusted.contains(peer));
    if proxy_header && own.is_some() {
        return counters.untrusted_proxies.add_one();
    }
    if let (Some(budget), Some(own)) = (&settings.connections, own) {
        if budget.take(clock.now(), own).is_err() {
            return counters.connections_rate_limited.add_one();
        }
    }
    match connections.admit(own) {
        Some(place) => {
            counters.connections.add_one();
            let mut connection = Box::pin(connection(
                worker.clone(),
                settings,
                client,
                peer,
                proxy_header,
                serves,
                place,
            ));
            // With deferred accept most have all they need, and are done before they would wait: they are no task.
            let mut cx = Context::from_waker(Waker::noop());
            if connection.as_mut().poll(&mut cx).is_pending() {
                spawn_local(connection);
            }
        }
        None => counters.connections_over_limit.add_one(),
    }
}
