//! The Unix process around the tracker; `main` alone calls what is here.

/// Where others reach what is bound here.
pub mod addresses;

pub mod privileges;
pub mod random;
pub mod sandbox;
pub mod signals;
pub mod sockets;
pub mod systemd;
