//! HTTP responses: writes each as a bencoded dictionary.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::tracker::types::{AnnounceResponse, InfoHash, Refusal, Retry, ScrapeEntry};

/// Writes the response to an announce. The keys are sorted, as bencode requires. `peers` is always present, because some
/// clients fail without it.
pub(super) fn write_announce_response(
    out: &mut Vec<u8>,
    from: IpAddr,
    response: &AnnounceResponse,
    peers: &[u8],
    compact: bool,
) {
    out.extend_from_slice(b"d8:completei");
    write_decimal(out, response.counts.complete);
    out.extend_from_slice(b"e10:downloadedi");
    write_decimal(out, response.counts.downloaded);
    out.extend_from_slice(b"e11:external ip");
    match from {
        IpAddr::V4(address) => write_bytes(out, &address.octets()),
        IpAddr::V6(address) => write_bytes(out, &address.octets()),
    }
    out.extend_from_slice(b"10:incompletei");
    write_decimal(out, response.counts.incomplete);
    out.extend_from_slice(b"e8:intervali");
    write_decimal(out, response.interval);
    out.extend_from_slice(b"e12:min intervali");
    write_decimal(out, response.min_interval);
    out.extend_from_slice(b"e5:peers");
    match (compact, from) {
        (true, IpAddr::V4(_)) => write_bytes(out, peers),
        (true, IpAddr::V6(_)) => {
            out.extend_from_slice(b"0:6:peers6");
            write_bytes(out, peers);
        }
        (false, _) => write_dictionaries(out, from, peers),
    }
    if let Some(warning) = &response.warning {
        out.extend_from_slice(b"15:warning message");
        write_bytes(out, warning.as_bytes());
    }
    out.push(b'e');
}

/// Writes the peers as a list of dictionaries (BEP 3). The dictionaries have no peer ids, because the tracker stores none.
fn write_dictionaries(out: &mut Vec<u8>, from: IpAddr, peers: &[u8]) {
    out.push(b'l');
    let address_len = if from.is_ipv4() { 4 } else { 16 };
    for (address, port) in peers
        .chunks_exact(address_len + 2)
        .map(|peer| peer.split_at(address_len))
    {
        let address = match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
            (Ok(v4), _) => Ipv4Addr::from(v4).to_string(),
            (_, Ok(v6)) => Ipv6Addr::from(v6).to_string(),
            _ => continue,
        };
        out.extend_from_slice(b"d2:ip");
        write_bytes(out, address.as_bytes());
        out.extend_from_slice(b"4:porti");
        write_decimal(out, u32::from(port[0]) << 8 | u32::from(port[1]));
        out.extend_from_slice(b"ee");
    }
    out.push(b'e');
}

/// Writes the info-hash and the counts of a torrent in a scrape.
pub(super) fn write_scrape_entry(out: &mut Vec<u8>, info_hash: &InfoHash, entry: &ScrapeEntry) {
    write_bytes(out, &info_hash.0);
    out.extend_from_slice(b"d8:completei");
    write_decimal(out, entry.complete);
    out.extend_from_slice(b"e10:downloadedi");
    write_decimal(out, entry.downloaded);
    out.extend_from_slice(b"e11:downloadersi");
    write_decimal(out, entry.incomplete - entry.partial);
    out.extend_from_slice(b"e10:incompletei");
    write_decimal(out, entry.incomplete);
    out.extend_from_slice(b"ee");
}

/// Writes a failure. A refusal has the time until the next attempt twice: few clients know `retry in` (BEP 31), more of
/// them honor `interval`.
pub(super) fn write_failure(out: &mut Vec<u8>, reason: &str, refusal: Option<&Refusal>) {
    out.extend_from_slice(b"d14:failure reason");
    write_bytes(out, reason.as_bytes());
    if let Some(refusal) = refusal {
        out.extend_from_slice(b"8:intervali");
        write_decimal(out, refusal.interval());
        out.extend_from_slice(b"e12:min intervali");
        write_decimal(out, refusal.interval());
        out.extend_from_slice(b"e8:retry in");
        match refusal.retry() {
            Retry::Never => write_bytes(out, b"never"),
            Retry::Minutes(minutes) => {
                write_bytes(out, itoa::Buffer::new().format(minutes).as_bytes())
            }
        }
    }
    out.push(b'e');
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_decimal(out, bytes.len() as u32);
    out.push(b':');
    out.extend_from_slice(bytes);
}

fn write_decimal(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
