//! The Unix process around the tracker; `main` alone calls what is here.

pub mod log;
