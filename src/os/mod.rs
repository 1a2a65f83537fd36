//! The Unix process: sockets, privileges, sandbox, signals, service manager. Knows nothing of torrents.

pub mod addresses;
pub mod privileges;
pub mod random;
pub mod sandbox;
pub mod signals;
pub mod sockets;
pub mod systemd;
