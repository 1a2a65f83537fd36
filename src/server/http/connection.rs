//! A connection from its accept to its end: the fast path serves simple requests, hyper serves all others.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use hyper::server::conn::http1;
use hyper::service::service_fn;

use crate::server::http::connection_limits::ConnectionPermit;
use crate::server::http::fast_path::{self, Handoff};
use crate::server::http::handler::{handle_request, status_resource};
use crate::server::http::server::{MAX_HEAD_LEN, Worker};
use crate::server::http::settings::{ListenerRole, Settings};
use crate::server::http::stream::Stream;
use crate::server::http::timeouts::RequestTimer;

/// Serves a connection until it ends or a timeout expires.
pub(super) async fn serve_connection<S>(
    worker: Rc<Worker>,
    settings: Arc<Settings>,
    client: S,
    peer: Option<IpAddr>,
    proxy_header: bool,
    role: ListenerRole,
    _permit: ConnectionPermit,
) where
    S: Read + Write + AsRawFd + Unpin + 'static,
{
    let timer = Rc::new(RequestTimer::new(
        settings.header_timeout,
        settings.idle_timeout,
        worker.in_flight.clone(),
    ));
    let counters = &worker.server.shared.counters;
    let mut stream = Stream::new(client, worker.input.clone(), timer.clone());
    let serving = async {
        let sender = match proxy_header {
            false => peer,
            true => match stream.read_proxy_header(peer).await {
                Ok(sender) => sender,
                Err(_) => return counters.invalid_proxy_headers.add_one(),
            },
        };
        // Errors of a connection are not reported, here and below: the client causes them.
        if role != ListenerRole::Status {
            let handoff = fast_path::serve(&worker, &settings, sender, &mut stream).await;
            if !matches!(handoff, Ok(Handoff::Hyper)) {
                return;
            }
        }
        let (worker, settings, timer) = (&worker, &settings, &timer);
        let service = service_fn(|request| async move {
            let response = match status_resource(settings, sender, role, &request) {
                Some(resource) => {
                    timer.response_started();
                    let status = &worker.server.status;
                    status.respond(&settings.status, resource).await
                }
                None => handle_request(worker, settings, sender, role, &request),
            };
            timer.response_ready();
            Ok::<_, Infallible>(response)
        });
        let mut http = http1::Builder::new();
        // Without half_close, hyper checks for the end of input after each request, which costs a system call and a
        // registration.
        http.half_close(true).max_buf_size(MAX_HEAD_LEN);
        // Boxed, because hyper's state is large and few connections need it.
        let _ = Box::pin(http.serve_connection(stream, service)).await;
    };
    let mut serving = pin!(serving);
    let mut sleep = None;
    let in_time = poll_fn(|cx| match serving.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending => timer.poll_overdue(&mut sleep, cx).map(|()| false),
    });
    if !in_time.await {
        counters.connections_timed_out.add_one();
    }
}
