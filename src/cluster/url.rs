//! Where the engine is, as the configuration has it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The port of Valkey and Redis.
const PORT: u16 = 6379;

/// An engine's address, without secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    pub place: StoreAddress,
    /// The number of its database.
    pub database: u32,
}

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

impl Url {
    /// The port that must be reached over TCP.
    pub fn tcp_port(&self) -> Option<u16> {
        match self.place {
            StoreAddress::Tcp { port, .. } => Some(port),
            StoreAddress::Unix(_) => None,
        }
    }

    /// A name or an address.
    pub fn host(&self) -> Option<&str> {
        match &self.place {
            StoreAddress::Tcp { host, .. } => Some(host),
            StoreAddress::Unix(_) => None,
        }
    }

    /// The host, if it is a name that must be looked up.
    pub fn name(&self) -> Option<&str> {
        self.host().filter(|host| host.parse::<IpAddr>().is_err())
    }

    pub fn tls(&self) -> bool {
        matches!(self.place, StoreAddress::Tcp { tls: true, .. })
    }
}

/// What is wrong with a text that should be an engine's URL, to follow it; and what to do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidStoreUrl {
    pub what: &'static str,
    pub advice: &'static str,
}

const fn wrong(what: &'static str, advice: &'static str) -> InvalidStoreUrl {
    InvalidStoreUrl { what, advice }
}

const EXAMPLES: &str = "write for example redis://192.0.2.1:6379/0, rediss:// for TLS, or redis+unix:///run/redis/redis.sock";

impl FromStr for Url {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<Self, InvalidStoreUrl> {
        let no_url = wrong("is no URL of an engine", EXAMPLES);
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(no_url);
        }
        let (scheme, rest) = text.split_once("://").ok_or(no_url)?;
        let tls = match scheme {
            "redis+unix" | "valkey+unix" | "unix" => return unix(rest),
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(no_url),
        };
        let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
        if host.contains('@') {
            return Err(wrong(
                "holds a user or password, which anyone may read here, and which logs would show",
                "set user and password_file instead",
            ));
        }
        let (host, port) = match host.strip_prefix('[') {
            Some(v6) => v6.split_once(']').ok_or(no_url)?,
            None => host.split_at(host.find(':').unwrap_or(host.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => PORT,
            None => return Err(no_url),
            Some(port) => port.parse().ok().filter(|&port| port > 0).ok_or(no_url)?,
        };
        let odd = |c: char| !c.is_ascii_alphanumeric() && !"-._:%".contains(c);
        if host.is_empty() || host.contains(odd) {
            return Err(no_url);
        }
        Ok(Self {
            place: StoreAddress::Tcp {
                host: host.to_owned(),
                port,
                tls,
            },
            database: number(database)?,
        })
    }
}

fn unix(rest: &str) -> Result<Url, InvalidStoreUrl> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') {
        return Err(wrong("has no absolute path", EXAMPLES));
    }
    let database = match query {
        "" => "",
        _ => query.strip_prefix("db=").ok_or(wrong(
            "may end in ?db=NUMBER, and in nothing else",
            "set user and password_file for these",
        ))?,
    };
    Ok(Url {
        place: StoreAddress::Unix(path.into()),
        database: number(database)?,
    })
}

fn number(database: &str) -> Result<u32, InvalidStoreUrl> {
    match database {
        "" => Ok(0),
        _ => database.parse().map_err(|_| {
            wrong(
                "ends in something else than a database's number",
                "leave it out for 0",
            )
        }),
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
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
    fn an_engine_is_named_in_several_ways() {
        for (given, shown) in [
            ("redis://valkey.example", "redis://valkey.example:6379/0"),
            ("valkey://192.0.2.1:7000/3", "redis://192.0.2.1:7000/3"),
            ("rediss://[2001:db8::1]", "rediss://[2001:db8::1]:6379/0"),
            ("valkeys://a-b.c:1/", "rediss://a-b.c:1/0"),
            ("redis+unix:///run/a.sock", "redis+unix:///run/a.sock"),
            ("unix:///run/a.sock?db=2", "redis+unix:///run/a.sock?db=2"),
            ("valkey+unix:///a", "redis+unix:///a"),
        ] {
            let url: Url = given.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(shown.parse(), Ok(url));
        }
    }

    #[test]
    fn what_is_no_url_or_holds_a_secret_is_refused() {
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
            assert!(wrong.parse::<Url>().is_err(), "{wrong}");
        }
        let told = "redis://user:secret@a/0".parse::<Url>().unwrap_err();
        assert!(told.advice.contains("password_file"));
    }

    #[test]
    fn only_a_name_must_be_looked_up() {
        let name = |url: &str| url.parse::<Url>().unwrap().name().map(str::to_owned);
        assert_eq!(name("redis://valkey:1").as_deref(), Some("valkey"));
        assert_eq!(name("redis://192.0.2.1"), None);
        assert_eq!(name("redis://[::1]"), None);
        assert_eq!(name("unix:///a"), None);
    }
}
