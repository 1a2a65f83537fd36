//! Cases for HTTP itself: connections, methods, headers and paths.

use std::thread;
use std::time::Duration;

use super::wire::Connection;
use super::{NoResponse, NotOk, Reply, Response, Session, escaped, parse};
use crate::case::Effort::Full;
use crate::case::Source::{Practice, Rfc};
use crate::case::{Case, Finding, count, failed, skipped};
use crate::peer::random_hash;

#[rustfmt::skip]
pub(super) const CASES: &[Case<Session>] = &[
    Case { id: "http-pieces", effort: Full, source: Rfc(9112), check: pieces,
        title: "a request may arrive in pieces" },
    Case { id: "http-1.0", effort: Full, source: Practice, check: http_1_0,
        title: "a request of HTTP/1.0 without Host gets a response" },
    Case { id: "http-head", effort: Full, source: Practice, check: head,
        title: "HEAD gets a response without a body" },
    Case { id: "http-absolute", effort: Full, source: Rfc(9112), check: absolute,
        title: "a request may contain the absolute URL" },
    Case { id: "http-close", effort: Full, source: Rfc(9112), check: close,
        title: "after Connection: close, the tracker closes the connection" },
    Case { id: "http-pipelined", effort: Full, source: Rfc(9112), check: pipelined,
        title: "pipelined requests on a persistent connection get their responses in order" },
    Case { id: "http-gzip", effort: Full, source: Practice, check: gzip,
        title: "a response is not compressed, even if the client accepts gzip" },
    Case { id: "http-paths", effort: Full, source: Practice, check: paths,
        title: "an unknown path gets 404" },
];

/// The reason for which the case of pipelined requests is skipped.
const NOT_PERSISTENT: &str = "the tracker closes the connection after a response, which is allowed";

/// Returns a valid announce request of the seeder, with additional header lines.
fn announce_again(session: &Session, headers: &str) -> String {
    session.wire.request(&announce_target(session), headers)
}

fn announce_target(session: &Session) -> String {
    let query = session.started(&session.seeder).set("left", "0");
    session.target(&query.without("event").text())
}

fn connection(session: &Session) -> Result<Connection, NotOk> {
    let connection = session.wire.connect();
    connection.or_else(|none| skipped(none.to_string()))
}

/// Fails unless the reply is a response to an announce; a refusal of the torrent is a response as well.
fn announce_response(reply: &Reply) -> Finding {
    parse(reply)?;
    Ok("the response is bencoded".to_owned())
}

fn pieces(session: &mut Session) -> Finding {
    let request = announce_again(session, "");
    let mut connection = connection(session)?;
    for piece in request.as_bytes().chunks(request.len() / 6) {
        connection.send(piece);
        thread::sleep(Duration::from_millis(20));
    }
    announce_response(&connection.response())
}

fn http_1_0(session: &mut Session) -> Finding {
    let target = announce_target(session);
    announce_response(&session.wire.send(format!("GET {target} HTTP/1.0\r\n\r\n")))
}

fn head(session: &mut Session) -> Finding {
    let request = announce_again(session, "").replacen("GET", "HEAD", 1);
    let mut connection = connection(session)?;
    connection.send(request);
    let response = connection
        .response_to_head()
        .or_else(|none| failed(none.to_string()))?;
    let (body, _) = connection.drain(session.wire.timeout.min(Duration::from_millis(500)));
    match (response.status, body) {
        (200, 0) => Ok("HTTP 200 without a body".to_owned()),
        (status, 0) => failed(format!("HTTP {status}")),
        (status, body) => failed(format!(
            "HTTP {status}, with a body of {}",
            count(body, "byte")
        )),
    }
}

fn absolute(session: &mut Session) -> Finding {
    let target = format!("http://{}{}", session.wire.host, announce_target(session));
    announce_response(&session.wire.get(&target))
}

fn close(session: &mut Session) -> Finding {
    let request = announce_again(session, "");
    let mut connection = connection(session)?;
    connection.send(request);
    if let Err(none) = connection.response() {
        return skipped(none.to_string());
    }
    match connection.drain(session.wire.timeout) {
        (_, true) => Ok("the connection was closed".to_owned()),
        (_, false) => failed("the connection stayed open"),
    }
}

fn pipelined(session: &mut Session) -> Finding {
    let (target, host) = (announce_target(session), &session.wire.host);
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut connection = connection(session)?;
    connection.send(&request);
    let first = connection
        .response()
        .or_else(|none| failed(none.to_string()))?;
    let closes = |response: &Response| {
        let header = response.header("connection");
        header.is_some_and(|value| value.eq_ignore_ascii_case("close"))
            || response.header("content-length").is_none()
    };
    if closes(&first) {
        return skipped(NOT_PERSISTENT);
    }
    connection.send(request.repeat(2));
    for number in ["first", "second"] {
        match connection.response() {
            Ok(response) => parse(&Ok(response)).map(drop)?,
            Err(NoResponse::Closed) if number == "first" => {
                return skipped(NOT_PERSISTENT);
            }
            Err(none) => return failed(format!("the {number} of two requests: {none}")),
        }
    }
    Ok("three requests on one connection, two of them pipelined".to_owned())
}

fn gzip(session: &mut Session) -> Finding {
    let request = announce_again(session, "Accept-Encoding: gzip\r\n");
    match session.wire.send(request) {
        Err(none) => failed(none.to_string()),
        Ok(response) => match response.header("content-encoding") {
            None => Ok("not compressed".to_owned()),
            Some(encoding) => failed(format!("compressed with {}", encoding.escape_default())),
        },
    }
}

fn paths(session: &mut Session) -> Finding {
    let letters = escaped(&random_hash()?).replace('%', "");
    match session.wire.get(&format!("/{letters}")) {
        Ok(response) if response.status == 404 => Ok("HTTP 404".to_owned()),
        Ok(response) => failed(response.summary()),
        Err(none) => failed(none.to_string()),
    }
}
