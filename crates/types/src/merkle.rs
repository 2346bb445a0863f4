//! Merkle trees as in RFC 6962 §2.1: leaf = SHA-256(0x00 ‖ data), node = SHA-256(0x01 ‖ left ‖ right), the empty tree is
//! SHA-256 of nothing. Built level by level: an odd last node goes up unchanged, which gives exactly the RFC's tree.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hash::Hash;

/// The root of a tree without leaves.
pub fn empty_root() -> Hash {
    Hash(Sha256::digest([]).into())
}

/// The hash of a leaf with this content.
pub fn leaf_hash(data: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(data);
    Hash(hasher.finalize().into())
}

/// The hash of an inner node.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1u8; 65];
    bytes[1..33].copy_from_slice(&left.0);
    bytes[33..].copy_from_slice(&right.0);
    Hash(Sha256::digest(bytes).into())
}

/// The root over leaf hashes. About 0.1 µs a leaf.
pub fn root(mut level: Vec<Hash>) -> Hash {
    if level.is_empty() {
        return empty_root();
    }
    while level.len() > 1 {
        level = level_above(&level);
    }
    level[0]
}

fn level_above(level: &[Hash]) -> Vec<Hash> {
    level.chunks(2).map(|pair| if let [left, right] = pair { node_hash(left, right) } else { pair[0] }).collect()
}

/// An audit path: proves that a leaf stands at `index` of a tree of `count` leaves.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct MerklePath {
    /// The leaf's place, from 0.
    pub index: u64,
    /// Leaves in the tree.
    pub count: u64,
    /// Sibling hashes from the leaf up; a level where the node has no sibling gives none.
    pub siblings: Vec<Hash>,
}

impl MerklePath {
    /// The path of leaf `index` over these leaf hashes, if there is such a leaf.
    pub fn build(leaves: &[Hash], index: usize) -> Option<MerklePath> {
        if index >= leaves.len() {
            return None;
        }
        let (mut level, mut at, mut siblings) = (leaves.to_vec(), index, Vec::new());
        while level.len() > 1 {
            siblings.extend(level.get(at ^ 1).copied());
            level = level_above(&level);
            at /= 2;
        }
        Some(MerklePath { index: index as u64, count: leaves.len() as u64, siblings })
    }

    /// The root that this path and leaf hash lead to; `None` if the path's shape is impossible.
    pub fn root(&self, leaf: Hash) -> Option<Hash> {
        if self.index >= self.count {
            return None;
        }
        let (mut at, mut width, mut hash) = (self.index, self.count, leaf);
        let mut siblings = self.siblings.iter();
        while width > 1 {
            if at ^ 1 < width {
                let sibling = siblings.next()?;
                hash = if at & 1 == 0 { node_hash(&hash, sibling) } else { node_hash(sibling, &hash) };
            }
            at /= 2;
            width = width.div_ceil(2);
        }
        siblings.next().is_none().then_some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962's recursive definition, as the oracle.
    fn mth(leaves: &[Hash]) -> Hash {
        match leaves.len() {
            0 => empty_root(),
            1 => leaves[0],
            n => {
                let k = n.next_power_of_two() / 2;
                node_hash(&mth(&leaves[..k]), &mth(&leaves[k..]))
            }
        }
    }

    #[test]
    fn equals_the_rfc_and_paths_prove() {
        let all: Vec<Hash> = (0u8..70).map(|i| leaf_hash(&[i])).collect();
        for n in 0..all.len() {
            let leaves = &all[..n];
            assert_eq!(root(leaves.to_vec()), mth(leaves), "{n} leaves");
            for i in 0..n {
                let path = MerklePath::build(leaves, i).unwrap();
                assert_eq!(path.root(leaves[i]), Some(mth(leaves)));
                assert_ne!(path.root(leaf_hash(b"other")), Some(mth(leaves)));
                let mut longer = path.clone();
                longer.siblings.push(Hash::ZERO);
                assert_eq!(longer.root(leaves[i]), None);
                let mut shifted = path.clone();
                shifted.index = n as u64;
                assert_eq!(shifted.root(leaves[i]), None);
            }
            assert_eq!(MerklePath::build(leaves, n), None);
        }
    }
}
