//! The HTTP and UDP tracker protocols: parses requests and writes responses. Uses no clock, no socket and no file.
#![forbid(unsafe_code)]

pub mod connection_id;
pub mod http;
pub mod udp;
