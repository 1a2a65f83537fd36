use crate::app::context::AppContext;
use crate::app::systemd_status::{status, warn_on_notify_error};
use crate::config::Errors;
use crate::lock::lock;
use crate::log;
use crate::os::systemd;
use crate::protocol::connection_id::Secret;
use crate::protocol::udp::Responder;

impl AppContext {
    /// Takes over what the configuration says now: all of it, or, if anything is wrong with it, nothing.
    pub fn reload(&self) -> Result<(), Errors> {
        let _alone = lock(&self.reloading);
        warn_on_notify_error(systemd::reloading());
        let loaded = match self.source.load() {
            Ok(loaded) => loaded,
            Err(faults) => {
                self.status_collector.record_reload(false);
                for fault in &faults.0 {
                    log::error("reload refused, nothing is changed", &[("fault", fault)]);
                }
                let first = faults
                    .0
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                warn_on_notify_error(systemd::ready(&format!("reload refused: {first}")));
                return Err(faults);
            }
        };
        if let Err(error) = log::init(&loaded.log_settings()) {
            log::error("the log stays as it was", &[("reason", &error)]);
        }
        for warning in loaded.warnings() {
            log::warning("unwise configuration", &[("at", &warning)]);
        }
        for key in self.started.only_at_start(&loaded.config) {
            log::warning(
                "changed, but takes effect at a restart only",
                &[("key", &key)],
            );
        }
        let seed = self.secrets.seed;
        self.shared.tracker.set(loaded.tracker_settings(seed));
        self.http.set(loaded.http_settings(seed));
        self.udp.set(Responder::new(
            loaded.udp_settings(),
            &Secret(self.secrets.connection_id),
        ));
        self.shared.counters.log_access(loaded.config.log.announces);
        self.state_saver.set(&loaded.config);
        self.seed_monitor.set(loaded.config.seed_monitor_settings());
        self.torrent_sync.set(loaded.torrent_sync_settings());
        self.torrent_watcher
            .rescan(loaded.config.watcher_settings());
        self.status_collector.record_reload(true);
        log::notice("reloaded", &[]);
        warn_on_notify_error(systemd::ready(&status(&self.shared, 0)));
        Ok(())
    }
}
