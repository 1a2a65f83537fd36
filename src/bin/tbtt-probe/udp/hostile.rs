//! What no client sends: forged, oversize and senseless packets.

use std::net::{IpAddr, Ipv4Addr};

use super::{ANNOUNCE, CONNECT, ERROR, MAGIC, Miss, SCRAPE, Session, field, head, not_error};
use crate::case::Effort::Hostile;
use crate::case::Source::{Bep, Practice};
use crate::case::{Case, Finding, broken, skipped};
use crate::peer::random_hash;

/// Of a network that exists in documentation only (RFC 5737).
const VICTIM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

#[rustfmt::skip]
pub(super) const CASES: &[Case<Session>] = &[
    Case { id: "udp-forged-id", effort: Hostile, source: Bep(15), check: forged_id,
        title: "a connection id that the tracker did not give is not taken" },
    Case { id: "udp-others-id", effort: Hostile, source: Bep(15), check: others_id,
        title: "a connection id is not taken from another address" },
    Case { id: "udp-amplification", effort: Hostile, source: Practice, check: amplification,
        title: "before its address is proven, a sender gets no more bytes than it sent" },
    Case { id: "udp-forged-address", effort: Hostile, source: Practice, check: forged_address,
        title: "nobody is believed who gives another's address in the packet" },
    Case { id: "udp-garbage", effort: Hostile, source: Practice, check: garbage,
        title: "garbage of any length, up to 64 KiB, is not answered" },
];

/// One request of each kind, with this id.
fn requests(session: &mut Session, id: u64) -> Result<Vec<Vec<u8>>, Miss> {
    let peer = session.peer()?;
    let announce = session.started(&peer, 1);
    let mut scrape = head(SCRAPE, id, session.transaction());
    scrape.extend_from_slice(&session.torrent);
    Ok(vec![announce.packet(id, session.transaction()), scrape])
}

/// Whether one of these is the answer that its sender wished for.
fn is_taken(answers: &[Vec<u8>]) -> bool {
    answers
        .iter()
        .any(|answer| matches!(field(answer, 0), Some(ANNOUNCE | SCRAPE)))
}

fn forged_id(session: &mut Session) -> Finding {
    session.connected()?;
    let id = session.id();
    let mut packets = Vec::new();
    for forged in [0, 1, u64::MAX, MAGIC, id ^ 1, id ^ 1 << 63, id.swap_bytes()] {
        if forged != id {
            packets.extend(requests(session, forged)?);
        }
    }
    let socket = session.other_socket(None)?;
    let answers = session.answers(&socket, &packets)?;
    match (is_taken(&answers), answers.len()) {
        (true, _) => broken("one was"),
        (false, 0) => Ok("silence".to_owned()),
        (false, _) => Ok("errors".to_owned()),
    }
}

fn others_id(session: &mut Session) -> Finding {
    session.connected()?;
    if !session.to.ip().is_loopback() || session.to.is_ipv6() {
        return skipped("only 127.0.0.1 can be asked from another address");
    }
    let id = session.id();
    let packets = requests(session, id)?;
    let socket = session.other_socket(Some(IpAddr::from([127, 0, 0, 2])))?;
    match is_taken(&session.answers(&socket, &packets)?) {
        true => broken("it was, from 127.0.0.2"),
        false => Ok("it was not, from 127.0.0.2".to_owned()),
    }
}

fn amplification(session: &mut Session) -> Finding {
    let mut packets = vec![
        head(CONNECT, MAGIC, 1),
        head(CONNECT, 0, 2),
        head(ANNOUNCE, 3, 3),
        head(SCRAPE, 4, 4),
        head(ERROR, 5, 5),
        head(4, 6, 6),
    ];
    packets.extend(requests(session, 7)?);
    let socket = session.other_socket(None)?;
    let mut most = (0, 0);
    for packet in packets {
        let answers = session.answers(&socket, std::slice::from_ref(&packet))?;
        let (sent, got) = (packet.len(), answers.iter().map(Vec::len).sum::<usize>());
        if got * most.1.max(1) >= most.0 * sent {
            most = (got, sent);
        }
    }
    let (got, sent) = most;
    let factor = got as f64 / sent as f64;
    match got > sent {
        true => broken(format!("{got} bytes for {sent}, {factor:.1} times as many")),
        false => Ok(format!("{got} bytes for {sent} at most")),
    }
}

fn forged_address(session: &mut Session) -> Finding {
    session.tracked()?;
    if session.is_v6() {
        return skipped("over IPv6 the packet has no room for one");
    }
    let peer = session.peer()?;
    let mut announce = session.started(&peer, 1);
    announce.address = VICTIM.octets();
    let reply = session.announce(&announce);
    let seeder = session.started(&session.seeder, 0);
    let seen = session.announce(&seeder);
    let seen = session.answered(&seen);
    session.withdraw(&announce);
    not_error(&reply)?;
    match seen?.peers.iter().any(|peer| peer.ip() == VICTIM) {
        false => Ok("it was not".to_owned()),
        true if session.to.ip().is_loopback() => {
            skipped("it was, which may be meant for this host alone")
        }
        true => broken("it was, and told to others"),
    }
}

fn garbage(session: &mut Session) -> Finding {
    let mut noise = Vec::new();
    while noise.len() < 65_000 {
        noise.extend_from_slice(&random_hash()?);
    }
    let lengths = [
        0, 1, 7, 8, 15, 16, 17, 35, 36, 97, 98, 99, 500, 1472, 2049, 65_000,
    ];
    let packets = lengths.map(|length| noise[..length].to_vec());
    let socket = session.other_socket(None)?;
    let answers = session.answers(&socket, &packets)?;
    let told: Vec<_> = answers
        .iter()
        .filter(|answer| field(answer, 0) != Some(ERROR))
        .map(|answer| format!("{} bytes", answer.len()))
        .collect();
    match told.is_empty() {
        true => Ok(format!("after {} packets it serves on", packets.len())),
        false => broken(format!("answers of {}", told.join(", "))),
    }
}
