//! The sockets that the daemon serves: taken over from the service manager, or bound here.

use std::env;
use std::fmt::{self, Display};
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use nix::{libc, setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

sockopt_impl!(
    /// `TCP_DEFER_ACCEPT`, which neither nix nor socket2 names.
    DeferAccept,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
    u32
);

/// What a socket must be to serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A listening TCP socket, IPv4 or IPv6.
    Tcp,
    /// A UDP socket, IPv4 or IPv6.
    Udp,
    /// A listening Unix stream socket.
    Unix,
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "a listening TCP socket",
            Self::Udp => "a UDP socket",
            Self::Unix => "a listening Unix stream socket",
        })
    }
}

/// A name by which sockets are told apart (`FileDescriptorName=` of systemd.socket(5)), and what they may be.
#[derive(Clone, Copy, Debug)]
pub struct SocketName<'a> {
    pub name: &'a str,
    pub kinds: &'a [Kind],
}

/// A socket taken over: closed on exec, not blocking.
#[derive(Debug)]
pub enum Inherited {
    Tcp(TcpListener),
    Udp(UdpSocket),
    Unix(UnixListener),
}

impl Inherited {
    /// Where it is bound, for the log.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => shown(listener.local_addr()),
            Self::Udp(socket) => shown(socket.local_addr()),
            Self::Unix(listener) => match listener.local_addr() {
                Ok(address) => address
                    .as_pathname()
                    .map_or_else(|| "unnamed".to_owned(), |path| path.display().to_string()),
                Err(_) => "unknown".to_owned(),
            },
        }
    }
}

fn shown(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|_| "unknown".to_owned(), |address| address.to_string())
}

/// Why the sockets that the service manager passed cannot be served.
#[derive(Debug)]
pub enum InheritError {
    /// `LISTEN_FDS` is set, but for another process.
    OtherProcess {
        listen_pid: Option<String>,
        own: u32,
    },
    /// A variable of the protocol that says what it never may.
    Malformed {
        variable: &'static str,
        value: String,
    },
    /// `LISTEN_FDNAMES` and `LISTEN_FDS` disagree.
    NameCount { names: usize, sockets: usize },
    /// A descriptor that `LISTEN_FDS` counts is not open.
    NotOpen { sockets: usize, reason: io::Error },
    /// No part of the daemon goes by this name.
    UnknownName {
        fd: RawFd,
        name: String,
        known: String,
    },
    /// The right name on the wrong thing.
    Unsuitable {
        fd: RawFd,
        name: String,
        is: String,
        wanted: String,
    },
    /// The kernel refused a setting.
    Socket {
        fd: RawFd,
        name: String,
        reason: io::Error,
    },
}

impl Display for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherProcess { listen_pid, own } => write!(
                f,
                "LISTEN_FDS is set, but LISTEN_PID is {} and this process is {own}: the sockets were meant for another \
                 process; unset LISTEN_FDS, or, under an older systemd (257), leave PrivatePIDs= out of the unit",
                listen_pid.as_deref().unwrap_or("not set")
            ),
            Self::Malformed { variable, value } => {
                write!(
                    f,
                    "{variable} is \"{}\", not a number that a service manager sets",
                    value.escape_debug()
                )
            }
            Self::NameCount { names, sockets } => write!(
                f,
                "LISTEN_FDNAMES has {names} names for the {sockets} sockets of LISTEN_FDS: set one name for each"
            ),
            Self::NotOpen { sockets, reason } => write!(
                f,
                "LISTEN_FDS is {sockets}, but descriptors 3 to {} are not all open: {reason}",
                sockets + 2
            ),
            Self::UnknownName { fd, name, known } => write!(
                f,
                "inherited socket {fd} is named \"{}\", which is not one of {known}: set FileDescriptorName= in its .socket unit",
                name.escape_debug()
            ),
            Self::Unsuitable {
                fd,
                name,
                is,
                wanted,
            } => {
                write!(
                    f,
                    "inherited socket {fd}, named \"{name}\", is {is}; wanted is {wanted}"
                )
            }
            Self::Socket { fd, name, reason } => {
                write!(
                    f,
                    "inherited socket {fd}, named \"{name}\", cannot be used: {reason}"
                )
            }
        }
    }
}

impl std::error::Error for InheritError {}

