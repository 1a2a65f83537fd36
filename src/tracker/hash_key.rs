//! The key of the keyed hash that the tracker's tables use.

use siphasher::sip::SipHasher13;

/// A key for SipHash-1-3.
///
/// Clients choose their info-hashes and addresses. The key is secret, so that nobody can choose many of them that fall into
/// the same bucket of a table. A key has 16 bytes, so each table keeps a copy of its own.
#[derive(Clone, Copy)]
pub(super) struct HashKey(u64, u64);

impl HashKey {
    pub(super) const fn new(half: u64, other_half: u64) -> Self {
        Self(half, other_half)
    }

    /// Returns the hash of `bytes`.
    pub(super) fn hash(self, bytes: &[u8]) -> u64 {
        self.hasher().hash(bytes)
    }

    /// Returns a hasher for input in several pieces.
    pub(super) fn hasher(self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}
