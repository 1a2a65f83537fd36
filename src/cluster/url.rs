//! The URL of the store, as the configuration names it.
//!
//! The `url` crate cannot express every URL that is accepted here: it refuses IPv6 addresses with a zone
//! (`redis://[fe80::1%eth0]`), and it changes the path of a Unix socket: it resolves `..`, encodes some characters, and
//! cuts the path off at `#`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The default port of Valkey and Redis.
const DEFAULT_PORT: u16 = 6379;

/// The URL of a store, without secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreUrl {
    pub address: StoreAddress,
    /// The number of the store's database.
    pub database: u32,
}

/// The address of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreAddress {
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        port: u16,
        tls: bool,
    },
    Unix(PathBuf),
}

impl StoreUrl {
    /// Returns the TCP port; `None` for a Unix socket.
    pub fn tcp_port(&self) -> Option<u16> {
        match self.address {
            StoreAddress::Tcp { port, .. } => Some(port),
            StoreAddress::Unix(_) => None,
        }
    }

    /// Returns the host, a name or an address; `None` for a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match &self.address {
            StoreAddress::Tcp { host, .. } => Some(host),
            StoreAddress::Unix(_) => None,
        }
    }

    /// Returns the host if it is a name that must be looked up.
    pub fn name(&self) -> Option<&str> {
        self.host().filter(|host| host.parse::<IpAddr>().is_err())
    }

    pub fn tls(&self) -> bool {
        matches!(self.address, StoreAddress::Tcp { tls: true, .. })
    }
}

/// The reason why a text is not the URL of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidStoreUrl {
    /// The problem, to be appended to the text: "is not the URL of a store".
    pub problem: &'static str,
    /// The remedy.
    pub advice: &'static str,
}

const fn invalid(problem: &'static str, advice: &'static str) -> InvalidStoreUrl {
    InvalidStoreUrl { problem, advice }
}

const EXAMPLES: &str = "use for example redis://192.0.2.1:6379/0, rediss:// for TLS, or redis+unix:///run/redis/redis.sock";

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<Self, InvalidStoreUrl> {
        let no_url = invalid("is not the URL of a store", EXAMPLES);
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(no_url);
        }
        let (scheme, rest) = text.split_once("://").ok_or(no_url)?;
        let tls = match scheme {
            "redis+unix" | "valkey+unix" | "unix" => return parse_unix(rest),
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(no_url),
        };
        let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
        if host.contains('@') {
            return Err(invalid(
                "contains a user name or password, which could be read here and in logs",
                "set user and password_file instead",
            ));
        }
        let (host, port) = match host.strip_prefix('[') {
            Some(v6) => v6.split_once(']').ok_or(no_url)?,
            None => host.split_at(host.find(':').unwrap_or(host.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => DEFAULT_PORT,
            None => return Err(no_url),
            Some(port) => port.parse().ok().filter(|&port| port > 0).ok_or(no_url)?,
        };
        let is_invalid = |c: char| !c.is_ascii_alphanumeric() && !"-._:%".contains(c);
        if host.is_empty() || host.contains(is_invalid) {
            return Err(no_url);
        }
        Ok(Self {
            address: StoreAddress::Tcp {
                host: host.to_owned(),
                port,
                tls,
            },
            database: parse_database(database)?,
        })
    }
}

fn parse_unix(rest: &str) -> Result<StoreUrl, InvalidStoreUrl> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') {
        return Err(invalid("has no absolute path", EXAMPLES));
    }
    let database = match query {
        "" => "",
        _ => query.strip_prefix("db=").ok_or(invalid(
            "has parameters other than ?db=NUMBER",
            "set user and password_file to log in",
        ))?,
    };
    Ok(StoreUrl {
        address: StoreAddress::Unix(path.into()),
        database: parse_database(database)?,
    })
}

fn parse_database(database: &str) -> Result<u32, InvalidStoreUrl> {
    match database {
        "" => Ok(0),
        _ => database.parse().map_err(|_| {
            invalid(
                "does not end in the number of a database",
                "omit the number for database 0",
            )
        }),
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            StoreAddress::Unix(path) => {
                write!(f, "redis+unix://{}", path.display())?;
                match self.database {
                    0 => Ok(()),
                    number => write!(f, "?db={number}"),
                }
            }
            StoreAddress::Tcp { host, port, tls } => {
                f.write_str(if *tls { "rediss://" } else { "redis://" })?;
                match host.contains(':') {
                    true => write!(f, "[{host}]:{port}/{}", self.database),
                    false => write!(f, "{host}:{port}/{}", self.database),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_normalizes_all_forms() {
        for (text, normalized) in [
            ("redis://valkey.example", "redis://valkey.example:6379/0"),
            ("valkey://192.0.2.1:7000/3", "redis://192.0.2.1:7000/3"),
            ("rediss://[2001:db8::1]", "rediss://[2001:db8::1]:6379/0"),
            ("valkeys://a-b.c:1/", "rediss://a-b.c:1/0"),
            ("redis+unix:///run/a.sock", "redis+unix:///run/a.sock"),
            ("unix:///run/a.sock?db=2", "redis+unix:///run/a.sock?db=2"),
            ("valkey+unix:///a", "redis+unix:///a"),
            ("unix:///run/../a#b", "redis+unix:///run/../a#b"),
            ("redis://[fe80::1%eth0]", "redis://[fe80::1%eth0]:6379/0"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), normalized);
            assert_eq!(normalized.parse(), Ok(url));
        }
    }

    #[test]
    fn rejects_invalid_urls_and_secrets() {
        for wrong in [
            "",
            "redis",
            "192.0.2.1:6379",
            "http://192.0.2.1",
            "redis://",
            "redis://:6379",
            "redis://a:0",
            "redis://a:65536",
            "redis://a:b",
            "redis://[::1",
            "redis://[::1]x",
            "redis://a b",
            "redis://a/b",
            "redis://a/0/1",
            "redis://a/-1",
            "redis+unix://run/a.sock",
            "unix:///a?db=x",
            "unix:///a?pass=secret",
        ] {
            assert!(wrong.parse::<StoreUrl>().is_err(), "{wrong}");
        }
        let error = "redis://user:secret@a/0".parse::<StoreUrl>().unwrap_err();
        assert!(error.advice.contains("password_file"));
    }

    #[test]
    fn only_names_must_be_looked_up() {
        let name = |url: &str| url.parse::<StoreUrl>().unwrap().name().map(str::to_owned);
        assert_eq!(name("redis://valkey:1").as_deref(), Some("valkey"));
        assert_eq!(name("redis://192.0.2.1"), None);
        assert_eq!(name("redis://[::1]"), None);
        assert_eq!(name("unix:///a"), None);
    }
}