/// Takes over the sockets that the service manager passed (sd_listen_fds(3)), each with its name. None were passed: an
/// empty list. To be called once, at the start, before threads.
///
/// `LISTEN_PID` and `LISTEN_FDS` are unset afterwards, without which a child makes nothing of `LISTEN_FDNAMES`.
///
/// # Errors
/// When sockets were passed that this process cannot serve: each is a fault of the unit, and none is passed over in silence.
pub fn inherited(known: &[SocketName<'_>]) -> Result<Vec<(String, Inherited)>, InheritError> {
    let Some(sockets) = passed_to_us()? else {
        return Ok(Vec::new());
    };
    // Of the crate's later versions one knows names, the one in Debian does not.
    let names = names(env::var("LISTEN_FDNAMES").ok(), sockets)?;
    let fds =
        sd_notify::listen_fds().map_err(|reason| InheritError::NotOpen { sockets, reason })?;
    fds.zip(names)
        .map(|(fd, name)| adopt(fd, name, known))
        .collect()
}

/// How many sockets were passed to this very process. The crate says "none" for another process's, too.
fn passed_to_us() -> Result<Option<usize>, InheritError> {
    let Ok(sockets) = env::var("LISTEN_FDS") else {
        return Ok(None);
    };
    match sockets.parse() {
        Ok(0) => Ok(None),
        Ok(count) => {
            let listen_pid = env::var("LISTEN_PID").ok();
            let own = std::process::id();
            if listen_pid.as_ref().and_then(|pid| pid.parse().ok()) != Some(own) {
                return Err(InheritError::OtherProcess { listen_pid, own });
            }
            Ok(Some(count))
        }
        Err(_) => Err(InheritError::Malformed {
            variable: "LISTEN_FDS",
            value: sockets,
        }),
    }
}

fn names(joined: Option<String>, sockets: usize) -> Result<Vec<String>, InheritError> {
    let names: Vec<String> = match joined {
        Some(joined) => joined.split(':').map(str::to_owned).collect(),
        None => vec!["unknown".to_owned(); sockets],
    };
    match names.len() == sockets {
        true => Ok(names),
        false => Err(InheritError::NameCount {
            names: names.len(),
            sockets,
        }),
    }
}

fn adopt(
    fd: RawFd,
    name: String,
    known: &[SocketName<'_>],
) -> Result<(String, Inherited), InheritError> {
    let Some(part) = known.iter().find(|part| part.name == name) else {
        let known = known
            .iter()
            .map(|part| part.name)
            .collect::<Vec<_>>()
            .join(", ");
        return Err(InheritError::UnknownName { fd, name, known });
    };
    #[expect(
        unsafe_code,
        reason = "an inherited descriptor is only a number until it is owned"
    )]
    // SAFETY: sd_notify::listen_fds() has just found this descriptor open, the service manager passed it to this process alone,
    // and nothing else here owns it: `inherited` runs first of all, and the crate unsets the variables, so that it runs once.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let kind = match kind_of(&socket) {
        Ok(kind) if part.kinds.contains(&kind) => kind,
        is => {
            let is = is.map_or_else(|is| is, |kind| kind.to_string());
            let wanted = part
                .kinds
                .iter()
                .map(Kind::to_string)
                .collect::<Vec<_>>()
                .join(" or ");
            return Err(InheritError::Unsuitable {
                fd,
                name,
                is,
                wanted,
            });
        }
    };
    // Again, since sd-notify 0.4.1 means to and sets another bit.
    match socket
        .set_cloexec(true)
        .and_then(|()| socket.set_nonblocking(true))
    {
        Ok(()) => Ok((
            name,
            match kind {
                Kind::Tcp => Inherited::Tcp(socket.into()),
                Kind::Udp => Inherited::Udp(socket.into()),
                Kind::Unix => Inherited::Unix(socket.into()),
            },
        )),
        Err(reason) => Err(InheritError::Socket { fd, name, reason }),
    }
}

