//! What clients ask over UDP, and a little of what they should not.

use std::thread;
use std::time::Duration;

use super::{
    ANNOUNCE, Announced, COMPLETED, CONNECT, ERROR, MAGIC, MINUTE, Miss, NONE, Reply, SCRAPE,
    STOPPED, Session, field, head, not_error,
};
use crate::case::Effort::{Full, Gentle, Wait};
use crate::case::Source::{Bep, Practice};
use crate::case::{Case, Finding, broken, shown, skipped};
use crate::peer::{is_nowhere, random_hash};

#[rustfmt::skip]
pub(super) const CASES: &[Case<Session>] = &[
    Case { id: "udp-connect", effort: Gentle, source: Bep(15), check: connect,
        title: "a connect is answered with 16 bytes and action 0" },
    Case { id: "udp-announce", effort: Gentle, source: Bep(15), check: announce,
        title: "an announce is answered with action 1 and whole peers, or with an error" },
    Case { id: "udp-tracked", effort: Gentle, source: Bep(15), check: tracked,
        title: "the torrent that was named is tracked" },
    Case { id: "udp-refusal", effort: Gentle, source: Bep(15), check: refusal,
        title: "a torrent that is not tracked is refused with an error, action 3" },
    Case { id: "udp-interval", effort: Gentle, source: Bep(15), check: interval,
        title: "the interval is a number of seconds" },
    Case { id: "udp-others", effort: Gentle, source: Bep(15), check: others,
        title: "a leecher is told of the seeder" },
    Case { id: "udp-not-self", effort: Gentle, source: Practice, check: not_self,
        title: "no client is told of itself, of port 0 or of no address" },
    Case { id: "udp-counts", effort: Gentle, source: Bep(15), check: counts,
        title: "an answer counts the seeder among the seeders" },
    Case { id: "udp-scrape", effort: Gentle, source: Bep(15), check: scrape,
        title: "a scrape is answered with 8 bytes and 12 for each torrent" },
    Case { id: "udp-stopped", effort: Gentle, source: Bep(15), check: stopped,
        title: "a stop is answered like any announce" },
    Case { id: "udp-gone", effort: Gentle, source: Bep(15), check: gone,
        title: "a peer that has stopped is told of no more" },
    Case { id: "udp-transaction", effort: Gentle, source: Bep(15), check: transaction,
        title: "each answer bears its request's transaction id" },

    Case { id: "udp-id-again", effort: Full, source: Bep(15), check: id_again,
        title: "a connection id is good for many requests" },
    Case { id: "udp-id-port", effort: Full, source: Practice, check: id_port,
        title: "a connection id is good from another port of the same address" },
    Case { id: "udp-connect-long", effort: Full, source: Practice, check: connect_long,
        title: "a connect with bytes behind it is answered" },
    Case { id: "udp-not-connect", effort: Full, source: Practice, check: not_connect,
        title: "a connect of 15 bytes, or without BEP 15's number, is not answered" },
    Case { id: "udp-options", effort: Full, source: Bep(41), check: options,
        title: "an announce with the URL's path, padding and unknown options is answered" },
    Case { id: "udp-short", effort: Full, source: Bep(15), check: short,
        title: "an announce of less than 98 bytes is not taken" },
    Case { id: "udp-port", effort: Full, source: Practice, check: port,
        title: "port 0 is refused, and never told to others" },
    Case { id: "udp-left", effort: Full, source: Bep(15), check: left,
        title: "only left=0 makes a seeder: 2^31, 2^32, 2^63-1 do not" },
    Case { id: "udp-event", effort: Full, source: Practice, check: event,
        title: "events 0, 4 (paused) and unknown ones are answered with peers" },
    Case { id: "udp-stopped-peers", effort: Full, source: Practice, check: stopped_peers,
        title: "who stops is told of no peers" },
    Case { id: "udp-completed", effort: Full, source: Bep(15), check: completed,
        title: "event 1 adds one to a scrape's completed" },
    Case { id: "udp-numwant", effort: Full, source: Practice, check: numwant,
        title: "num_want 0 gets no peers, a huge one gets some" },
    Case { id: "udp-scrape-order", effort: Full, source: Bep(15), check: scrape_order,
        title: "a scrape is answered in the order of its request, repeated torrents as well" },
    Case { id: "udp-scrape-74", effort: Full, source: Practice, check: scrape_74,
        title: "a scrape of 74 torrents tells of all" },
    Case { id: "udp-scrape-more", effort: Full, source: Practice, check: scrape_more,
        title: "a scrape of 80 torrents tells of 74 at most" },
    Case { id: "udp-scrape-uneven", effort: Full, source: Bep(15), check: scrape_uneven,
        title: "a scrape of 21 bytes does not tell of two torrents" },
    Case { id: "udp-scrape-none", effort: Full, source: Practice, check: scrape_none,
        title: "a scrape of nothing tells of nothing" },
    Case { id: "udp-actions", effort: Full, source: Practice, check: actions,
        title: "actions that BEP 15 does not have get silence or an error" },

    Case { id: "udp-id-minute", effort: Wait, source: Bep(15), check: id_minute,
        title: "a connection id is good for a minute" },
    Case { id: "udp-id-expires", effort: Wait, source: Practice, check: id_expires,
        title: "a connection id is no longer good after two minutes" },
];

