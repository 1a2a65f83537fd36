//! The reload: reads the configuration again and applies it to the running daemon.

use crate::app::context::AppContext;
use crate::app::step_timer::StepTimer;
use crate::app::systemd_status::{status, warn_on_notify_error};
use crate::config::diagnostics::Errors;
use crate::lock::lock;
use crate::log;
use crate::os::systemd;
use crate::protocol::connection_id::Secret;
use crate::protocol::udp::Responder;

/// Applies the configuration as it is now: all of it or, if there are errors, nothing. Reloads run one after the other.
///
/// # Errors
/// When the configuration has errors. They have been logged, and the current configuration is kept.
pub fn reload(context: &AppContext) -> Result<(), Errors> {
    let _alone = lock(&context.reloading);
    warn_on_notify_error(systemd::reloading());
    let mut timer = StepTimer::start("reload step finished");
    let loaded = context.source.load().inspect_err(|errors| {
        context.status_collector.record_reload(false);
        for error in &errors.0 {
            log::error(
                "reload failed; keeping the current configuration",
                &[("error", error)],
            );
        }
        let first = errors.0.first().map(ToString::to_string);
        let status = format!("reload failed: {}", first.unwrap_or_default());
        warn_on_notify_error(systemd::ready(&status));
    })?;
    timer.finished("read the configuration and its lists");
    if let Err(error) = log::init(&loaded.log_settings()) {
        log::error(
            "cannot apply the new log settings; keeping the current ones",
            &[("reason", &error)],
        );
    }
    for warning in loaded.warnings() {
        log::warning("configuration warning", &[("warning", &warning)]);
    }
    for key in context
        .initial_config
        .keys_that_need_restart(&loaded.config)
    {
        log::warning(
            "setting changed; restart tbtt to apply it",
            &[("key", &key)],
        );
    }
    let seed = context.secrets.seed;
    context
        .shared
        .tracker
        .set_settings(loaded.tracker_settings(seed));
    context.http.set_settings(loaded.http_settings(seed));
    context.udp.set_responder(Responder::new(
        loaded.udp_settings(),
        &Secret(context.secrets.connection_id),
    ));
    let counters = &context.shared.counters;
    counters.log_access(loaded.config.log.announces);
    context.state_saver.set_interval(&loaded.config);
    context
        .seed_monitor
        .set_settings(loaded.config.seed_monitor_settings());
    timer.finished("apply the settings");
    context
        .torrent_sync
        .set_settings(loaded.torrent_sync_settings());
    timer.finished("apply the torrent lists");
    context
        .torrent_watcher
        .rescan(loaded.config.watcher_settings());
    context.status_collector.record_reload(true);
    log::notice("configuration reloaded", &[]);
    warn_on_notify_error(systemd::ready(&status(&context.shared, 0)));
    Ok(())
}
