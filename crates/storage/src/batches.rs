//! Questions about batches.

use std::sync::Arc;

use types::{Batch, BatchId, Block, Height};

use crate::columns::Column;
use crate::error::StorageError;
use crate::keys;
use crate::storage::Storage;

impl Storage {
    /// Whether a batch is held.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn holds_batch(&self, id: &BatchId) -> Result<bool, StorageError> {
        Ok(self.batch_place(id)?.is_some())
    }

    /// Expiry and count of a batch that is held.
    pub(crate) fn batch_place(&self, id: &BatchId) -> Result<Option<(Height, u32)>, StorageError> {
        let found = self.read_pair(Column::BatchPlaces, id.as_ref())?;
        Ok(found.map(|(expiry, count)| (Height(expiry), count)))
    }

    /// A batch that is held.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn batch(&self, id: &BatchId) -> Result<Option<Batch>, StorageError> {
        match self.batch_place(id)? {
            Some((expiry, _)) => self.read(Column::Batches, &keys::batch(expiry, id)),
            None => Ok(None),
        }
    }

    /// Height and place in the body of the final block that cites a batch. The batch itself may be missing.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn citation(&self, id: &BatchId) -> Result<Option<(Height, u32)>, StorageError> {
        let found = self.read_pair(Column::Citations, id.as_ref())?;
        Ok(found.map(|(height, place)| (Height(height), place)))
    }

    /// A block's batches in its order, `None` for those that are missing.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn batches_of(&self, block: &Block) -> Result<Vec<Option<Arc<Batch>>>, StorageError> {
        block.body.batches.iter().map(|id| Ok(self.batch(id)?.map(Arc::new))).collect()
    }

    /// All batches that are held and that no final block cites, in order of expiry: what a validator announces again after a
    /// restart. Memory: all of them at once, as the mempool will hold them.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn pending_batches(&self) -> Result<Vec<Arc<Batch>>, StorageError> {
        let places: Vec<(Height, BatchId)> = self.writer.lock().pending.iter().collect();
        let read = |(expiry, id): (Height, BatchId)| -> Result<Arc<Batch>, StorageError> {
            let batch = self.read(Column::Batches, &keys::batch(expiry, &id))?;
            batch.map(Arc::new).ok_or(StorageError::damaged(Column::Batches))
        };
        places.into_iter().map(read).collect()
    }
}
