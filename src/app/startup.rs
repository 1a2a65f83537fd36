//! The first and the last step of the start: loading the configuration, and logging that the daemon serves.

use crate::app::context::ConfigSource;
use crate::app::sockets::Sockets;
use crate::app::{Exit, Failed, fail};
use crate::config::loader::LoadedConfig;
use crate::log;

/// Loads the configuration, and reports its errors. With `check_only`, it also prints the warnings and the result of
/// the check.
pub fn load_config(source: &ConfigSource, check_only: bool) -> Result<LoadedConfig, Failed> {
    let loaded = source.load().map_err(|errors| {
        let errors = errors.0.iter().map(ToString::to_string);
        match check_only {
            true => errors.for_each(|error| log::error_on_stderr(&error)),
            false => errors.for_each(|error| log::error_before_init(&error)),
        }
        Failed(Exit::Config)
    })?;
    if check_only {
        for warning in loaded.warnings() {
            eprintln!("warning: {warning}");
        }
        println!("configuration is valid: {}", files_read(&loaded));
    }
    Ok(loaded)
}

/// Opens the log, and logs the warnings of the configuration.
pub fn open_log(loaded: &LoadedConfig) -> Result<(), Failed> {
    log::log_panics();
    log::init(&loaded.log_settings())
        .map_err(|error| fail(Exit::Internal, "cannot open the log", &error))?;
    for warning in loaded.warnings() {
        log::warning("configuration warning", &[("warning", &warning)]);
    }
    Ok(())
}

/// Logs that the daemon serves: its configuration, its sockets, and the URLs for clients.
pub fn log_start(loaded: &LoadedConfig, sockets: &Sockets) {
    let version = env!("CARGO_PKG_VERSION");
    log::notice(
        "started",
        &[
            ("version", &version),
            ("configuration", &files_read(loaded)),
        ],
    );
    if loaded.config.torrents.open {
        log::warning(
            "tracker is open; tracking any torrent that is not denied",
            &[],
        );
    }
    for (protocol, address) in &sockets.addresses {
        log::notice("listening", &[("protocol", protocol), ("address", address)]);
    }
    for url in &sockets.announce_urls {
        log::notice("clients announce to", &[("url", url)]);
    }
}

fn files_read(loaded: &LoadedConfig) -> String {
    match &loaded.files[..] {
        [] => "no file, only defaults".to_owned(),
        files => files
            .iter()
            .map(|file| file.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    }
}
