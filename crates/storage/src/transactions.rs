//! Questions about transactions.

use types::{BatchId, Height, Receipt, SignedTransaction, TxId};

use crate::columns::Column;
use crate::error::StorageError;
use crate::storage::Storage;

/// A transaction that has a receipt, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTransaction {
    /// The transaction.
    pub transaction: SignedTransaction,
    /// Its receipt.
    pub receipt: Receipt,
    /// The batch that holds it.
    pub batch: BatchId,
    /// Its place in the batch, from 0.
    pub position: u32,
}

impl Storage {
    /// The receipt of a transaction, if it has one. Reads the receipts of its height.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn receipt(&self, id: &TxId) -> Result<Option<Receipt>, StorageError> {
        let Some((height, index)) = self.read_pair(Column::Transactions, id.as_ref())? else { return Ok(None) };
        let record = self.executed(Height(height))?.ok_or(StorageError::damaged(Column::Executed))?;
        match record.receipts.get(index as usize) {
            Some(receipt) if receipt.id == *id => Ok(Some(*receipt)),
            _ => Err(StorageError::damaged(Column::Transactions)),
        }
    }

    /// A transaction with its receipt, if it has one and its batch is held.
    ///
    /// Cost: one batch and the receipts of a height. The index names the receipt only. Skipped transactions have none, so the
    /// transaction of receipt `i` is at the block's place `i` or a little later.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn transaction(&self, id: &TxId) -> Result<Option<StoredTransaction>, StorageError> {
        let Some(receipt) = self.receipt(id)? else { return Ok(None) };
        let block = self.block(receipt.height)?.ok_or(StorageError::damaged(Column::Blocks))?;
        let mut skip = u64::from(receipt.index);
        for batch_id in block.body.batches {
            let Some((_, count)) = self.batch_place(&batch_id)? else { return Ok(None) };
            if skip >= u64::from(count) {
                skip -= u64::from(count);
                continue;
            }
            let batch = self.batch(&batch_id)?.ok_or(StorageError::damaged(Column::Batches))?;
            let rest = batch.transactions.into_iter().enumerate().skip(skip as usize);
            for (position, transaction) in rest {
                if transaction.id() == *id {
                    return Ok(Some(StoredTransaction { transaction, receipt, batch: batch_id, position: position as u32 }));
                }
            }
            skip = 0;
        }
        Err(StorageError::damaged(Column::Transactions))
    }
}
