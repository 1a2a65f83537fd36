//! The daemon: its arguments, then start-up and shutdown in order.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::JoinHandle;

use clap::Parser;
use clap::error::ErrorKind;
use tokio::sync::watch;

use tbtt::app::cluster::ClusterSetup;
use tbtt::app::confine::enter_confinement;
use tbtt::app::context::{AppContext, ConfigSource};
use tbtt::app::sockets::open_sockets;
use tbtt::app::startup::{load_config, log_start, open_log};
use tbtt::app::systemd_status::warn_on_notify_error;
use tbtt::app::tasks::log_totals;
use tbtt::app::workers::{Workers, runtime};
use tbtt::app::{Exit, Failed, control, fail, state, tasks};
use tbtt::config::loader::LoadedConfig;
use tbtt::config::sample::sample;
use tbtt::log;
use tbtt::os::signals::Requests;
use tbtt::os::systemd;
use tbtt::snapshot::{SavePriority, Secrets};

/// BitTorrent tracker: returns to each client the addresses of the peers that share its torrent.
///
/// Without options, it reads /etc/tbtt/tbtt.toml if that file exists, listens on port 6969 for IPv4 and IPv6, and tracks
/// the torrents that the configuration names.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// Read the configuration from FILE, and the drop-ins from the directory FILE.d.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Track any torrent that is not denied, as if [torrents] open were true.
    #[arg(long)]
    open: bool,

    /// Check the configuration, print its errors and warnings, and exit.
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
            // If standard output or error is closed, there is no place to report it.
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
        // A reader that closes the pipe early, such as head(1), is no error.
        let _ = io::stdout().write_all(sample().as_bytes());
        return Ok(());
    }
    let file = arguments.config.clone();
    let source = ConfigSource {
        may_be_missing: file.is_none(),
        file: file.unwrap_or_else(|| CONFIG_FILE.into()),
        open: arguments.open,
    };
    let loaded = load_config(&source, arguments.check_config)?;
    match arguments.check_config {
        true => Ok(()),
        false => serve(source, loaded),
    }
}

/// Starts the daemon, serves until a signal requests the shutdown, and shuts down.
fn serve(source: ConfigSource, loaded: LoadedConfig) -> Result<(), Failed> {
    let config = &loaded.config;
    open_log(&loaded)?;
    // Root and the whole file system may be needed up to here: for ports, devices and credentials.
    let mut sockets = open_sockets(config)?;
    let new_secrets = Secrets::generate()
        .map_err(|error| fail(Exit::Internal, "cannot generate secrets", &error))?;
    let cluster = ClusterSetup::prepare(config)?;
    enter_confinement(&source, config)?;

    let state = state::restore(&loaded, new_secrets);
    // Signals are received before the slow steps: by default, a signal would end the process.
    let cannot_listen = |error| fail(Exit::Internal, "cannot install signal handlers", &error);
    let runtime = runtime().map_err(cannot_listen)?;
    let requests = runtime
        .block_on(async { Requests::listen() })
        .map_err(cannot_listen)?;
    let context = AppContext::build(source, &loaded, &state, cluster)?;
    let (stop, stopped) = watch::channel(false);
    let workers = Workers::start(&context, &sockets, &stopped)?;
    log_start(&loaded, &sockets);
    let control = control::start(sockets.control.take(), &context, &stopped)?;
    // Notifies systemd that the daemon is ready, and returns when it must stop.
    runtime.block_on(tasks::run(&context, workers.heartbeats.clone(), requests));

    stop.send_replace(true);
    log::notice("stopping", &[]);
    warn_on_notify_error(systemd::stopping());
    workers.join()?;
    // The control thread has logged its errors.
    drop(control.map(JoinHandle::join));
    if let Some(cluster) = context.state_saver.cluster.as_ref() {
        cluster.stop();
    }
    // `save` logs its errors.
    let _ = context.state_saver.save(SavePriority::Shutdown);
    log_totals(&context.shared.counters.all());
    log::notice("stopped", &[]);
    log::report_dropped();
    Ok(())
}

#[cfg(test)]
#[path = "../tests/harness/completions.rs"]
mod completions;

#[test]
fn completions_match_the_arguments() {
    completions::check::<Arguments>("tbtt");
}
