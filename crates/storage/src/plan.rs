//! A group of operations as one atomic write: checked against the storage's progress, written once, synced at most once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rocksdb::{WriteBatch, WriteOptions};
use types::{Batch, BatchId, EpochRecord, Height, Kind, encode};

use crate::columns::Column;
use crate::error::StorageError;
use crate::keys;
use crate::op::{Executed, FinalBlock, StoreOp};
use crate::pending::Pending;
use crate::state::leaf_bytes;
use crate::storage::{Progress, Storage, Tip};

/// Most expired batches that one commit deletes; what is left waits for the next.
pub const COLLECT_MAX: usize = 256;

/// What only commits touch.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) pending: Pending,
    /// Leaves that wait for their write, as stored.
    leaves: BTreeMap<u64, Vec<u8>>,
    /// The highest height whose execution an earlier run stored: up to here it is compared.
    recorded: Height,
    stopped: bool,
}

impl Writer {
    pub(crate) fn new(pending: Pending, recorded: Height) -> Writer {
        Writer { pending, recorded, ..Writer::default() }
    }
}

impl Storage {
    /// Stores a group of operations in their order: all or none, with one write and at most one sync. What is on the disk when
    /// it returns: [`StoreOp`]. To store many at the price of one sync, commit them together.
    ///
    /// # Errors
    /// [`StorageError`]. Refused operations leave the storage as it was. After `Engine` every later commit answers `Stopped`: a
    /// failed write is never passed over, the process must end.
    pub fn commit(&self, ops: &[StoreOp]) -> Result<(), StorageError> {
        self.write(ops.iter().any(StoreOp::is_synced), |plan| {
            for op in ops {
                match op {
                    StoreOp::Batches(batches) => batches.iter().try_for_each(|batch| plan.hold(batch))?,
                    StoreOp::Final(blocks) => plan.finalize(blocks)?,
                    StoreOp::Executed(executed) => plan.execute(executed)?,
                    StoreOp::Epoch(record) => plan.epoch(record)?,
                }
            }
            plan.collect();
            if plan.flush_is_due() {
                plan.flush();
            }
            Ok(())
        })
    }

    /// Writes the leaves that wait, and syncs everything: before a planned end, so that nothing has to be executed again.
    ///
    /// # Errors
    /// [`StorageError`], as [`Storage::commit`].
    pub fn flush(&self) -> Result<(), StorageError> {
        self.write(true, |plan| {
            plan.flush();
            Ok(())
        })
    }

    /// Plans and writes while no other commit does.
    fn write(&self, synced: bool, fill: impl FnOnce(&mut Plan<'_>) -> Result<(), StorageError>) -> Result<(), StorageError> {
        let mut writer = self.writer.lock();
        if writer.stopped {
            return Err(StorageError::Stopped);
        }
        let mut plan = Plan::new(self, &writer);
        let filled = fill(&mut plan);
        let done = plan.done(synced);
        let result = filled.and_then(|()| self.finish(&mut writer, done));
        writer.stopped = matches!(result, Err(StorageError::Engine { .. }));
        result
    }

    /// Writes, then remembers what was written.
    fn finish(&self, writer: &mut Writer, done: Done) -> Result<(), StorageError> {
        let mut options = WriteOptions::default();
        options.set_sync(done.synced);
        self.db.write_opt(done.batch, &options).map_err(StorageError::engine("write"))?;
        for (id, expiry) in done.held {
            writer.pending.insert(expiry, id);
        }
        for id in done.dropped {
            writer.pending.remove(&id);
        }
        if done.flushed {
            writer.leaves.clear();
        } else {
            writer.leaves.extend(done.leaves);
        }
        self.set_progress(done.progress);
        Ok(())
    }
}

/// What a written plan changes in memory.
struct Done {
    batch: WriteBatch,
    synced: bool,
    flushed: bool,
    progress: Progress,
    held: BTreeMap<BatchId, Height>,
    dropped: BTreeSet<BatchId>,
    leaves: BTreeMap<u64, Vec<u8>>,
}

/// A group on its way to the disk.
struct Plan<'a> {
    storage: &'a Storage,
    writer: &'a Writer,
    batch: WriteBatch,
    /// As it will be after the write.
    progress: Progress,
    /// Whether the leaves that wait are in the write.
    flushed: bool,
    /// Batches that start to wait for a block here.
    held: BTreeMap<BatchId, Height>,
    /// Batches that no longer wait: cited or expired.
    dropped: BTreeSet<BatchId>,
    /// Batches that a block of this group cites.
    cited: BTreeSet<BatchId>,
    /// Leaves that heights of this group changed.
    leaves: BTreeMap<u64, Vec<u8>>,
}

