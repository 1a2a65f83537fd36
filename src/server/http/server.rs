//! State of the HTTP server: of all workers, and of one.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, RwLock};

use tokio::sync::watch;

use crate::lock::{read, write};
use crate::protocol::http::Reply;
use crate::server::Shared;
use crate::server::http::connection_limits::ConnectionLimits;
use crate::server::http::settings::Settings;
use crate::server::http::timeouts::InFlight;
use crate::status::endpoint::StatusEndpoint;

/// The longest header that is read; a query of the longest kind fits twice.
pub(super) const HEADER_MAX: usize = 16 * 1024;

/// The HTTP server: what its workers share.
pub struct HttpServer {
    pub shared: Arc<Shared>,
    settings: RwLock<Arc<Settings>>,
    pub connections: Arc<ConnectionLimits>,
    pub(super) status: StatusEndpoint,
}

impl HttpServer {
    pub fn new(
        shared: Arc<Shared>,
        status: StatusEndpoint,
        settings: Settings,
        connections: Arc<ConnectionLimits>,
    ) -> Self {
        Self {
            shared,
            status,
            connections,
            settings: RwLock::new(Arc::new(settings)),
        }
    }

    /// Takes new settings: connections that are there keep theirs to their end.
    pub fn set(&self, settings: Settings) {
        self.connections.set_limits(
            settings.max_connections,
            settings.max_connections_per_network,
        );
        *write(&self.settings) = Arc::new(settings);
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        read(&self.settings).clone()
    }
}

/// What the connections of one worker share.
pub(super) struct Worker {
    pub(super) server: Arc<HttpServer>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) in_flight: InFlight,
    pub(super) reply: RefCell<Reply>,
    /// What was received last, until the next await.
    pub(super) input: Rc<RefCell<Box<[u8]>>>,
    /// What is to be sent, head and body, until the next await.
    pub(super) output: RefCell<Vec<u8>>,
    /// As a header has it; of this second, or of the last if the worker is busy.
    pub(super) date: RefCell<String>,
}
