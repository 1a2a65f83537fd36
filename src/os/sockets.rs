//! Sockets: inherited from the service manager, or bound by the daemon.

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
    /// `TCP_DEFER_ACCEPT`, which neither nix nor socket2 provides.
    DeferAccept,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
    u32
);

/// The kinds of sockets that can be served.
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

/// A name of inherited sockets (`FileDescriptorName=` in systemd.socket(5)), with the kinds of sockets that may have
/// the name.
#[derive(Clone, Copy, Debug)]
pub struct SocketName<'a> {
    pub name: &'a str,
    pub kinds: &'a [Kind],
}

/// An inherited socket: closed on exec, non-blocking.
#[derive(Debug)]
pub enum Inherited {
    Tcp(TcpListener),
    Udp(UdpSocket),
    Unix(UnixListener),
}

impl Inherited {
    /// Returns the address of the socket as text.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => address_text(listener.local_addr()),
            Self::Udp(socket) => address_text(socket.local_addr()),
            Self::Unix(listener) => match listener.local_addr() {
                Ok(address) => address
                    .as_pathname()
                    .map_or_else(|| "unnamed".to_owned(), |path| path.display().to_string()),
                Err(_) => "unknown".to_owned(),
            },
        }
    }
}

fn address_text(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|_| "unknown".to_owned(), |address| address.to_string())
}

/// The reason why the sockets that the service manager passed cannot be used.
#[derive(Debug)]
pub enum InheritError {
    /// `LISTEN_FDS` is set for another process.
    OtherProcess {
        listen_pid: Option<String>,
        own: u32,
    },
    /// A variable of the protocol has an invalid value.
    Malformed {
        variable: &'static str,
        value: String,
    },
    /// `LISTEN_FDNAMES` and `LISTEN_FDS` do not match.
    NameCount { names: usize, sockets: usize },
    /// A descriptor that `LISTEN_FDS` counts is not open.
    NotOpen { sockets: usize, reason: io::Error },
    /// The daemon has no use for a socket of this name.
    UnknownName {
        fd: RawFd,
        name: String,
        known: String,
    },
    /// The name belongs to another kind of socket.
    Unsuitable {
        fd: RawFd,
        name: String,
        is: String,
        expected: String,
    },
    /// The kernel refused a socket option.
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
                "LISTEN_FDS is set, but LISTEN_PID is {} and this process is {own}, so the sockets are for another \
                 process; unset LISTEN_FDS or, with systemd 257, remove PrivatePIDs= from the unit",
                listen_pid.as_deref().unwrap_or("not set")
            ),
            Self::Malformed { variable, value } => {
                write!(
                    f,
                    "{variable} is \"{}\"; expected a number, as a service manager sets it",
                    value.escape_debug()
                )
            }
            Self::NameCount { names, sockets } => write!(
                f,
                "LISTEN_FDNAMES has {names} names for the {sockets} sockets of LISTEN_FDS; set one name for each socket"
            ),
            Self::NotOpen { sockets, reason } => write!(
                f,
                "LISTEN_FDS is {sockets}, but file descriptors 3 to {} are not all open: {reason}",
                sockets + 2
            ),
            Self::UnknownName { fd, name, known } => write!(
                f,
                "inherited socket {fd} has the unknown name \"{}\"; set FileDescriptorName= in its .socket unit to one of {known}",
                name.escape_debug()
            ),
            Self::Unsuitable {
                fd,
                name,
                is,
                expected,
            } => {
                write!(
                    f,
                    "inherited socket {fd}, named \"{name}\", is {is}; expected {expected}"
                )
            }
            Self::Socket { fd, name, reason } => {
                write!(
                    f,
                    "cannot use inherited socket {fd}, named \"{name}\": {reason}"
                )
            }
        }
    }
}

impl std::error::Error for InheritError {}

