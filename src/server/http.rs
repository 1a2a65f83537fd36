//! HTTP/1 over TCP: accepts, times out and limits connections; hyper reads and writes on them.
//!
//! One worker is one thread with a runtime of its own, and a connection stays where it was accepted. Most clients bring
//! one request and go: such a connection costs four system calls, accept4, recv, send, close, since it meets the reactor
//! only if it must wait.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Sleep, sleep, sleep_until};

use crate::protocol::http::{self as protocol, Paths, Reply, respond};
use crate::server::Clock;
use crate::server::connections::{Connections, Place};
use crate::server::counters::Counters;
use crate::tracker::Tracker;

/// The longest header that is read; a query of the longest kind fits twice.
const HEADER_MAX: usize = 16 * 1024;

/// How long a stop waits for requests that have begun to come in.
const DRAIN: Duration = Duration::from_secs(2);

/// How long nothing is accepted after the system had no room for a connection: others end meanwhile.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);

/// What the operator decides about connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    pub paths: Paths,
    pub scrape: protocol::Settings,
    /// From the first byte of a request, or from the connection's start, to the end of its header.
    pub header_timeout: Duration,
    /// From one answer to the first byte of the next request.
    pub idle_timeout: Duration,
    /// In all.
    pub max_connections: usize,
    /// From one IPv4 address, or one IPv6 /64.
    pub max_connections_per_network: u32,
}

/// What all workers share.
pub struct Front {
    pub settings: Settings,
    pub tracker: Arc<Tracker>,
    pub clock: Clock,
    pub counters: Arc<Counters>,
    pub connections: Arc<Connections>,
}

impl Front {
    pub fn new(settings: Settings, tracker: Arc<Tracker>) -> Self {
        let connections = Connections::new(
            settings.max_connections,
            settings.max_connections_per_network,
        );
        Self {
            settings,
            tracker,
            clock: Clock::start(),
            counters: Arc::default(),
            connections: Arc::new(connections),
        }
    }
}

/// Serves on the calling thread until `stop` says so: then requests that have begun to come in are answered, and idle
/// connections are closed.
pub async fn serve(
    front: Arc<Front>,
    listeners: Vec<TcpListener>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let worker = Rc::new(Worker {
        front,
        stop: stop.clone(),
        in_requests: Cell::new(0),
        reply: RefCell::default(),
        input: RefCell::new(vec![0; HEADER_MAX].into()),
    });
    let mut accepting = Vec::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        #[allow(deprecated, reason = "what replaces it is younger than Debian's tokio")]
        let listener = AsyncFd::new(mio::net::TcpListener::from_std(listener))?;
        accepting.push(spawn_local(accept(worker.clone(), listener)));
    }
    let mut stop = stop;
    // A sender that is gone means the same.
    let _ = stop.wait_for(|&stop| stop).await;
    accepting.iter().for_each(|task| task.abort());
    drain(&worker).await;
    Ok(())
}

/// A last look at what has come in, then at most [`DRAIN`] for requests in flight.
async fn drain(worker: &Worker) {
    let end = Instant::now() + DRAIN;
    loop {
        sleep(Duration::from_millis(5)).await;
        if worker.in_requests.get() == 0 || Instant::now() >= end {
            return;
        }
    }
}

/// What the connections of one worker share.
struct Worker {
    front: Arc<Front>,
    stop: watch::Receiver<bool>,
    /// Connections on which a request has begun to come in and is not answered yet.
    in_requests: Cell<usize>,
    reply: RefCell<Reply>,
    /// What the kernel has to give goes through here to hyper's own buffers.
    input: RefCell<Box<[u8]>>,
}

