//! Opens all sockets: inherited from the service manager, or bound as configured.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, User, geteuid};

use crate::app::{Exit, Failed, fail};
use crate::config::address_types::Listen;
use crate::config::schema::Config;
use crate::log;
use crate::os::addresses;
use crate::os::sockets::{self, BindError, Inherited, Kind, SocketName, TcpSettings, UdpSettings};
use crate::server::http::settings::ListenerRole;
use crate::server::http::{HttpListener, ListenSocket};

/// The open sockets.
pub struct Sockets {
    pub http: Vec<HttpListener>,
    /// The UDP sockets, which are distributed over the workers in turn.
    pub udp: Vec<UdpSocket>,
    pub control: Option<UnixListener>,
    /// Name and address of each socket, for the log.
    pub addresses: Vec<(&'static str, String)>,
    /// The announce URLs that clients can use, for the log.
    pub announce_urls: Vec<String>,
}

/// The names of inherited sockets, with the kinds of sockets that can have them.
const NAMES: &[SocketName<'static>] = &[
    SocketName {
        name: "http",
        kinds: &[Kind::Tcp, Kind::Unix],
    },
    SocketName {
        name: "http-proxy",
        kinds: &[Kind::Tcp, Kind::Unix],
    },
    SocketName {
        name: "status",
        kinds: &[Kind::Tcp, Kind::Unix],
    },
    SocketName {
        name: "control",
        kinds: &[Kind::Unix],
    },
    SocketName {
        name: "udp",
        kinds: &[Kind::Udp],
    },
];

/// Takes the sockets that the service manager passes, and binds those that it does not pass, as configured.
///
/// # Errors
/// When an inherited socket cannot be used, or an address cannot be bound.
pub fn open_sockets(config: &Config) -> Result<Sockets, Failed> {
    let inherited = sockets::inherited(NAMES).map_err(|error| {
        fail(
            Exit::Unavailable,
            "cannot use the inherited sockets",
            &error,
        )
    })?;
    // A service manager that passes sockets for clients, as our unit does, lets the daemon open no others.
    let bind_udp = inherited.iter().all(|(name, _)| name == "control");
    let mut opened = sort(inherited);
    if opened.http.is_empty() {
        opened.http = bind_http_listeners(config)?;
    }
    separate_status(&mut opened.http, config);
    if bind_udp {
        opened.udp = bind_udp_sockets(config)?;
    } else if opened.udp.is_empty() && !config.udp.listen.is_empty() {
        log::notice("UDP disabled: no inherited socket is named \"udp\"", &[]);
    }
    if opened.control.is_none() {
        opened.control = open_control(config);
    }
    list_addresses(&mut opened, config)?;
    Ok(opened)
}

/// Sorts inherited sockets by their use.
fn sort(inherited: Vec<(String, Inherited)>) -> Sockets {
    let mut opened = Sockets {
        http: Vec::new(),
        udp: Vec::new(),
        control: None,
        addresses: Vec::new(),
        announce_urls: Vec::new(),
    };
    for (name, socket) in inherited {
        let listener = match socket {
            Inherited::Unix(listener) if name == "control" => {
                opened.control = Some(listener);
                continue;
            }
            Inherited::Tcp(listener) => ListenSocket::Tcp(listener),
            Inherited::Unix(listener) => ListenSocket::Unix(listener),
            Inherited::Udp(socket) => {
                opened.udp.push(socket);
                continue;
            }
        };
        opened.http.push(HttpListener {
            listener,
            proxy_header: name == "http-proxy",
            role: match name.as_str() {
                "status" => ListenerRole::Status,
                _ => ListenerRole::Both,
            },
        });
    }
    opened
}

fn bind_http_listeners(config: &Config) -> Result<Vec<HttpListener>, Failed> {
    let mut bound = Vec::new();
    for (proxy_header, role, addresses) in [
        (false, ListenerRole::Both, &config.http.listen),
        (true, ListenerRole::Both, &config.proxy.listen),
        (false, ListenerRole::Status, &config.status.listen),
    ] {
        for address in addresses {
            bound.push(HttpListener {
                listener: bind_http(address).map_err(|error| cannot_bind(&error))?,
                proxy_header,
                role,
            });
        }
    }
    Ok(bound)
}

/// If there is a listener for the status page alone, the other listeners do not serve it.
fn separate_status(listeners: &mut [HttpListener], config: &Config) {
    let separate = listeners
        .iter()
        .any(|listener| listener.role == ListenerRole::Status);
    if separate {
        let others = listeners
            .iter_mut()
            .filter(|listener| listener.role == ListenerRole::Both);
        others.for_each(|listener| listener.role = ListenerRole::Clients);
    } else if !config.status.listen.is_empty() {
        log::notice(
            "status.listen ignored: no inherited socket is named \"status\"",
            &[],
        );
    }
}

/// Fills in the addresses and the announce URLs.
fn list_addresses(opened: &mut Sockets, config: &Config) -> Result<(), Failed> {
    let mut udp_addresses: Vec<SocketAddr> =
        opened.udp.iter().flat_map(UdpSocket::local_addr).collect();
    udp_addresses.dedup();
    for HttpListener {
        listener,
        proxy_header,
        role,
    } in &opened.http
    {
        let for_clients = !proxy_header && *role != ListenerRole::Status;
        let address = match listener {
            ListenSocket::Tcp(listener) => {
                let address = listener.local_addr().map_err(|error| {
                    fail(Exit::Internal, "cannot get the address of a socket", &error)
                })?;
                let path = &config.http.announce_path;
                let reachable = addresses::reachable(address)
                    .into_iter()
                    .filter(|_| for_clients);
                opened
                    .announce_urls
                    .extend(reachable.map(|at| format!("http://{at}{path}")));
                address.to_string()
            }
            ListenSocket::Unix(listener) => unix_address(listener),
        };
        let name = match role {
            ListenerRole::Status => "status",
            _ if *proxy_header => "http-proxy",
            _ => "http",
        };
        opened.addresses.push((name, address));
    }
    for address in udp_addresses {
        let urls = addresses::reachable(address)
            .into_iter()
            .map(|at| format!("udp://{at}/announce"));
        opened.announce_urls.extend(urls);
        opened.addresses.push(("udp", address.to_string()));
    }
    if let Some(listener) = &opened.control {
        opened.addresses.push(("control", unix_address(listener)));
    }
    Ok(())
}

fn unix_address(listener: &UnixListener) -> String {
    format!("unix:{}", unix_path(listener).display())
}

/// Returns the path of a Unix socket; an empty path if the socket has none.
pub(super) fn unix_path(listener: &UnixListener) -> PathBuf {
    let address = listener.local_addr().ok();
    address
        .and_then(|at| at.as_pathname().map(Path::to_owned))
        .unwrap_or_default()
}

fn bind_http(listen: &Listen) -> Result<ListenSocket, BindError> {
    match listen {
        Listen::Tcp(address) => {
            sockets::bind_tcp(*address, &TcpSettings::default()).map(ListenSocket::Tcp)
        }
        Listen::Unix(path) => sockets::bind_unix(path, 0o666).map(ListenSocket::Unix),
    }
}

/// Opens the control socket. If that fails, the daemon continues without: clients do not need it.
fn open_control(config: &Config) -> Option<UnixListener> {
    let path = config.control.listen.as_ref()?;
    let bound = bind_control(path, config);
    bound
        .inspect_err(|reason| {
            log::warning(
                "cannot open the control socket; continuing without it",
                &[("reason", reason)],
            );
        })
        .ok()
}

fn bind_control(path: &Path, config: &Config) -> Result<UnixListener, String> {
    let owner = control_owner(config)?;
    if let Some(directory) = path.parent().filter(|_| geteuid().is_root()) {
        // The directory is missing after each boot. If it cannot be created, binding the socket fails with the reason.
        let open = Permissions::from_mode(0o755);
        let _ = fs::create_dir(directory).and_then(|()| fs::set_permissions(directory, open));
    }
    let mode =
        u32::from_str_radix(&config.control.mode, 8).expect("the configuration is validated");
    sockets::bind_unix_owned(path, mode, owner).map_err(|error| error.to_string())
}

/// Returns user and group of the control socket. `None` stands for those of the process.
fn control_owner(config: &Config) -> Result<(Option<u32>, Option<u32>), String> {
    let user = match config.daemon.user.as_str() {
        "" => None,
        user => User::from_name(user).ok().flatten(),
    };
    let user = user.filter(|_| geteuid().is_root());
    let group = match config.control.group.as_str() {
        "" => user.as_ref().map(|user| user.gid),
        name => match Group::from_name(name) {
            Ok(Some(group)) => Some(group.gid),
            _ => {
                return Err(format!(
                    "group \"{name}\" does not exist; create it, or set another in [control] group"
                ));
            }
        },
    };
    Ok((user.map(|user| user.uid.as_raw()), group.map(Gid::as_raw)))
}

/// Binds a socket for each worker at each address: each worker reads its own.
fn bind_udp_sockets(config: &Config) -> Result<Vec<UdpSocket>, Failed> {
    let settings = UdpSettings {
        receive_buffer: Some(config.udp.receive_buffer as usize),
        reuse_port: true,
    };
    let mut bound: Vec<UdpSocket> = Vec::new();
    for &listen in &config.udp.listen {
        // With SO_REUSEPORT, binding succeeds even if another process of the same user has the port. A socket without
        // it shows whether the port is free.
        let exclusive = UdpSettings {
            reuse_port: false,
            ..settings
        };
        drop(sockets::bind_udp(listen, &exclusive).map_err(|error| cannot_bind(&error))?);
        let mut address = listen;
        for _ in 0..config.worker_count() {
            let socket =
                sockets::bind_udp(address, &settings).map_err(|error| cannot_bind(&error))?;
            // If the system selects the port, all sockets use the port of the first.
            address = socket.local_addr().unwrap_or(address);
            bound.push(socket);
        }
    }
    Ok(bound)
}

/// Logs that an address cannot be bound, and returns the exit status.
fn cannot_bind(error: &BindError) -> Failed {
    log::error(&error.to_string(), &[]);
    Failed(match error.reason.kind() {
        io::ErrorKind::PermissionDenied => Exit::NoPermission,
        _ => Exit::Unavailable,
    })
}
