//! The status report of the tracker, shown as a page, as JSON and as metrics for Prometheus.
#![forbid(unsafe_code)]

mod chart;
pub mod endpoint;
mod format;
pub mod page;
pub mod prometheus;
pub mod report;
