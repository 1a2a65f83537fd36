//! The syntax of list files: an entry per line, `#` starts a comment, empty lines are ignored.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::tracker::types::{InfoHash, parse_hash};

/// An invalid entry and its line. The first line of a file is 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListError {
    pub line: usize,
    pub reason: String,
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for ListError {}

/// Parses each entry with `parse_entry`, whose error is a message for the operator.
///
/// # Errors
/// Returns the first entry that `parse_entry` refuses.
pub(super) fn parse_lines<T>(
    text: &str,
    parse_entry: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ListError> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = line.split_once('#').map_or(line, |(entry, _)| entry).trim();
        if entry.is_empty() {
            continue;
        }
        let line = index + 1;
        entries.push(parse_entry(entry).map_err(|reason| ListError { line, reason })?);
    }
    Ok(entries)
}

/// Parses a list of networks and addresses.
///
/// # Errors
/// Returns the first invalid entry.
pub fn parse_networks(text: &str) -> Result<Vec<IpNet>, ListError> {
    parse_lines(text, parse_network)
}

/// Parses a list of torrent ids: 40 hexadecimal digits, or the 64 of a v2 id, which is truncated as clients announce it.
///
/// # Errors
/// Returns the first invalid entry.
pub(super) fn parse_hashes(text: &str) -> Result<Vec<InfoHash>, ListError> {
    parse_lines(text, parse_hash)
}

/// Parses a network or an address.
///
/// # Errors
/// The error is a message for the operator. Bits set beyond the prefix are an error, because such an entry can mean either
/// the network or the address.
pub fn parse_network(entry: &str) -> Result<IpNet, String> {
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let Ok(network) = entry.parse::<IpNet>() else {
        return Err(format!(
            "`{}` is neither an address nor a network such as 192.0.2.0/24 or 2001:db8::/32",
            entry.escape_debug()
        ));
    };
    if network.addr() != network.network() {
        let (address, whole) = (network.addr(), network.trunc());
        return Err(format!(
            "`{entry}` has bits set beyond its prefix; write {whole} for the network or {address} for the address"
        ));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_comments_and_reports_line_of_error() {
        let parse = |entry: &str| entry.parse::<u8>().map_err(|_| format!("`{entry}`"));
        assert_eq!(
            parse_lines("# one\n1\n\n 2 # two\r\n\t3#\n#", parse),
            Ok(vec![1, 2, 3])
        );
        assert_eq!(parse_lines("", parse), Ok(vec![]));
        let error = parse_lines("1\n#\nx # y\nz", parse).unwrap_err();
        assert_eq!(error.to_string(), "line 3: `x`");
    }

    #[test]
    fn parses_networks_and_addresses() {
        let text = "# our mirrors\n192.0.2.0/24 # rack\n\n  2001:db8::/32\t\n198.51.100.7\r\n::1#me\n0.0.0.0/0\n#";
        let expected = [
            "192.0.2.0/24",
            "2001:db8::/32",
            "198.51.100.7/32",
            "::1/128",
            "0.0.0.0/0",
        ]
        .map(|network| network.parse().unwrap());
        assert_eq!(parse_networks(text).unwrap(), expected);
        assert_eq!(parse_networks("").unwrap(), []);
    }

    #[test]
    fn refuses_invalid_networks() {
        let error = |text: &str| parse_networks(text).unwrap_err().to_string();
        assert_eq!(
            error("::1\n\n10.0.0.1/8"),
            "line 3: `10.0.0.1/8` has bits set beyond its prefix; write 10.0.0.0/8 for the network or 10.0.0.1 for the address"
        );
        for invalid in [
            "10.0.0.0/33",
            "10.0.0",
            "10.0.0.0/",
            "/8",
            "::/129",
            "example.org",
            "10.0.0.0/8 x",
            "10.0.0.0/255.0.0.0",
            "[::1]",
            "1.2.3.4:5",
        ] {
            assert!(
                error(invalid).starts_with(&format!(
                    "line 1: `{invalid}` is neither an address nor a network"
                )),
                "{invalid}"
            );
        }
        assert!(!error("\u{1b}[31m").contains('\u{1b}'));
    }

    #[test]
    fn parses_torrent_ids() {
        let v2 = "AB".repeat(32);
        let text = format!("# ours\n{}  # v1\n\n{v2}\n", "0f".repeat(20));
        assert_eq!(
            parse_hashes(&text).unwrap(),
            [InfoHash([0x0f; 20]), InfoHash([0xab; 20])]
        );
        assert_eq!(parse_hashes("").unwrap(), []);
        let text: String = (0..20).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(parse_hash(&text).unwrap().to_string(), text);
    }

    #[test]
    fn refuses_invalid_torrent_ids() {
        let error = |text: &str| parse_hashes(text).unwrap_err();
        for (line, digits) in [(1, 39), (2, 41), (3, 63), (4, 65), (5, 1)] {
            let text = "\n".repeat(line - 1) + &"a".repeat(digits);
            let ListError {
                line: found,
                reason,
            } = error(&text);
            assert_eq!(found, line, "{reason}");
            assert!(reason.contains(&format!("{digits} digits")), "{reason}");
        }
        let all_g = "g".repeat(40);
        for invalid in [&all_g, "0x0f0f", "\u{1b}[0m"] {
            let reason = error(invalid).reason;
            assert!(reason.contains("hexadecimal"), "{reason}");
            assert!(!reason.contains('\u{1b}'));
        }
    }
}
