//! Bytes in, bytes out: each way in to the tracker is one file of parse and write.
#![forbid(unsafe_code)]

pub mod author;
pub mod bencode;
pub mod changes;
pub mod connection_id;
pub mod http;
pub mod member;
pub mod merkle;
pub mod metainfo;
pub mod pieces;
pub mod udp;