async fn accept(worker: Rc<Worker>, listener: AsyncFd<mio::net::TcpListener>) {
    loop {
        // An error here is the runtime's end.
        let Ok(mut ready) = listener.readable().await else {
            return;
        };
        match listener.get_ref().accept() {
            Ok((stream, peer)) => begin(&worker, stream.into(), peer),
            Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                ) => {}
            // No descriptor, no memory, or the network's own trouble: none of it is the end of a listener.
            Err(_) => {
                worker.front.counters.accept_errors.add_one();
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

fn begin(worker: &Rc<Worker>, stream: std::net::TcpStream, peer: SocketAddr) {
    let counters = &worker.front.counters;
    match worker.front.connections.admit(peer.ip()) {
        Some(place) => {
            counters.connections.add_one();
            spawn_local(connection(worker.clone(), stream, peer.ip(), place));
        }
        None => counters.connections_over_limit.add_one(),
    }
}

/// One connection from its accept to its end.
async fn connection(worker: Rc<Worker>, stream: std::net::TcpStream, from: IpAddr, _place: Place) {
    let pace = Rc::new(Pace::new(worker.clone()));
    let stream = Stream {
        socket: Socket::Unregistered(stream),
        worker: worker.clone(),
        pace: pace.clone(),
    };
    let service = service_fn(|request| {
        let response = answer(&worker, from, &request);
        pace.answered();
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut http = http1::Builder::new();
    // Without half_close, hyper looks for an end of input after each request: a system call, and a registration.
    http.half_close(true).max_buf_size(HEADER_MAX);
    let mut serving = pin!(http.serve_connection(stream, service));
    let mut timer = None;
    let in_time = poll_fn(|cx| match serving.as_mut().poll(cx) {
        // What ends a connection is the client's affair.
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending => pace.poll_overdue(&mut timer, cx).map(|()| false),
    });
    if !in_time.await {
        worker.front.counters.connections_timed_out.add_one();
    }
}

/// By when a connection must have come on, or be cut.
struct Pace {
    worker: Rc<Worker>,
    deadline: Cell<Instant>,
    in_request: Cell<bool>,
}

impl Pace {
    fn new(worker: Rc<Worker>) -> Self {
        let deadline = Instant::now() + worker.front.settings.header_timeout;
        Self {
            worker,
            deadline: Cell::new(deadline),
            in_request: Cell::new(false),
        }
    }

    fn received(&self) {
        if !self.in_request.replace(true) {
            self.worker
                .in_requests
                .set(self.worker.in_requests.get() + 1);
            self.deadline
                .set(Instant::now() + self.worker.front.settings.header_timeout);
        }
    }

    fn answered(&self) {
        if self.in_request.replace(false) {
            self.worker
                .in_requests
                .set(self.worker.in_requests.get() - 1);
        }
        self.deadline
            .set(Instant::now() + self.worker.front.settings.idle_timeout);
    }

    /// Ready once the deadline has passed. The timer is made when a connection first has to wait: most never do.
    fn poll_overdue(&self, timer: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline.get().into();
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.answered();
    }
}

fn answer(worker: &Worker, from: IpAddr, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let front = &*worker.front;
    let paths = &front.settings.paths;
    let uri = request.uri();
    let mut response = match paths.action(uri.path()) {
        _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            front.counters.foreign_requests.add_one();
            let mut response = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are served here\n".into(),
            );
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        Some(action) => {
            let query = uri.query().unwrap_or_default().as_bytes();
            let reply = &mut *worker.reply.borrow_mut();
            let now = front.clock.now();
            front.counters.count_http(respond(
                &front.tracker,
                &front.settings.scrape,
                now,
                from,
                action,
                query,
                reply,
            ));
            text(StatusCode::OK, Bytes::copy_from_slice(&reply.body))
        }
        None if uri.path() == "/" => {
            let version = env!("CARGO_PKG_VERSION");
            let announce = paths.announce();
            text(
                StatusCode::OK,
                format!("tbtt {version}, a BitTorrent tracker. Clients announce to {announce}\n")
                    .into(),
            )
        }
        None => {
            front.counters.foreign_requests.add_one();
            text(StatusCode::NOT_FOUND, "nothing is here\n".into())
        }
    };
    if *worker.stop.borrow() {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn text(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// A client's socket, as hyper reads and writes it.
struct Stream {
    socket: Socket,
    worker: Rc<Worker>,
    pace: Rc<Pace>,
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let input = &mut **this.worker.input.borrow_mut();
        let most = buf.remaining().min(input.len());
        let received = ready!(this.socket.poll_read(cx, &mut input[..most]))?;
        if received > 0 {
            this.pace.received();
        }
        buf.put_slice(&input[..received]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().socket.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The close that follows says the same.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Known to the reactor only from the first time that it must wait.
enum Socket {
    Unregistered(std::net::TcpStream),
    Registered(tokio::net::TcpStream),
    /// The reactor did not take it.
    Failed,
}

impl Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Self::Unregistered(stream) = self {
            match stream.read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
        let stream = self.registered()?;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Self::Unregistered(stream) = self {
            match stream.write(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
        let stream = self.registered()?;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match stream.try_write(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn registered(&mut self) -> io::Result<&tokio::net::TcpStream> {
        *self = match std::mem::replace(self, Self::Failed) {
            Self::Unregistered(stream) => {
                Self::Registered(tokio::net::TcpStream::from_std(stream)?)
            }
            same => same,
        };
        match self {
            Self::Registered(stream) => Ok(stream),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }
}