/// What the socket is, or, if it can be of no use, that in words.
fn kind_of(socket: &Socket) -> Result<Kind, String> {
    let not_a_socket = |reason: io::Error| format!("not a socket ({reason})");
    let domain = socket.domain().map_err(not_a_socket)?;
    let r#type = socket.r#type().map_err(not_a_socket)?;
    let listening = socket.is_listener().map_err(not_a_socket)?;
    let internet = domain == Domain::IPV4 || domain == Domain::IPV6;
    match r#type {
        Type::STREAM if internet && listening => Ok(Kind::Tcp),
        Type::DGRAM if internet => Ok(Kind::Udp),
        Type::STREAM if domain == Domain::UNIX && listening => Ok(Kind::Unix),
        Type::STREAM => {
            Err("a connection, not a listening socket (Accept=no is needed)".to_owned())
        }
        _ => Err(format!(
            "a socket of family {domain:?} and type {:?}",
            r#type
        )),
    }
}

/// Why an address cannot be served.
#[derive(Debug)]
pub struct BindError {
    /// `tcp`, `udp` or `unix`.
    pub protocol: &'static str,
    pub address: String,
    pub reason: io::Error,
}

impl Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            address,
            reason,
        } = self;
        write!(f, "cannot listen on {protocol} {address}: ")?;
        match reason.kind() {
            ErrorKind::AddrInUse if *protocol == "unix" => {
                f.write_str("another process serves this path")
            }
            ErrorKind::AddrInUse => {
                let table = if *protocol == "tcp" {
                    "ss -ltnp"
                } else {
                    "ss -lunp"
                };
                let port = address.rsplit(':').next().unwrap_or_default();
                write!(
                    f,
                    "address in use, by another process (see: {table} 'sport = :{port}') or listed twice \
                     ([::] takes IPv4, too)"
                )
            }
            ErrorKind::AddrNotAvailable => {
                f.write_str("no interface of this machine has this address")
            }
            ErrorKind::PermissionDenied if *protocol == "unix" => write!(f, "{reason}"),
            ErrorKind::PermissionDenied => write!(
                f,
                "{reason}: a port below 1024 needs a .socket unit, a start as root, or CAP_NET_BIND_SERVICE"
            ),
            _ if unsupported_family(reason) => write!(
                f,
                "{reason}: this family is switched off here, or the unit allows only sockets that come from a .socket unit"
            ),
            _ => reason.fmt(f),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

fn unsupported_family(reason: &io::Error) -> bool {
    reason.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
}

/// How TCP listens where the daemon binds by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpSettings {
    /// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u16,
    /// Seconds for which the kernel keeps a connection to itself that has sent nothing yet, so that a worker meets one with its
    /// request already there (tcp(7), `TCP_DEFER_ACCEPT`); then it is handed over all the same. `None`: at once.
    pub defer_accept_secs: Option<u32>,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            backlog: 4096,
            defer_accept_secs: Some(2),
        }
    }
}

/// How UDP is received where the daemon binds by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UdpSettings {
    /// Bytes that wait to be read. Beyond `net.core.rmem_max` only with CAP_NET_ADMIN, else that much. `None`: the kernel's default.
    pub receive_buffer: Option<usize>,
    /// Lets several sockets of one user share the address and the load.
    pub reuse_port: bool,
}

/// Listens on TCP, not blocking, closed on exec. `[::]` takes IPv4 as well, and is `0.0.0.0` on a machine without IPv6; any other
/// IPv6 address takes IPv6 alone.
///
/// # Errors
/// The address, and what to do about it.
pub fn bind_tcp(address: SocketAddr, settings: &TcpSettings) -> Result<TcpListener, BindError> {
    let listen = |address| {
        let socket = internet_socket(address, Type::STREAM, Protocol::TCP)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(address))?;
        if let Some(secs) = settings.defer_accept_secs {
            setsockopt(&socket, DeferAccept, &secs)?;
        }
        socket.listen(i32::from(settings.backlog))?;
        Ok(socket)
    };
    dual_stack(address, "tcp", listen).map(TcpListener::from)
}

/// Receives UDP, not blocking, closed on exec; addresses as in [`bind_tcp`].
///
/// # Errors
/// The address, and what to do about it.
pub fn bind_udp(address: SocketAddr, settings: &UdpSettings) -> Result<UdpSocket, BindError> {
    let receive = |address| {
        let socket = internet_socket(address, Type::DGRAM, Protocol::UDP)?;
        if settings.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if let Some(bytes) = settings.receive_buffer {
            if setsockopt(&socket, RcvBufForce, &bytes).is_err() {
                socket.set_recv_buffer_size(bytes)?;
            }
        }
        socket.bind(&SockAddr::from(address))?;
        Ok(socket)
    };
    dual_stack(address, "udp", receive).map(UdpSocket::from)
}

