//! The sockets to serve: those that the service manager hands over, or bound as configured.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use crate::config::{Config, Listen};
use crate::daemon::sockets::{self, BindError, Inherited, Kind, Known, TcpSettings, UdpSettings};
use crate::daemon::{addresses, log};
use crate::server::http::{Door, Listener, Serves};

use super::{Exit, Failed, failed};

/// The sockets to serve.
pub struct Sockets {
    pub http: Vec<Door>,
    /// Dealt out to the workers in turn.
    pub udp: Vec<UdpSocket>,
    /// Where they are, for the operator.
    pub addresses: Vec<(&'static str, String)>,
    /// What clients may write into a torrent.
    pub announce_urls: Vec<String>,
}

/// Those that the service manager hands over; what it does not, is bound as configured.
pub fn open_sockets(config: &Config) -> Result<Sockets, Failed> {
    let known = [
        Known {
            name: "http",
            kinds: &[Kind::Tcp, Kind::Unix],
        },
        Known {
            name: "http-proxy",
            kinds: &[Kind::Tcp, Kind::Unix],
        },
        Known {
            name: "status",
            kinds: &[Kind::Tcp, Kind::Unix],
        },
        Known {
            name: "udp",
            kinds: &[Kind::Udp],
        },
    ];
    let inherited = sockets::inherited(&known)
        .map_err(|error| failed(Exit::Unavailable, "cannot take over sockets", &error))?;
    let mut opened = Sockets {
        http: Vec::new(),
        udp: Vec::new(),
        addresses: Vec::new(),
        announce_urls: Vec::new(),
    };
    let bind_udp = inherited.is_empty();
    for (name, socket) in inherited {
        let preamble = name == "http-proxy";
        let listener = match socket {
            Inherited::Tcp(listener) => Listener::Tcp(listener),
            Inherited::Unix(listener) => Listener::Unix(listener),
            Inherited::Udp(socket) => {
                opened.udp.push(socket);
                continue;
            }
        };
        opened.http.push(Door {
            listener,
            preamble,
            serves: match name.as_str() {
                "status" => Serves::Views,
                _ => Serves::All,
            },
        });
    }
    if opened.http.is_empty() {
        for (preamble, serves, listen) in [
            (false, Serves::All, &config.http.listen),
            (true, Serves::All, &config.proxy.listen),
            (false, Serves::Views, &config.status.listen),
        ] {
            for listen in listen {
                opened.http.push(Door {
                    listener: bind_http(listen).map_err(|error| cannot_bind(&error))?,
                    preamble,
                    serves,
                });
            }
        }
    }
    let apart = opened.http.iter().any(|door| door.serves == Serves::Views);
    if !apart && !config.status.listen.is_empty() {
        log::notice(
            "no status page of its own address: among the sockets handed over none is named status",
            &[],
        );
    }
    if apart {
        let clients = |door: &&mut Door| door.serves == Serves::All;
        let others = opened.http.iter_mut().filter(clients);
        others.for_each(|door| door.serves = Serves::Clients);
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
    let mut udp_addresses: Vec<SocketAddr> =
        opened.udp.iter().flat_map(UdpSocket::local_addr).collect();
    udp_addresses.dedup();
    for Door {
        listener,
        preamble,
        serves,
    } in &opened.http
    {
        let for_clients = !preamble && *serves != Serves::Views;
        let address = match listener {
            Listener::Tcp(listener) => {
                let address = listener
                    .local_addr()
                    .map_err(|error| failed(Exit::Internal, "no address", &error))?;
                let path = &config.http.announce_path;
                let reachable = addresses::reachable(address)
                    .into_iter()
                    .filter(|_| for_clients);
                opened
                    .announce_urls
                    .extend(reachable.map(|at| format!("http://{at}{path}")));
                address.to_string()
            }
            Listener::Unix(listener) => {
                let path = listener
                    .local_addr()
                    .ok()
                    .and_then(|at| at.as_pathname().map(Path::to_owned));
                path.map_or_else(
                    || "unix:".to_owned(),
                    |path| format!("unix:{}", path.display()),
                )
            }
        };
        let name = match serves {
            Serves::Views => "status",
            _ if *preamble => "http-proxy",
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
    Ok(opened)
}

fn bind_http(listen: &Listen) -> Result<Listener, BindError> {
    match listen {
        Listen::Tcp(address) => {
            sockets::bind_tcp(*address, &TcpSettings::default()).map(Listener::Tcp)
        }
        Listen::Unix(path) => sockets::bind_unix(path, 0o666).map(Listener::Unix),
    }
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
