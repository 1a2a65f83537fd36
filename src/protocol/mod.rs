//! Bytes in, bytes out: each way in to the tracker is one file of parse and write.
#![forbid(unsafe_code)]

pub(crate) mod bencode;
pub mod http;
pub mod metainfo;
