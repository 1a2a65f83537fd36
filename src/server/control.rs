//! The operator's way in: HTTP/1 over a Unix socket, in a thread that serves nobody else.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fs;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use nix::sys::socket::{UnixCredentials, getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::server::http::stream::{Stream, register};
use crate::server::http::timeouts::{InFlight, RequestTimer};
use crate::status::report::StatusReport;

/// Nobody with a use for it needs more at once.
const MAX_CONNECTIONS: usize = 32;

/// How long a caller may take over a request, and over its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long nothing is accepted after the system had no room for a connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// No request has a longer body.
const MAX_BODY: usize = 1024;

/// Who may use the socket: root, the daemon's own user, and whom the socket's file lets in by its group. The kernel holds
/// everyone to the mode of the file; this holds on if that is opened to all later.
#[derive(Clone, Debug)]
pub struct ControlAccess {
    pub path: PathBuf,
}

impl ControlAccess {
    fn admits(&self, caller: &UnixCredentials) -> bool {
        if caller.uid() == 0 || caller.uid() == geteuid().as_raw() {
            return true;
        }
        // Only its first group is told, but the kernel has looked at all.
        fs::metadata(&self.path)
            .is_ok_and(|file| file.gid() == caller.gid() || file.mode() & 0o007 == 0)
    }
}

/// What can be asked of the daemon. Each call may take its time.
pub trait Operator: Send + Sync {
    fn figures(&self) -> StatusReport;

    /// # Errors
    /// What is wrong with the configuration; nothing is changed then.
    fn reload(&self) -> Result<(), Problem>;

    /// # Errors
    /// Why there is no new snapshot; the last one is still there.
    fn snapshot(&self) -> Result<Saved, Problem>;

    fn log_level(&self) -> LogLevel;

    /// Until the next reload or restart.
    ///
    /// # Errors
    /// When there is no such level.
    fn set_log_level(&self, level: &str) -> Result<LogLevel, Problem>;
}

/// Why a request was not done, in lines for the operator.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Problem {
    pub faults: Vec<String>,
}

/// What a snapshot holds.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Saved {
    /// With peers.
    pub torrents: u64,
    pub peers: u64,
    pub bytes: u64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct LogLevel {
    pub level: String,
}

#[derive(Serialize)]
struct Done {}

/// Serves on the calling thread until `stop` says so.
///
/// # Errors
/// When the system does not take the socket.
pub async fn serve(
    listener: UnixListener,
    access: ControlAccess,
    operator: Arc<dyn Operator>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = register(mio::net::UnixListener::from_std(listener))?;
    let accepting = spawn_local(accept(listener, access, operator));
    // A sender that is gone means the same.
    let _ = stop.wait_for(|&stop| stop).await;
    accepting.abort();
    Ok(())
}

async fn accept(
    listener: AsyncFd<mio::net::UnixListener>,
    access: ControlAccess,
    operator: Arc<dyn Operator>,
) {
    let open = Rc::new(Cell::new(0));
    // An error here is the runtime's end.
    while let Ok(mut ready) = listener.readable().await {
        match listener.get_ref().accept() {
            Ok((caller, _)) if open.get() < MAX_CONNECTIONS => {
                // Who they are cannot be told of a connection that is gone already.
                let admitted =
                    getsockopt(&caller, PeerCredentials).is_ok_and(|caller| access.admits(&caller));
                let (open, operator) = (open.clone(), operator.clone());
                open.set(open.get() + 1);
                spawn_local(async move {
                    connection(caller, admitted.then_some(&*operator)).await;
                    open.set(open.get() - 1);
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
            Err(_) => sleep(ACCEPT_BACKOFF).await,
        }
    }
}

/// One connection from its accept to its end; `None` for a caller who may not ask.
async fn connection(caller: mio::net::UnixStream, operator: Option<&dyn Operator>) {
    let pace = Rc::new(RequestTimer::new(PATIENCE, PATIENCE, InFlight::default()));
    let input = Rc::new(RefCell::new(vec![0; 4096].into()));
    let stream = Stream::new(caller, input, pace.clone());
    let service = service_fn(async |request| {
        let response = answer(operator, request).await;
        pace.answered();
        Ok::<_, Infallible>(response)
    });
    let mut serving = pin!(http1::Builder::new().serve_connection(stream, service));
    let mut timer = None;
    poll_fn(|cx| match serving.as_mut().poll(cx) {
        // What ends a connection is the caller's affair.
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => pace.poll_overdue(&mut timer, cx),
    })
    .await;
}

async fn answer(
    operator: Option<&dyn Operator>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let Some(operator) = operator else {
        return refused(
            StatusCode::FORBIDDEN,
            "only root, the daemon's user and the socket's group may ask here",
        );
    };
    let (head, body) = request.into_parts();
    let allowed = match head.uri.path() {
        "/status.json" => "GET",
        "/reload" | "/snapshot" => "POST",
        "/log-level" => "GET, PUT",
        _ => return refused(StatusCode::NOT_FOUND, "nothing is here"),
    };
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/status.json") => json(StatusCode::OK, &operator.figures()),
        (&Method::POST, "/reload") => done(operator.reload().map(|()| Done {})),
        (&Method::POST, "/snapshot") => done(operator.snapshot()),
        (&Method::GET, "/log-level") => json(StatusCode::OK, &operator.log_level()),
        (&Method::PUT, "/log-level") => match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => {
                let level = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                done(operator.set_log_level(level.trim()))
            }
            Err(_) => refused(StatusCode::BAD_REQUEST, "the level did not come whole"),
        },
        _ => {
            let mut response = refused(
                StatusCode::METHOD_NOT_ALLOWED,
                &format!("use {allowed} here"),
            );
            let allowed = HeaderValue::from_static(allowed);
            response.headers_mut().insert(ALLOW, allowed);
            response
        }
    }
}

fn done(result: Result<impl Serialize, Problem>) -> Response<Full<Bytes>> {
    match result {
        Ok(done) => json(StatusCode::OK, &done),
        Err(problem) => json(StatusCode::UNPROCESSABLE_ENTITY, &problem),
    }
}

fn refused(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    let faults = vec![why.to_owned()];
    json(status, &Problem { faults })
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).expect("none of these can fail to be written");
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
