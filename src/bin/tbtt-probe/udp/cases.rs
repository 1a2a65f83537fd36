//! The gentle and full cases over UDP.

use std::thread;
use std::time::Duration;

use super::{
    ANNOUNCE, AnnounceResponse, COMPLETED, CONNECT, ERROR, MAGIC, MINUTE, NONE, NotOk, Reply,
    SCRAPE, STOPPED, Session, header, not_error, packet_summary, u32_at,
};
use crate::case::Effort::{Full, Gentle, Wait};
use crate::case::Source::{Bep, Practice};
use crate::case::{ANY_TRACKED, Case, Finding, SECOND_REFUSED, count, excerpt, failed, skipped};
use crate::peer::{is_unreachable, random_hash};

#[rustfmt::skip]
pub(super) const CASES: &[Case<Session>] = &[
    Case { id: "udp-connect", effort: Gentle, source: Bep(15), check: connect,
        title: "the response to a connect has 16 bytes and action 0" },
    Case { id: "udp-announce", effort: Gentle, source: Bep(15), check: announce,
        title: "the response to an announce has action 1 and complete peers, or is an error" },
    Case { id: "udp-tracked", effort: Gentle, source: Bep(15), check: tracked,
        title: "the given torrent is tracked" },
    Case { id: "udp-refusal", effort: Gentle, source: Bep(15), check: refusal,
        title: "a torrent that is not tracked is refused with an error, action 3" },
    Case { id: "udp-interval", effort: Gentle, source: Bep(15), check: interval,
        title: "the interval is a number of seconds" },
    Case { id: "udp-others", effort: Gentle, source: Bep(15), check: seeder_listed,
        title: "the response to a leecher lists the seeder" },
    Case { id: "udp-not-self", effort: Gentle, source: Practice, check: not_self,
        title: "a response does not list the client itself, port 0 or an unspecified address" },
    Case { id: "udp-counts", effort: Gentle, source: Bep(15), check: counts,
        title: "a response counts the seeder" },
    Case { id: "udp-scrape", effort: Gentle, source: Bep(15), check: scrape,
        title: "the response to a scrape has 8 bytes, and 12 for each torrent" },
    Case { id: "udp-stopped", effort: Gentle, source: Bep(15), check: stopped,
        title: "event 3 (stopped) gets a response like any announce" },
    Case { id: "udp-gone", effort: Gentle, source: Bep(15), check: stopped_not_listed,
        title: "a peer that has stopped is not listed any more" },
    Case { id: "udp-transaction", effort: Gentle, source: Bep(15), check: transaction,
        title: "a response has the transaction ID of its request" },

    Case { id: "udp-id-again", effort: Full, source: Bep(15), check: id_reuse,
        title: "a connection ID is valid for many requests" },
    Case { id: "udp-id-port", effort: Full, source: Practice, check: id_port,
        title: "a connection ID is valid from another port of the same address" },
    Case { id: "udp-connect-long", effort: Full, source: Practice, check: connect_long,
        title: "a connect with additional bytes gets a response" },
    Case { id: "udp-not-connect", effort: Full, source: Practice, check: not_connect,
        title: "a connect of 15 bytes, or without the protocol ID of BEP 15, gets no response" },
    Case { id: "udp-options", effort: Full, source: Bep(41), check: options,
        title: "an announce with the URL's path, padding and unknown options gets a response" },
    Case { id: "udp-short", effort: Full, source: Bep(15), check: short,
        title: "an announce of less than 98 bytes is not accepted" },
    Case { id: "udp-port", effort: Full, source: Practice, check: port,
        title: "port 0 is refused, and never listed" },
    Case { id: "udp-left", effort: Full, source: Bep(15), check: left,
        title: "only left=0 makes a seeder: 2^31, 2^32 and 2^63-1 do not" },
    Case { id: "udp-event", effort: Full, source: Practice, check: event,
        title: "the response to event 0, 4 (paused) or an unknown event lists peers" },
    Case { id: "udp-stopped-peers", effort: Full, source: Practice, check: stopped_peers,
        title: "the response to event 3 (stopped) lists no peers" },
    Case { id: "udp-completed", effort: Full, source: Bep(15), check: completed,
        title: "event 1 (completed) adds 1 to the completed count of a scrape" },
    Case { id: "udp-numwant", effort: Full, source: Practice, check: numwant,
        title: "num_want 0 gets no peers; a huge num_want gets some" },
    Case { id: "udp-scrape-order", effort: Full, source: Bep(15), check: scrape_order,
        title: "a scrape returns torrents in the order of the request, repeated ones as well" },
    Case { id: "udp-scrape-74", effort: Full, source: Practice, check: scrape_74,
        title: "a scrape of 74 torrents returns all" },
    Case { id: "udp-scrape-more", effort: Full, source: Practice, check: scrape_more,
        title: "a scrape of 80 torrents returns at most 74" },
    Case { id: "udp-scrape-uneven", effort: Full, source: Bep(15), check: scrape_uneven,
        title: "a scrape of 21 bytes does not return two torrents" },
    Case { id: "udp-scrape-none", effort: Full, source: Practice, check: scrape_none,
        title: "a scrape without torrents returns none" },
    Case { id: "udp-actions", effort: Full, source: Practice, check: actions,
        title: "unknown actions get no response, or an error" },

    Case { id: "udp-id-minute", effort: Wait, source: Bep(15), check: id_minute,
        title: "a connection ID is valid for one minute" },
    Case { id: "udp-id-expires", effort: Wait, source: Practice, check: id_expires,
        title: "a connection ID is not valid after two minutes" },
];