/// The answer that the leecher had, unless the torrent is not tracked.
fn leechers(session: &Session) -> Result<Announced, Miss> {
    session.tracked()?;
    session.answered(&session.leecher_reply)
}

fn connect(session: &mut Session) -> Finding {
    let reply = &session.connect_reply;
    match (field(reply, 0), reply.len()) {
        (Some(CONNECT), 16) => Ok("so it was".to_owned()),
        (Some(ERROR), _) => broken(format!("an error: {}", shown(&reply[8.min(reply.len())..]))),
        (_, length) => broken(format!("{length} bytes came: {}", shown(reply))),
    }
}

fn announce(session: &mut Session) -> Finding {
    session.connected()?;
    match &session.seeder_reply {
        Some(reply) if field(reply, 0) == Some(ERROR) => well_formed_error(reply),
        reply => {
            let announced = session.answered(reply)?;
            Ok(format!("{} peers", announced.peers.len()))
        }
    }
}

fn well_formed_error(reply: &[u8]) -> Finding {
    match reply.get(8..) {
        Some(reason) => Ok(format!("an error: {}", shown(reason))),
        None => broken(format!("an error of {} bytes", reply.len())),
    }
}

fn tracked(session: &mut Session) -> Finding {
    session.connected()?;
    match (session.named, session.tracked()) {
        (true, Ok(())) => Ok("it is".to_owned()),
        (true, Err(_)) => session
            .answered(&session.seeder_reply)
            .map(|_| "it is".to_owned()),
        (false, Ok(())) => skipped("none was named; this tracker takes any"),
        (false, Err(_)) => skipped("none was named"),
    }
}

fn refusal(session: &mut Session) -> Finding {
    session.connected()?;
    let reply = match session.named {
        false => session.seeder_reply.clone(),
        true => {
            let peer = session.peer()?;
            let mut foreign = session.started(&peer, 1);
            foreign.torrent = random_hash()?;
            session.announce(&foreign)
        }
    };
    match &reply {
        None => broken("no answer in time"),
        Some(reply) if field(reply, 0) == Some(ERROR) => well_formed_error(reply),
        Some(answer) if field(answer, 0) == Some(ANNOUNCE) && answer.len() >= 20 => {
            skipped("any torrent is tracked")
        }
        Some(answer) => broken(format!("{} bytes came: {}", answer.len(), shown(answer))),
    }
}

fn interval(session: &mut Session) -> Finding {
    session.tracked()?;
    match session.answered(&session.seeder_reply)?.interval {
        0 => broken("it is 0"),
        seconds if seconds > 1 << 31 => broken(format!("it is {seconds}, or negative")),
        seconds => Ok(format!("{seconds} s")),
    }
}

fn others(session: &mut Session) -> Finding {
    let announced = leechers(session)?;
    let count = announced.peers.len();
    match Session::tells_of(&announced, &session.seeder)? {
        true => Ok(format!("it is, among {count}")),
        false => broken(format!("it is not; there are {count} others")),
    }
}

fn not_self(session: &mut Session) -> Finding {
    let peers = leechers(session)?.peers;
    if peers.iter().any(|peer| peer.port() == session.leecher.port) {
        return broken("the leecher was told of itself");
    }
    match peers.iter().find(|peer| is_nowhere(peer)) {
        Some(nowhere) => broken(format!("it was told of {nowhere}")),
        None => Ok(format!("so it is with {} peers", peers.len())),
    }
}

fn counts(session: &mut Session) -> Finding {
    let Announced {
        seeders, leechers, ..
    } = leechers(session)?;
    let told = format!("{seeders} seeders, {leechers} leechers");
    // Whether the asker is counted in its own answer, trackers see differently.
    match seeders {
        0 => broken(told),
        _ => Ok(told),
    }
}

