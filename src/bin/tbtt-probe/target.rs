//! Announce URLs, the addresses of their hosts, and the TXT records for them.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use tbtt::os::addresses::reachable;
use url::{Host, Url};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    Http,
    Udp,
}

/// An announce URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TrackerUrl {
    pub(crate) text: String,
    pub(crate) protocol: Protocol,
    /// A host name or an address; IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Starts with a slash; may be empty for UDP.
    pub(crate) path: String,
    /// Without the question mark; may be empty.
    pub(crate) query: String,
}

impl FromStr for TrackerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((_, rest)) = text.split_once("://") else {
            return Err("an announce URL starts with http:// or udp://".to_owned());
        };
        // The crate encodes these characters, and separates a fragment.
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        {
            return Err("spaces, # and non-ASCII characters must be percent-encoded".to_owned());
        }
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        let protocol = match url.scheme() {
            "http" => Protocol::Http,
            "udp" => Protocol::Udp,
            "https" => {
                return Err(
                    "HTTPS is not supported; test the tracker behind the proxy that provides it"
                        .to_owned(),
                );
            }
            _ => return Err("an announce URL starts with http:// or udp://".to_owned()),
        };
        let host = match url.host() {
            // The crate skips any number of slashes before an HTTP host.
            Some(_) if rest.starts_with(['/', '\\']) => None,
            Some(Host::Ipv6(address)) => Some(address.to_string()),
            host => host.map(|host| host.to_string()),
        };
        let host = host.ok_or("the URL has no host")?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("user names are not supported".to_owned());
        }
        let port = url.port_or_known_default().filter(|&port| port != 0);
        Ok(Self {
            text: text.to_owned(),
            protocol,
            host,
            port: port.ok_or("the URL needs a port from 1 to 65535")?,
            path: url.path().to_owned(),
            query: url.query().unwrap_or_default().to_owned(),
        })
    }
}

impl TrackerUrl {
    /// Resolves the host, and returns the first address of each wanted family.
    pub(crate) fn addresses(&self, v4: bool, v6: bool) -> io::Result<Vec<SocketAddr>> {
        let all: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        let first = |wanted: bool, is: fn(&SocketAddr) -> bool| {
            all.iter().copied().find(is).filter(|_| wanted)
        };
        let found = [
            first(v4, SocketAddr::is_ipv4),
            first(v6, SocketAddr::is_ipv6),
        ];
        Ok(found.into_iter().flatten().collect())
    }

    /// Returns host and port for the `Host` header.
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        }
    }

    /// Returns the path for scrapes (BEP 48). Returns `None` if the last component of the path does not start with
    /// `announce`.
    pub(crate) fn scrape_path(&self) -> Option<String> {
        let (folder, name) = self.path.rsplit_once('/')?;
        let suffix = name.strip_prefix("announce")?;
        Some(format!("{folder}/scrape{suffix}"))
    }
}

/// Returns whether this machine has the address.
pub(crate) fn is_local(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let wildcard = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    address.is_loopback()
        || address.is_unspecified()
        || reachable(wildcard).iter().any(|own| own.ip() == address)
}

/// Returns for each host name the record that announces its trackers, in the order of the URLs, which is the order of
/// preference (BEP 34).
pub(crate) fn txt_records<'a>(urls: impl IntoIterator<Item = &'a TrackerUrl>) -> Vec<String> {
    let mut hosts: Vec<(&str, Vec<String>)> = Vec::new();
    for url in urls {
        // An address has no TXT records.
        if url.host.parse::<IpAddr>().is_ok() {
            continue;
        }
        let word = match url.protocol {
            Protocol::Http => format!("TCP:{}", url.port),
            Protocol::Udp => format!("UDP:{}", url.port),
        };
        let host = url.host.trim_end_matches('.');
        match hosts.iter_mut().find(|(name, _)| *name == host) {
            Some((_, words)) if words.contains(&word) => {}
            Some((_, words)) => words.push(word),
            None => hosts.push((host, vec![word])),
        }
    }
    let record = |(host, words): (&str, Vec<String>)| {
        format!("{host}. IN TXT \"BITTORRENT {}\"", words.join(" "))
    };
    hosts.into_iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, u16, String, String) {
        let url: TrackerUrl = text.parse().unwrap();
        (url.host, url.port, url.path, url.query)
    }

    #[test]
    fn parses_announce_urls() {
        let owned = |host: &str, port, path: &str, query: &str| {
            (host.to_owned(), port, path.to_owned(), query.to_owned())
        };
        assert_eq!(
            parts("http://t.example/a/announce?key=1"),
            owned("t.example", 80, "/a/announce", "key=1")
        );
        assert_eq!(
            parts("http://t.example?x"),
            owned("t.example", 80, "/", "x")
        );
        assert_eq!(parts("udp://[::1]:6969"), owned("::1", 6969, "", ""));
        assert_eq!(
            parts("UDP://192.0.2.1:6969/announce?a=b"),
            owned("192.0.2.1", 6969, "/announce", "a=b")
        );
        assert_eq!(
            parts("HTTP://t.example:/announce"),
            owned("t.example", 80, "/announce", "")
        );
        for invalid in [
            "t.example",
            "ftp://t.example/",
            "https://t.example/announce",
            "udp://t.example",
            "udp://t.example/announce",
            "http://:80/",
            "http://t.example:0/",
            "http://t.example:65536/",
            "http://t.example:x/",
            "http://me@t.example/",
            "http://[::1/",
            "http://[t.example]/",
            "http://[::1]80/",
            "http:///announce",
            "http:t.example/announce",
            "udp:///announce",
            "udp://t.example:/announce",
            "udp://2001:db8::1:6969",
            "http://t.example/a b",
            "http://t.example/#a",
        ] {
            assert!(invalid.parse::<TrackerUrl>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn derives_scrape_path_from_announce_path() {
        let scrape = |text: &str| text.parse::<TrackerUrl>().unwrap().scrape_path();
        assert_eq!(scrape("http://t/announce").unwrap(), "/scrape");
        assert_eq!(scrape("http://t/x/announce.php").unwrap(), "/x/scrape.php");
        assert_eq!(scrape("http://t/a"), None);
        assert_eq!(scrape("http://t/announce/x"), None);
    }

    #[test]
    fn txt_records_keep_the_order_and_omit_addresses() {
        let urls = [
            "udp://t.example:6969",
            "http://t.example:6969/announce",
            "udp://t.example:6969/announce",
            "http://other.example/announce",
            "udp://192.0.2.1:6969",
        ]
        .map(|url| url.parse::<TrackerUrl>().unwrap());
        assert_eq!(
            txt_records(&urls),
            [
                "t.example. IN TXT \"BITTORRENT UDP:6969 TCP:6969\"",
                "other.example. IN TXT \"BITTORRENT TCP:80\"",
            ]
        );
    }

    #[test]
    fn loopback_is_local_and_documentation_is_not() {
        for local in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["203.0.113.7", "2001:db8::1"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
    }
}