/// Returns the response to the first announce of the leecher. Skips the case unless the torrent is tracked.
fn leecher_response(session: &Session) -> Result<AnnounceResponse, NotOk> {
    session.require_tracked()?;
    session.parse_announce(&session.leecher_reply)
}

fn connect(session: &mut Session) -> Finding {
    let reply = &session.connect_reply;
    match (u32_at(reply, 0), reply.len()) {
        (Some(CONNECT), 16) => Ok("16 bytes, action 0".to_owned()),
        (Some(ERROR), _) => failed(format!(
            "an error: {}",
            excerpt(&reply[8.min(reply.len())..])
        )),
        _ => failed(packet_summary(reply)),
    }
}

fn announce(session: &mut Session) -> Finding {
    session.require_connected()?;
    match &session.seeder_reply {
        Some(reply) if u32_at(reply, 0) == Some(ERROR) => well_formed_error(reply),
        reply => {
            let announced = session.parse_announce(reply)?;
            Ok(count(announced.peers.len(), "peer"))
        }
    }
}

fn well_formed_error(reply: &[u8]) -> Finding {
    match reply.get(8..) {
        Some(reason) => Ok(format!("an error: {}", excerpt(reason))),
        None => failed(format!("an error of {}", count(reply.len(), "byte"))),
    }
}

fn tracked(session: &mut Session) -> Finding {
    session.require_connected()?;
    match (session.named, session.require_tracked()) {
        (true, Ok(())) => Ok("the torrent is tracked".to_owned()),
        (true, Err(_)) => session
            .parse_announce(&session.seeder_reply)
            .map(|_| "the torrent is tracked".to_owned()),
        (false, Ok(())) => skipped(ANY_TRACKED),
        (false, Err(_)) => skipped("no torrent was given"),
    }
}

fn refusal(session: &mut Session) -> Finding {
    session.require_connected()?;
    let reply = match session.named {
        false => session.seeder_reply.clone(),
        true => {
            let peer = session.peer()?;
            let mut unknown = session.started(&peer, 1);
            unknown.torrent = random_hash()?;
            session.announce(&unknown)
        }
    };
    match &reply {
        None => failed("no response within the timeout"),
        Some(reply) if u32_at(reply, 0) == Some(ERROR) => well_formed_error(reply),
        Some(response) if u32_at(response, 0) == Some(ANNOUNCE) && response.len() >= 20 => {
            skipped(ANY_TRACKED)
        }
        Some(response) => failed(packet_summary(response)),
    }
}

