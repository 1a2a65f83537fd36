//! The access log: a line for each announce, if the configuration asks for it.

use crate::config::schema::Config;
use crate::log;
use crate::server::counters::{AccessLogEntry, Counters};

/// Creates the counters, with an access log if the configuration asks for one.
pub fn new_counters(config: &Config) -> Counters {
    let counters = Counters::new(Box::new(log_announce));
    counters.log_access(config.log.announces);
    counters
}

/// Writes one line of the access log.
fn log_announce(entry: &AccessLogEntry<'_>) {
    let client = log::client(entry.from);
    let fields: log::Fields<'_> = &[("protocol", &entry.protocol), ("client", &client)];
    match entry.announce {
        Ok(announce) => {
            let event = format!("{:?}", announce.event).to_lowercase();
            let own: log::Fields<'_> = &[
                ("info_hash", &announce.info_hash),
                ("event", &event),
                ("complete", &announce.complete),
            ];
            log::info("announced", &[fields, own].concat());
        }
        Err(refusal) => log::info(
            "refused",
            &[fields, &[("reason", &refusal.reason())]].concat(),
        ),
    }
}
