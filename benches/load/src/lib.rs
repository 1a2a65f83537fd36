//! The code of the benchmark's two programs, `load` and `floor`.
//!
//! - `population`: the torrents and peers. Every run with the same seed has the same ones.
//! - `request`: announces and scrapes as clients send them. `response`: checks for the responses of a tracker.
//! - `http` and `udp`: send requests to a tracker and measure the time of each response. `tally`: the results of a run.
//! - `system`: system calls that std lacks. It contains the only unsafe code.

pub mod http;
pub mod population;
pub mod request;
pub mod response;
pub mod system;
pub mod tally;
pub mod udp;
