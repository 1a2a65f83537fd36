//! The operator's settings for HTTP, and the role of each listener.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::http as protocol;
use crate::protocol::http::request::Paths;
use crate::server::http::forwarded;
use crate::status::endpoint;
use crate::tracker::rate_limit::RateLimiter;

/// The operator's settings for HTTP.
#[derive(Clone)]
pub struct Settings {
    pub paths: Paths,
    pub protocol: protocol::Settings,
    /// Maximum time from the first byte of a request, or from the start of the connection, to the end of the header.
    pub header_timeout: Duration,
    /// Maximum time from a response to the first byte of the next request.
    pub idle_timeout: Duration,
    /// Maximum number of connections in total.
    pub max_connections: usize,
    /// Maximum number of connections from an IPv4 address or an IPv6 /64.
    pub max_connections_per_network: u32,
    pub proxies: forwarded::Settings,
    /// Limits the rate at which a network may connect. `None` for no limit.
    pub connection_rate: Option<Arc<RateLimiter>>,
    pub status: Arc<endpoint::Settings>,
}

/// The resources that a listener serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerRole {
    /// The tracker for clients, and the status resources for operators.
    Both,
    /// The tracker only. If status listeners are configured, the status resources are available only there.
    Clients,
    /// The status resources only.
    Status,
}
