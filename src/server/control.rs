//! The control socket: HTTP/1 over a Unix socket for the operator, on a thread of its own.

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

/// Maximum number of open connections. Operators need no more.
const MAX_CONNECTIONS: usize = 32;

/// Maximum time for a caller to send a request, and to read its response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after the system could not accept a connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Maximum length of a request body in bytes.
const MAX_BODY_LEN: usize = 1024;

/// The access rule of the control socket: root, the tracker's own user and the group of the socket's file may use it.
///
/// The kernel already enforces the mode of the file. This check still limits access if the file is later made accessible to
/// everyone.
#[derive(Clone, Debug)]
pub struct ControlAccess {
    pub path: PathBuf,
}

impl ControlAccess {
    fn admits(&self, caller: &UnixCredentials) -> bool {
        if caller.uid() == 0 || caller.uid() == geteuid().as_raw() {
            return true;
        }
        // The kernel reports only the caller's primary group, but has checked all groups against the mode. So unless the
        // mode gives access to everyone, the caller is in the group.
        fs::metadata(&self.path)
            .is_ok_and(|file| file.gid() == caller.gid() || file.mode() & 0o007 == 0)
    }
}

/// The commands of the control socket. A call may block.
pub trait ControlCommands: Send + Sync {
    /// Returns the status report.
    fn status(&self) -> StatusReport;

    /// Reloads the configuration.
    ///
    /// # Errors
    /// If the configuration has errors. It then stays unchanged.
    fn reload(&self) -> Result<(), Problem>;

    /// Saves a snapshot.
    ///
    /// # Errors
    /// If the snapshot cannot be saved. The previous snapshot is then kept.
    fn snapshot(&self) -> Result<SnapshotSummary, Problem>;

    /// Returns the log level.
    fn log_level(&self) -> LogLevel;

    /// Sets the log level until the next reload or restart.
    ///
    /// # Errors
    /// If there is no such level.
    fn set_log_level(&self, level: &str) -> Result<LogLevel, Problem>;
}

/// The reasons why a command failed, each on a line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Problem {
    pub faults: Vec<String>,
}

/// The contents of a snapshot that was saved.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct SnapshotSummary {
    /// Number of torrents with peers.
    pub torrents: u64,
    pub peers: u64,
    pub bytes: u64,
}

/// The least important level that is logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct LogLevel {
    pub level: String,
}

/// The result of a command that returns nothing but its success.
#[derive(Serialize)]
struct Empty {}

/// Serves on the calling thread until `stop` becomes true.
///
/// # Errors
/// If the socket cannot be registered with the reactor.
pub async fn serve(
    listener: UnixListener,
    access: ControlAccess,
    commands: Arc<dyn ControlCommands>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = register(mio::net::UnixListener::from_std(listener))?;
    let accepting = spawn_local(accept(listener, access, commands));
    // An error means that the sender was dropped, which also stops the server.
    let _ = stop.wait_for(|&stop| stop).await;
    accepting.abort();
    Ok(())
}

async fn accept(
    listener: AsyncFd<mio::net::UnixListener>,
    access: ControlAccess,
    commands: Arc<dyn ControlCommands>,
) {
    let open = Rc::new(Cell::new(0));
    // An error means that the runtime shuts down.
    while let Ok(mut ready) = listener.readable().await {
        match listener.get_ref().accept() {
            Ok((caller, _)) if open.get() < MAX_CONNECTIONS => {
                // The credentials of a connection that was closed already are unknown, so it is not admitted.
                let admitted =
                    getsockopt(&caller, PeerCredentials).is_ok_and(|caller| access.admits(&caller));
                let (open, commands) = (open.clone(), commands.clone());
                open.set(open.get() + 1);
                spawn_local(async move {
                    serve_connection(caller, admitted.then_some(&*commands)).await;
                    open.set(open.get() - 1);
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
            Err(_) => sleep(ACCEPT_BACKOFF).await,
        }
    }
}

/// Serves a connection until it ends. `commands` is `None` if the caller may not use the socket.
async fn serve_connection(caller: mio::net::UnixStream, commands: Option<&dyn ControlCommands>) {
    let timer = Rc::new(RequestTimer::new(TIMEOUT, TIMEOUT, InFlight::default()));
    let input = Rc::new(RefCell::new(vec![0; 4096].into()));
    let stream = Stream::new(caller, input, timer.clone());
    let service = service_fn(async |request| {
        let response = handle_request(commands, request).await;
        timer.response_ready();
        Ok::<_, Infallible>(response)
    });
    let mut serving = pin!(http1::Builder::new().serve_connection(stream, service));
    let mut sleep = None;
    poll_fn(|cx| match serving.as_mut().poll(cx) {
        // Errors of a connection are not reported: the caller causes them.
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => timer.poll_overdue(&mut sleep, cx),
    })
    .await;
}

async fn handle_request(
    commands: Option<&dyn ControlCommands>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let Some(commands) = commands else {
        return error_response(
            StatusCode::FORBIDDEN,
            "access denied: only root, the daemon's user and the socket's group may use this socket",
        );
    };
    let (head, body) = request.into_parts();
    let allowed = match head.uri.path() {
        "/status.json" => "GET",
        "/reload" | "/snapshot" => "POST",
        "/log-level" => "GET, PUT",
        _ => return error_response(StatusCode::NOT_FOUND, "not found"),
    };
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/status.json") => json_response(StatusCode::OK, &commands.status()),
        (&Method::POST, "/reload") => result_response(commands.reload().map(|()| Empty {})),
        (&Method::POST, "/snapshot") => result_response(commands.snapshot()),
        (&Method::GET, "/log-level") => json_response(StatusCode::OK, &commands.log_level()),
        (&Method::PUT, "/log-level") => match Limited::new(body, MAX_BODY_LEN).collect().await {
            Ok(body) => {
                let level = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                result_response(commands.set_log_level(level.trim()))
            }
            Err(_) => error_response(
                StatusCode::BAD_REQUEST,
                "request body incomplete or too large",
            ),
        },
        _ => {
            let mut response = error_response(
                StatusCode::METHOD_NOT_ALLOWED,
                &format!("method not allowed, use {allowed}"),
            );
            let allowed = HeaderValue::from_static(allowed);
            response.headers_mut().insert(ALLOW, allowed);
            response
        }
    }
}

fn result_response(result: Result<impl Serialize, Problem>) -> Response<Full<Bytes>> {
    match result {
        Ok(value) => json_response(StatusCode::OK, &value),
        Err(problem) => json_response(StatusCode::UNPROCESSABLE_ENTITY, &problem),
    }
}

fn error_response(status: StatusCode, reason: &str) -> Response<Full<Bytes>> {
    let faults = vec![reason.to_owned()];
    json_response(status, &Problem { faults })
}

fn json_response(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).expect("serializing these types cannot fail");
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
