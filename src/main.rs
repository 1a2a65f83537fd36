//! The daemon: arguments, then the order of starting and stopping; exit codes.
#![forbid(unsafe_code)]

use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::hash::BuildHasher;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use tbtt::config::{self, Config, Listen, Loaded};
use tbtt::daemon::notify::{self, Watchdog};
use tbtt::daemon::privileges::{self, Privileges};
use tbtt::daemon::signals::{Request, Requests};
use tbtt::daemon::sockets::{self, BindError, Inherited, Kind, Known, TcpSettings, UdpSettings};
use tbtt::daemon::{addresses, log, sandbox};
use tbtt::protocol::connection_id::Secret;
use tbtt::protocol::udp::Responder;
use tbtt::server::http::{self, Front, Listener};
use tbtt::server::udp;
use tbtt::tracker::{Totals, Tracker};

/// The BitTorrent tracker: tells the peers of a torrent of each other.
///
/// Without options it reads /etc/tbtt/tbtt.toml if that is there, listens on port 6969 over IPv4 and IPv6, and tracks
/// the torrents that the configuration names.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// Read this configuration instead, and the drop-ins in FILE.d.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Track any torrent, whoever made it, as if [torrents] open were true.
    #[arg(long)]
    open: bool,

    /// Tell what is wrong with the configuration, or that nothing is, and exit.
    #[arg(long)]
    check_config: bool,

    /// Print every key with its default and meaning, and exit.
    #[arg(long)]
    print_default_config: bool,
}

const CONFIG_FILE: &str = "/etc/tbtt/tbtt.toml";

const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Why the daemon ends, as its exit status says it (sysexits.h).
#[derive(Clone, Copy)]
enum Exit {
    Usage = 64,
    Unavailable = 69,
    Internal = 70,
    NoPermission = 77,
    Config = 78,
}

/// The end of the daemon; the reason has been told already.
struct Failed(Exit);

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Standard output or error being closed is no reason to say more.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(Exit::Usage as u8),
            };
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(exit)) => ExitCode::from(exit as u8),
    }
}

fn run(arguments: &Arguments) -> Result<(), Failed> {
    if arguments.print_default_config {
        print!("{}", config::sample());
        return Ok(());
    }
    let loaded = load(arguments)?;
    if arguments.check_config {
        loaded
            .warnings()
            .iter()
            .for_each(|warning| eprintln!("warning: {warning}"));
        println!("the configuration is good: {}", files_read(&loaded));
        return Ok(());
    }
    let config = &loaded.config;
    log::log_panics();
    log::init(&loaded.log_settings())
        .map_err(|error| failed(Exit::Internal, "cannot open the log", &error))?;
    loaded
        .warnings()
        .iter()
        .for_each(|warning| log::warning("unwise configuration", &[("at", warning)]));

    let sockets = open_sockets(config)?;
    shut_in(arguments, &loaded)?;
    let seed = RandomState::new().hash_one(0);
    let tracker = Arc::new(Tracker::new(loaded.tracker_settings(seed), seed));
    let front = Arc::new(Front::new(loaded.http_settings(seed), tracker));
    let udp_front = Arc::new(udp::Front {
        responder: Responder::new(loaded.udp_settings(), &new_secret()),
        tracker: front.tracker.clone(),
        clock: front.clock,
        counters: front.counters.clone(),
    });
    let (stop, stopped) = watch::channel(false);
    let workers = Workers::start(config, &front, &udp_front, &sockets, &stopped)?;
    let no_signals = |error| failed(Exit::Internal, "cannot wait for signals", &error);
    let runtime = runtime().map_err(no_signals)?;
    // Before anyone is told that it runs: a signal that comes early must not meet its default.
    let requests = runtime
        .block_on(async { Requests::listen() })
        .map_err(no_signals)?;
    tell_start(&loaded, &sockets);

    runtime.block_on(serve_operator(&front, &workers, requests));
    stop.send_replace(true);
    log::notice("stopping", &[]);
    told(notify::stopping());
    workers.join()?;
    let (announces, scrapes) = (front.counters.announces.get(), front.counters.scrapes.get());
    log::notice(
        "stopped",
        &[("announces", &announces), ("scrapes", &scrapes)],
    );
    log::report_dropped();
    Ok(())
}

/// Tells why the daemon ends.
fn failed(exit: Exit, sentence: &str, reason: &dyn Display) -> Failed {
    log::error(sentence, &[("reason", reason)]);
    Failed(exit)
}

fn load(arguments: &Arguments) -> Result<Loaded, Failed> {
    let loaded = match &arguments.config {
        Some(path) => Config::load(path),
        None => Config::load_if_present(Path::new(CONFIG_FILE)),
    };
    let mut loaded = loaded.map_err(|faults| {
        // Before the log is set up, and whole: each fault is a line.
        eprintln!("{faults}");
        Failed(Exit::Config)
    })?;
    loaded.config.torrents.open |= arguments.open;
    Ok(loaded)
}

