//! Checks whether a response is a success, from which a client could take peers or counts.

/// Number of peers in an announce response or of torrents in a scrape response, or the fault of the response.
pub type Checked = Result<u32, &'static str>;

/// Returns the body of a complete HTTP response, or `None` while the response is incomplete.
pub fn http_body(bytes: &[u8]) -> Option<Result<&[u8], &'static str>> {
    let head_end = find(bytes, b"\r\n\r\n")?;
    let (head, body) = (&bytes[..head_end], &bytes[head_end + 4..]);
    if !head.starts_with(b"HTTP/1.1 200") && !head.starts_with(b"HTTP/1.0 200") {
        return Some(Err("status is not 200"));
    }
    let Some(length) = content_length(head) else {
        return Some(Err("no content-length"));
    };
    if body.len() < length {
        return None;
    }
    Some(if body.len() == length {
        Ok(body)
    } else {
        Err("bytes after the body")
    })
}

/// Checks an announce response (BEP 3 and 23): a dictionary with `interval` and compact `peers`.
pub fn http_announce(body: &[u8]) -> Checked {
    let (mut interval, mut peers) = (false, None);
    let length = dictionary(body, |key, value| match key {
        b"interval" => interval = value.first() == Some(&b'i'),
        b"peers" => peers = string(value).map(|(text, _)| text.len()),
        _ => {}
    });
    if length != Some(body.len()) {
        return Err("not bencode");
    }
    match peers {
        Some(length) if interval && length % 6 == 0 => Ok((length / 6) as u32),
        _ => Err("refused"),
    }
}

/// Checks a scrape response (BEP 48): `files` contains a dictionary for each info-hash.
pub fn http_scrape(body: &[u8]) -> Checked {
    let mut files = None;
    let length = dictionary(body, |key, value| {
        if key == b"files" {
            let mut count = 0;
            files =
                dictionary(value, |hash, _| count += u32::from(hash.len() == 20)).map(|_| count);
        }
    });
    if length != Some(body.len()) {
        return Err("not bencode");
    }
    files.ok_or("refused")
}

/// Returns the connection id of a connect response (BEP 15).
pub fn udp_connection_id(packet: &[u8]) -> Result<u64, &'static str> {
    match (action(packet), packet.get(8..)) {
        (Some(0), Some(id)) => Ok(u64::from_be_bytes(id.try_into().map_err(|_| "malformed")?)),
        (Some(3), _) => Err("refused"),
        _ => Err("wrong action"),
    }
}

/// Checks an announce response over IPv4 (BEP 15).
pub fn udp_announce(packet: &[u8]) -> Checked {
    match action(packet) {
        Some(1) if packet.len() >= 20 && (packet.len() - 20) % 6 == 0 => {
            Ok(((packet.len() - 20) / 6) as u32)
        }
        Some(1) => Err("malformed"),
        Some(3) => Err("refused"),
        _ => Err("wrong action"),
    }
}

/// Checks a scrape response (BEP 15).
pub fn udp_scrape(packet: &[u8]) -> Checked {
    match action(packet) {
        Some(2) if packet.len() >= 8 && (packet.len() - 8) % 12 == 0 => {
            Ok(((packet.len() - 8) / 12) as u32)
        }
        Some(2) => Err("malformed"),
        Some(3) => Err("refused"),
        _ => Err("wrong action"),
    }
}

/// Returns the transaction id of any response of BEP 15.
pub fn udp_transaction(packet: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(packet.get(4..8)?.try_into().ok()?))
}

fn action(packet: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(packet.get(..4)?.try_into().ok()?))
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes
        .windows(pattern.len())
        .position(|part| part == pattern)
}

fn content_length(head: &[u8]) -> Option<usize> {
    let line = head
        .split(|&byte| byte == b'\n')
        .find(|line| line.len() > 15 && line[..15].eq_ignore_ascii_case(b"content-length:"))?;
    std::str::from_utf8(&line[15..]).ok()?.trim().parse().ok()
}

/// Calls `entry` with each key and value of the dictionary at the start of `bytes`, and returns its encoded length.
fn dictionary<'a>(bytes: &'a [u8], mut entry: impl FnMut(&'a [u8], &'a [u8])) -> Option<usize> {
    let mut at = 1;
    if bytes.first() != Some(&b'd') {
        return None;
    }
    while *bytes.get(at)? != b'e' {
        let (key, length) = string(&bytes[at..])?;
        at += length;
        let length = value_length(&bytes[at..], 0)?;
        entry(key, &bytes[at..at + length]);
        at += length;
    }
    Some(at + 1)
}

