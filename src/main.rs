//! The daemon: arguments, then the order of starting and stopping.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use clap::Parser;
use clap::error::ErrorKind;
use tokio::sync::watch;

use tbtt::app::access_log::new_counters;
use tbtt::app::cluster::ClusterSetup;
use tbtt::app::confine::enter_confinement;
use tbtt::app::context::{AppContext, ConfigSource};
use tbtt::app::control;
use tbtt::app::sockets::{Sockets, open_sockets};
use tbtt::app::state::{self, StateSaver};
use tbtt::app::status_collector::StatusCollector;
use tbtt::app::systemd_status::warn_on_notify_error;
use tbtt::app::tasks::log_counted;
use tbtt::app::workers::{Workers, runtime};
use tbtt::app::{Exit, Failed, fail};
use tbtt::config::{self, LoadedConfig};
use tbtt::log;
use tbtt::os::signals::Requests;
use tbtt::os::systemd;
use tbtt::protocol::connection_id::Secret;
use tbtt::protocol::udp::Responder;
use tbtt::server::Shared;
use tbtt::server::http::connection_limits::ConnectionLimits;
use tbtt::server::http::server::HttpServer;
use tbtt::server::udp::UdpServer;
use tbtt::snapshot::{SavePriority, Secrets};
use tbtt::status::endpoint::StatusEndpoint;
use tbtt::torrents::seed_monitor::SeedMonitor;
use tbtt::torrents::sync::TorrentSync;

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
        // A reader that has seen enough, as head has, is no fault.
        let _ = io::stdout().write_all(config::sample().as_bytes());
        return Ok(());
    }
    let source = ConfigSource {
        file: arguments
            .config
            .clone()
            .unwrap_or_else(|| CONFIG_FILE.into()),
        may_be_missing: arguments.config.is_none(),
        open: arguments.open,
    };
    let loaded = source.load().map_err(|faults| {
        let faults = faults.0.iter().map(ToString::to_string);
        match arguments.check_config {
            true => faults.for_each(|fault| log::error_on_stderr(&fault)),
            false => faults.for_each(|fault| log::error_before_init(&fault)),
        }
        Failed(Exit::Config)
    })?;
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
        .map_err(|error| fail(Exit::Internal, "cannot open the log", &error))?;
    loaded
        .warnings()
        .iter()
        .for_each(|warning| log::warning("unwise configuration", &[("at", warning)]));

    let mut sockets = open_sockets(config)?;
    let fresh =
        Secrets::new().map_err(|error| fail(Exit::Internal, "cannot draw secrets", &error))?;
    let cluster_setup = ClusterSetup::prepare(config)?;
    enter_confinement(
        &source.file,
        arguments.open && arguments.config.is_none(),
        config,
    )?;
    let state = state::restore(&loaded, fresh);
    let secrets = state.secrets.clone();
    let seed_monitor = SeedMonitor::new(
        config.seed_monitor_settings(),
        state.health.clone(),
        state.clock,
    );
    let shared = Arc::new(Shared {
        tracker: state.tracker.clone(),
        clock: state.clock,
        counters: Arc::new(new_counters(config)),
        updates: cluster_setup.as_ref().map(|setup| setup.updates.clone()),
    });
    let responder = Responder::new(loaded.udp_settings(), &Secret(secrets.connection_id));
    let udp = Arc::new(UdpServer::new(shared.clone(), responder));
    let no_signals = |error| fail(Exit::Internal, "cannot wait for signals", &error);
    let runtime = runtime().map_err(no_signals)?;
    // Before anything takes long or is logged: a signal that comes early must not have its default effect, the process's end.
    let requests = runtime
        .block_on(async { Requests::listen() })
        .map_err(no_signals)?;
    let torrent_sync = TorrentSync::new(
        loaded.torrent_sync_settings(),
        shared.tracker.clone(),
        shared.clock,
    );
    let torrent_watcher = torrent_sync
        .watch(config.watcher_settings())
        .map_err(|error| {
            fail(
                Exit::Internal,
                "cannot watch the torrent directories",
                &error,
            )
        })?;
    // Once it is known which torrents are tracked: updates to others are rejected.
    let cluster = cluster_setup
        .map(|setup| setup.start(&state.cluster, &shared.tracker, shared.clock))
        .transpose()?;
    let state_saver = StateSaver::new(config, &state, cluster);
    let http_settings = loaded.http_settings(secrets.seed);
    let connections = Arc::new(ConnectionLimits::new(
        http_settings.max_connections,
        http_settings.max_connections_per_network,
    ));
    let status_collector = StatusCollector::new(
        &shared,
        &connections,
        &torrent_sync,
        &seed_monitor,
        &state_saver,
    );
    let collector = status_collector.clone();
    let status = StatusEndpoint::start(Box::new(move || collector.report()))
        .map_err(|error| fail(Exit::Internal, "cannot start the status thread", &error))?;
    let http = Arc::new(HttpServer::new(
        shared.clone(),
        status,
        http_settings,
        connections,
    ));
    let (stop, stopped) = watch::channel(false);
    let workers = Workers::start(config, &http, &udp, &sockets, &stopped)?;
    tell_start(&loaded, &sockets);

    let context = Arc::new(AppContext {
        source,
        started: loaded.config,
        shared,
        http,
        udp,
        state_saver,
        secrets,
        torrent_sync,
        seed_monitor,
        status_collector,
        torrent_watcher,
        reloading: Mutex::default(),
    });
    let control = control::start(sockets.control.take(), &context, &stopped)?;
    runtime.block_on(context.serve_operator(workers.heartbeats.clone(), requests));
    stop.send_replace(true);
    log::notice("stopping", &[]);
    warn_on_notify_error(systemd::stopping());
    workers.join()?;
    // It has warn_on_notify_error what it could not do.
    drop(control.map(JoinHandle::join));
    if let Some(cluster) = context.state_saver.cluster.as_ref() {
        cluster.stop();
    }
    // Told, if it fails.
    let _ = context.state_saver.save(SavePriority::Shutdown);
    log_counted(&context.shared.counters.all());
    log::notice("stopped", &[]);
    log::report_dropped();
    Ok(())
}

fn files_read(loaded: &LoadedConfig) -> String {
    match &loaded.files[..] {
        [] => "defaults alone".to_owned(),
        files => files
            .iter()
            .map(|file| file.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn tell_start(loaded: &LoadedConfig, sockets: &Sockets) {
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

#[cfg(test)]
#[path = "../tests/harness/completions.rs"]
mod completions;

#[test]
fn completions_are_those_of_the_arguments() {
    completions::check::<Arguments>("tbtt");
}