/// Takes the sockets that the service manager passed (sd_listen_fds(3)), and returns each with its name. The list is
/// empty if none were passed. Call this once, at the start, before threads exist.
///
/// `LISTEN_PID` and `LISTEN_FDS` are unset afterwards. Without these two, child processes ignore `LISTEN_FDNAMES`.
///
/// # Errors
/// When sockets were passed that this process cannot use. Each is an error in the unit, so none is ignored.
pub fn inherited(known: &[SocketName<'_>]) -> Result<Vec<(String, Inherited)>, InheritError> {
    let Some(sockets) = count_passed()? else {
        return Ok(Vec::new());
    };
    // A later version of the crate returns names; Debian's version does not.
    let names = names(env::var("LISTEN_FDNAMES").ok(), sockets)?;
    let fds =
        sd_notify::listen_fds().map_err(|reason| InheritError::NotOpen { sockets, reason })?;
    fds.zip(names)
        .map(|(fd, name)| take_over(fd, name, known))
        .collect()
}

/// Returns the number of sockets that were passed to this process; `None` if there are none. The crate would return
/// none for sockets of another process, too.
fn count_passed() -> Result<Option<usize>, InheritError> {
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

fn take_over(
    fd: RawFd,
    name: String,
    known: &[SocketName<'_>],
) -> Result<(String, Inherited), InheritError> {
    let Some(socket_name) = known.iter().find(|known| known.name == name) else {
        let known = known
            .iter()
            .map(|known| known.name)
            .collect::<Vec<_>>()
            .join(", ");
        return Err(InheritError::UnknownName { fd, name, known });
    };
    #[expect(
        unsafe_code,
        reason = "an inherited descriptor is a number without an owner"
    )]
    // SAFETY: sd_notify::listen_fds() has just verified that this descriptor is open. The service manager passed it to
    // this process alone, and nothing else in this process owns it: `inherited` runs before any other code opens files,
    // and runs once, because the crate unsets the variables.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let kind = match kind_of(&socket) {
        Ok(kind) if socket_name.kinds.contains(&kind) => kind,
        is => {
            let is = is.map_or_else(|is| is, |kind| kind.to_string());
            let expected = socket_name
                .kinds
                .iter()
                .map(Kind::to_string)
                .collect::<Vec<_>>()
                .join(" or ");
            return Err(InheritError::Unsuitable {
                fd,
                name,
                is,
                expected,
            });
        }
    };
    // sd-notify 0.4.1 intends to set close-on-exec, but sets another bit.
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

/// Returns the kind of the socket or, if it cannot be served, a description.
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
        Type::STREAM => Err(
            "a connection, not a listening socket (set Accept=no in its .socket unit)".to_owned(),
        ),
        _ => Err(format!(
            "a socket of family {domain:?} and type {:?}",
            r#type
        )),
    }
}

/// The reason why the daemon cannot listen on an address.
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
                f.write_str("another process listens on this path")
            }
            ErrorKind::AddrInUse => {
                let command = if *protocol == "tcp" {
                    "ss -ltnp"
                } else {
                    "ss -lunp"
                };
                let port = address.rsplit(':').next().unwrap_or_default();
                write!(
                    f,
                    "address in use; stop the other process (find it with: {command} 'sport = :{port}'), or remove the \
                     duplicate address from the configuration ([::] includes IPv4)"
                )
            }
            ErrorKind::AddrNotAvailable => {
                f.write_str("no interface of this host has this address")
            }
            ErrorKind::PermissionDenied if *protocol == "unix" => write!(f, "{reason}"),
            ErrorKind::PermissionDenied => write!(
                f,
                "{reason}; for a port below 1024, use a .socket unit, start tbtt as root, or grant CAP_NET_BIND_SERVICE"
            ),
            _ if unsupported_family(reason) => write!(
                f,
                "{reason}; this host has the address family disabled, or the service unit allows only sockets of .socket units"
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

/// Settings of the TCP listeners that the daemon binds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpSettings {
    /// Maximum number of connections that wait to be accepted. The kernel limits it to `net.core.somaxconn`.
    pub backlog: u16,
    /// Seconds for which the kernel holds back a connection that has sent nothing yet, so that a worker accepts most
    /// connections together with their requests (tcp(7), `TCP_DEFER_ACCEPT`). After that time, the connection can be
    /// accepted without a request. `None`: connections are not held back.
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

/// Settings of the UDP sockets that the daemon binds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UdpSettings {
    /// Size of the receive buffer in bytes. Without CAP_NET_ADMIN, `net.core.rmem_max` is the maximum. `None`: the
    /// kernel's default.
    pub receive_buffer: Option<usize>,
    /// Whether several sockets of the same user can share the address and the load.
    pub reuse_port: bool,
}

