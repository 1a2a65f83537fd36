//! State of the HTTP server: [`HttpServer`] is shared by all workers, [`Worker`] belongs to a single worker.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, RwLock};

use tokio::sync::watch;

use crate::lock::{read, write};
use crate::protocol::http::ResponseBuffer;
use crate::server::Shared;
use crate::server::http::connection_limits::ConnectionLimits;
use crate::server::http::settings::Settings;
use crate::server::http::timeouts::InFlight;
use crate::status::endpoint::StatusEndpoint;

/// Maximum length in bytes of a request's head: the request line and the headers. It has room for two queries of maximum
/// length.
pub(super) const MAX_HEAD_LEN: usize = 16 * 1024;

/// State that all HTTP workers share.
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

    /// Replaces the settings. Open connections keep the settings that they started with.
    pub fn set_settings(&self, settings: Settings) {
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

/// State that the connections of a worker share. Its buffers are reused for every request.
pub(super) struct Worker {
    pub(super) server: Arc<HttpServer>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) in_flight: InFlight,
    pub(super) response: RefCell<ResponseBuffer>,
    /// Bytes received last. Valid until the next await.
    pub(super) input: Rc<RefCell<Box<[u8]>>>,
    /// Head and body of the response to send. Valid until the next await.
    pub(super) output: RefCell<Vec<u8>>,
    /// The current time as a `Date` header. Updated each second, or later if the worker is busy.
    pub(super) date: RefCell<String>,
}
