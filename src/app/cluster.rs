//! ClusterSetup other trackers: what is made ready as root, and what the log tells of them.

use std::net::ToSocketAddrs;
use std::sync::Arc;

use crate::clock::Clock;
use crate::cluster::queue::UpdateQueue;
use crate::cluster::settings::{Credentials, Settings};
use crate::cluster::status::ClusterEvent;
use crate::cluster::threads::Cluster;
use crate::config::Config;
use crate::log;
use crate::tracker::Tracker;

use crate::app::{Exit, Failed, fail};

/// All that must be had before root and the file system are given up.
pub struct ClusterSetup {
    settings: Settings,
    credentials: Credentials,
    pub updates: Arc<UpdateQueue>,
}

impl ClusterSetup {
    /// `None` for a tracker that stands alone.
    pub fn prepare(config: &Config) -> Result<Option<Self>, Failed> {
        let Some(settings) = config.cluster_settings() else {
            return Ok(None);
        };
        let credentials = Credentials::read(&settings).map_err(|reason| {
            fail(
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
            updates: Arc::new(UpdateQueue::new(settings.queue)),
            settings,
            credentials,
        }))
    }

    /// Begins, once it is known which torrents are tracked: what others tell of others is refused.
    pub fn start(
        self,
        cluster_checkpoint: &[u8],
        tracker: &Arc<Tracker>,
        clock: Clock,
    ) -> Result<Arc<Cluster>, Failed> {
        Cluster::start(
            &self.settings,
            &self.credentials,
            cluster_checkpoint,
            self.updates,
            tracker.clone(),
            clock,
            Box::new(tell),
        )
        .map(Arc::new)
        .map_err(|error| fail(Exit::Internal, "cannot join the cluster", &error))
    }
}

fn tell(event: &ClusterEvent) {
    match event {
        ClusterEvent::CatchingUp => log::notice("cluster reached, catching up", &[]),
        ClusterEvent::Joined { seconds } => log::notice("cluster joined", &[("seconds", seconds)]),
        ClusterEvent::Disconnected { reason } => {
            log::warning("cluster lost, serving alone", &[("reason", reason)]);
        }
        ClusterEvent::Refilled { peers } => {
            log::notice(
                "cluster engine was empty, filled from memory",
                &[("peers", peers)],
            );
        }
        ClusterEvent::DuplicateNodeId => log::error(
            "cluster has another tracker with this one's node id: stop it, remove its snapshot, and start it again",
            &[],
        ),
    }
}
