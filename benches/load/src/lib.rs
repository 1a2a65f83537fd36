//! What the benchmark's two programs, `load` and `floor`, are made of.
//!
//! - `population`: which torrents and peers there are, the same for every run of one seed.
//! - `request`: an announce or a scrape as clients send it; `answer`: whether a tracker's answer is a real one.
//! - `http` and `udp`: asking a tracker and timing its answers; `tally`: what came of it.
//! - `system`: the system calls that std lacks, the only unsafe code.

pub mod http;
pub mod population;
pub mod request;
pub mod response;
pub mod system;
pub mod tally;
pub mod udp;