fn interval(session: &mut Session) -> Finding {
    session.require_tracked()?;
    match session.parse_announce(&session.seeder_reply)?.interval {
        0 => failed("the interval is 0"),
        seconds if seconds > 1 << 31 => failed(format!("the interval is {seconds}, or negative")),
        seconds => Ok(format!("{seconds} s")),
    }
}

fn seeder_listed(session: &mut Session) -> Finding {
    let announced = leecher_response(session)?;
    let peers = count(announced.peers.len(), "peer");
    match Session::lists(&announced, &session.seeder)? {
        true => Ok(format!("the seeder is listed, among {peers}")),
        false => failed(format!("the seeder is not listed, among {peers}")),
    }
}

fn not_self(session: &mut Session) -> Finding {
    let peers = leecher_response(session)?.peers;
    if peers.iter().any(|peer| peer.port() == session.leecher.port) {
        return failed("the response to the leecher lists the leecher");
    }
    match peers.iter().find(|peer| is_unreachable(peer)) {
        Some(unreachable) => failed(format!("{unreachable} is listed")),
        None => Ok(format!("{}, none of these", count(peers.len(), "peer"))),
    }
}

fn counts(session: &mut Session) -> Finding {
    let AnnounceResponse {
        seeders, leechers, ..
    } = leecher_response(session)?;
    let seeder_count = count(seeders as usize, "seeder");
    let seen = format!("{seeder_count}, {}", count(leechers as usize, "leecher"));
    // Trackers differ in whether a response counts the client that gets it.
    match seeders {
        0 => failed(seen),
        _ => Ok(seen),
    }
}

fn scrape(session: &mut Session) -> Finding {
    session.require_connected()?;
    let torrent = session.torrent;
    let reply = session.scrape(&torrent);
    match &reply {
        Some(reply) if u32_at(reply, 0) == Some(ERROR) => {
            let reason = reply.get(8..).unwrap_or_default();
            skipped(format!("the scrape was refused: {}", excerpt(reason)))
        }
        Some(reply) if u32_at(reply, 0) == Some(SCRAPE) && reply.len() == 20 => {
            Ok("20 bytes, action 2".to_owned())
        }
        Some(reply) => failed(packet_summary(reply)),
        None => failed("no response within the timeout"),
    }
}

fn stopped(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let reply = session.stop(&session.started(&session.leecher, 1));
    session.parse_announce(&reply)?;
    Ok("not refused".to_owned())
}

fn stopped_not_listed(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let mut again = session.started(&session.seeder, 0);
    again.event = NONE;
    let reply = session.announce(&again);
    let Ok(AnnounceResponse { peers, .. }) = session.parse_announce(&reply) else {
        return skipped(SECOND_REFUSED);
    };
    match peers.iter().any(|peer| peer.port() == session.leecher.port) {
        true => failed("the leecher is listed after it has stopped"),
        false => Ok("the leecher is not listed".to_owned()),
    }
}

fn transaction(session: &mut Session) -> Finding {
    let (responses, wrong) = (session.transactions.responses, session.transactions.wrong);
    match wrong {
        0 => Ok(format!(
            "{} with the right ID",
            count(responses, "response")
        )),
        _ => failed(format!(
            "{wrong} of {} had another ID",
            count(responses, "response")
        )),
    }
}

fn id_reuse(session: &mut Session) -> Finding {
    session.require_connected()?;
    let torrent = session.torrent;
    for number in 1..=5 {
        if session.scrape(&torrent).is_none() {
            return failed(format!("request {number} got no response"));
        }
    }
    Ok("5 requests got responses".to_owned())
}

