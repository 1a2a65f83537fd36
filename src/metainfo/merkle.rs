//! The hash tree of a file in version 2 (BEP 52): SHA-256 of blocks, then of pairs of hashes.

use sha2::{Digest as _, Sha256};

/// The number of bytes per leaf, which is also the minimum piece length: 16 KiB.
pub const BLOCK: u64 = 16 * 1024;

/// A hash of the tree: SHA-256.
pub type Hash = [u8; 32];

/// Returns the hash of a block of [`BLOCK`] bytes, or of the shorter last block of a file.
pub fn leaf(block: &[u8]) -> Hash {
    Sha256::digest(block).into()
}

/// Returns the root over at least one leaf, filled up with leaves of zeros to `width`, a power of two. `leaves` is
/// overwritten and emptied.
pub fn root(leaves: &mut Vec<Hash>, width: u64) -> Hash {
    let mut level = 1;
    let mut filler = [0; 32];
    while level < width || leaves.len() > 1 {
        filler = halve(leaves, &filler);
        level *= 2;
    }
    leaves.pop().unwrap_or(filler)
}

/// Returns the root over a layer of piece hashes of 32 bytes each. The layer is filled up to a power of two with roots of
/// trees over leaves of zeros.
pub fn layer_root(hashes: &[u8], piece_length: u64) -> Hash {
    let mut filler = [0; 32];
    for _ in 0..(piece_length / BLOCK).trailing_zeros() {
        filler = parent(&filler, &filler);
    }
    let mut layer: Vec<Hash> = hashes
        .chunks_exact(32)
        .map(|hash| {
            let mut owned = [0; 32];
            owned.copy_from_slice(hash);
            owned
        })
        .collect();
    while layer.len() > 1 {
        filler = halve(&mut layer, &filler);
    }
    layer.pop().unwrap_or(filler)
}

/// Replaces a level of the tree by the level above. Returns the hash that fills up the new level.
fn halve(level: &mut Vec<Hash>, filler: &Hash) -> Hash {
    if level.len() % 2 == 1 {
        level.push(*filler);
    }
    for pair in 0..level.len() / 2 {
        level[pair] = parent(&level[2 * pair], &level[2 * pair + 1]);
    }
    level.truncate(level.len() / 2);
    parent(filler, filler)
}

fn parent(left: &Hash, right: &Hash) -> Hash {
    let mut hash = Sha256::new();
    hash.update(left);
    hash.update(right);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(pair: [Hash; 2]) -> Hash {
        parent(&pair[0], &pair[1])
    }

    #[test]
    fn missing_leaves_are_zeros() {
        let [a, b, c] = [leaf(b"a"), leaf(b"b"), leaf(b"c")];
        let zeros = [0; 32];
        assert_eq!(root(&mut vec![a], 1), a);
        assert_eq!(root(&mut vec![a, b], 1), hashed([a, b]));
        let three = hashed([hashed([a, b]), hashed([c, zeros])]);
        assert_eq!(root(&mut vec![a, b, c], 1), three);
        let filler = hashed([hashed([zeros, zeros]), hashed([zeros, zeros])]);
        assert_eq!(root(&mut vec![a, b, c], 8), hashed([three, filler]));
    }

    #[test]
    fn piece_layer_is_filled_with_trees_of_zeros() {
        let piece = |bytes: u8| [bytes; 32];
        let left = hashed([piece(1), piece(2)]);
        let right = hashed([piece(3), hashed([piece(0); 2])]);
        let layer = [piece(1), piece(2), piece(3)].concat();
        assert_eq!(layer_root(&layer, 2 * BLOCK), hashed([left, right]));
        let five = [1, 2, 3, 4, 5].map(piece).concat();
        let half = hashed([left, hashed([piece(3), piece(4)])]);
        let rest = hashed([hashed([piece(5), piece(0)]), hashed([piece(0); 2])]);
        assert_eq!(layer_root(&five, BLOCK), hashed([half, rest]));
    }

    #[test]
    fn layer_and_leaves_have_same_root() {
        let leaves: Vec<Hash> = (0..11u8).map(|n| leaf(&[n])).collect();
        let layer: Vec<u8> = leaves
            .chunks(4)
            .flat_map(|piece| root(&mut piece.to_vec(), 4))
            .collect();
        assert_eq!(layer_root(&layer, 4 * BLOCK), root(&mut leaves.clone(), 1));
    }
}