fn scrape(session: &mut Session) -> Finding {
    session.connected()?;
    let torrent = session.torrent;
    let reply = session.scrape(&torrent);
    match &reply {
        Some(reply) if field(reply, 0) == Some(ERROR) => {
            let reason = reply.get(8..).unwrap_or_default();
            skipped(format!("it is refused: {}", shown(reason)))
        }
        Some(reply) if field(reply, 0) == Some(SCRAPE) && reply.len() == 20 => {
            Ok("so it was".to_owned())
        }
        Some(reply) => broken(format!("{} bytes came: {}", reply.len(), shown(reply))),
        None => broken("no answer in time"),
    }
}

fn stopped(session: &mut Session) -> Finding {
    session.tracked()?;
    let reply = session.stop(&session.started(&session.leecher, 1));
    session.answered(&reply)?;
    Ok("so it is".to_owned())
}

fn gone(session: &mut Session) -> Finding {
    session.tracked()?;
    let mut again = session.started(&session.seeder, 0);
    again.event = NONE;
    let reply = session.announce(&again);
    let Ok(Announced { peers, .. }) = session.answered(&reply) else {
        return skipped("a second announce of the seeder was refused, perhaps as too early");
    };
    match peers.iter().any(|peer| peer.port() == session.leecher.port) {
        true => broken("the seeder was told of a leecher that has stopped"),
        false => Ok("the seeder was not".to_owned()),
    }
}

fn transaction(session: &mut Session) -> Finding {
    let (answered, wrong) = (session.transactions.answered, session.transactions.wrong);
    match wrong {
        0 => Ok(format!("all {answered} did")),
        _ => broken(format!("{wrong} of {answered} did not")),
    }
}

fn id_again(session: &mut Session) -> Finding {
    session.connected()?;
    let torrent = session.torrent;
    for number in 1..=5 {
        if session.scrape(&torrent).is_none() {
            return broken(format!("request {number} was not answered"));
        }
    }
    Ok("five were answered".to_owned())
}

fn id_port(session: &mut Session) -> Finding {
    session.connected()?;
    let (id, transaction) = (session.id(), session.transaction());
    let mut packet = head(SCRAPE, id, transaction);
    packet.extend_from_slice(&session.torrent);
    let socket = session.other_socket(None)?;
    let answers = session.answers(&socket, &[packet])?;
    match answers
        .iter()
        .any(|answer| field(answer, 0) == Some(SCRAPE))
    {
        true => Ok("it is".to_owned()),
        false => broken(format!(
            "{} answers came, none to the scrape",
            answers.len()
        )),
    }
}

fn connect_long(session: &mut Session) -> Finding {
    let transaction = session.transaction();
    let mut packet = head(CONNECT, MAGIC, transaction);
    packet.extend_from_slice(&[0; 16]);
    match session.exchange(&packet, transaction) {
        Ok(reply) if field(&reply, 0) == Some(CONNECT) => Ok("so it was".to_owned()),
        Ok(reply) => broken(shown(&reply)),
        Err(why) => broken(why),
    }
}

fn not_connect(session: &mut Session) -> Finding {
    let packets = [
        head(CONNECT, MAGIC, 1)[..15].to_vec(),
        head(CONNECT, MAGIC + 1, 2),
        head(CONNECT, 0, 3),
    ];
    let socket = session.other_socket(None)?;
    match session.answers(&socket, &packets)?.first() {
        None => Ok("none was".to_owned()),
        Some(answer) => broken(format!("{} bytes came: {}", answer.len(), shown(answer))),
    }
}

fn options(session: &mut Session) -> Finding {
    session.tracked()?;
    let url = session.url_options();
    // Padding, one that nobody knows, the end, and bytes that are no more options.
    let well = [&[1, 1][..], &url, &[77, 3, 1, 2, 3, 0, 9, 9]].concat();
    // An option that is cut off.
    let cut = [&url[..], &[2, 200, b'/']].concat();
    for (what, options) in [("whole", well), ("cut off", cut)] {
        if let Err(Miss::Broken(why)) = session.asked(|announce| announce.options = options) {
            return broken(format!("with options that are {what}: {why}"));
        }
    }
    Ok("so it was".to_owned())
}

