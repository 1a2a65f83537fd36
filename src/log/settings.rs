use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use syslog::Severity;

/// What `[log]` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    pub target: Target,
    /// Lines less urgent than this are not written.
    pub level: Level,
    /// Only syslog knows it.
    pub facility: Facility,
    pub addresses: Addresses,
    /// Where syslog listens; only tests use another than `/dev/log`.
    pub socket: PathBuf,
}

impl Settings {
    pub(super) fn same_place(&self, other: &Self) -> bool {
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

/// Refused: not one of the words that this key takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownWord {
    pub word: String,
    pub allowed: &'static str,
}

impl Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not one of {}", self.word, self.allowed)
    }
}

impl std::error::Error for UnknownWord {}

macro_rules! words {
    ($type:ident, $allowed:literal, $($variant:ident = $word:literal),+) => {
        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { word: word.to_owned(), allowed: $allowed }),
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

/// Where lines go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Standard error if that is a terminal or the journal, or if syslog has no socket here; else syslog.
    Auto,
    Syslog,
    Stderr,
}

words!(
    Target,
    "auto, syslog, stderr",
    Auto = "auto",
    Syslog = "syslog",
    Stderr = "stderr"
);

/// How urgent a line is, with syslog's numbers (syslog(3)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// Something asked for does not work.
    Error = 3,
    /// It works, but somebody should look.
    Warning = 4,
    /// Normal and rare: start, stop, reload.
    Notice = 5,
    Info = 6,
    Debug = 7,
}

words!(
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

/// How much of a client's address a line may show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Addresses {
    /// Nothing: `-`.
    Off,
    /// Its network: /24 of IPv4, /48 of IPv6.
    Masked,
    Full,
}

words!(
    Addresses,
    "off, masked, full",
    Off = "off",
    Masked = "masked",
    Full = "full"
);

impl Addresses {
    /// The address as a line may show it. An IPv4 address mapped into IPv6 shows as IPv4.
    pub fn show(self, address: IpAddr) -> impl Display {
        ShownAddress {
            address: address.to_canonical(),
            addresses: self,
        }
    }
}

struct ShownAddress {
    address: IpAddr,
    addresses: Addresses,
}

impl Display for ShownAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.addresses, self.address) {
            (Addresses::Off, _) => f.write_str("-"),
            (Addresses::Full, address) => address.fmt(f),
            (Addresses::Masked, IpAddr::V4(v4)) => {
                write!(
                    f,
                    "{}/24",
                    Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8))
                )
            }
            (Addresses::Masked, IpAddr::V6(v6)) => {
                write!(
                    f,
                    "{}/48",
                    Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80))
                )
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
    type Err = UnknownWord;

    /// Refuses `kern`, which the receiver takes from the kernel alone.
    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let known = word.parse().map(Self).ok();
        known.filter(|facility| facility.to_string() == word && word != "kern").ok_or_else(|| UnknownWord {
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
