//! The stored state, as the ledger reads it back.

use ledger::{StateStore, StoredLeaf};
use rocksdb::{DB, IteratorMode, SnapshotWithThreadMode};
use types::{Height, StateKey, StateValue, encode};

use crate::columns::Column;
use crate::error::StorageError;
use crate::keys;
use crate::storage::{Storage, decode};

/// Bytes of a [`StateKey`].
const STATE_KEY_BYTES: usize = 33;

/// A leaf's stored bytes: key, then value. The next key follows from all keys and isn't stored.
pub(crate) fn leaf_bytes(key: &StateKey, value: &StateValue) -> Vec<u8> {
    let mut bytes = encode(key);
    bytes.extend_from_slice(&value.to_bytes());
    bytes
}

/// The stored state at one moment, whatever is written meanwhile.
pub struct StateSnapshot<'a> {
    storage: &'a Storage,
    snapshot: SnapshotWithThreadMode<'a, DB>,
}

impl Storage {
    /// The stored state: what [`ledger::Ledger::restore`] takes.
    pub fn state(&self) -> StateSnapshot<'_> {
        StateSnapshot { storage: self, snapshot: self.db.snapshot() }
    }
}

impl StateStore for StateSnapshot<'_> {
    type Error = StorageError;

    fn state_height(&self) -> Result<Height, StorageError> {
        let meta = self.storage.family(Column::Meta);
        let found = self.snapshot.get_pinned_cf(meta, keys::STATE).map_err(StorageError::engine("read"))?;
        found.and_then(|bytes| keys::read_number(&bytes)).map(Height).ok_or(StorageError::damaged(Column::Meta))
    }

    fn visit_state(&self, visit: &mut dyn FnMut(StoredLeaf)) -> Result<(), StorageError> {
        for entry in self.snapshot.iterator_cf(self.storage.family(Column::State), IteratorMode::Start) {
            let (key, bytes) = entry.map_err(StorageError::engine("scan"))?;
            let index = keys::read_number(&key).ok_or(StorageError::damaged(Column::State))?;
            let (key, value) = bytes.split_at_checked(STATE_KEY_BYTES).ok_or(StorageError::damaged(Column::State))?;
            visit(StoredLeaf { index, key: decode(Column::State, key)?, value: value.to_vec() });
        }
        Ok(())
    }
}
