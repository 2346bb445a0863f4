//! Bytes of keys and of small values. Numbers are big-endian, so that the order of bytes is the order of numbers.

use types::{BatchId, Hash, Height};

/// Of a height, or of a leaf's index.
pub(crate) fn number(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

/// Reads [`number`].
pub(crate) fn read_number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// A batch under its expiry: batches of one time lie together, and expired ones first.
pub(crate) fn batch(expiry: Height, id: &BatchId) -> [u8; 40] {
    let mut key = [0u8; 40];
    key[..8].copy_from_slice(&number(expiry.0));
    key[8..].copy_from_slice(id.0.as_bytes());
    key
}

/// Reads [`batch`].
pub(crate) fn read_batch(bytes: &[u8]) -> Option<(Height, BatchId)> {
    let (expiry, id) = bytes.split_at_checked(8)?;
    Some((Height(read_number(expiry)?), BatchId(Hash(id.try_into().ok()?))))
}

/// A u64 and a u32: expiry and count of a batch, height and place of a citation, height and receipt of a transaction.
pub(crate) fn pair(first: u64, second: u32) -> [u8; 12] {
    let mut bytes = [0u8; 12];
    bytes[..8].copy_from_slice(&first.to_be_bytes());
    bytes[8..].copy_from_slice(&second.to_be_bytes());
    bytes
}

/// Reads [`pair`].
pub(crate) fn read_pair(bytes: &[u8]) -> Option<(u64, u32)> {
    let (first, second) = bytes.split_at_checked(8)?;
    Some((read_number(first)?, u32::from_be_bytes(second.try_into().ok()?)))
}

/// Meta key: the genesis record. There is a chain once this is there.
pub(crate) const GENESIS: &[u8] = b"genesis";
/// Meta key: the height of the last final block.
pub(crate) const TIP: &[u8] = b"tip";
/// Meta key: the height after which the stored leaves stand.
pub(crate) const STATE: &[u8] = b"state";

/// Meta key: an epoch's record.
pub(crate) fn epoch(epoch: u64) -> [u8; 14] {
    let mut key = *b"epoch/\0\0\0\0\0\0\0\0";
    key[6..].copy_from_slice(&number(epoch));
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_and_round_trip(a: u64, b: u64, c: u32, id: [u8; 32]) {
            prop_assert_eq!(a.cmp(&b), number(a).cmp(&number(b)));
            prop_assert_eq!(read_number(&number(a)), Some(a));
            prop_assert_eq!(read_pair(&pair(a, c)), Some((a, c)));
            let id = BatchId(Hash(id));
            prop_assert_eq!(read_batch(&batch(Height(a), &id)), Some((Height(a), id)));
            if a != b {
                prop_assert_eq!(a < b, batch(Height(a), &id) < batch(Height(b), &BatchId::default()));
            }
        }

        #[test]
        fn other_lengths_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(read_number(&bytes).is_some(), bytes.len() == 8);
            prop_assert_eq!(read_pair(&bytes).is_some(), bytes.len() == 12);
            prop_assert_eq!(read_batch(&bytes).is_some(), bytes.len() == 40);
        }
    }
}
