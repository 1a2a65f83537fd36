//! The sockets to serve: those that the service manager hands over, or bound as configured.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::unistd::{Gid, Group, User, geteuid};

use crate::config::{Config, Listen};
use crate::log;
use crate::os::addresses;
use crate::os::sockets::{self, BindError, Inherited, Kind, SocketName, TcpSettings, UdpSettings};
use crate::server::http::settings::ListenerRole;
use crate::server::http::{HttpListener, ListenSocket};

use crate::app::{Exit, Failed, fail};

/// The sockets to serve.
pub struct Sockets {
    pub http: Vec<HttpListener>,
    /// Dealt out to the workers in turn.
    pub udp: Vec<UdpSocket>,
    /// The operator's.
    pub control: Option<UnixListener>,
    /// Where they are, for the operator.
    pub addresses: Vec<(&'static str, String)>,
    /// What clients may write into a torrent.
    pub announce_urls: Vec<String>,
}

/// Those that the service manager hands over; what it does not, is bound as configured.
pub fn open_sockets(config: &Config) -> Result<Sockets, Failed> {
    let known = [
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
    let inherited = sockets::inherited(&known)
        .map_err(|error| fail(Exit::Unavailable, "cannot take over sockets", &error))?;
    let mut opened = Sockets {
        http: Vec::new(),
        udp: Vec::new(),
        control: None,
        addresses: Vec::new(),
        announce_urls: Vec::new(),
    };
    let bind_udp = inherited.iter().all(|(name, _)| name == "control");
    for (name, socket) in inherited {
        let proxy_header = name == "http-proxy";
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
            proxy_header,
            serves: match name.as_str() {
                "status" => ListenerRole::Status,
                _ => ListenerRole::Both,
            },
        });
    }
    if opened.http.is_empty() {
        for (proxy_header, serves, listen) in [
            (false, ListenerRole::Both, &config.http.listen),
            (true, ListenerRole::Both, &config.proxy.listen),
            (false, ListenerRole::Status, &config.status.listen),
        ] {
            for listen in listen {
                opened.http.push(HttpListener {
                    listener: bind_http(listen).map_err(|error| cannot_bind(&error))?,
                    proxy_header,
                    serves,
                });
            }
        }
    }
    let apart = opened
        .http
        .iter()
        .any(|door| door.serves == ListenerRole::Status);
    if !apart && !config.status.listen.is_empty() {
        log::notice(
            "no status page of its own address: among the sockets handed over none is named status",
            &[],
        );
    }
    if apart {
        let clients = |door: &&mut HttpListener| door.serves == ListenerRole::Both;
        let others = opened.http.iter_mut().filter(clients);
        others.for_each(|door| door.serves = ListenerRole::Clients);
    }
    // A service manager that hands over sockets leaves the right to make more to none, as our unit does.
    if bind_udp {
        opened.udp = bind_udp_sockets(config)?;
    } else if opened.udp.is_empty() && !config.udp.listen.is_empty() {
        log::notice(
            "no UDP: among the sockets handed over none is named udp",
            &[],
        );
    }
    if opened.control.is_none() {
        opened.control = open_control(config);
    }
    let mut udp_addresses: Vec<SocketAddr> =
        opened.udp.iter().flat_map(UdpSocket::local_addr).collect();
    udp_addresses.dedup();
    for HttpListener {
        listener,
        proxy_header,
        serves,
    } in &opened.http
    {
        let for_clients = !proxy_header && *serves != ListenerRole::Status;
        let address = match listener {
            ListenSocket::Tcp(listener) => {
                let address = listener
                    .local_addr()
                    .map_err(|error| fail(Exit::Internal, "no address", &error))?;
                let path = &config.http.announce_path;
                let reachable = addresses::reachable(address)
                    .into_iter()
                    .filter(|_| for_clients);
                opened
                    .announce_urls
                    .extend(reachable.map(|at| format!("http://{at}{path}")));
                address.to_string()
            }
            ListenSocket::Unix(listener) => shown(listener),
        };
        let name = match serves {
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
        opened.addresses.push(("control", shown(listener)));
    }
    Ok(opened)
}

fn shown(listener: &UnixListener) -> String {
    let path = listener
        .local_addr()
        .ok()
        .and_then(|at| at.as_pathname().map(Path::to_owned));
    format!("unix:{}", path.unwrap_or_default().display())
}

fn bind_http(listen: &Listen) -> Result<ListenSocket, BindError> {
    match listen {
        Listen::Tcp(address) => {
            sockets::bind_tcp(*address, &TcpSettings::default()).map(ListenSocket::Tcp)
        }
        Listen::Unix(path) => sockets::bind_unix(path, 0o666).map(ListenSocket::Unix),
    }
}

/// Nothing that clients need depends on it, so without it the daemon serves all the same.
fn open_control(config: &Config) -> Option<UnixListener> {
    let path = config.control.listen.as_ref()?;
    let bound = bind_control(path, config);
    bound
        .inspect_err(|reason| {
            log::warning("serving without a control socket", &[("reason", reason)]);
        })
        .ok()
}

fn bind_control(path: &Path, config: &Config) -> Result<UnixListener, String> {
    let owner = control_owner(config)?;
    if let Some(directory) = path.parent().filter(|_| geteuid().is_root()) {
        // Gone after each boot, or there already. If it cannot be made, that shows next.
        let open = Permissions::from_mode(0o755);
        let _ = fs::create_dir(directory).and_then(|()| fs::set_permissions(directory, open));
    }
    let mode = u32::from_str_radix(&config.control.mode, 8).expect("checked when it was read");
    sockets::bind_unix_for(path, mode, owner).map_err(|error| error.to_string())
}

/// Whose the control socket shall be: user, if we may choose, and group, if not our own.
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
            _ => return Err(format!("there is no group \"{name}\" on this machine")),
        },
    };
    Ok((user.map(|user| user.uid.as_raw()), group.map(Gid::as_raw)))
}

/// One for each worker at each address, as each reads its own.
fn bind_udp_sockets(config: &Config) -> Result<Vec<UdpSocket>, Failed> {
    let settings = UdpSettings {
        receive_buffer: Some(config.udp.receive_buffer as usize),
        reuse_port: true,
    };
    let mut bound: Vec<UdpSocket> = Vec::new();
    for &listen in &config.udp.listen {
        // Sockets that share a port let any of the same user's join them: this one finds out whether it is taken.
        let alone = UdpSettings {
            reuse_port: false,
            ..settings
        };
        drop(sockets::bind_udp(listen, &alone).map_err(|error| cannot_bind(&error))?);
        let mut address = listen;
        for _ in 0..config.worker_count() {
            let socket =
                sockets::bind_udp(address, &settings).map_err(|error| cannot_bind(&error))?;
            // Where the system picks the port, it picks it once.
            address = socket.local_addr().unwrap_or(address);
            bound.push(socket);
        }
    }
    Ok(bound)
}

fn cannot_bind(error: &BindError) -> Failed {
    log::error(&error.to_string(), &[]);
    Failed(match error.reason.kind() {
        io::ErrorKind::PermissionDenied => Exit::NoPermission,
        _ => Exit::Unavailable,
    })
}
