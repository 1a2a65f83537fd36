//! Joins the cluster: reads the credentials while the process is root, and logs the node's events.

use std::net::ToSocketAddrs;
use std::sync::Arc;

use crate::app::{Exit, Failed, fail};
use crate::clock::Clock;
use crate::cluster::queue::UpdateQueue;
use crate::cluster::settings::{Credentials, Settings};
use crate::cluster::status::ClusterEvent;
use crate::cluster::threads::Cluster;
use crate::config::schema::Config;
use crate::log;
use crate::tracker::Tracker;

/// The settings and credentials of a cluster, read before the process drops root and enters the sandbox.
pub struct ClusterSetup {
    settings: Settings,
    credentials: Credentials,
    pub updates: Arc<UpdateQueue>,
}

impl ClusterSetup {
    /// Returns `None` if no cluster is configured.
    pub fn prepare(config: &Config) -> Result<Option<Self>, Failed> {
        let Some(settings) = config.cluster_settings() else {
            return Ok(None);
        };
        let credentials = Credentials::read(&settings)
            .map_err(|reason| fail(Exit::Config, "cannot read the cluster credentials", &reason))?;
        if let Some(name) = settings.url.name() {
            // The first lookup loads the resolver's libraries, which the sandbox hides later. The result does not matter:
            // the name is looked up again for each connection.
            let _ = (name, settings.url.tcp_port().unwrap_or(0)).to_socket_addrs();
        }
        Ok(Some(Self {
            updates: Arc::new(UpdateQueue::new(settings.queue_capacity)),
            settings,
            credentials,
        }))
    }

    /// Joins the cluster. Must be called after the first scan of the torrents: updates for torrents that are not
    /// tracked are rejected.
    pub fn start(
        self,
        checkpoint: &[u8],
        tracker: &Arc<Tracker>,
        clock: Clock,
    ) -> Result<Arc<Cluster>, Failed> {
        Cluster::start(
            &self.settings,
            &self.credentials,
            checkpoint,
            self.updates,
            tracker.clone(),
            clock,
            Box::new(log_event),
        )
        .map(Arc::new)
        .map_err(|error| fail(Exit::Internal, "cannot join the cluster", &error))
    }
}

fn log_event(event: &ClusterEvent) {
    match event {
        ClusterEvent::CatchingUp => {
            log::notice("connected to the cluster store; catching up", &[]);
        }
        ClusterEvent::Joined { seconds } => log::notice("cluster joined", &[("seconds", seconds)]),
        ClusterEvent::Disconnected { reason } => log::warning(
            "cluster store unreachable; serving the peers of this node",
            &[("reason", reason)],
        ),
        ClusterEvent::Refilled { peers } => log::notice(
            "cluster store was empty; filled it from memory",
            &[("peers", peers)],
        ),
        ClusterEvent::DuplicateNodeId => log::error(
            "another tracker in this cluster has the same node id; was its state directory copied here or from here? \
             On the copy only, give tbtt a new node id as tbtt-cluster(7) describes under TROUBLESHOOTING",
            &[],
        ),
    }
}
