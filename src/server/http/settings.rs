//! What the operator decides about HTTP.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::http as protocol;
use crate::protocol::http::request::Paths;
use crate::server::http::forwarded as proxy;
use crate::status::endpoint as views;
use crate::tracker::rate_limit::RateLimiter;

/// What the operator decides about connections.
#[derive(Clone)]
pub struct Settings {
    pub paths: Paths,
    pub protocol: protocol::Settings,
    /// From the first byte of a request, or from the connection's start, to the end of its header.
    pub header_timeout: Duration,
    /// From one answer to the first byte of the next request.
    pub idle_timeout: Duration,
    /// In all.
    pub max_connections: usize,
    /// From one IPv4 address, or one IPv6 /64.
    pub max_connections_per_network: u32,
    pub proxies: proxy::Settings,
    /// How often a network may connect; `None` for as often as it likes.
    pub connections: Option<Arc<RateLimiter>>,
    pub views: Arc<views::Settings>,
}

/// What a listening socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerRole {
    /// Clients, and whoever may see the views.
    Both,
    /// Where the views have sockets of their own, they are nowhere else.
    Clients,
    Status,
}
