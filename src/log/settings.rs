//! The settings of the log, and the words that the configuration uses for them.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use syslog::Severity;

/// Settings of section `[log]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    pub target: Target,
    /// Least important level that is written.
    pub level: Level,
    /// Used by syslog only.
    pub facility: Facility,
    pub addresses: Addresses,
    /// Path of the syslog socket. Only tests use another path than `/dev/log`.
    pub socket: PathBuf,
}

impl Settings {
    /// Returns whether lines go to the same place with both settings.
    pub(super) fn same_destination(&self, other: &Self) -> bool {
        (self.target, self.facility, &self.socket) == (other.target, other.facility, &other.socket)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            target: Target::Auto,
            level: Level::Info,
            facility: Facility::default(),
            addresses: Addresses::Off,
            socket: PathBuf::from("/dev/log"),
        }
    }
}

/// Error: the word is not allowed for this key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownKeyword {
    pub word: String,
    pub allowed: &'static str,
}

impl Display for UnknownKeyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not one of {}", self.word, self.allowed)
    }
}

impl std::error::Error for UnknownKeyword {}

macro_rules! keywords {
    ($type:ident, $allowed:literal, $($variant:ident = $word:literal),+) => {
        impl FromStr for $type {
            type Err = UnknownKeyword;

            fn from_str(word: &str) -> Result<Self, UnknownKeyword> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownKeyword { word: word.to_owned(), allowed: $allowed }),
                }
            }
        }

        impl Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }
    };
}

/// Destination of the lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Standard error if that is a terminal or the journal, or if the syslog socket does not exist; otherwise syslog.
    Auto,
    Syslog,
    Stderr,
}

keywords!(
    Target,
    "auto, syslog, stderr",
    Auto = "auto",
    Syslog = "syslog",
    Stderr = "stderr"
);

/// Importance of a line, with the numbers of syslog(3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// An operation failed.
    Error = 3,
    /// The operation works, but an operator should look into it.
    Warning = 4,
    /// Normal and rare: start, stop, reload.
    Notice = 5,
    Info = 6,
    /// Details that help to find the cause of a problem.
    Debug = 7,
}

keywords!(
    Level,
    "error, warning, notice, info, debug",
    Error = "error",
    Warning = "warning",
    Notice = "notice",
    Info = "info",
    Debug = "debug"
);

impl Level {
    pub(super) fn severity(self) -> Severity {
        match self {
            Self::Error => Severity::LOG_ERR,
            Self::Warning => Severity::LOG_WARNING,
            Self::Notice => Severity::LOG_NOTICE,
            Self::Info => Severity::LOG_INFO,
            Self::Debug => Severity::LOG_DEBUG,
        }
    }
}

/// The part of a client's address that a line contains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Addresses {
    /// Nothing: `-`.
    Off,
    /// The network: /24 for IPv4, /48 for IPv6.
    Masked,
    Full,
}

keywords!(
    Addresses,
    "off, masked, full",
    Off = "off",
    Masked = "masked",
    Full = "full"
);

impl Addresses {
    /// Returns the address as a line may contain it. An IPv4-mapped IPv6 address is displayed as IPv4.
    pub fn show(self, address: IpAddr) -> impl Display {
        DisplayedAddress {
            address: address.to_canonical(),
            addresses: self,
        }
    }
}

struct DisplayedAddress {
    address: IpAddr,
    addresses: Addresses,
}

impl Display for DisplayedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.addresses, self.address) {
            (Addresses::Off, _) => f.write_str("-"),
            (Addresses::Full, address) => address.fmt(f),
            (Addresses::Masked, IpAddr::V4(v4)) => {
                let network = Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8));
                write!(f, "{network}/24")
            }
            (Addresses::Masked, IpAddr::V6(v6)) => {
                let network = Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80));
                write!(f, "{network}/48")
            }
        }
    }
}

/// A syslog facility: `daemon`, `local0` to `local7` and the others of syslog(3).
#[derive(Clone, Copy, Debug)]
pub struct Facility(pub(super) syslog::Facility);

impl Default for Facility {
    fn default() -> Self {
        Self(syslog::Facility::LOG_DAEMON)
    }
}

impl PartialEq for Facility {
    fn eq(&self, other: &Self) -> bool {
        self.0 as u8 == other.0 as u8
    }
}

impl Eq for Facility {}

impl FromStr for Facility {
    type Err = UnknownKeyword;

    /// Refuses `kern`: syslog daemons accept it from the kernel only.
    fn from_str(word: &str) -> Result<Self, UnknownKeyword> {
        let known = word.parse().map(Self).ok();
        known.filter(|facility| facility.to_string() == word && word != "kern").ok_or_else(|| UnknownKeyword {
            word: word.to_owned(),
            allowed: "daemon, local0 to local7, user, auth, authpriv, cron, ftp, lpr, mail, news, syslog, uucp",
        })
    }
}

impl Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{:?}", self.0);
        f.write_str(&name.trim_start_matches("LOG_").to_ascii_lowercase())
    }
}
