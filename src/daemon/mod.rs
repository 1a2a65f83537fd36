//! The Unix process around the tracker; `main` alone calls what is here.

/// Where others reach what is bound here.
pub mod addresses;

/// One event, one line, one write.
pub mod log;
pub mod notify;
pub mod privileges;
pub mod sandbox;
pub mod signals;
pub mod sockets;
