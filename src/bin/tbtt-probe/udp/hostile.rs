//! Hostile cases over UDP: forged, oversized and meaningless packets.

use std::net::{IpAddr, Ipv4Addr};

use super::{ANNOUNCE, CONNECT, ERROR, MAGIC, NotOk, SCRAPE, Session, header, not_error, u32_at};
use crate::case::Effort::Hostile;
use crate::case::Source::{Bep, Practice};
use crate::case::{Case, Finding, count, failed, skipped};
use crate::peer::random_hash;

/// An address that nobody uses: its network is for documentation (RFC 5737).
const VICTIM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

#[rustfmt::skip]
pub(super) const CASES: &[Case<Session>] = &[
    Case { id: "udp-forged-id", effort: Hostile, source: Bep(15), check: forged_id,
        title: "a connection ID that the tracker did not issue is not accepted" },
    Case { id: "udp-others-id", effort: Hostile, source: Bep(15), check: others_id,
        title: "a connection ID is not accepted from another address" },
    Case { id: "udp-amplification", effort: Hostile, source: Practice, check: amplification,
        title: "a sender whose address is not verified gets no more bytes than it sends" },
    Case { id: "udp-forged-address", effort: Hostile, source: Practice, check: forged_address,
        title: "a forged client address in the packet is ignored" },
    Case { id: "udp-garbage", effort: Hostile, source: Practice, check: garbage,
        title: "garbage of any length, up to 64 KiB, gets no response" },
];

/// Returns an announce and a scrape with this connection ID.
fn requests(session: &mut Session, id: u64) -> Result<Vec<Vec<u8>>, NotOk> {
    let peer = session.peer()?;
    let announce = session.started(&peer, 1);
    let mut scrape = header(SCRAPE, id, session.transaction());
    scrape.extend_from_slice(&session.torrent);
    Ok(vec![announce.packet(id, session.transaction()), scrape])
}

/// Returns whether a response is to an announce or a scrape.
fn is_accepted(responses: &[Vec<u8>]) -> bool {
    responses
        .iter()
        .any(|response| matches!(u32_at(response, 0), Some(ANNOUNCE | SCRAPE)))
}

fn forged_id(session: &mut Session) -> Finding {
    session.require_connected()?;
    let id = session.id();
    let mut packets = Vec::new();
    for forged in [0, 1, u64::MAX, MAGIC, id ^ 1, id ^ 1 << 63, id.swap_bytes()] {
        if forged != id {
            packets.extend(requests(session, forged)?);
        }
    }
    let socket = session.other_socket(None)?;
    let responses = session.responses_to(&socket, &packets)?;
    match (is_accepted(&responses), responses.len()) {
        (true, _) => failed("a forged ID was accepted"),
        (false, 0) => Ok("no response".to_owned()),
        (false, _) => Ok("errors".to_owned()),
    }
}

fn others_id(session: &mut Session) -> Finding {
    session.require_connected()?;
    if !session.to.ip().is_loopback() || session.to.is_ipv6() {
        return skipped("another address can be used only with a tracker on 127.0.0.1");
    }
    let id = session.id();
    let packets = requests(session, id)?;
    let socket = session.other_socket(Some(IpAddr::from([127, 0, 0, 2])))?;
    match is_accepted(&session.responses_to(&socket, &packets)?) {
        true => failed("accepted from 127.0.0.2"),
        false => Ok("not accepted from 127.0.0.2".to_owned()),
    }
}

fn amplification(session: &mut Session) -> Finding {
    let mut packets = vec![
        header(CONNECT, MAGIC, 1),
        header(CONNECT, 0, 2),
        header(ANNOUNCE, 3, 3),
        header(SCRAPE, 4, 4),
        header(ERROR, 5, 5),
        header(4, 6, 6),
    ];
    packets.extend(requests(session, 7)?);
    let socket = session.other_socket(None)?;
    let mut max = (0, 0);
    for packet in packets {
        let responses = session.responses_to(&socket, std::slice::from_ref(&packet))?;
        let (sent, got) = (packet.len(), responses.iter().map(Vec::len).sum::<usize>());
        if got * max.1.max(1) >= max.0 * sent {
            max = (got, sent);
        }
    }
    let (got, sent) = max;
    let factor = got as f64 / sent as f64;
    match got > sent {
        true => failed(format!(
            "{got} bytes for {sent} sent, {factor:.1} times as many"
        )),
        false => Ok(format!("at most {got} bytes for {sent} sent")),
    }
}

fn forged_address(session: &mut Session) -> Finding {
    session.require_tracked()?;
    if session.is_v6() {
        return skipped("over IPv6, the packet has no field for an address");
    }
    let peer = session.peer()?;
    let mut announce = session.started(&peer, 1);
    announce.address = VICTIM.octets();
    let reply = session.announce(&announce);
    let seeder = session.started(&session.seeder, 0);
    let seeder_reply = session.announce(&seeder);
    let response = session.parse_announce(&seeder_reply);
    session.withdraw(&announce);
    not_error(&reply)?;
    match response?.peers.iter().any(|peer| peer.ip() == VICTIM) {
        false => Ok("the forged address is not listed".to_owned()),
        true if session.to.ip().is_loopback() => skipped(
            "the forged address is listed; the tracker may be configured to trust this host",
        ),
        true => failed("the forged address is listed"),
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
    let responses = session.responses_to(&socket, &packets)?;
    let unexpected: Vec<_> = responses
        .iter()
        .filter(|response| u32_at(response, 0) != Some(ERROR))
        .map(|response| count(response.len(), "byte"))
        .collect();
    match unexpected.is_empty() {
        true => Ok(format!(
            "the tracker responds to a connect after {} such packets",
            packets.len()
        )),
        false => failed(format!("responses of {}", unexpected.join(", "))),
    }
}
