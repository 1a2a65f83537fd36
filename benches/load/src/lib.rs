//! The code of the benchmark's two programs, `load` and `floor`.
//!
//! - `population`: the torrents and peers. They depend only on the seed.
//! - `request`: announces and scrapes as clients send them. `response`: checks for the responses of a tracker.
//! - `http` and `udp`: send requests to a tracker and measure the time of each response. `tally`: the results of a run.
//! - `system`: system calls that std lacks, with the only unsafe code of the crate.

pub mod http;
pub mod population;
pub mod request;
pub mod response;
pub mod system;
pub mod tally;
pub mod udp;
