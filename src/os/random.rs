//! Random bytes from the kernel.
//!
//! The `getrandom` crate would do, but its interface differs between the versions that Debian 13 and Debian sid package.

use std::fs::File;
use std::io::{self, Read};

/// Returns random bytes that nobody can predict.
///
/// # Errors
/// When `/dev/urandom` cannot be read.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
