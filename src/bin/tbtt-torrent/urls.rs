//! The URLs of trackers and web seeds: which are valid, and how a file name becomes part of a URL.
//!
//! A URL is written into a torrent exactly as it was given. The `url` crate only checks it.

use percent_encoding::{
    AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_decode_str, percent_encode,
};
use url::Url;

use crate::{Exit, Failed, fail};

/// The bytes that are encoded: all that are not unreserved in RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Parses the values of `--announce`: each is a tier of URLs separated by commas (BEP 12).
pub(crate) fn tiers(values: &[String]) -> Result<Vec<Vec<String>>, Failed> {
    let tier = |list: &String| -> Result<Vec<String>, Failed> {
        let urls: Vec<String> = list.split(',').map(str::to_owned).collect();
        match urls.iter().find_map(|url| check_tracker(url).err()) {
            Some(reason) => Err(fail(Exit::Usage, reason)),
            None => Ok(urls),
        }
    };
    values.iter().map(tier).collect()
}

/// Checks the URL of a tracker.
///
/// # Errors
/// The reason why clients cannot use the URL.
pub(crate) fn check_tracker(text: &str) -> Result<(), String> {
    let url = parse(text, &["http", "https", "udp", "ws", "wss"])?;
    if url.scheme() == "udp" && url.port().is_none_or(|port| port == 0) {
        return Err(format!("`{text}` has no port; UDP has no default port"));
    }
    Ok(())
}

/// Parses a URL that has one of these schemes and a host.
///
/// Refuses some URLs that the crate corrects but a client might not: with characters that must be encoded, or with a
/// number of slashes other than two before the host.
fn parse(text: &str, schemes: &[&str]) -> Result<Url, String> {
    let Some((_, rest)) = text.split_once("://") else {
        return Err(format!("`{text}` is not a URL"));
    };
    if let Some(char) = text.chars().find(|char| !char.is_ascii_graphic()) {
        return Err(format!(
            "`{text}` contains {char:?}, which must be percent-encoded"
        ));
    }
    let url = Url::parse(text).map_err(|error| format!("`{text}` is not a valid URL: {error}"))?;
    if !schemes.contains(&url.scheme()) {
        let schemes = schemes.join(", ");
        return Err(format!("`{text}` must have one of the schemes: {schemes}"));
    }
    if !url.has_host() || rest.starts_with(['/', '\\']) {
        return Err(format!("`{text}` has no host"));
    }
    Ok(url)
}

/// Returns a web seed as it is written into a torrent: for one file the URL of the file, for a directory the URL of the
/// directory above it, because clients append the names (BEP 19). `given` is the URL of the directory on the mirror, or
/// of the published file or directory itself.
///
/// # Errors
/// The reason why clients would not find the files.
pub(crate) fn web_seed(given: &str, name: &str, is_single: bool) -> Result<String, String> {
    parse(given, &["http", "https", "ftp"])?;
    let encoded = encode(name.as_bytes());
    let (above, last) = given.rsplit_once('/').unwrap_or_default();
    if last.is_empty() {
        Ok(if is_single {
            format!("{given}{encoded}")
        } else {
            given.to_owned()
        })
    } else if !decodes_to(last, name.as_bytes()) {
        Err(format!("`{given}` must end in / or in /{encoded}"))
    } else if is_single {
        Ok(given.to_owned())
    } else {
        Ok(format!("{above}/"))
    }
}

/// Checks a web seed that is in a torrent already.
///
/// # Errors
/// The reason why clients do not find the files.
pub(crate) fn check_web_seed(text: &str, name: &[u8], is_single: bool) -> Result<(), String> {
    parse(text, &["http", "https", "ftp"])?;
    match (text.rsplit_once('/').unwrap_or_default().1, is_single) {
        ("", _) => Ok(()),
        (_, false) => Err(format!(
            "`{text}` does not end in /; clients do not find the files below it"
        )),
        (last, true) if decodes_to(last, name) => Ok(()),
        (_, true) => Err(format!("`{text}` must end in / or in /{}", encode(name))),
    }
}

/// Checks a seed of BEP 17, which is the URL of a program on a web server.
pub(crate) fn check_http_seed(text: &str) -> Result<(), String> {
    parse(text, &["http", "https"]).map(drop)
}