fn files_read(loaded: &Loaded) -> String {
    match &loaded.files[..] {
        [] => "defaults alone".to_owned(),
        files => files
            .iter()
            .map(|file| file.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// The sockets to serve.
struct Sockets {
    http: Vec<Listener>,
    /// Dealt out to the workers in turn.
    udp: Vec<UdpSocket>,
    /// Where they are, for the operator.
    addresses: Vec<(&'static str, String)>,
    /// What clients may write into a torrent.
    announce_urls: Vec<String>,
}

/// Those that the service manager hands over; what it does not, is bound as configured.
fn open_sockets(config: &Config) -> Result<Sockets, Failed> {
    let known = [
        Known {
            name: "http",
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
    for (_, socket) in inherited {
        match socket {
            Inherited::Tcp(listener) => opened.http.push(Listener::Tcp(listener)),
            Inherited::Unix(listener) => opened.http.push(Listener::Unix(listener)),
            Inherited::Udp(socket) => opened.udp.push(socket),
        }
    }
    if opened.http.is_empty() {
        for listen in &config.http.listen {
            let bound = match listen {
                Listen::Tcp(address) => {
                    sockets::bind_tcp(*address, &TcpSettings::default()).map(Listener::Tcp)
                }
                Listen::Unix(path) => sockets::bind_unix(path, 0o666).map(Listener::Unix),
            };
            opened
                .http
                .push(bound.map_err(|error| cannot_bind(&error))?);
        }
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
    for listener in &opened.http {
        let address = match listener {
            Listener::Tcp(listener) => {
                let address = listener
                    .local_addr()
                    .map_err(|error| failed(Exit::Internal, "no address", &error))?;
                let path = &config.http.announce_path;
                let urls = addresses::reachable(address)
                    .into_iter()
                    .map(|at| format!("http://{at}{path}"));
                opened.announce_urls.extend(urls);
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
        opened.addresses.push(("http", address));
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

/// One for each worker at each address, as each reads its own.
fn bind_udp_sockets(config: &Config) -> Result<Vec<UdpSocket>, Failed> {
    let settings = UdpSettings {
        receive_buffer: Some(config.udp.receive_buffer as usize),
        reuse_port: true,
    };
    let mut bound: Vec<UdpSocket> = Vec::new();
    for &listen in &config.udp.listen {
        let mut address = listen;
        for _ in 0..worker_count(config) {
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

fn new_secret() -> Secret {
    let half = || RandomState::new().hash_one(0).to_ne_bytes();
    let mut secret = [0; 16];
    secret[..8].copy_from_slice(&half());
    secret[8..].copy_from_slice(&half());
    Secret(secret)
}

/// Gives up what the daemon does not need any more, for good, before the first thread and the first stranger's byte.
fn shut_in(arguments: &Arguments, loaded: &Loaded) -> Result<(), Failed> {
    let config = &loaded.config;
    // A trial run that reads no configuration needs nothing that belongs to anyone.
    let trial = (arguments.open && arguments.config.is_none()).then_some("nobody");
    let user = Some(config.daemon.user.as_str())
        .filter(|user| !user.is_empty())
        .or(trial);
    let open_files = privileges::raise_open_files().unwrap_or_default();
    let dropped = privileges::irrevocably_drop(user).map_err(|error| {
        log::error(&error.to_string(), &[]);
        Failed(Exit::NoPermission)
    })?;
    if let Privileges::Dropped { user, uid, gid } = dropped {
        log::notice(
            "gave up root for good",
            &[("user", &user), ("uid", &uid), ("gid", &gid)],
        );
    }
    let wanted = u64::from(config.http.max_connections) + 64;
    if open_files < wanted {
        log::warning(
            "fewer files may be open than max_connections asks for",
            &[("limit", &open_files), ("wanted", &wanted)],
        );
    }
    if config.daemon.sandbox {
        let restricted = sandbox::restrict(&sandbox_settings(arguments, config))
            .map_err(|error| failed(Exit::Internal, "cannot set up the sandbox", &error))?;
        log::notice("sandboxed by landlock", &[("reached", &restricted.reached)]);
        for path in restricted.absent {
            log::warning(
                "absent, and out of reach until a restart",
                &[("path", &path.display())],
            );
        }
    }
    Ok(())
}

fn sandbox_settings(arguments: &Arguments, config: &Config) -> sandbox::Settings {
    let config_file = arguments
        .config
        .as_deref()
        .unwrap_or(Path::new(CONFIG_FILE));
    let config_directory = config_file.parent().filter(|directory| directory.is_dir());
    let lists = config
        .torrents
        .allow
        .iter()
        .chain(&config.torrents.deny)
        .filter_map(|list| list.parent());
    let read = config_directory
        .into_iter()
        .chain(config.torrents.directories.iter().map(PathBuf::as_path))
        .chain(lists);
    sandbox::Settings {
        read: read.map(Path::to_owned).collect(),
        ..sandbox::Settings::default()
    }
}

/// The threads that serve.
struct Workers {
    threads: Vec<JoinHandle<io::Result<()>>>,
    seen: Arc<notify::Workers>,
}

impl Workers {
    fn start(
        config: &Config,
        front: &Arc<Front>,
        udp_front: &Arc<udp::Front>,
        sockets: &Sockets,
        stopped: &watch::Receiver<bool>,
    ) -> Result<Self, Failed> {
        let count = worker_count(config);
        let seen = Arc::new(notify::Workers::new(count));
        let start = |number: usize| {
            let listeners = sockets
                .http
                .iter()
                .map(Listener::try_clone)
                .collect::<io::Result<Vec<_>>>()?;
            let udp_sockets = sockets
                .udp
                .iter()
                .skip(number)
                .step_by(count)
                .map(UdpSocket::try_clone)
                .collect::<io::Result<Vec<_>>>()?;
            let (front, stopped, seen) = (front.clone(), stopped.clone(), seen.clone());
            let udp_front = udp_front.clone();
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    LocalSet::new().block_on(&runtime()?, async {
                        let udp = spawn_local(udp::serve(udp_front, udp_sockets, stopped.clone()));
                        http::serve(front, listeners, stopped, move || seen.seen(number)).await?;
                        udp.await?
                    })
                })
        };
        let threads = (0..count).map(start).collect::<io::Result<_>>();
        let threads =
            threads.map_err(|error| failed(Exit::Internal, "cannot start a worker", &error))?;
        Ok(Self { threads, seen })
    }

    fn join(self) -> Result<(), Failed> {
        for thread in self.threads {
            let served = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            served.map_err(|error| failed(Exit::Internal, "a worker failed", &error))?;
        }
        Ok(())
    }
}

fn worker_count(config: &Config) -> usize {
    match config.tracker.workers {
        0 => thread::available_parallelism().map_or(1, usize::from),
        workers => workers as usize,
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn tell_start(loaded: &Loaded, sockets: &Sockets) {
    let version = env!("CARGO_PKG_VERSION");
    log::notice(
        "started",
        &[
            ("version", &version),
            ("configuration", &files_read(loaded)),
        ],
    );
    if loaded.config.torrents.open {
        log::warning("open to all: any torrent is tracked, whoever made it", &[]);
    }
    for (protocol, address) in &sockets.addresses {
        log::notice("listening", &[("protocol", protocol), ("address", address)]);
    }
    for url in &sockets.announce_urls {
        log::notice("clients announce to", &[("url", url)]);
    }
}

/// Does what must be done now and then, and what signals ask for, until one asks to stop.
async fn serve_operator(front: &Arc<Front>, workers: &Workers, mut requests: Requests) {
    tokio::spawn(expire(front.clone()));
    tokio::spawn(tell_status(front.clone()));
    if let Some(watchdog) = Watchdog::from_environment() {
        tokio::spawn(keep_watchdog(watchdog, workers.seen.clone()));
    }
    told(notify::ready(&status(front, 0)));
    loop {
        match requests.next().await {
            Request::Stop => return,
            Request::Reload | Request::Snapshot => {}
        }
    }
}

/// Sweeps a slice each second, so that all peers are looked at once in about a minute.
async fn expire(front: Arc<Front>) {
    for slice in 0.. {
        sleep(Duration::from_secs(1)).await;
        front.tracker.expire(front.clock.now(), slice);
    }
}

/// Keeps the line of `systemctl status` alive.
async fn tell_status(front: Arc<Front>) {
    let mut before = 0;
    loop {
        sleep(STATUS_INTERVAL).await;
        let announces = front.counters.announces.get();
        told(notify::status(&status(
            &front,
            (announces - before) / STATUS_INTERVAL.as_secs(),
        )));
        before = announces;
        log::report_dropped();
    }
}

fn status(front: &Front, announces_per_second: u64) -> String {
    let Totals {
        torrents,
        peers_v4,
        peers_v6,
    } = front.tracker.totals();
    let peers = peers_v4 + peers_v6;
    format!(
        "{torrents} torrents, {peers} peers ({peers_v6} IPv6), {announces_per_second} announces/s"
    )
}

/// Pings while every worker still serves: one that is stuck makes the service manager restart the process.
async fn keep_watchdog(watchdog: Watchdog, workers: Arc<notify::Workers>) {
    loop {
        sleep(watchdog.interval()).await;
        if workers.all_seen() {
            told(watchdog.ping());
        }
    }
}

/// The service manager not listening is no reason to stop serving.
fn told(result: io::Result<()>) {
    if let Err(error) = result {
        log::warning("cannot tell the service manager", &[("reason", &error)]);
    }
}