fn short(session: &mut Session) -> Finding {
    session.tracked()?;
    let peer = session.peer()?;
    let announce = session.started(&peer, 1);
    let (id, transaction) = (session.id(), session.transaction());
    let packet = announce.packet(id, transaction);
    let socket = session.other_socket(None)?;
    let answers = session.answers(&socket, &[packet[..97].to_vec(), packet[..20].to_vec()])?;
    let taken = answers
        .iter()
        .find(|answer| field(answer, 0) != Some(ERROR));
    match (taken, answers.len()) {
        (None, 0) => Ok("silence".to_owned()),
        (None, _) => Ok("an error".to_owned()),
        (Some(answer), _) => {
            // It must have read a port from somewhere.
            session.to_stop.push(announce);
            broken(format!("{} bytes came: {}", answer.len(), shown(answer)))
        }
    }
}

fn port(session: &mut Session) -> Finding {
    session.tracked()?;
    let mut peer = session.peer()?;
    peer.port = 0;
    let announce = session.started(&peer, 1);
    let reply = session.announce(&announce);
    match &reply {
        None => return Ok("silence".to_owned()),
        Some(reply) if field(reply, 0) == Some(ERROR) => return well_formed_error(reply),
        _ => {}
    }
    let seen = session.asked(|_| {})?;
    session.withdraw(&announce);
    match seen.peers.iter().any(|peer| peer.port() == 0) {
        true => broken("it was taken and told to others as port 0"),
        false => broken("it was taken"),
    }
}

fn left(session: &mut Session) -> Finding {
    session.tracked()?;
    for left in [1 << 31, 1 << 32, (1 << 63) - 1] {
        let before = session.counts()?;
        let peer = session.peer()?;
        let announce = session.started(&peer, left);
        let reply = session.announce(&announce);
        let after = session.counts();
        session.withdraw(&announce);
        session.answered(&reply)?;
        if after?[0] > before[0] {
            return broken(format!("left={left} was counted as a seeder"));
        }
    }
    Ok("all were counted as leechers".to_owned())
}

fn event(session: &mut Session) -> Finding {
    session.tracked()?;
    for event in [NONE, 4, 5, u32::MAX] {
        let found = session
            .asked(|announce| announce.event = event)
            .and_then(|announced| Session::tells_of(&announced, &session.seeder));
        match found {
            Ok(true) => {}
            Ok(false) => return broken(format!("event {event} was not told of the seeder")),
            Err(Miss::Broken(why)) => return broken(format!("event {event}: {why}")),
            Err(skipped) => return Err(skipped),
        }
    }
    Ok("all were".to_owned())
}

fn stopped_peers(session: &mut Session) -> Finding {
    session.tracked()?;
    match session
        .asked(|announce| announce.event = STOPPED)?
        .peers
        .len()
    {
        0 => Ok("none".to_owned()),
        count => broken(format!("{count} were told")),
    }
}

fn completed(session: &mut Session) -> Finding {
    session.tracked()?;
    let peer = session.peer()?;
    let started = session.started(&peer, 1);
    let reply = session.announce(&started);
    session.answered(&reply)?;
    let before = session.counts()?;
    let mut done = session.started(&peer, 0);
    done.event = COMPLETED;
    let reply = session.announce(&done);
    let after = session.counts();
    session.withdraw(&done);
    session.answered(&reply)?;
    match i64::from(after?[1]) - i64::from(before[1]) {
        1 => Ok("it does".to_owned()),
        change => broken(format!("it added {change}")),
    }
}

fn numwant(session: &mut Session) -> Finding {
    session.tracked()?;
    let none = session.asked(|announce| announce.numwant = 0)?.peers.len();
    if none > 0 {
        return broken(format!("num_want 0 got {none} peers"));
    }
    let many = session.asked(|announce| announce.numwant = i32::MAX)?;
    match Session::tells_of(&many, &session.seeder)? {
        true => Ok("so it is".to_owned()),
        false => broken("a huge num_want was not told of the seeder"),
    }
}

/// Any number of torrents' ids, the first of which is tracked.
fn hashes(session: &mut Session, count: usize) -> Result<Vec<u8>, Miss> {
    let mut hashes = session.torrent.to_vec();
    while hashes.len() < count * 20 {
        hashes.extend_from_slice(&random_hash()?);
    }
    Ok(hashes)
}

/// Skips unless a scrape of the torrent finds it seeded.
fn seeded(session: &mut Session) -> Result<(), Miss> {
    session.tracked()?;
    match session.counts()? {
        [0, ..] => skipped("a scrape knows of no seeder"),
        _ => Ok(()),
    }
}

