//! HTTP itself: connections, methods and headers.

use std::thread;
use std::time::Duration;

use super::wire::Connection;
use super::{Answer, Miss, NoAnswer, Reply, Session, escaped, read};
use crate::case::Effort::Full;
use crate::case::Source::{Practice, Rfc};
use crate::case::{Case, Finding, broken, skipped};
use crate::peer::random_hash;

#[rustfmt::skip]
pub(super) const CASES: &[Case<Session>] = &[
    Case { id: "http-pieces", effort: Full, source: Rfc(9112), check: pieces,
        title: "a request may come in pieces" },
    Case { id: "http-1.0", effort: Full, source: Practice, check: http_1_0,
        title: "HTTP/1.0 without a Host is answered" },
    Case { id: "http-head", effort: Full, source: Practice, check: head,
        title: "HEAD is answered without a body" },
    Case { id: "http-absolute", effort: Full, source: Rfc(9112), check: absolute,
        title: "a request may name the whole URL" },
    Case { id: "http-close", effort: Full, source: Rfc(9112), check: close,
        title: "Connection: close ends the connection after the answer" },
    Case { id: "http-pipelined", effort: Full, source: Rfc(9112), check: pipelined,
        title: "requests sent together on a connection that stays open are answered in order" },
    Case { id: "http-gzip", effort: Full, source: Practice, check: gzip,
        title: "even to a client that takes gzip an answer is not compressed" },
    Case { id: "http-paths", effort: Full, source: Practice, check: paths,
        title: "a path that nobody knows is answered with 404" },
];

/// A well-formed request's bytes, for those cases that care how it comes and not what it says.
fn announce_again(session: &Session, headers: &str) -> String {
    session.wire.request(&announce_target(session), headers)
}

fn announce_target(session: &Session) -> String {
    let query = session.started(&session.seeder).set("left", "0");
    session.target(&query.without("event").text())
}

fn connection(session: &Session) -> Result<Connection, Miss> {
    let connection = session.wire.connect();
    connection.or_else(|none| skipped(none.to_string()))
}

/// Well if it was answered as an announce is: with peers or a refusal of the torrent.
fn answered(reply: &Reply) -> Finding {
    read(reply)?;
    Ok("it was answered".to_owned())
}

fn pieces(session: &mut Session) -> Finding {
    let request = announce_again(session, "");
    let mut connection = connection(session)?;
    for piece in request.as_bytes().chunks(request.len() / 6) {
        connection.send(piece);
        thread::sleep(Duration::from_millis(20));
    }
    answered(&connection.answer())
}

fn http_1_0(session: &mut Session) -> Finding {
    let target = announce_target(session);
    answered(&session.wire.ask(format!("GET {target} HTTP/1.0\r\n\r\n")))
}

fn head(session: &mut Session) -> Finding {
    let request = announce_again(session, "").replacen("GET", "HEAD", 1);
    let mut connection = connection(session)?;
    connection.send(request);
    let answer = connection.head().or_else(|none| broken(none.to_string()))?;
    let (body, _) = connection.rest(session.wire.timeout.min(Duration::from_millis(500)));
    match (answer.status, body) {
        (200, 0) => Ok("so it was".to_owned()),
        (status, 0) => broken(format!("HTTP {status}")),
        (status, body) => broken(format!("HTTP {status}, and a body of {body} bytes")),
    }
}

fn absolute(session: &mut Session) -> Finding {
    let target = format!("http://{}{}", session.wire.host, announce_target(session));
    answered(&session.wire.get(&target))
}

fn close(session: &mut Session) -> Finding {
    let request = announce_again(session, "");
    let mut connection = connection(session)?;
    connection.send(request);
    if let Err(none) = connection.answer() {
        return skipped(none.to_string());
    }
    match connection.rest(session.wire.timeout) {
        (_, true) => Ok("it does".to_owned()),
        (_, false) => broken("it stayed open"),
    }
}

fn pipelined(session: &mut Session) -> Finding {
    let (target, host) = (announce_target(session), &session.wire.host);
    let one = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut connection = connection(session)?;
    connection.send(&one);
    let first = connection
        .answer()
        .or_else(|none| broken(none.to_string()))?;
    let closes = |answer: &Answer| {
        let header = answer.header("connection");
        header.is_some_and(|value| value.eq_ignore_ascii_case("close"))
            || answer.header("content-length").is_none()
    };
    if closes(&first) {
        return skipped("a connection ends with its first answer, as it may");
    }
    connection.send(one.repeat(2));
    for number in ["first", "second"] {
        match connection.answer() {
            Ok(answer) => read(&Ok(answer)).map(drop)?,
            Err(NoAnswer::Closed) if number == "first" => {
                return skipped("a connection ends with its first answer, as it may");
            }
            Err(none) => return broken(format!("the {number} of two: {none}")),
        }
    }
    Ok("three on one connection, two of them sent together".to_owned())
}

fn gzip(session: &mut Session) -> Finding {
    let request = announce_again(session, "Accept-Encoding: gzip\r\n");
    match session.wire.ask(request) {
        Err(none) => broken(none.to_string()),
        Ok(answer) => match answer.header("content-encoding") {
            None => Ok("it was not".to_owned()),
            Some(encoding) => broken(format!("it was, with {}", encoding.escape_default())),
        },
    }
}

fn paths(session: &mut Session) -> Finding {
    let letters = escaped(&random_hash()?).replace('%', "");
    match session.wire.get(&format!("/{letters}")) {
        Ok(answer) if answer.status == 404 => Ok("it was".to_owned()),
        Ok(answer) => broken(answer.shown()),
        Err(none) => broken(none.to_string()),
    }
}