/// Returns the string at the start of `bytes`, and its encoded length.
fn string(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let colon = bytes.iter().take(8).position(|&byte| byte == b':')?;
    let length: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    Some((
        bytes.get(colon + 1..colon + 1 + length)?,
        colon + 1 + length,
    ))
}

/// Returns the length of the value at the start of `bytes`.
fn value_length(bytes: &[u8], depth: u32) -> Option<usize> {
    match bytes.first()? {
        b'i' => Some(bytes.iter().take(22).position(|&byte| byte == b'e')? + 1),
        b'l' | b'd' if depth < 8 => {
            let mut at = 1;
            while *bytes.get(at)? != b'e' {
                at += value_length(&bytes[at..], depth + 1)?;
            }
            Some(at + 1)
        }
        b'0'..=b'9' => string(bytes).map(|(_, length)| length),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_peers_of_announce_response() {
        let body = b"d8:completei3e10:incompletei1e8:intervali1800e5:peers12:abcdefghijkle";
        assert_eq!(http_announce(body), Ok(2));
        assert_eq!(http_announce(b"d8:intervali1800e5:peers0:e"), Ok(0));
    }

    #[test]
    fn rejects_failures_and_malformed_announce_responses() {
        assert_eq!(
            http_announce(b"d14:failure reason2:no8:intervali9ee"),
            Err("refused")
        );
        assert_eq!(
            http_announce(b"d8:intervali1800e5:peers5:abcdee"),
            Err("refused")
        );
        assert_eq!(
            http_announce(b"d8:intervali1800e5:peers6:abcde"),
            Err("not bencode")
        );
        assert_eq!(
            http_announce(b"d8:intervali1800e5:peers0:e\r\n"),
            Err("not bencode")
        );
        assert_eq!(http_announce(b"<html>"), Err("not bencode"));
        assert_eq!(http_announce(b""), Err("not bencode"));
    }

    #[test]
    fn counts_torrents_of_scrape_response() {
        let file = "d8:completei1e10:downloadedi0e10:incompletei2ee";
        let body = format!("d5:filesd20:aaaaaaaaaaaaaaaaaaaa{file}20:baaaaaaaaaaaaaaaaaaa{file}ee");
        assert_eq!(http_scrape(body.as_bytes()), Ok(2));
        assert_eq!(http_scrape(b"d14:failure reason2:noe"), Err("refused"));
        assert_eq!(http_scrape(b"d5:filesd"), Err("not bencode"));
    }

    #[test]
    fn separates_http_body_once_it_is_complete() {
        let response = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\n\r\nde";
        assert_eq!(http_body(response), Some(Ok(&b"de"[..])));
        assert_eq!(http_body(&response[..response.len() - 1]), None);
        assert_eq!(http_body(b"HTTP/1.1 200 OK\r\n"), None);
        assert_eq!(
            http_body(b"HTTP/1.1 404 Not Found\r\n\r\n"),
            Some(Err("status is not 200"))
        );
        assert_eq!(
            http_body(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nde"),
            Some(Err("bytes after the body"))
        );
        assert_eq!(
            http_body(b"HTTP/1.1 200 OK\r\n\r\nde"),
            Some(Err("no content-length"))
        );
    }

    #[test]
    fn checks_action_and_length_of_udp_responses() {
        let mut packet = vec![0; 20 + 12];
        packet[3] = 1;
        assert_eq!(udp_announce(&packet), Ok(2));
        assert_eq!(udp_announce(&packet[..31]), Err("malformed"));
        assert_eq!(udp_announce(&packet[..8]), Err("malformed"));
        packet[3] = 3;
        assert_eq!(udp_announce(&packet), Err("refused"));
        packet[3] = 2;
        assert_eq!(udp_scrape(&packet), Ok(2));
        assert_eq!(udp_scrape(&packet[..31]), Err("malformed"));
        packet[3] = 0;
        assert_eq!(udp_connection_id(&packet[..16]), Ok(0));
        assert_eq!(udp_connection_id(&packet[..15]), Err("malformed"));
    }
}
