//! Handles one request: an announce, a scrape, or a view for the operator.

use std::cell::Ref;
use std::net::IpAddr;
use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::protocol::http::request::Action;
use crate::protocol::http::{Outcome, Reply, respond};
use crate::server::http::forwarded::{self as proxy, client_address};
use crate::server::http::server::Worker;
use crate::server::http::settings::{ListenerRole, Settings};
use crate::status::endpoint::{Resource, StatusEndpoint};

/// One announce or scrape: asks the tracker and counts what came of it. The reply is the worker's, for the next to use.
pub(super) fn handle_tracker_request<'w>(
    worker: &'w Worker,
    settings: &Settings,
    from: Option<IpAddr>,
    action: Action,
    query: &[u8],
) -> Ref<'w, Reply> {
    let shared = &*worker.server.shared;
    let begun = Instant::now();
    let timed = shared.counters.times_http();
    let outcome = respond(
        &shared.tracker,
        &settings.protocol,
        shared.clock.at(begun),
        from,
        action,
        query,
        &mut worker.reply.borrow_mut(),
    );
    if timed {
        shared.counters.http_request_duration.note(begun.elapsed());
    }
    shared.counters.count_http(from, &outcome);
    if let (Some(updates), Outcome::Announced(_, news)) = (&shared.updates, &outcome) {
        updates.push_effect(news, shared.clock.at(begun));
    }
    worker.reply.borrow()
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

/// The view that is route for, if that is one and its sender may see it.
pub(super) fn view<'a>(
    worker: &'a Worker,
    settings: &Settings,
    sender: Option<IpAddr>,
    serves: ListenerRole,
    request: &Request<Incoming>,
) -> Option<(&'a StatusEndpoint, Resource)> {
    if serves == ListenerRole::Clients || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let views = &worker.server.status;
    let proxy::Settings { trusted, header } = &settings.proxies;
    let from = || {
        // Behind a proxy that is not known for one, everyone would come from where it is.
        let proxied = request.headers().contains_key(header.name());
        let unknown = proxied && sender.is_some_and(|sender| !trusted.contains(sender));
        client_in(settings, sender, request.headers()).filter(|_| !unknown)
    };
    let uri = request.uri();
    let route = settings
        .views
        .route(uri.path(), uri.query().unwrap_or_default(), from);
    Some((views, route?))
}

pub(super) fn answer(
    worker: &Worker,
    settings: &Settings,
    sender: Option<IpAddr>,
    serves: ListenerRole,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let shared = &*worker.server.shared;
    let paths = &settings.paths;
    let uri = request.uri();
    let mut response = match paths.action(uri.path()) {
        _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            shared.counters.unhandled_requests.add_one();
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
            shared.counters.unhandled_requests.add_one();
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