fn id_port(session: &mut Session) -> Finding {
    session.require_connected()?;
    let (id, transaction) = (session.id(), session.transaction());
    let mut packet = header(SCRAPE, id, transaction);
    packet.extend_from_slice(&session.torrent);
    let socket = session.other_socket(None)?;
    let responses = session.responses_to(&socket, &[packet])?;
    match responses
        .iter()
        .any(|response| u32_at(response, 0) == Some(SCRAPE))
    {
        true => Ok("the scrape from another port got a response".to_owned()),
        false => failed(format!(
            "{}, none to the scrape",
            count(responses.len(), "response")
        )),
    }
}

fn connect_long(session: &mut Session) -> Finding {
    let transaction = session.transaction();
    let mut packet = header(CONNECT, MAGIC, transaction);
    packet.extend_from_slice(&[0; 16]);
    match session.exchange(&packet, transaction) {
        Ok(reply) if u32_at(&reply, 0) == Some(CONNECT) => Ok("action 0".to_owned()),
        Ok(reply) => failed(packet_summary(&reply)),
        Err(reason) => failed(reason),
    }
}

fn not_connect(session: &mut Session) -> Finding {
    let packets = [
        header(CONNECT, MAGIC, 1)[..15].to_vec(),
        header(CONNECT, MAGIC + 1, 2),
        header(CONNECT, 0, 3),
    ];
    let socket = session.other_socket(None)?;
    match session.responses_to(&socket, &packets)?.first() {
        None => Ok("no response".to_owned()),
        Some(response) => failed(packet_summary(response)),
    }
}

fn options(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let url = session.url_options();
    // Padding, the URL, an unknown option, the end, and bytes after the end.
    let valid = [&[1, 1][..], &url, &[77, 3, 1, 2, 3, 0, 9, 9]].concat();
    // A second option that is truncated.
    let truncated = [&url[..], &[2, 200, b'/']].concat();
    for (kind, options) in [("valid", valid), ("truncated", truncated)] {
        if let Err(NotOk::Failed(seen)) =
            session.announce_briefly(|announce| announce.options = options)
        {
            return failed(format!("with {kind} options: {seen}"));
        }
    }
    Ok("not refused".to_owned())
}

fn short(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let peer = session.peer()?;
    let announce = session.started(&peer, 1);
    let (id, transaction) = (session.id(), session.transaction());
    let packet = announce.packet(id, transaction);
    let socket = session.other_socket(None)?;
    let responses =
        session.responses_to(&socket, &[packet[..97].to_vec(), packet[..20].to_vec()])?;
    let accepted = responses
        .iter()
        .find(|response| u32_at(response, 0) != Some(ERROR));
    match (accepted, responses.len()) {
        (None, 0) => Ok("no response".to_owned()),
        (None, _) => Ok("an error".to_owned()),
        (Some(response), _) => {
            // The tracker has stored some port for this peer.
            session.to_stop.push(announce);
            failed(packet_summary(response))
        }
    }
}

fn port(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let mut peer = session.peer()?;
    peer.port = 0;
    let announce = session.started(&peer, 1);
    let reply = session.announce(&announce);
    match &reply {
        None => return Ok("no response".to_owned()),
        Some(reply) if u32_at(reply, 0) == Some(ERROR) => return well_formed_error(reply),
        _ => {}
    }
    let response = session.announce_briefly(|_| {})?;
    session.withdraw(&announce);
    match response.peers.iter().any(|peer| peer.port() == 0) {
        true => failed("port 0 was accepted, and is listed"),
        false => failed("port 0 was accepted"),
    }
}

fn left(session: &mut Session) -> Finding {
    session.require_tracked()?;
    for left in [1 << 31, 1 << 32, (1 << 63) - 1] {
        let before = session.counts()?;
        let peer = session.peer()?;
        let announce = session.started(&peer, left);
        let reply = session.announce(&announce);
        let after = session.counts();
        session.withdraw(&announce);
        session.parse_announce(&reply)?;
        if after?[0] > before[0] {
            return failed(format!("left={left} was counted as a seeder"));
        }
    }
    Ok("all were counted as leechers".to_owned())
}

