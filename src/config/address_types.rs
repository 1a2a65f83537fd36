//! Types of the values that are addresses and networks.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use toml::Spanned;

use super::list_file::parse_network;
use super::toml_value::TomlValue;
use super::value_types::{InvalidValue, ValueType, quoted, text_of};

/// An address to listen on for connections.
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
    /// Returns whether only one of the two can be bound: they are equal, or one is a wildcard that includes the other.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(path), Self::Unix(other)) => path == other,
            (Self::Tcp(address), Self::Tcp(other)) => addresses_overlap(address, other),
            _ => false,
        }
    }
}

/// Returns whether only one of the two addresses can be bound, as [`Listen::overlaps`] does.
///
/// The IPv6 wildcard includes all IPv4 addresses. With port 0 the system picks a free port, so there is no overlap.
pub(super) fn addresses_overlap(first: &SocketAddr, second: &SocketAddr) -> bool {
    let (a, b) = (first.ip().to_canonical(), second.ip().to_canonical());
    let includes = |wide: IpAddr, narrow: IpAddr| {
        wide == narrow || wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    first.port() == second.port() && first.port() != 0 && (includes(a, b) || includes(b, a))
}

/// An address and port, or the path of a Unix socket.
pub(super) struct ListenAddress;

impl ValueType for ListenAddress {
    type Value = Listen;

    fn allowed(&self) -> String {
        r#""address:port", "[IPv6 address]:port" or "unix:/path""#.to_owned()
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<Listen, Vec<InvalidValue>> {
        let text = text_of(value)?;
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') && !path.contains('\0') => {
                Ok(Listen::Unix(path.into()))
            }
            Some(_) => {
                let remedy = "write unix: and the whole path, starting with /".to_owned();
                Err(InvalidValue::single(
                    value,
                    "has no absolute path",
                    Some(remedy),
                ))
            }
            None => parse_socket_address(value, text).map(Listen::Tcp),
        }
    }

    fn write(&self, value: &Listen) -> String {
        quoted(&value.to_string())
    }
}

/// A network in the configuration, or a file that lists networks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NetworkSource {
    Network(IpNet),
    /// An absolute path.
    File(PathBuf),
}

impl fmt::Display for NetworkSource {
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
    type Value = NetworkSource;

    fn allowed(&self) -> String {
        r#""address", "network/length" or "/path" of a file of these"#.to_owned()
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<NetworkSource, Vec<InvalidValue>> {
        let text = text_of(value)?;
        if text.starts_with('/') && !text.contains('\0') {
            return Ok(NetworkSource::File(text.into()));
        }
        if let Ok(network) = parse_network(text) {
            return Ok(NetworkSource::Network(network));
        }
        let Ok(network) = text.parse::<IpNet>() else {
            let problem = "is neither a network nor an absolute path";
            return Err(InvalidValue::single(value, problem, None));
        };
        let (whole_network, address) = (network.trunc(), network.addr());
        let remedy =
            format!("write \"{whole_network}\" for the network or \"{address}\" for the address");
        let problem = "has bits set beyond its prefix";
        Err(InvalidValue::single(value, problem, Some(remedy)))
    }

    fn write(&self, value: &NetworkSource) -> String {
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

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<SocketAddr, Vec<InvalidValue>> {
        parse_socket_address(value, text_of(value)?)
    }

    fn write(&self, value: &SocketAddr) -> String {
        quoted(&value.to_string())
    }
}

fn parse_socket_address(
    value: &Spanned<TomlValue>,
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
        return Err(InvalidValue::single(value, "has no port", write(example)));
    }
    if text.parse::<u16>().is_ok() {
        return Err(InvalidValue::single(
            value,
            "has no address",
            write(format!("[::]:{text}")),
        ));
    }
    let (problem, remedy) = match text.rsplit_once(':') {
        Some(("" | "*", port)) if port.parse::<u16>().is_ok() => {
            ("has no address", write(format!("[::]:{port}")))
        }
        Some((address, port)) if port.parse::<u16>().is_err() && !address.contains("::") => {
            ("has no valid port, 0 to 65535", None)
        }
        Some((name, _))
            if name.contains(|c: char| c.is_ascii_alphabetic()) && !name.contains(':') =>
        {
            (
                "has a host name, which is not resolved",
                Some("write the IP address".to_owned()),
            )
        }
        _ => ("is not an address", None),
    };
    Err(InvalidValue::single(value, problem, remedy))
}
