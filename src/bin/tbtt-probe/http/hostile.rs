//! Hostile cases over HTTP: requests that no client sends, after which the tracker must still respond.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{Session, accepted, escaped, parse, peers_in, status_of};
use crate::case::Effort::Hostile;
use crate::case::Source::Practice;
use crate::case::{Case, Finding, NotOk, count, failed, skipped};
use crate::peer::random_hash;

/// An address that nobody uses: its network is for documentation (RFC 5737).
const VICTIM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

#[rustfmt::skip]
pub(super) const CASES: &[Case<Session>] = &[
    Case { id: "http-forged-address", effort: Hostile, source: Practice, check: forged_address,
        title: "a forged client address in the query or in a proxy's header is ignored" },
    Case { id: "http-garbage", effort: Hostile, source: Practice, check: garbage,
        title: "after garbage, the tracker still responds" },
    Case { id: "http-big-query", effort: Hostile, source: Practice, check: big_query,
        title: "after a query of 64 KiB or 1 MiB, the tracker still responds" },
    Case { id: "http-big-header", effort: Hostile, source: Practice, check: big_header,
        title: "a header of 1 MiB or of 20,000 lines is not read to its end" },
    Case { id: "http-half-open", effort: Hostile, source: Practice, check: half_open,
        title: "during 200 incomplete requests, the tracker still responds" },
    Case { id: "http-scrape-thousands", effort: Hostile, source: Practice, check: scrape_thousands,
        title: "after a scrape of 5,000 torrents, the tracker still responds" },
];

/// Fails unless a valid announce gets a response.
fn require_response(session: &mut Session) -> Result<(), NotOk> {
    let query = session.started(&session.seeder).set("left", "0");
    let target = session.target(&query.without("event").text());
    match parse(&session.wire.get(&target)) {
        Err(NotOk::Failed(seen)) => {
            failed(format!("no response to an announce afterwards: {seen}"))
        }
        result => result.map(drop),
    }
}

fn forged_address(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let forgeries = [
        ("ip=", "ip", ""),
        ("ipv4=", "ipv4", ""),
        ("X-Forwarded-For", "x", "X-Forwarded-For: 203.0.113.7\r\n"),
        ("Forwarded", "x", "Forwarded: for=203.0.113.7\r\n"),
        ("X-Real-IP", "x", "X-Real-IP: 203.0.113.7\r\n"),
    ];
    let mut accepted_forgeries = Vec::new();
    for (forgery, key, headers) in forgeries {
        let peer = session.peer()?;
        let query = session.started(&peer).set(key, VICTIM.to_string());
        let reply = session.announce_with(&query, headers);
        let is_external_ip = accepted(&reply).is_ok_and(|dict| {
            let address = dict.bytes("external ip");
            address == Some(&VICTIM.octets())
        });
        let seeder = session.started(&session.seeder).set("left", "0");
        let listed = peers_in(&accepted(&session.announce(&seeder))?)?;
        if is_external_ip || listed.iter().any(|peer| peer.ip() == IpAddr::V4(VICTIM)) {
            accepted_forgeries.push(forgery);
        }
        // The response to the stop does not matter.
        let _ = session.announce_with(&query.set("event", "stopped"), headers);
    }
    if accepted_forgeries.is_empty() {
        return Ok(format!("{} forgeries were ignored", forgeries.len()));
    }
    let seen = format!("accepted: {}", accepted_forgeries.join(", "));
    // The operator may trust this host on purpose.
    match session.own_address {
        Some(own) if own.is_loopback() => skipped(format!(
            "{seen}; the tracker may be configured to trust this host"
        )),
        _ => failed(seen),
    }
}

/// Sends bytes on a new connection, and ignores the response. Fails if there is no connection.
fn send_garbage(session: &Session, bytes: &[u8]) -> Result<(), NotOk> {
    let mut connection = match session.wire.connect() {
        Ok(connection) => connection,
        Err(none) => return failed(none.to_string()),
    };
    // The tracker may close the connection early.
    connection.send(bytes);
    connection.drain(session.wire.timeout.min(Duration::from_millis(200)));
    Ok(())
}

fn garbage(session: &mut Session) -> Finding {
    let mut noise = Vec::new();
    while noise.len() < 4096 {
        noise.extend_from_slice(&random_hash()?);
    }
    let path = session.url.path.clone();
    let blobs: [Vec<u8>; 10] = [
        noise,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"\0\0\0\0\0\0\0\0".to_vec(),
        vec![b'\n'; 1000],
        b"GET\r\n\r\n".to_vec(),
        format!("GET {path}?\0\x01\x7f HTTP/1.1\r\nHost: t\r\n\r\n").into_bytes(),
        format!("GET {path} HTTP/9.9\r\n\r\n").into_bytes(),
        format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n").into_bytes(),
        format!(
            "GET {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )
        .into_bytes(),
        format!("GET {path}?{} HTTP/1.1\r\nHost: t\r\n\r\n", "%".repeat(2000)).into_bytes(),
    ];
    for blob in &blobs {
        send_garbage(session, blob)?;
    }
    require_response(session)?;
    Ok(format!(
        "the tracker responds after {} kinds of garbage",
        blobs.len()
    ))
}

fn big_query(session: &mut Session) -> Finding {
    let mut seen = Vec::new();
    for size in [64 << 10, 1 << 20] {
        let query = session.started(&session.seeder).set("left", "0");
        let target = session.target(&query.set("x", "x".repeat(size)).text());
        seen.push(match session.wire.get(&target) {
            Ok(response) => format!("HTTP {}", response.status),
            Err(none) => none.to_string(),
        });
        require_response(session)?;
    }
    Ok(seen.join(", then "))
}

fn big_header(session: &mut Session) -> Finding {
    let query = session.started(&session.seeder).set("left", "0");
    let target = session.target(&query.text());
    let long = format!("X: {}\r\n", "x".repeat(1 << 20));
    let many = "X: x\r\n".repeat(20_000);
    let mut seen = Vec::new();
    for headers in [long, many] {
        let reply = session.wire.send(session.wire.request(&target, &headers));
        if accepted(&reply).is_ok() {
            return failed(format!("a header of {} bytes was accepted", headers.len()));
        }
        seen.push(status_of(&reply));
        require_response(session)?;
    }
    Ok(seen.join(", then "))
}

fn half_open(session: &mut Session) -> Finding {
    let incomplete = format!("GET {}?info_hash=%41", session.url.path);
    let mut open = Vec::new();
    for _ in 0..200 {
        // The tracker may limit the number of connections.
        if let Ok(mut connection) = session.wire.connect() {
            connection.send(&incomplete);
            open.push(connection);
        }
    }
    require_response(session)?;
    Ok(format!(
        "the tracker responds during {}",
        count(open.len(), "incomplete request")
    ))
}

fn scrape_thousands(session: &mut Session) -> Finding {
    session.counts()?;
    let mut query = Vec::new();
    for _ in 0..5_000 {
        query.push(format!("info_hash={}", escaped(&random_hash()?)));
    }
    let reply = session.scrape(&query.join("&"))?;
    require_response(session)?;
    Ok(format!(
        "{}; the tracker responds afterwards",
        status_of(&reply)
    ))
}
