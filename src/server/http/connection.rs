//! One connection, from its accept to its end: simple requests in [`fast_path`], the rest by hyper.

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
use crate::server::http::fast_path;
use crate::server::http::handler::{answer, view};
use crate::server::http::server::{HEADER_MAX, Worker};
use crate::server::http::settings::{ListenerRole, Settings};
use crate::server::http::stream::Stream;
use crate::server::http::timeouts::RequestTimer;

/// One connection from its accept to its end.
pub(super) async fn connection<S>(
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
                Err(_) => {
                    return worker
                        .server
                        .shared
                        .counters
                        .invalid_proxy_headers
                        .add_one();
                }
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
                    views.respond(&settings.views, route).await
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
        worker
            .server
            .shared
            .counters
            .connections_timed_out
            .add_one();
    }
}
