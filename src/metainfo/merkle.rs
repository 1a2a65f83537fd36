//! The hash tree over a file, as version 2 has it (BEP 52): SHA-256 over blocks, then over pairs of hashes.

use sha2::{Digest as _, Sha256};

/// The data under one leaf, and the least piece length: 16 KiB.
pub const BLOCK: u64 = 16 * 1024;

pub type Hash = [u8; 32];

/// The hash of a block: [`BLOCK`] bytes, or what a file's end leaves.
pub fn leaf(block: &[u8]) -> Hash {
    Sha256::digest(block).into()
}

/// The root over these leaves, at least one, and as many leaves of zeros as are missing to `width`, a power of two.
/// `leaves` is used up.
pub fn root(leaves: &mut Vec<Hash>, width: u64) -> Hash {
    let mut level = 1;
    let mut absent = [0; 32];
    while level < width || leaves.len() > 1 {
        absent = halve(leaves, &absent);
        level *= 2;
    }
    leaves.pop().unwrap_or(absent)
}

/// The root over a file's layer of piece hashes, 32 bytes each; what is missing to a power of two are trees over leaves
/// of zeros.
pub fn layer_root(hashes: &[u8], piece_length: u64) -> Hash {
    let mut absent = [0; 32];
    for _ in 0..(piece_length / BLOCK).trailing_zeros() {
        absent = parent(&absent, &absent);
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
        absent = halve(&mut layer, &absent);
    }
    layer.pop().unwrap_or(absent)
}

/// Puts the next level in place of one, and gives what is absent there.
fn halve(level: &mut Vec<Hash>, absent: &Hash) -> Hash {
    if level.len() % 2 == 1 {
        level.push(*absent);
    }
    for pair in 0..level.len() / 2 {
        level[pair] = parent(&level[2 * pair], &level[2 * pair + 1]);
    }
    level.truncate(level.len() / 2);
    parent(absent, absent)
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
        let absent = hashed([hashed([zeros, zeros]), hashed([zeros, zeros])]);
        assert_eq!(root(&mut vec![a, b, c], 8), hashed([three, absent]));
    }

    #[test]
    fn layers_above_the_leaves_pad_with_trees_of_zeros() {
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
    fn a_layer_and_its_leaves_have_one_root() {
        let leaves: Vec<Hash> = (0..11u8).map(|n| leaf(&[n])).collect();
        let layer: Vec<u8> = leaves
            .chunks(4)
            .flat_map(|piece| root(&mut piece.to_vec(), 4))
            .collect();
        assert_eq!(layer_root(&layer, 4 * BLOCK), root(&mut leaves.clone(), 1));
    }
}
