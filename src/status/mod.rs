//! What operators see: figures, as JSON, as a page, and for Prometheus.
#![forbid(unsafe_code)]

pub mod endpoint;
pub mod page;
pub mod prometheus;
pub mod report;