impl<'a> Plan<'a> {
    fn new(storage: &'a Storage, writer: &'a Writer) -> Plan<'a> {
        Plan {
            storage,
            writer,
            batch: WriteBatch::default(),
            progress: storage.progress(),
            flushed: false,
            held: BTreeMap::new(),
            dropped: BTreeSet::new(),
            cited: BTreeSet::new(),
            leaves: BTreeMap::new(),
        }
    }

    fn put(&mut self, column: Column, key: &[u8], value: &[u8]) {
        self.batch.put_cf(self.storage.family(column), key, value);
    }

    fn hold(&mut self, batch: &Arc<Batch>) -> Result<(), StorageError> {
        let (id, expiry) = (batch.id(), batch.header.expiry);
        if self.held.contains_key(&id) || self.storage.holds_batch(&id)? {
            return Ok(());
        }
        self.put(Column::Batches, &keys::batch(expiry, &id), &encode(&**batch));
        self.put(Column::BatchPlaces, id.as_ref(), &keys::pair(expiry.0, batch.header.count));
        if self.cited.contains(&id) || self.storage.citation(&id)?.is_some() {
            return Ok(());
        }
        let pending = self.writer.pending.len() + self.held.len() - self.dropped.len();
        if pending >= self.storage.options.pending_batches_max {
            return Err(StorageError::PendingFull { max: self.storage.options.pending_batches_max });
        }
        self.held.insert(id, expiry);
        self.put(Column::Pending, &keys::batch(expiry, &id), &[]);
        Ok(())
    }

    fn finalize(&mut self, blocks: &[FinalBlock]) -> Result<(), StorageError> {
        for FinalBlock { block, certificate } in blocks {
            let Tip { height: tip, hash: parent } = self.progress.tip;
            let (height, hash) = (block.header.height, block.hash());
            if height != tip.next() {
                return Err(StorageError::NotNext { tip, actual: height });
            }
            if block.header.parent != parent {
                return Err(StorageError::Fork { height });
            }
            if let Some(certificate) = certificate {
                if certificate.statement.kind != Kind::Finalize || certificate.statement.digest != hash {
                    return Err(StorageError::Certificate { height });
                }
                self.put(Column::Certificates, &keys::number(height.0), &encode(certificate));
            }
            self.put(Column::Blocks, &keys::number(height.0), &encode(&**block));
            self.put(Column::Hashes, hash.as_ref(), &keys::number(height.0));
            for (place, id) in block.body.batches.iter().enumerate() {
                self.cite(id, height, place as u32);
            }
            self.progress.tip = Tip { height, hash };
        }
        if let Some(last) = blocks.last() {
            let height = last.block.header.height;
            if last.certificate.is_none() {
                return Err(StorageError::Certificate { height });
            }
            self.put(Column::Meta, keys::TIP, &keys::number(height.0));
        }
        Ok(())
    }

    fn cite(&mut self, id: &BatchId, height: Height, place: u32) {
        self.put(Column::Citations, id.as_ref(), &keys::pair(height.0, place));
        self.cited.insert(*id);
        let waiting = self.held.get(id).copied().or(self.writer.pending.expiry(id));
        if let Some(expiry) = waiting {
            self.batch.delete_cf(self.storage.family(Column::Pending), keys::batch(expiry, id));
            self.dropped.insert(*id);
        }
    }

    fn execute(&mut self, executed: &Executed) -> Result<(), StorageError> {
        let Executed { height, state_root, receipts, changes } = executed;
        let (before, tip) = (self.progress.executed, self.progress.tip.height);
        if *height != before.next() || *height > tip {
            return Err(StorageError::ExecutedNotNext { executed: before, actual: *height, tip });
        }
        if *height <= self.writer.recorded
            && let Some(stored) = self.storage.executed(*height)?
            && (stored.state_root != *state_root || stored.receipts != *receipts)
        {
            return Err(StorageError::Contradiction { height: *height, stored: stored.state_root, actual: *state_root });
        }
        // The bytes of an `ExecutedRecord`, without a copy of the receipts.
        self.put(Column::Executed, &keys::number(height.0), &encode(&(state_root, receipts)));
        for receipt in receipts {
            self.put(Column::Transactions, receipt.id.as_ref(), &keys::pair(height.0, receipt.index));
        }
        for change in changes {
            self.leaves.insert(change.index, leaf_bytes(&change.key, &change.value));
        }
        self.progress.executed = *height;
        Ok(())
    }

    fn epoch(&mut self, record: &EpochRecord) -> Result<(), StorageError> {
        match self.storage.epoch(record.epoch)? {
            Some(stored) if stored != *record => Err(StorageError::EpochContradiction { epoch: record.epoch }),
            Some(_) => Ok(()),
            None => {
                self.put(Column::Meta, &keys::epoch(record.epoch.0), &encode(record));
                Ok(())
            }
        }
    }

    /// Deletes batches that no block above the tip may cite and none up to it cites.
    fn collect(&mut self) {
        let tip = self.progress.tip.height;
        let expired: Vec<(Height, BatchId)> =
            self.writer.pending.expired(tip).filter(|(_, id)| !self.dropped.contains(id)).take(COLLECT_MAX).collect();
        for (expiry, id) in expired {
            let key = keys::batch(expiry, &id);
            self.batch.delete_cf(self.storage.family(Column::Batches), key);
            self.batch.delete_cf(self.storage.family(Column::Pending), key);
            self.batch.delete_cf(self.storage.family(Column::BatchPlaces), id);
            self.dropped.insert(id);
        }
    }

    fn flush_is_due(&self) -> bool {
        let Progress { executed, state, .. } = self.progress;
        let waiting = self.writer.leaves.len() + self.leaves.len();
        executed.since(state) >= self.storage.options.state_interval || waiting > self.storage.options.state_leaves_max
    }

    /// Puts all leaves that wait, and the height after which they stand.
    fn flush(&mut self) {
        let column = self.storage.family(Column::State);
        let newer = &self.leaves;
        let older = self.writer.leaves.iter().filter(|(index, _)| !newer.contains_key(index));
        for (index, leaf) in older.chain(newer) {
            self.batch.put_cf(column, keys::number(*index), leaf);
        }
        self.put(Column::Meta, keys::STATE, &keys::number(self.progress.executed.0));
        self.progress.state = self.progress.executed;
        self.flushed = true;
    }

    fn done(self, synced: bool) -> Done {
        let Plan { batch, progress, flushed, held, dropped, leaves, .. } = self;
        Done { batch, synced, flushed, progress, held, dropped, leaves }
    }
}