/// Creates a TCP listener, non-blocking and closed on exec. `[::]` includes IPv4, and means `0.0.0.0` on a host without
/// IPv6. Any other IPv6 address accepts only IPv6.
///
/// # Errors
/// When the address cannot be bound. The error has the address, the reason and the remedy.
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
    open_with_fallback(address, "tcp", listen).map(TcpListener::from)
}

/// Creates a UDP socket, non-blocking and closed on exec. Addresses have the same meaning as in [`bind_tcp`].
///
/// # Errors
/// When the address cannot be bound. The error has the address, the reason and the remedy.
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
    open_with_fallback(address, "udp", receive).map(UdpSocket::from)
}

/// Returns the size of the receive buffer in bytes. The kernel includes its overhead, and so returns twice the size
/// that was set.
///
/// # Errors
/// When the kernel does not return the size.
pub fn receive_buffer(socket: &UdpSocket) -> io::Result<usize> {
    SockRef::from(socket).recv_buffer_size()
}

fn internet_socket(address: SocketAddr, r#type: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), r#type, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if let IpAddr::V6(v6) = address.ip() {
        // Always set, because the default depends on net.ipv6.bindv6only.
        socket.set_only_v6(!v6.is_unspecified())?;
    }
    Ok(socket)
}

/// Opens a socket at an address. The IPv6 wildcard becomes the IPv4 wildcard on a host without IPv6.
fn open_with_fallback(
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

/// Creates a Unix stream listener with this path and mode, non-blocking and closed on exec. A socket file on which no
/// process listens is replaced.
///
/// # Errors
/// When the path cannot be bound: the path and the reason. Another kind of file at this path is never removed.
pub fn bind_unix(path: &Path, mode: u32) -> Result<UnixListener, BindError> {
    bind_unix_owned(path, mode, (None, None))
}

/// Creates a Unix stream listener as [`bind_unix`] does, and sets the user and group of the file. `None` stands for
/// those of the process.
///
/// # Errors
/// The same as those of [`bind_unix`]. Only root can set another user, or a group that the process is not in.
pub fn bind_unix_owned(
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
        // No client can connect before the call of listen, so the mode applies to all connections.
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
            "a file that is not a socket exists there; remove it",
        ));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Otherwise, a listener with a full queue would block this call.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
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
    fn wildcard_serves_both_families_and_address_only_its_own() {
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
    fn bound_sockets_are_nonblocking_and_closed_on_exec() {
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
    fn error_for_address_in_use_has_the_remedy() {
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
    fn refuses_address_of_another_host() {
        let error = bind_tcp(any_port("192.0.2.1"), &TcpSettings::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot listen on tcp 192.0.2.1:0: no interface of this host has this address"
        );
    }

    #[test]
    fn sockets_share_a_port_only_with_reuse_port() {
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
    fn sets_the_receive_buffer() {
        let settings = UdpSettings {
            receive_buffer: Some(64 * 1024),
            ..UdpSettings::default()
        };
        let udp = bind_udp(any_port("127.0.0.1"), &settings).unwrap();
        assert_eq!(receive_buffer(&udp).unwrap(), 2 * 64 * 1024);
    }

    #[test]
    fn replaces_only_stale_socket_files() {
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
            error.ends_with("another process listens on this path"),
            "{error}"
        );

        drop(first);
        let _second = bind_unix(&path, 0o600).unwrap();
        UnixStream::connect(&path).unwrap();

        fs::write(dir.join("file"), "precious").unwrap();
        let error = bind_unix(&dir.join("file"), 0o600).unwrap_err().to_string();
        assert!(
            error.ends_with("a file that is not a socket exists there; remove it"),
            "{error}"
        );
        assert_eq!(fs::read(dir.join("file")).unwrap(), b"precious");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn distinguishes_kinds_of_sockets() {
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
        let description = kind(OwnedFd::from(connection).into()).unwrap_err();
        assert!(description.starts_with("a connection"), "{description}");
        let file = fs::File::open("/dev/null").unwrap();
        let description = kind_of(&Socket::from(OwnedFd::from(file))).unwrap_err();
        assert!(description.starts_with("not a socket"), "{description}");
        let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let description = kind_of(&Socket::from(OwnedFd::from(datagram))).unwrap_err();
        assert_eq!(
            description,
            "a socket of family AF_UNIX and type SOCK_DGRAM"
        );
    }

    #[test]
    fn requires_a_name_for_each_socket() {
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
