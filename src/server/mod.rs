//! Sockets: read, respond, write, count.
#![forbid(unsafe_code)]

pub mod control;
pub mod counters;
pub mod http;
pub mod udp;
