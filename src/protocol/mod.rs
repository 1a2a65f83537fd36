//! Bytes in, bytes out: each way in to the tracker is one file of parse and write.
#![forbid(unsafe_code)]

pub mod connection_id;
pub mod http;
pub mod udp;