fn event(session: &mut Session) -> Finding {
    session.require_tracked()?;
    for event in [NONE, 4, 5, u32::MAX] {
        let result = session
            .announce_briefly(|announce| announce.event = event)
            .and_then(|announced| Session::lists(&announced, &session.seeder));
        match result {
            Ok(true) => {}
            Ok(false) => return failed(format!("the seeder is not listed after event {event}")),
            Err(NotOk::Failed(seen)) => return failed(format!("event {event}: {seen}")),
            Err(skipped) => return Err(skipped),
        }
    }
    Ok("the seeder is listed after all events".to_owned())
}

fn stopped_peers(session: &mut Session) -> Finding {
    session.require_tracked()?;
    match session
        .announce_briefly(|announce| announce.event = STOPPED)?
        .peers
        .len()
    {
        0 => Ok("no peers".to_owned()),
        number => failed(format!("the response lists {}", count(number, "peer"))),
    }
}

fn completed(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let peer = session.peer()?;
    let started = session.started(&peer, 1);
    let reply = session.announce(&started);
    session.parse_announce(&reply)?;
    let before = session.counts()?;
    let mut done = session.started(&peer, 0);
    done.event = COMPLETED;
    let reply = session.announce(&done);
    let after = session.counts();
    session.withdraw(&done);
    session.parse_announce(&reply)?;
    match i64::from(after?[1]) - i64::from(before[1]) {
        1 => Ok("the count increased by 1".to_owned()),
        change => failed(format!("the count changed by {change}")),
    }
}

fn numwant(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let none = session
        .announce_briefly(|announce| announce.numwant = 0)?
        .peers
        .len();
    if none > 0 {
        return failed(format!("num_want 0 got {}", count(none, "peer")));
    }
    let many = session.announce_briefly(|announce| announce.numwant = i32::MAX)?;
    match Session::lists(&many, &session.seeder)? {
        true => Ok("0 and a huge value were tried".to_owned()),
        false => failed("the seeder is not listed for a huge num_want"),
    }
}

/// Returns this number of info-hashes, the first of which is tracked.
fn hashes(session: &mut Session, count: usize) -> Result<Vec<u8>, NotOk> {
    let mut hashes = session.torrent.to_vec();
    while hashes.len() < count * 20 {
        hashes.extend_from_slice(&random_hash()?);
    }
    Ok(hashes)
}

/// Skips the case unless the torrent has a seeder according to a scrape.
fn require_seeder(session: &mut Session) -> Result<(), NotOk> {
    session.require_tracked()?;
    match session.counts()? {
        [0, ..] => skipped("the scrape does not count the seeder"),
        _ => Ok(()),
    }
}

fn scrape_order(session: &mut Session) -> Finding {
    require_seeder(session)?;
    let (torrent, unknown) = (session.torrent, random_hash()?);
    let entries = session.scrape_entries(&[unknown, torrent, unknown, torrent].concat())?;
    let seeded: Vec<_> = entries.iter().map(|[seeders, ..]| *seeders > 0).collect();
    match seeded == [false, true, false, true] {
        true => Ok("in order, with zeros for an unknown torrent".to_owned()),
        false => failed(format!(
            "a scrape of four, the second and fourth of which are seeded, returned {}: {seeded:?}",
            count(entries.len(), "torrent")
        )),
    }
}

fn scrape_74(session: &mut Session) -> Finding {
    session.counts()?;
    let hashes = hashes(session, 74)?;
    match session.scrape_entries(&hashes)?.len() {
        74 => Ok("74 torrents".to_owned()),
        number => failed(count(number, "torrent")),
    }
}