fn scrape_order(session: &mut Session) -> Finding {
    seeded(session)?;
    let (torrent, foreign) = (session.torrent, random_hash()?);
    let entries = session.scraped(&[foreign, torrent, foreign, torrent].concat())?;
    let seeded: Vec<_> = entries.iter().map(|[seeders, ..]| *seeders > 0).collect();
    match seeded == [false, true, false, true] {
        true => Ok("so it was, with zeros for an unknown one".to_owned()),
        false => broken(format!(
            "of four, two of them the torrent, it told of {}: {seeded:?}",
            entries.len()
        )),
    }
}

fn scrape_74(session: &mut Session) -> Finding {
    session.counts()?;
    let hashes = hashes(session, 74)?;
    match session.scraped(&hashes)?.len() {
        74 => Ok("so it does".to_owned()),
        count => broken(format!("it told of {count}")),
    }
}

fn scrape_more(session: &mut Session) -> Finding {
    session.counts()?;
    let hashes = hashes(session, 80)?;
    let reply = session.scrape(&hashes);
    match &reply {
        None => Ok("silence".to_owned()),
        Some(reply) if field(reply, 0) == Some(ERROR) => well_formed_error(reply),
        Some(reply) => match reply.len().saturating_sub(8) / 12 {
            count @ ..=74 => Ok(format!("of {count}")),
            count => broken(format!("it told of {count}")),
        },
    }
}

fn scrape_uneven(session: &mut Session) -> Finding {
    session.counts()?;
    let hashes = hashes(session, 2)?;
    let (id, transaction) = (session.id(), session.transaction());
    let mut packet = head(SCRAPE, id, transaction);
    packet.extend_from_slice(&hashes[..21]);
    let socket = session.other_socket(None)?;
    let answers = session.answers(&socket, &[packet])?;
    match answers.first() {
        None => Ok("silence".to_owned()),
        Some(reply) if field(reply, 0) == Some(ERROR) => well_formed_error(reply),
        Some(reply) => match reply.len().saturating_sub(8) / 12 {
            count @ ..=1 => Ok(format!("of {count}")),
            count => broken(format!(
                "it told of {count}: the packet was read beyond its end"
            )),
        },
    }
}

fn scrape_none(session: &mut Session) -> Finding {
    session.connected()?;
    let (id, transaction) = (session.id(), session.transaction());
    let socket = session.other_socket(None)?;
    let answers = session.answers(&socket, &[head(SCRAPE, id, transaction)])?;
    match answers.first() {
        None => Ok("silence".to_owned()),
        Some(reply) if field(reply, 0) == Some(ERROR) => well_formed_error(reply),
        Some(reply) if reply.len() <= 8 => Ok("nothing".to_owned()),
        Some(reply) => broken(format!("{} bytes came: {}", reply.len(), shown(reply))),
    }
}

fn actions(session: &mut Session) -> Finding {
    session.connected()?;
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
    let answers = session.answers(&socket, &packets)?;
    match answers
        .iter()
        .find(|answer| field(answer, 0) != Some(ERROR))
    {
        None if answers.is_empty() => Ok("silence".to_owned()),
        None => Ok("errors".to_owned()),
        Some(answer) => broken(format!("{} bytes came: {}", answer.len(), shown(answer))),
    }
}

/// A scrape with the first connection id once it has this age.
fn with_first_id(session: &mut Session, age: Duration) -> Result<Reply, Miss> {
    session.connected()?;
    let (id, since) = session.first_id;
    thread::sleep(age.saturating_sub(since.elapsed()));
    let transaction = session.transaction();
    let mut packet = head(SCRAPE, id, transaction);
    packet.extend_from_slice(&session.torrent);
    Ok(session.exchange(&packet, transaction).ok())
}

fn id_minute(session: &mut Session) -> Finding {
    let late = session.first_id.1.elapsed();
    if late > MINUTE {
        return skipped(format!("the cases before it took {} s", late.as_secs()));
    }
    let reply = with_first_id(session, MINUTE.saturating_sub(Duration::from_secs(2)))?;
    not_error(&reply)?;
    Ok("it was after 58 s".to_owned())
}

fn id_expires(session: &mut Session) -> Finding {
    // The tracker's clock may tick in seconds, and it counts from when it sent.
    match with_first_id(session, 2 * MINUTE + Duration::from_secs(3))? {
        Some(reply) if field(&reply, 0) != Some(ERROR) => broken("it was after 123 s"),
        _ => Ok("it was not after 123 s".to_owned()),
    }
}
