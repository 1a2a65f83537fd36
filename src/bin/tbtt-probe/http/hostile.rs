//! What no client sends: after each of these the tracker must still serve.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{NoAnswer, Session, escaped, peers_in, read, served};
use crate::case::Effort::Hostile;
use crate::case::Source::Practice;
use crate::case::{Case, Finding, Miss, broken, skipped};
use crate::peer::random_hash;

/// Of a network that exists in documentation only (RFC 5737).
const VICTIM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

#[rustfmt::skip]
pub(super) const CASES: &[Case<Session>] = &[
    Case { id: "http-forged-address", effort: Hostile, source: Practice, check: forged_address,
        title: "nobody is believed who gives another's address, in the query or as a proxy" },
    Case { id: "http-garbage", effort: Hostile, source: Practice, check: garbage,
        title: "garbage leaves the tracker serving" },
    Case { id: "http-big-query", effort: Hostile, source: Practice, check: big_query,
        title: "a query of 64 KiB or 1 MiB leaves the tracker serving" },
    Case { id: "http-big-header", effort: Hostile, source: Practice, check: big_header,
        title: "a header of 1 MiB, or of 20,000 lines, is cut off" },
    Case { id: "http-half-open", effort: Hostile, source: Practice, check: half_open,
        title: "200 clients that stop amid their requests keep none from being served" },
    Case { id: "http-scrape-thousands", effort: Hostile, source: Practice, check: scrape_thousands,
        title: "a scrape of 5,000 torrents leaves the tracker serving" },
];

/// Fails unless an ordinary announce is answered.
fn serves(session: &mut Session) -> Result<(), Miss> {
    let query = session.started(&session.seeder).set("left", "0");
    let target = session.target(&query.without("event").text());
    match read(&session.wire.get(&target)) {
        Err(Miss::Broken(why)) => broken(format!("afterwards an announce was not answered: {why}")),
        found => found.map(drop),
    }
}

fn forged_address(session: &mut Session) -> Finding {
    session.tracked()?;
    let forgeries = [
        ("ip=", "ip", ""),
        ("ipv4=", "ipv4", ""),
        ("X-Forwarded-For", "x", "X-Forwarded-For: 203.0.113.7\r\n"),
        ("Forwarded", "x", "Forwarded: for=203.0.113.7\r\n"),
        ("X-Real-IP", "x", "X-Real-IP: 203.0.113.7\r\n"),
    ];
    let mut believed = Vec::new();
    for (what, key, headers) in forgeries {
        let peer = session.peer()?;
        let query = session.started(&peer).set(key, VICTIM.to_string());
        let reply = session.announce_with(&query, headers);
        let told = served(&reply).ok().and_then(|dict| {
            let told = dict.bytes("external ip")?;
            Some(told == VICTIM.octets())
        });
        let seeder = session.started(&session.seeder).set("left", "0");
        let seen = peers_in(&served(&session.announce(&seeder))?)?;
        if told == Some(true) || seen.iter().any(|peer| peer.ip() == IpAddr::V4(VICTIM)) {
            believed.push(what);
        }
        // What it answers is nobody's interest.
        let _ = session.announce_with(&query.set("event", "stopped"), headers);
    }
    if believed.is_empty() {
        return Ok("nobody was".to_owned());
    }
    let believed = believed.join(", ");
    // An operator may well trust his own host.
    match session.own {
        Some(own) if own.is_loopback() => skipped(format!(
            "{believed} was believed, which may be meant for this host alone"
        )),
        _ => broken(format!("believed: {believed}")),
    }
}

/// Sends what need not be answered on a connection of its own; fails if there can be none.
fn throw(session: &Session, bytes: &[u8]) -> Result<(), Miss> {
    let mut connection = match session.wire.connect() {
        Ok(connection) => connection,
        Err(NoAnswer::Unreachable(why)) => return broken(format!("no connection any more: {why}")),
        Err(none) => return broken(none.to_string()),
    };
    // A tracker that has seen enough closes.
    connection.send(bytes);
    connection.rest(session.wire.timeout.min(Duration::from_millis(200)));
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
        throw(session, blob)?;
    }
    serves(session)?;
    Ok(format!("it serves on after {} kinds", blobs.len()))
}

fn big_query(session: &mut Session) -> Finding {
    let mut seen = Vec::new();
    for size in [64 << 10, 1 << 20] {
        let query = session.started(&session.seeder).set("left", "0");
        let target = session.target(&query.set("x", "x".repeat(size)).text());
        seen.push(match session.wire.get(&target) {
            Ok(answer) => format!("HTTP {}", answer.status),
            Err(none) => none.to_string(),
        });
        serves(session)?;
    }
    Ok(seen.join(", then "))
}

fn big_header(session: &mut Session) -> Finding {
    let query = session.started(&session.seeder).set("left", "0");
    let target = session.target(&query.text());
    let one = format!("X: {}\r\n", "x".repeat(1 << 20));
    let many = "X: x\r\n".repeat(20_000);
    let mut seen = Vec::new();
    for headers in [one, many] {
        let reply = session.wire.ask(session.wire.request(&target, &headers));
        if served(&reply).is_ok() {
            return broken(format!("{} bytes were read to their end", headers.len()));
        }
        seen.push(super::kind(&reply));
        serves(session)?;
    }
    Ok(seen.join(", then "))
}

fn half_open(session: &mut Session) -> Finding {
    let begun = format!("GET {}?info_hash=%41", session.url.path);
    let mut open = Vec::new();
    for _ in 0..200 {
        // A limit that is reached is the tracker's right.
        if let Ok(mut connection) = session.wire.connect() {
            connection.send(&begun);
            open.push(connection);
        }
    }
    serves(session)?;
    Ok(format!("it served beside {}", open.len()))
}

fn scrape_thousands(session: &mut Session) -> Finding {
    session.counts()?;
    let mut query = Vec::new();
    for _ in 0..5_000 {
        query.push(format!("info_hash={}", escaped(&random_hash()?)));
    }
    let reply = session.scrape(&query.join("&"))?;
    serves(session)?;
    Ok(format!("{}, and it serves on", super::kind(&reply)))
}
