//! Addresses and networks as values of keys.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use toml::Spanned;

use super::toml_value::TomlValue;
use super::value_types::{InvalidValue, ValueType, quoted, text_of};
use crate::tracker::access::parse_network;

/// Where a stream listener is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    Tcp(SocketAddr),
    /// An absolute path.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listen {
    /// Binding both would fail: they are the same, or one is the wildcard that takes in the other.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(path), Self::Unix(other)) => path == other,
            (Self::Tcp(one), Self::Tcp(other)) => overlap(one, other),
            _ => false,
        }
    }
}

/// Binding both would fail, as in [`Listen::overlaps`].
pub(super) fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let takes_in = |wide: IpAddr, narrow: IpAddr| {
        wide == narrow || wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    one.port() == other.port() && one.port() != 0 && (takes_in(a, b) || takes_in(b, a))
}

/// An address and port, or a Unix socket's path.
pub(super) struct ListenAddress;

impl ValueType for ListenAddress {
    type Value = Listen;

    fn allowed(&self) -> String {
        r#""address:port", "[IPv6 address]:port" or "unix:/path""#.to_owned()
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<Listen, Vec<InvalidValue>> {
        let text = text_of(given)?;
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') && !path.contains('\0') => {
                Ok(Listen::Unix(path.into()))
            }
            Some(_) => {
                let advice = "write unix: and the whole path, from / on".to_owned();
                Err(InvalidValue::one(
                    given,
                    "has no absolute path",
                    Some(advice),
                ))
            }
            None => read_socket_address(given, text).map(Listen::Tcp),
        }
    }

    fn write(&self, value: &Listen) -> String {
        quoted(&value.to_string())
    }
}

/// Networks: one written down, or a file of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    Network(IpNet),
    /// An absolute path.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                network.addr().fmt(f)
            }
            Self::Network(network) => network.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A network, an address, or the path of a file of these.
pub(super) struct NetworkOrFile;

impl ValueType for NetworkOrFile {
    type Value = Source;

    fn allowed(&self) -> String {
        r#""address", "network/length" or "/path" of a file of these"#.to_owned()
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<Source, Vec<InvalidValue>> {
        let text = text_of(given)?;
        if text.starts_with('/') && !text.contains('\0') {
            return Ok(Source::File(text.into()));
        }
        if let Ok(network) = parse_network(text) {
            return Ok(Source::Network(network));
        }
        let Ok(network) = text.parse::<IpNet>() else {
            let what = "is neither a network nor an absolute path";
            return Err(InvalidValue::one(given, what, None));
        };
        let (whole, address) = (network.trunc(), network.addr());
        let advice = format!("write \"{whole}\" for the network or \"{address}\" for the address");
        let what = "has bits set beyond its prefix";
        Err(InvalidValue::one(given, what, Some(advice)))
    }

    fn write(&self, value: &Source) -> String {
        quoted(&value.to_string())
    }
}

/// An address and port.
pub(super) struct UdpAddress;

impl ValueType for UdpAddress {
    type Value = SocketAddr;

    fn allowed(&self) -> String {
        r#""address:port" or "[IPv6 address]:port""#.to_owned()
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<SocketAddr, Vec<InvalidValue>> {
        read_socket_address(given, text_of(given)?)
    }

    fn write(&self, value: &SocketAddr) -> String {
        quoted(&value.to_string())
    }
}

fn read_socket_address(
    given: &Spanned<TomlValue>,
    text: &str,
) -> Result<SocketAddr, Vec<InvalidValue>> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let write = |address: String| Some(format!("write {}", quoted(&address)));
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        let example = SocketAddr::new(address, 6969).to_string();
        return Err(InvalidValue::one(given, "has no port", write(example)));
    }
    if text.parse::<u16>().is_ok() {
        return Err(InvalidValue::one(
            given,
            "has no address",
            write(format!("[::]:{text}")),
        ));
    }
    let (what, advice) = match text.rsplit_once(':') {
        Some(("" | "*", port)) if port.parse::<u16>().is_ok() => {
            ("has no address", write(format!("[::]:{port}")))
        }
        Some((address, port)) if port.parse::<u16>().is_err() && !address.contains("::") => {
            ("has no port from 0 to 65535", None)
        }
        Some((name, _))
            if name.contains(|c: char| c.is_ascii_alphabetic()) && !name.contains(':') =>
        {
            (
                "has a name, and names are not looked up",
                Some("write the address".to_owned()),
            )
        }
        _ => ("is no address", None),
    };
    Err(InvalidValue::one(given, what, advice))
}
