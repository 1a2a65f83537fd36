//! The daemon: arguments, then the order of starting and stopping; exit codes.
#![forbid(unsafe_code)]

use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::hash::BuildHasher;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::sleep;

use tbtt::config::{self, Config, Listen, Loaded};
use tbtt::daemon::{addresses, log};
use tbtt::server::http::{self, Front};
use tbtt::tracker::Tracker;

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
    log::init(&config.log_settings())
        .map_err(|error| failed(Exit::Internal, "cannot open the log", &error))?;
    loaded
        .warnings()
        .iter()
        .for_each(|warning| log::warning("unwise configuration", &[("at", warning)]));

    let listeners = bind(config)?;
    let (stop, stopped) = watch::channel(false);
    let tracker = Arc::new(Tracker::new(
        config.tracker_settings(),
        RandomState::new().hash_one(0),
    ));
    let front = Arc::new(Front::new(config.http_settings(), tracker.clone()));
    let workers = start_workers(config, &front, &listeners, &stopped)?;
    announce_start(config, &loaded, &listeners);

    let ended = runtime().and_then(|runtime| runtime.block_on(until_stop(front.clone())));
    ended.map_err(|error| failed(Exit::Internal, "cannot wait for signals", &error))?;
    log::notice("stopping", &[]);
    stop.send_replace(true);
    for worker in workers {
        let served = worker
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
        served.map_err(|error| failed(Exit::Internal, "a worker failed", &error))?;
    }
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

fn bind(config: &Config) -> Result<Vec<TcpListener>, Failed> {
    let mut listeners = Vec::new();
    for listen in &config.http.listen {
        let Listen::Tcp(address) = listen else {
            continue;
        };
        listeners.push(TcpListener::bind(address).map_err(|error| {
            let exit = match error.kind() {
                io::ErrorKind::PermissionDenied => Exit::NoPermission,
                _ => Exit::Unavailable,
            };
            log::error("cannot listen", &[("address", address), ("reason", &error)]);
            Failed(exit)
        })?);
    }
    Ok(listeners)
}

fn start_workers(
    config: &Config,
    front: &Arc<Front>,
    listeners: &[TcpListener],
    stopped: &watch::Receiver<bool>,
) -> Result<Vec<JoinHandle<io::Result<()>>>, Failed> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let workers = match config.tracker.workers {
        0 => cores,
        workers => workers as usize,
    };
    let start = |number: usize| {
        let listeners = listeners
            .iter()
            .map(TcpListener::try_clone)
            .collect::<io::Result<Vec<_>>>()?;
        let (front, stopped) = (front.clone(), stopped.clone());
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                let serving = http::serve(front, listeners, stopped, || ());
                LocalSet::new().block_on(&runtime()?, serving)
            })
    };
    let started = (0..workers).map(start).collect::<io::Result<_>>();
    started.map_err(|error| failed(Exit::Internal, "cannot start a worker", &error))
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn announce_start(config: &Config, loaded: &Loaded, listeners: &[TcpListener]) {
    let version = env!("CARGO_PKG_VERSION");
    log::notice(
        "started",
        &[
            ("version", &version),
            ("configuration", &files_read(loaded)),
        ],
    );
    if config.torrents.open {
        log::warning("open to all: any torrent is tracked, whoever made it", &[]);
    }
    for address in listeners.iter().flat_map(TcpListener::local_addr) {
        log::notice("listening", &[("protocol", &"http"), ("address", &address)]);
        for reachable in addresses::reachable(address) {
            let url = format!("http://{reachable}{}", config.http.announce_path);
            log::notice("clients announce to", &[("url", &url)]);
        }
    }
}

/// Does what must be done now and then, until a signal asks to stop.
async fn until_stop(front: Arc<Front>) -> io::Result<()> {
    let (asked, mut stop) = watch::channel(false);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signal = signal(kind)?;
        let asked = asked.clone();
        tokio::spawn(async move {
            signal.recv().await;
            asked.send_replace(true);
        });
    }
    tokio::spawn(expire(front));
    // Ends when a signal has come: the senders outlive this.
    let _ = stop.wait_for(|&stop| stop).await;
    Ok(())
}

/// Sweeps a slice each second, so that all peers are looked at once in about a minute.
async fn expire(front: Arc<Front>) {
    for slice in 0.. {
        sleep(Duration::from_secs(1)).await;
        front.tracker.expire(front.clock.now(), slice);
    }
}