/// How many bytes may wait to be read: what the kernel made of the setting. It counts its own overhead and so says twice as much.
///
/// # Errors
/// The kernel's.
pub fn receive_buffer(socket: &UdpSocket) -> io::Result<usize> {
    SockRef::from(socket).recv_buffer_size()
}

fn internet_socket(address: SocketAddr, r#type: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), r#type, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if let IpAddr::V6(v6) = address.ip() {
        // Said either way: the default is the administrator's (net.ipv6.bindv6only).
        socket.set_only_v6(!v6.is_unspecified())?;
    }
    Ok(socket)
}

fn dual_stack(
    address: SocketAddr,
    protocol: &'static str,
    open: impl Fn(SocketAddr) -> io::Result<Socket>,
) -> Result<Socket, BindError> {
    let result = match open(address) {
        Err(reason) if unsupported_family(&reason) && address.ip() == Ipv6Addr::UNSPECIFIED => {
            open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        result => result,
    };
    result.map_err(|reason| BindError {
        protocol,
        address: address.to_string(),
        reason,
    })
}

/// Listens on a Unix stream socket of this path and mode, not blocking, closed on exec. A socket file where nobody listens any
/// more is replaced.
///
/// # Errors
/// The path, and why not: another file there is never removed.
pub fn bind_unix(path: &Path, mode: u32) -> Result<UnixListener, BindError> {
    bind_unix_for(path, mode, (None, None))
}

/// As [`bind_unix`], for a user and a group, or else our own.
///
/// # Errors
/// As [`bind_unix`]; and only root may give it to another user, or to a group that it is not in.
pub fn bind_unix_for(
    path: &Path,
    mode: u32,
    (uid, gid): (Option<u32>, Option<u32>),
) -> Result<UnixListener, BindError> {
    let listen = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let address = SockAddr::unix(path)?;
        match socket.bind(&address) {
            Err(reason) if reason.kind() == ErrorKind::AddrInUse => {
                remove_stale(path)?;
                socket.bind(&address)?;
            }
            result => result?,
        }
        // Before it listens nobody can connect, so no moment is open to more than the mode says.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        if uid.or(gid).is_some() {
            lchown(path, uid, gid)?;
        }
        socket.listen(i32::from(TcpSettings::default().backlog))?;
        Ok(socket.into())
    };
    listen().map_err(|reason: io::Error| BindError {
        protocol: "unix",
        address: path.display().to_string(),
        reason,
    })
}

fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(
            ErrorKind::AlreadyExists,
            "a file that is not a socket lies there",
        ));
    }
    let caller = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener whose queue is full would make us wait.
    caller.set_nonblocking(true)?;
    match caller.connect(&SockAddr::unix(path)?) {
        Err(reason) if reason.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(reason) if reason.kind() == ErrorKind::PermissionDenied => Err(reason),
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc::O_CLOEXEC;
    use std::net::TcpStream;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    fn any_port(address: &str) -> SocketAddr {
        SocketAddr::from((address.parse::<IpAddr>().unwrap(), 0))
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = env::temp_dir().join(format!("tbtt-sockets-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn a_wildcard_serves_both_families_and_an_address_only_its_own() {
        let tcp = bind_tcp(any_port("::"), &TcpSettings::default()).unwrap();
        let port = tcp.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        TcpStream::connect(("::1", port)).unwrap();
        assert!(!SockRef::from(&tcp).only_v6().unwrap());

        let tcp = bind_tcp(any_port("::1"), &TcpSettings::default()).unwrap();
        assert!(SockRef::from(&tcp).only_v6().unwrap());

        let udp = bind_udp(any_port("::"), &UdpSettings::default()).unwrap();
        let port = udp.local_addr().unwrap().port();
        for (own, to) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
            let client = UdpSocket::bind((own, 0)).unwrap();
            client.send_to(b"x", (to, port)).unwrap();
            assert_eq!(udp.recv_from(&mut [0; 2]).unwrap().0, 1);
        }
    }

    #[test]
    fn what_is_bound_neither_blocks_nor_outlives_an_exec() {
        let tcp = bind_tcp(any_port("127.0.0.1"), &TcpSettings::default()).unwrap();
        assert_eq!(tcp.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let udp = bind_udp(any_port("127.0.0.1"), &UdpSettings::default()).unwrap();
        assert_eq!(
            udp.recv(&mut [0; 2]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", udp.as_raw_fd())).unwrap();
        let flags = info
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .unwrap();
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        assert_eq!(flags & O_CLOEXEC, O_CLOEXEC);
    }

    #[test]
    fn an_address_in_use_is_named_with_what_to_do() {
        let first = bind_tcp(any_port("127.0.0.1"), &TcpSettings::default()).unwrap();
        let taken = first.local_addr().unwrap();
        let error = bind_tcp(taken, &TcpSettings::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("cannot listen on tcp {taken}: address in use")),
            "{error}"
        );
        assert!(
            error.contains(&format!("ss -ltnp 'sport = :{}'", taken.port())),
            "{error}"
        );

        let first = bind_udp(any_port("127.0.0.1"), &UdpSettings::default()).unwrap();
        let error = bind_udp(first.local_addr().unwrap(), &UdpSettings::default()).unwrap_err();
        assert!(error.to_string().contains("ss -lunp"), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = bind_tcp(any_port("192.0.2.1"), &TcpSettings::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot listen on tcp 192.0.2.1:0: no interface of this machine has this address"
        );
    }

    #[test]
    fn sockets_share_a_port_only_when_asked() {
        let shared = UdpSettings {
            reuse_port: true,
            ..UdpSettings::default()
        };
        let first = bind_udp(any_port("127.0.0.1"), &shared).unwrap();
        let taken = first.local_addr().unwrap();
        assert!(bind_udp(taken, &shared).is_ok());
        assert!(bind_udp(taken, &UdpSettings::default()).is_err());
    }

    #[test]
    fn the_receive_buffer_is_what_was_asked_for() {
        let settings = UdpSettings {
            receive_buffer: Some(64 * 1024),
            ..UdpSettings::default()
        };
        let udp = bind_udp(any_port("127.0.0.1"), &settings).unwrap();
        assert_eq!(receive_buffer(&udp).unwrap(), 2 * 64 * 1024);
    }

    #[test]
    fn a_stale_socket_file_is_replaced_a_served_one_and_a_plain_file_are_not() {
        let dir = scratch("unix");
        let path = dir.join("http");
        let first = bind_unix(&path, 0o660).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        UnixStream::connect(&path).unwrap();
        let error = bind_unix(&path, 0o660).unwrap_err().to_string();
        assert!(
            error.ends_with("another process serves this path"),
            "{error}"
        );

        drop(first);
        let _second = bind_unix(&path, 0o600).unwrap();
        UnixStream::connect(&path).unwrap();

        fs::write(dir.join("file"), "precious").unwrap();
        let error = bind_unix(&dir.join("file"), 0o600).unwrap_err().to_string();
        assert!(
            error.ends_with("a file that is not a socket lies there"),
            "{error}"
        );
        assert_eq!(fs::read(dir.join("file")).unwrap(), b"precious");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn kinds_are_told_apart() {
        let kind = |socket: Socket| kind_of(&socket);
        let connection = UnixStream::pair().unwrap().0;
        assert_eq!(
            kind(UdpSocket::bind("127.0.0.1:0").unwrap().into()),
            Ok(Kind::Udp)
        );
        assert_eq!(
            kind(TcpListener::bind("127.0.0.1:0").unwrap().into()),
            Ok(Kind::Tcp)
        );
        let said = kind(OwnedFd::from(connection).into()).unwrap_err();
        assert!(said.starts_with("a connection"), "{said}");
        let file = fs::File::open("/dev/null").unwrap();
        let said = kind_of(&Socket::from(OwnedFd::from(file))).unwrap_err();
        assert!(said.starts_with("not a socket"), "{said}");
        let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let said = kind_of(&Socket::from(OwnedFd::from(datagram))).unwrap_err();
        assert_eq!(said, "a socket of family AF_UNIX and type SOCK_DGRAM");
    }

    #[test]
    fn names_go_with_their_sockets_one_by_one() {
        assert_eq!(
            names(Some("http:udp".to_owned()), 2).unwrap(),
            ["http", "udp"]
        );
        assert_eq!(names(None, 2).unwrap(), ["unknown", "unknown"]);
        assert!(matches!(
            names(Some("http".to_owned()), 2),
            Err(InheritError::NameCount {
                names: 1,
                sockets: 2
            })
        ));
    }
}
