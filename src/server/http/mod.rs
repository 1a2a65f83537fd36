//! HTTP/1 over TCP: accepts, times out and limits connections. What is plain is answered in [`plain`], the rest by hyper.
//!
//! Each worker has one thread for this, with a runtime of its own, and a connection stays where it was accepted. Most clients bring
//! one request and go: such a connection costs four system calls, accept4, recv, send, close, since it meets the reactor
//! only if it must wait.

pub mod connection_limits;
mod fast_path;
pub mod forwarded;
pub(super) mod stream;

use std::cell::{Ref, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::{spawn_local, yield_now};
use tokio::time::sleep;

use crate::clock::Clock;
use crate::cluster::queue::UpdateQueue;
use crate::protocol::http::{self as protocol, Action, Outcome, Paths, Reply, respond};
use crate::server::counters::Counters;
use crate::server::http::connection_limits::{ConnectionLimits, ConnectionPermit};
use crate::server::http::forwarded::{self as proxy, client_address};
use crate::server::http::stream::{InFlight, RequestTimer, Stream, register};
use crate::status::endpoint::{self as views, Resource, StatusEndpoint};
use crate::tracker::Tracker;
use crate::tracker::rate_limit::RateLimiter;

/// The longest header that is read; a query of the longest kind fits twice.
pub(super) const HEADER_MAX: usize = 16 * 1024;

/// How long a stop waits for requests that have begun to come in.
const DRAIN: Duration = Duration::from_secs(2);

/// How many connections are accepted in a row: then those that are there have their turn, or a flood of new ones would
/// keep it from them.
const ACCEPT_BURST: usize = 32;

/// How long nothing is accepted after the system had no room for a connection: others end meanwhile.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);

/// What the operator decides about connections.
#[derive(Clone)]
pub struct Settings {
    pub paths: Paths,
    pub protocol: protocol::Settings,
    /// From the first byte of a request, or from the connection's start, to the end of its header.
    pub header_timeout: Duration,
    /// From one answer to the first byte of the next request.
    pub idle_timeout: Duration,
    /// In all.
    pub max_connections: usize,
    /// From one IPv4 address, or one IPv6 /64.
    pub max_connections_per_network: u32,
    pub proxies: proxy::Settings,
    /// How often a network may connect; `None` for as often as it likes.
    pub connections: Option<Arc<RateLimiter>>,
    pub views: Arc<views::Settings>,
}

/// What all workers share.
pub struct Front {
    settings: RwLock<Arc<Settings>>,
    pub tracker: Arc<Tracker>,
    pub clock: Clock,
    pub counters: Arc<Counters>,
    pub connections: Arc<ConnectionLimits>,
    /// Once started: what comes before is told that nothing is there.
    pub views: OnceLock<StatusEndpoint>,
    /// Where other trackers are told from; `None` where there are none.
    pub updates: Option<Arc<UpdateQueue>>,
}

impl Front {
    pub fn new(settings: Settings, tracker: Arc<Tracker>, clock: Clock) -> Self {
        Self {
            views: OnceLock::new(),
            updates: None,
            tracker,
            clock,
            counters: Arc::default(),
            connections: Arc::new(ConnectionLimits::new(
                settings.max_connections,
                settings.max_connections_per_network,
            )),
            settings: RwLock::new(Arc::new(settings)),
        }
    }

    /// Takes new settings: connections that are there keep theirs to their end.
    pub fn set(&self, settings: Settings) {
        self.connections.set_limits(
            settings.max_connections,
            settings.max_connections_per_network,
        );
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A listening socket to serve.
#[derive(Debug)]
pub struct HttpListener {
    pub listener: ListenSocket,
    /// Each connection begins by saying for whom it is (PROXY protocol), and only trusted proxies may make one.
    pub proxy_header: bool,
    /// What is served there.
    pub serves: ListenerRole,
}

/// What a listening socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerRole {
    /// Clients, and whoever may see the views.
    Both,
    /// Where the views have sockets of their own, they are nowhere else.
    Clients,
    Status,
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
    front: Arc<Front>,
    doors: Vec<HttpListener>,
    mut stop: watch::Receiver<bool>,
    alive: impl Fn() + 'static,
) -> io::Result<()> {
    let worker = Rc::new(Worker {
        front,
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

/// What the connections of one worker share.
pub(super) struct Worker {
    front: Arc<Front>,
    pub(super) stop: watch::Receiver<bool>,
    in_flight: InFlight,
    reply: RefCell<Reply>,
    /// What was received last, until the next await.
    pub(super) input: Rc<RefCell<Box<[u8]>>>,
    /// What is to be sent, head and body, until the next await.
    pub(super) output: RefCell<Vec<u8>>,
    /// As a header has it; of this second, or of the last if the worker is busy.
    pub(super) date: RefCell<String>,
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
                worker.front.counters.accept_errors.add_one();
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
    let Front {
        connections,
        clock,
        counters,
        ..
    } = &*worker.front;
    let settings = worker.front.settings();
    // A proxy brings everyone's connections: what limits one network does not fit it.
    let own = peer.filter(|&peer| !settings.proxies.trusted.hold(peer));
    if proxy_header && own.is_some() {
        return counters.untrusted_proxies.add_one();
    }
    if let (Some(budget), Some(own)) = (&settings.connections, own) {
        if budget.take(clock.now(), own).is_err() {
            return counters.connections_too_often.add_one();
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

/// One connection from its accept to its end.
async fn connection<S>(
    worker: Rc<Worker>,
    settings: Arc<Settings>,
    client: S,
    peer: Option<IpAddr>,
    proxy_header: bool,
    serves: ListenerRole,
    _place: ConnectionPermit,
) where
    S: Read + Write + AsRawFd + Unpin + 'static,
{
    let pace = Rc::new(RequestTimer::new(
        settings.header_timeout,
        settings.idle_timeout,
        worker.in_flight.clone(),
    ));
    let mut stream = Stream::new(client, worker.input.clone(), pace.clone());
    let serving = async {
        let sender = match proxy_header {
            false => peer,
            true => match stream.proxy_header(peer).await {
                Ok(sender) => sender,
                Err(_) => return worker.front.counters.bad_preambles.add_one(),
            },
        };
        // What ends a connection is the client's affair, here and below.
        if serves != ListenerRole::Status {
            let next = fast_path::serve(&worker, &settings, sender, &mut stream).await;
            if !matches!(next, Ok(fast_path::Handoff::Hyper)) {
                return;
            }
        }
        let (worker, settings, pace) = (&worker, &settings, &pace);
        let service = service_fn(|request| async move {
            let response = match view(worker, settings, sender, serves, &request) {
                Some((views, route)) => {
                    pace.heard();
                    views.answer(&settings.views, route).await
                }
                None => answer(worker, settings, sender, serves, &request),
            };
            pace.answered();
            Ok::<_, Infallible>(response)
        });
        let mut http = http1::Builder::new();
        // Without half_close, hyper looks for an end of input after each request: a system call, and a registration.
        http.half_close(true).max_buf_size(HEADER_MAX);
        // In a box, for what it keeps is large and few connections come to it.
        let _ = Box::pin(http.serve_connection(stream, service)).await;
    };
    let mut serving = pin!(serving);
    let mut timer = None;
    let in_time = poll_fn(|cx| match serving.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending => pace.poll_overdue(&mut timer, cx).map(|()| false),
    });
    if !in_time.await {
        worker.front.counters.connections_timed_out.add_one();
    }
}

/// The view that is route for, if that is one and its sender may see it.
fn view<'a>(
    worker: &'a Worker,
    settings: &Settings,
    sender: Option<IpAddr>,
    serves: ListenerRole,
    request: &Request<Incoming>,
) -> Option<(&'a StatusEndpoint, Resource)> {
    if serves == ListenerRole::Clients || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let views = worker.front.views.get()?;
    let proxy::Settings { trusted, header } = &settings.proxies;
    let from = || {
        // Behind a proxy that is not known for one, everyone would come from where it is.
        let proxied = request.headers().contains_key(header.name());
        let unknown = proxied && sender.is_some_and(|sender| !trusted.hold(sender));
        client_in(settings, sender, request.headers()).filter(|_| !unknown)
    };
    let uri = request.uri();
    let route = settings
        .views
        .route(uri.path(), uri.query().unwrap_or_default(), from);
    Some((views, route?))
}

fn answer(
    worker: &Worker,
    settings: &Settings,
    sender: Option<IpAddr>,
    serves: ListenerRole,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let front = &*worker.front;
    let paths = &settings.paths;
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
        Some(action) if serves != ListenerRole::Status => {
            let query = uri.query().unwrap_or_default().as_bytes();
            let from = client_in(settings, sender, request.headers());
            let reply = handle_tracker_request(worker, settings, from, action, query);
            text(StatusCode::OK, Bytes::copy_from_slice(&reply.body))
        }
        _ if uri.path() == "/" && serves != ListenerRole::Status => {
            let version = env!("CARGO_PKG_VERSION");
            let announce = paths.announce();
            text(
                StatusCode::OK,
                format!("tbtt {version}, a BitTorrent tracker. Clients announce to {announce}\n")
                    .into(),
            )
        }
        _ => {
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

/// Whom a request is from: the sender, or whom a trusted proxy names in the lines of the header that is route for.
pub(super) fn client_ip<'h>(
    settings: &Settings,
    sender: Option<IpAddr>,
    lines: impl DoubleEndedIterator<Item = &'h [u8]>,
) -> Option<IpAddr> {
    let proxy::Settings { trusted, header } = &settings.proxies;
    client_address(*header, trusted, sender, lines)
}

fn client_in(settings: &Settings, sender: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
    let lines = headers.get_all(settings.proxies.header.name());
    client_ip(settings, sender, lines.iter().map(HeaderValue::as_bytes))
}

/// One announce or scrape: asks the tracker and counts what came of it. The reply is the worker's, for the next to use.
pub(super) fn handle_tracker_request<'w>(
    worker: &'w Worker,
    settings: &Settings,
    from: Option<IpAddr>,
    action: Action,
    query: &[u8],
) -> Ref<'w, Reply> {
    let front = &*worker.front;
    let begun = Instant::now();
    let timed = front.counters.times_http();
    let outcome = respond(
        &front.tracker,
        &settings.protocol,
        front.clock.at(begun),
        from,
        action,
        query,
        &mut worker.reply.borrow_mut(),
    );
    if timed {
        front.counters.http_handling.note(begun.elapsed());
    }
    front.counters.count_http(from, &outcome);
    if let (Some(updates), Outcome::Announced(_, news)) = (&front.updates, &outcome) {
        updates.push_effect(news, front.clock.at(begun));
    }
    worker.reply.borrow()
}

fn text(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