fn scrape_more(session: &mut Session) -> Finding {
    session.counts()?;
    let hashes = hashes(session, 80)?;
    let reply = session.scrape(&hashes);
    match &reply {
        None => Ok("no response".to_owned()),
        Some(reply) if u32_at(reply, 0) == Some(ERROR) => well_formed_error(reply),
        Some(reply) => match reply.len().saturating_sub(8) / 12 {
            number @ ..=74 => Ok(count(number, "torrent")),
            number => failed(count(number, "torrent")),
        },
    }
}

fn scrape_uneven(session: &mut Session) -> Finding {
    session.counts()?;
    let hashes = hashes(session, 2)?;
    let (id, transaction) = (session.id(), session.transaction());
    let mut packet = header(SCRAPE, id, transaction);
    packet.extend_from_slice(&hashes[..21]);
    let socket = session.other_socket(None)?;
    let responses = session.responses_to(&socket, &[packet])?;
    match responses.first() {
        None => Ok("no response".to_owned()),
        Some(reply) if u32_at(reply, 0) == Some(ERROR) => well_formed_error(reply),
        Some(reply) => match reply.len().saturating_sub(8) / 12 {
            number @ ..=1 => Ok(count(number, "torrent")),
            number => failed(format!(
                "{number} torrents: the tracker read beyond the end of the packet"
            )),
        },
    }
}

fn scrape_none(session: &mut Session) -> Finding {
    session.require_connected()?;
    let (id, transaction) = (session.id(), session.transaction());
    let socket = session.other_socket(None)?;
    let responses = session.responses_to(&socket, &[header(SCRAPE, id, transaction)])?;
    match responses.first() {
        None => Ok("no response".to_owned()),
        Some(reply) if u32_at(reply, 0) == Some(ERROR) => well_formed_error(reply),
        Some(reply) if reply.len() <= 8 => Ok("no torrents".to_owned()),
        Some(reply) => failed(packet_summary(reply)),
    }
}

fn actions(session: &mut Session) -> Finding {
    session.require_connected()?;
    let peer = session.peer()?;
    let announce = session.started(&peer, 1);
    let mut packets = Vec::new();
    for action in [3u32, 4, 5, 255, u32::MAX] {
        let (id, transaction) = (session.id(), session.transaction());
        let mut packet = announce.packet(id, transaction);
        packet[8..12].copy_from_slice(&action.to_be_bytes());
        packets.push(packet);
    }
    let socket = session.other_socket(None)?;
    let responses = session.responses_to(&socket, &packets)?;
    match responses
        .iter()
        .find(|response| u32_at(response, 0) != Some(ERROR))
    {
        None if responses.is_empty() => Ok("no response".to_owned()),
        None => Ok("errors".to_owned()),
        Some(response) => failed(packet_summary(response)),
    }
}

/// Waits until the first connection ID has this age, and scrapes with it.
fn with_first_id(session: &mut Session, age: Duration) -> Result<Reply, NotOk> {
    session.require_connected()?;
    let (id, since) = session.first_id;
    thread::sleep(age.saturating_sub(since.elapsed()));
    let transaction = session.transaction();
    let mut packet = header(SCRAPE, id, transaction);
    packet.extend_from_slice(&session.torrent);
    Ok(session.exchange(&packet, transaction).ok())
}

fn id_minute(session: &mut Session) -> Finding {
    let late = session.first_id.1.elapsed();
    if late > MINUTE {
        return skipped(format!("the cases before took {} s", late.as_secs()));
    }
    let reply = with_first_id(session, MINUTE.saturating_sub(Duration::from_secs(2)))?;
    not_error(&reply)?;
    Ok("valid after 58 s".to_owned())
}

fn id_expires(session: &mut Session) -> Finding {
    // Waits three seconds more, because the clock of the tracker may count in seconds.
    match with_first_id(session, 2 * MINUTE + Duration::from_secs(3))? {
        Some(reply) if u32_at(&reply, 0) != Some(ERROR) => failed("valid after 123 s"),
        _ => Ok("not valid after 123 s".to_owned()),
    }
}
