//! Joining other trackers: what is made ready as root, and what the log tells of them.

use std::net::ToSocketAddrs;
use std::sync::Arc;

use crate::clock::Clock;
use crate::cluster::queue::Outbox;
use crate::cluster::{Cluster, Credentials, Event, Settings};
use crate::config::Config;
use crate::log;
use crate::tracker::Tracker;

use crate::app::{Exit, Failed, failed};

/// All that must be had before root and the file system are given up.
pub struct Joining {
    settings: Settings,
    credentials: Credentials,
    pub outbox: Arc<Outbox>,
}

impl Joining {
    /// `None` for a tracker that stands alone.
    pub fn prepare(config: &Config) -> Result<Option<Self>, Failed> {
        let Some(settings) = config.cluster_settings() else {
            return Ok(None);
        };
        let credentials = Credentials::read(&settings).map_err(|reason| {
            failed(
                Exit::Config,
                "what the cluster's engine asks for cannot be read",
                &reason,
            )
        })?;
        if let Some(name) = settings.url.name() {
            // What the system needs for looking names up is loaded now, or it could not be later. Whether there is such a name
            // is seen again at each connection.
            let _ = (name, settings.url.tcp_port().unwrap_or(0)).to_socket_addrs();
        }
        Ok(Some(Self {
            outbox: Arc::new(Outbox::new(settings.queue)),
            settings,
            credentials,
        }))
    }

    /// Begins, once it is known which torrents are tracked: what others tell of others is refused.
    pub fn start(
        self,
        kept: &[u8],
        tracker: &Arc<Tracker>,
        clock: Clock,
    ) -> Result<Arc<Cluster>, Failed> {
        Cluster::start(
            &self.settings,
            &self.credentials,
            kept,
            self.outbox,
            tracker.clone(),
            clock,
            Box::new(tell),
        )
        .map(Arc::new)
        .map_err(|error| failed(Exit::Internal, "cannot join the cluster", &error))
    }
}

fn tell(event: &Event) {
    match event {
        Event::CatchingUp => log::notice("cluster reached, catching up", &[]),
        Event::Joined { seconds } => log::notice("cluster joined", &[("seconds", seconds)]),
        Event::Alone { reason } => {
            log::warning("cluster lost, serving alone", &[("reason", reason)]);
        }
        Event::Refilled { peers } => {
            log::notice(
                "cluster engine was empty, filled from memory",
                &[("peers", peers)],
            );
        }
        Event::Doubled => log::error(
            "cluster has another tracker with this one's node id: stop it, remove its snapshot, and start it again",
            &[],
        ),
    }
}
