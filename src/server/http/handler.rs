//! Handles a request: an announce, a scrape, or any other request of a client.

use std::cell::Ref;
use std::net::IpAddr;
use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::protocol::http::request::Action;
use crate::protocol::http::{HttpOutcome, ResponseBuffer, respond};
use crate::server::http::forwarded::client_address;
use crate::server::http::server::Worker;
use crate::server::http::settings::{ListenerRole, Settings};
use crate::status::endpoint::{Resource, text_response};

/// Passes an announce or scrape to the tracker and counts the outcome. Returns the worker's response buffer, which the
/// next request reuses.
pub(super) fn handle_tracker_request<'w>(
    worker: &'w Worker,
    settings: &Settings,
    from: Option<IpAddr>,
    action: Action,
    query: &[u8],
) -> Ref<'w, ResponseBuffer> {
    let shared = &*worker.server.shared;
    let start = Instant::now();
    let is_measured = shared.counters.measures_next_http_request();
    let outcome = respond(
        &shared.tracker,
        &settings.protocol,
        shared.clock.at(start),
        from,
        action,
        query,
        &mut worker.response.borrow_mut(),
    );
    if is_measured {
        let duration = start.elapsed();
        shared.counters.http_request_duration.record(duration);
    }
    shared.counters.count_http(from, &outcome);
    if let (Some(updates), HttpOutcome::Announced(_, effect)) = (&shared.updates, &outcome) {
        updates.push_effect(effect, shared.clock.at(start));
    }
    worker.response.borrow()
}

/// Returns the client's address: the sender's, or the address that trusted proxies report in the lines of the
/// configured header.
pub(super) fn client_ip<'h>(
    settings: &Settings,
    sender: Option<IpAddr>,
    lines: impl DoubleEndedIterator<Item = &'h [u8]>,
) -> Option<IpAddr> {
    let proxies = &settings.proxies;
    client_address(proxies.header, &proxies.trusted, sender, lines)
}

/// Returns the client's address from hyper's headers. See [`client_ip`].
fn client_ip_from_headers(
    settings: &Settings,
    sender: Option<IpAddr>,
    headers: &HeaderMap,
) -> Option<IpAddr> {
    let lines = headers.get_all(settings.proxies.header.name());
    client_ip(settings, sender, lines.iter().map(HeaderValue::as_bytes))
}

/// Returns the status resource that a request is for. Returns `None` if there is no such resource, or the client may not
/// see it.
pub(super) fn status_resource(
    settings: &Settings,
    sender: Option<IpAddr>,
    role: ListenerRole,
    request: &Request<Incoming>,
) -> Option<Resource> {
    if role == ListenerRole::Clients || !is_get_or_head(request) {
        return None;
    }
    let from = || {
        // Behind a proxy that is not configured as trusted, all clients would seem to have the proxy's address. So a
        // request with a forwarding header from an untrusted sender counts as a request without a known address.
        let proxies = &settings.proxies;
        let is_proxied = request.headers().contains_key(proxies.header.name());
        let is_unknown =
            is_proxied && sender.is_some_and(|sender| !proxies.trusted.contains(sender));
        client_ip_from_headers(settings, sender, request.headers()).filter(|_| !is_unknown)
    };
    let uri = request.uri();
    let query = uri.query().unwrap_or_default();
    settings.status.route(uri.path(), query, from)
}

/// Responds to any request that is not for a status resource.
pub(super) fn handle_request(
    worker: &Worker,
    settings: &Settings,
    sender: Option<IpAddr>,
    role: ListenerRole,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let counters = &worker.server.shared.counters;
    let paths = &settings.paths;
    let uri = request.uri();
    let mut response = match paths.action(uri.path()) {
        _ if !is_get_or_head(request) => {
            counters.unhandled_requests.add_one();
            let mut response = text_response(
                StatusCode::METHOD_NOT_ALLOWED,
                "method not allowed, use GET or HEAD\n",
            );
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        Some(action) if role != ListenerRole::Status => {
            let query = uri.query().unwrap_or_default().as_bytes();
            let from = client_ip_from_headers(settings, sender, request.headers());
            let buffer = handle_tracker_request(worker, settings, from, action, query);
            text_response(StatusCode::OK, Bytes::copy_from_slice(&buffer.body))
        }
        _ if uri.path() == "/" && role != ListenerRole::Status => {
            let version = env!("CARGO_PKG_VERSION");
            let announce = paths.announce();
            text_response(
                StatusCode::OK,
                format!("tbtt {version}, a BitTorrent tracker. Clients announce to {announce}\n"),
            )
        }
        _ => {
            counters.unhandled_requests.add_one();
            text_response(StatusCode::NOT_FOUND, "not found\n")
        }
    };
    if *worker.stop.borrow() {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn is_get_or_head(request: &Request<Incoming>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}
