//! What operators see: figures, as JSON, as a page, and for Prometheus.
#![forbid(unsafe_code)]

mod chart;
pub mod endpoint;
mod format;
pub mod page;
pub mod prometheus;
pub mod report;