/// Returns the URL at which a web seed has a file of the torrent. `below` is the path of the file in the torrent's
/// directory, and empty for a torrent of one file.
#[cfg(feature = "online")]
pub(crate) fn of_file<'p>(
    seed: &str,
    name: &[u8],
    below: impl IntoIterator<Item = &'p [u8]>,
) -> String {
    let mut url = seed.to_owned();
    if url.ends_with('/') {
        url.extend(encode(name));
    }
    for part in below {
        url.push('/');
        url.extend(encode(part));
    }
    url
}

/// Parses a DHT node: HOST:PORT, with or without brackets around an IPv6 address.
pub(crate) fn node(given: &str) -> Result<(String, u16), Failed> {
    let node = given.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then(|| (host.to_owned(), port))
    });
    node.ok_or_else(|| fail(Exit::Usage, format!("`{given}` is not HOST:PORT")))
}

/// Percent-encodes all bytes except those that never need it.
pub(crate) fn encode(bytes: &[u8]) -> PercentEncode<'_> {
    percent_encode(bytes, RESERVED)
}

fn decodes_to(encoded: &str, bytes: &[u8]) -> bool {
    percent_decode_str(encoded).eq(bytes.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_tracker_urls() {
        for valid in [
            "http://a/announce",
            "HTTP://a/announce",
            "udp://[2001:db8::1]:6969",
            "https://a",
            "https://user:password@a/announce",
            "udp://a:80/announce",
            "wss://a:443",
        ] {
            assert_eq!(check_tracker(valid), Ok(()));
        }
        assert_eq!(
            tiers(&["http://a,udp://b:1".into(), "http://c".into()]).unwrap(),
            [vec!["http://a", "udp://b:1"], vec!["http://c"]]
        );
    }

    #[test]
    fn rejects_tracker_urls_with_reason() {
        for (invalid, reason) in [
            ("a:80", "is not a URL"),
            ("ftp://a/", "must have one of the schemes: http, https"),
            ("http://", "empty host"),
            ("http:///a", "has no host"),
            ("udp:///a", "has no host"),
            ("http://:80/", "empty host"),
            ("udp://a", "has no port"),
            ("udp://a:0", "has no port"),
            ("udp://2001:db8::1", "invalid port number"),
            ("http://a:99999/", "invalid port number"),
            ("http://[::1/", "invalid IPv6 address"),
            ("http://a b/", "contains ' ', which must be percent-encoded"),
            ("http://ü/", "contains 'ü'"),
        ] {
            let error = check_tracker(invalid).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(tiers(&["http://a,".into()]).is_err());
    }

    #[test]
    fn web_seeds_are_the_urls_that_clients_request() {
        let single = |url| web_seed(url, "a b.iso", true).ok();
        assert_eq!(
            single("http://m/x/").as_deref(),
            Some("http://m/x/a%20b.iso")
        );
        assert_eq!(
            single("http://m/x/a%20b.iso").as_deref(),
            Some("http://m/x/a%20b.iso")
        );
        assert_eq!(single("http://m/x"), None);
        assert_eq!(single("//srv/x/"), None);
        let tree = |url| web_seed(url, "r", false).ok();
        assert_eq!(tree("http://m/x/").as_deref(), Some("http://m/x/"));
        assert_eq!(tree("http://m/x/r").as_deref(), Some("http://m/x/"));
        assert_eq!(tree("http://m/x"), None);
        assert!(check_web_seed("http://m/a%20b.iso", b"a b.iso", true).is_ok());
        assert!(check_web_seed("http://m/", b"a b.iso", true).is_ok());
        assert!(check_web_seed("http://m/r", b"r", false).is_err());
        assert!(check_web_seed("//srv/r/", b"r", false).is_err());
    }

    #[test]
    fn nodes_need_a_host_and_a_port() {
        assert_eq!(node("[::1]:6881").unwrap(), ("::1".to_owned(), 6881));
        assert_eq!(node("a.example:1").unwrap(), ("a.example".to_owned(), 1));
        assert!(node("a").is_err() && node("a:0").is_err() && node(":1").is_err());
    }

    #[test]
    fn encoded_names_decode_to_themselves() {
        let all: Vec<u8> = (0..=255).collect();
        let encoded = encode(&all).to_string();
        assert!(decodes_to(&encoded, &all));
        assert!(encoded.starts_with("%00%01") && encoded.contains("%2F0123456789%3A"));
        assert!(decodes_to("%zz%4", b"%zz%4"));
    }
}
