//! The URLs of trackers and web seeds: what is right, and how names go into them.

use crate::{Exit, Failed, fail};

/// Tiers as they are written: each a list with commas (BEP 12).
pub(crate) fn tiers(given: &[String]) -> Result<Vec<Vec<String>>, Failed> {
    let tier = |list: &String| -> Result<Vec<String>, Failed> {
        let urls: Vec<String> = list.split(',').map(str::to_owned).collect();
        match urls.iter().find_map(|url| check_tracker(url).err()) {
            Some(fault) => Err(fail(Exit::Usage, fault)),
            None => Ok(urls),
        }
    };
    given.iter().map(tier).collect()
}

/// What is wrong with a tracker's URL, if anything is.
pub(crate) fn check_tracker(url: &str) -> Result<(), String> {
    check(url, &["http", "https", "udp", "ws", "wss"])?;
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    if scheme == "udp" && !host.rsplit_once(':').is_some_and(|(_, port)| is_port(port)) {
        return Err(format!(
            "`{url}` lacks a port, which UDP has no default for"
        ));
    }
    Ok(())
}

fn check(url: &str, schemes: &[&str]) -> Result<(), String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("`{url}` is no URL"));
    };
    if !schemes.contains(&scheme) {
        let known = schemes.join(", ");
        return Err(format!("`{url}` should begin with one of: {known}"));
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') {
        return Err(format!("`{url}` names no host"));
    }
    match url.chars().find(|char| *char <= ' ' || *char > '~') {
        Some(char) => Err(format!(
            "`{url}` has {char:?} in it, which should be encoded"
        )),
        None => Ok(()),
    }
}

/// A web seed as it goes into the torrent: of one file the URL of that, of a directory the URL above it, as clients append
/// the names (BEP 19). `given` is the URL of the directory on the mirror, or of what is published itself.
pub(crate) fn web_seed(given: &str, name: &str, is_single: bool) -> Result<String, String> {
    check(given, &["http", "https", "ftp"])?;
    let encoded = encode(name.as_bytes());
    let (above, last) = given.rsplit_once('/').unwrap_or_default();
    if last.is_empty() {
        Ok(if is_single {
            format!("{given}{encoded}")
        } else {
            given.to_owned()
        })
    } else if decode(last) != name.as_bytes() {
        Err(format!("`{given}` ends neither in / nor in /{encoded}"))
    } else if is_single {
        Ok(given.to_owned())
    } else {
        Ok(format!("{above}/"))
    }
}

/// What is wrong with a web seed that stands in a torrent.
pub(crate) fn check_web_seed(url: &str, name: &[u8], is_single: bool) -> Result<(), String> {
    check(url, &["http", "https", "ftp"])?;
    match (url.rsplit_once('/').unwrap_or_default().1, is_single) {
        ("", _) => Ok(()),
        (_, false) => Err(format!(
            "`{url}` does not end in /, so clients will not find the files below it"
        )),
        (last, true) if decode(last) == name => Ok(()),
        (_, true) => Err(format!(
            "`{url}` ends neither in / nor in /{}",
            encode(name)
        )),
    }
}

/// What is wrong with a seed of BEP 17, which is a program on a server.
pub(crate) fn check_http_seed(url: &str) -> Result<(), String> {
    check(url, &["http", "https"])
}

/// Where a web seed has a file of the torrent.
#[cfg(feature = "online")]
pub(crate) fn of_file<'p>(
    seed: &str,
    name: &[u8],
    below: impl IntoIterator<Item = &'p [u8]>,
) -> String {
    let mut url = seed.to_owned();
    if url.ends_with('/') {
        url.push_str(&encode(name));
    }
    for part in below {
        url.push('/');
        url.push_str(&encode(part));
    }
    url
}

/// A node of the DHT as HOST:PORT.
pub(crate) fn node(given: &str) -> Result<(String, u16), Failed> {
    let node = given.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then(|| (host.to_owned(), port))
    });
    node.ok_or_else(|| fail(Exit::Usage, format!("`{given}` is no HOST:PORT")))
}

/// Percent-encoded, but for what needs it nowhere in a URL (RFC 3986, unreserved).
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(*byte as char)
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let pair = after
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trackers_are_urls() {
        for good in [
            "http://a/announce",
            "udp://[2001:db8::1]:6969",
            "https://a",
            "udp://a:80/announce",
        ] {
            assert_eq!(check_tracker(good), Ok(()));
        }
        for bad in [
            "a:80",
            "ftp://a/",
            "http://",
            "http:///a",
            "udp://a",
            "udp://a:0",
            "http://a b/",
            "http://ü/",
        ] {
            assert!(check_tracker(bad).is_err(), "{bad}");
        }
        assert_eq!(
            tiers(&["http://a,udp://b:1".into(), "http://c".into()]).unwrap(),
            [vec!["http://a", "udp://b:1"], vec!["http://c"]]
        );
        assert!(tiers(&["http://a,".into()]).is_err());
    }

    #[test]
    fn web_seeds_are_what_clients_ask_for() {
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
    fn nodes_have_ports() {
        assert_eq!(node("[::1]:6881").unwrap(), ("::1".to_owned(), 6881));
        assert_eq!(node("a.example:1").unwrap(), ("a.example".to_owned(), 1));
        assert!(node("a").is_err() && node("a:0").is_err() && node(":1").is_err());
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), all);
        assert_eq!(decode("%zz%4"), b"%zz%4");
    }
}
