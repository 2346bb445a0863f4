//! Questions about blocks, certificates and executed heights.

use rocksdb::{Direction, IteratorMode};
use types::{Block, BlockHash, Certificate, FinalityProof, Header, Height, PROOF_HEADERS_MAX};

use crate::columns::Column;
use crate::error::StorageError;
use crate::keys;
use crate::op::ExecutedRecord;
use crate::storage::{Storage, decode, decode_header};

/// Most blocks or headers that one call reads.
pub const READ_BLOCKS_MAX: usize = PROOF_HEADERS_MAX;

impl Storage {
    /// The final block of a height.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn block(&self, height: Height) -> Result<Option<Block>, StorageError> {
        self.read(Column::Blocks, &keys::number(height.0))
    }

    /// The height of a final block.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn height_of(&self, hash: &BlockHash) -> Result<Option<Height>, StorageError> {
        let found = self.db.get_pinned_cf(self.family(Column::Hashes), hash).map_err(StorageError::engine("read"))?;
        found.map(|bytes| keys::read_number(&bytes).map(Height).ok_or(StorageError::damaged(Column::Hashes))).transpose()
    }

    /// Final blocks from a height on, in order, without gaps: at most `max` and [`READ_BLOCKS_MAX`].
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn blocks(&self, from: Height, max: usize) -> Result<Vec<Block>, StorageError> {
        self.blocks_as(from, max, |bytes| decode(Column::Blocks, bytes))
    }

    /// Headers of final blocks from a height on, in order, without gaps: at most `max` and [`READ_BLOCKS_MAX`].
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn headers(&self, from: Height, max: usize) -> Result<Vec<Header>, StorageError> {
        self.blocks_as(from, max, decode_header)
    }

    fn blocks_as<T>(
        &self,
        from: Height,
        max: usize,
        decode: impl Fn(&[u8]) -> Result<T, StorageError>,
    ) -> Result<Vec<T>, StorageError> {
        let max = max.min(READ_BLOCKS_MAX);
        let (from, mut found) = (from.max(Height(1)), Vec::new());
        if max == 0 {
            return Ok(found);
        }
        self.scan(Column::Blocks, IteratorMode::From(&keys::number(from.0), Direction::Forward), |key, value| {
            if key != keys::number(from.0 + found.len() as u64) {
                // The first may be missing above the tip; a gap below it is damage.
                return if found.is_empty() { Ok(false) } else { Err(StorageError::damaged(Column::Blocks)) };
            }
            found.push(decode(value)?);
            Ok(found.len() < max)
        })?;
        Ok(found)
    }

    /// The finality certificate of exactly this height, if one was kept.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn certificate(&self, height: Height) -> Result<Option<Certificate>, StorageError> {
        self.read(Column::Certificates, &keys::number(height.0))
    }

    /// The lowest kept finality certificate at a height or above. For every height up to the tip there is one.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn certificate_from(&self, height: Height) -> Result<Option<(Height, Certificate)>, StorageError> {
        let mut found = None;
        self.scan(Column::Certificates, IteratorMode::From(&keys::number(height.0), Direction::Forward), |key, value| {
            let height = keys::read_number(key).map(Height).ok_or(StorageError::damaged(Column::Certificates))?;
            found = Some((height, decode(Column::Certificates, value)?));
            Ok(false)
        })?;
        Ok(found)
    }

    /// What convinces a light client that the block of a height is final; `None` above the tip, for genesis, and if the
    /// epoch has no certificate within [`PROOF_HEADERS_MAX`] heights.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn finality_proof(&self, height: Height) -> Result<Option<FinalityProof>, StorageError> {
        if height == Height(0) {
            return Ok(None);
        }
        let Some((certified, certificate)) = self.certificate_from(height)? else { return Ok(None) };
        let count = certified.since(height).saturating_add(1);
        if count > PROOF_HEADERS_MAX as u64 {
            return Ok(None);
        }
        let headers = self.headers(height, count as usize)?;
        if headers.len() as u64 != count {
            return Err(StorageError::damaged(Column::Blocks));
        }
        // A certificate of a later epoch is signed by another set: it convinces nobody of this one.
        let one_epoch = headers.iter().all(|header| header.epoch == certificate.statement.epoch);
        Ok(one_epoch.then_some(FinalityProof { headers, certificate }))
    }

    /// State root and receipts of an executed height. Also of heights above [`crate::Progress::executed`] that an earlier run
    /// executed.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn executed(&self, height: Height) -> Result<Option<ExecutedRecord>, StorageError> {
        self.read(Column::Executed, &keys::number(height.0))
    }
}
