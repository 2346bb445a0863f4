//! Batches and blocks on their way: held, announced, final, executed.

use std::sync::Arc;

use ledger::Outcome;
use types::{Batch, BatchId, Block, Certificate, EpochRecord, Hash, Height, IDS_MAX, PublicKey, Receipt, Tick, TxId};

use crate::epoch::EpochView;
use crate::error::{BatchRefusal, DropReason, Dropped, OutOfOrder};
use crate::mempool::{Execution, Mempool};
use crate::pool::{NewPlace, Place, Source};
use crate::store::weigh;

impl Mempool {
    /// Whether a received batch is wanted and, its transactions' signatures aside, valid. Cheap checks come first. Then: the
    /// signature pool, storage (synced), [`Mempool::hold`].
    ///
    /// # Errors
    /// [`BatchRefusal`].
    pub fn check_batch(&self, batch: &Batch) -> Result<BatchId, BatchRefusal> {
        let (header, params, tip) = (&batch.header, &self.epoch.record.params, self.chain.tip().height);
        let id = header.id();
        if self.store.get(&id).is_some() {
            return Err(BatchRefusal::Known(id));
        }
        let ordered = self.chain.is_ordered(&id);
        if self.chain.is_cited(&id) && !ordered {
            return Err(BatchRefusal::Final(id));
        }
        // What a block cites was within the rules of the block's own height and epoch.
        if !self.chain.needs(&id) {
            if self.epoch.seat(&header.author).is_none() {
                return Err(BatchRefusal::Author);
            }
            // An author may have entered the next epoch before this node did.
            if !self.in_epoch(header) && header.epoch != self.epoch.record.epoch.next() {
                return Err(BatchRefusal::Epoch);
            }
            // An author may be ahead of this node by some heights, too.
            if header.expiry <= tip || header.expiry > tip.plus(params.batch_life.saturating_mul(2)) {
                return Err(BatchRefusal::Expiry);
            }
            let used = self.store.used_by(&header.author);
            let part = self.config.held_bytes_max / self.epoch.set.len().max(1);
            if used.count >= self.config.author_batches_max || used.bytes + weigh(batch) > part {
                return Err(BatchRefusal::Full);
            }
        }
        batch.check(&self.chain_id, params).map_err(BatchRefusal::Invalid)?;
        Ok(id)
    }

    /// Takes a batch that is verified and durable: synced, before anybody hears of it. Also at start, for what storage holds.
    /// False if it is of no use (held, executed, or not citable any more); then see [`Mempool::give_back`].
    pub fn hold(&mut self, batch: Arc<Batch>) -> bool {
        let id = batch.id();
        let own = self.me.is_some_and(|me| me == batch.header.author);
        if own {
            self.drafts.remove(&id);
            self.next_sequence = self.next_sequence.max(batch.header.sequence.next().0);
        }
        if self.chain.is_ordered(&id) {
            return self.store.hold_ordered(batch);
        }
        if self.chain.is_cited(&id) || batch.header.expiry <= self.chain.tip().height {
            return false;
        }
        // While it was verified and stored, its epoch may have ended twice, or the own seat with it.
        let seated = self.epoch.seat(&batch.header.author).is_some();
        if batch.header.epoch.next() < self.epoch.record.epoch || (own && !seated) {
            return false;
        }
        if own {
            self.adopt(&batch, id);
        }
        let mine = self.me.and_then(|me| self.epoch.seat(&me));
        self.store.hold(batch, mine, &self.epoch.set)
    }

    /// An own batch that [`Mempool::hold`] did not take: what it packed goes back in line, or is dropped if it is too late for it. Nothing
    /// happens to one that is held.
    pub fn give_back(&mut self, batch: &Batch, now: Tick) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        if self.store.get(&batch.id()).is_none() {
            self.take_back(batch, now, &mut dropped);
        }
        dropped
    }

    /// The pool knows what own batches hold also after a restart, so that none of it is lost without a reason.
    fn adopt(&mut self, batch: &Batch, batch_id: BatchId) {
        for tx in &batch.transactions {
            let id = tx.id();
            if self.pool.get(&id).is_none() {
                self.pool.add(tx.clone(), id, Source::Local, &self.epoch.record.params, NewPlace::Batch(batch_id));
            }
        }
    }

    /// Notes what a validator announced to hold. Gives how many ids went beyond what one may announce; keys without a seat
    /// count for nothing.
    pub fn announced(&mut self, validator: &PublicKey, ids: &[BatchId]) -> usize {
        let Some(seat) = self.epoch.seat(validator) else { return 0 };
        let (now, max) = (self.chain.tip().height, self.config.unknown_announcements_max);
        let set = &self.epoch.set;
        let news = ids.iter().filter(|id| !self.chain.is_cited(id));
        news.filter(|id| !self.store.announce(**id, seat, set, now, max)).count()
    }

    /// Newly held batches to announce to all validators, at most [`IDS_MAX`]; call again until empty.
    pub fn take_announcements(&mut self) -> Vec<BatchId> {
        self.store.take_announcements(IDS_MAX)
    }

    /// All open batches: announced again on every connect.
    pub fn open_batches(&self) -> Vec<BatchId> {
        self.store.open().map(|(id, _)| *id).collect()
    }

    /// Own open batches in order of their sequence: pushed again on every connect.
    pub fn own_batches(&self) -> Vec<Arc<Batch>> {
        let own = self.store.open().filter(|(_, batch)| Some(batch.header.author) == self.me);
        let mut own: Vec<_> = own.map(|(_, batch)| Arc::clone(batch)).collect();
        own.sort_by_key(|batch| batch.header.sequence);
        own
    }

    /// Batches that more than a third announced and that are not held: to be fetched from their [`Mempool::holders`].
    pub fn missing(&self) -> Vec<BatchId> {
        self.store.missing().copied().collect()
    }

    /// Who announced a batch.
    pub fn holders(&self, id: &BatchId) -> Vec<PublicKey> {
        self.store.announcers(id).iter().filter_map(|seat| self.epoch.set.get(seat)).map(|v| v.key).collect()
    }

    /// Keeps a block above the final tip, so that children can be built and judged on it, and its batches are taken whatever
    /// their authors' quotas. For a proposal: once its head is verified, before it is judged, so a leader adds one a view. The
    /// caller has checked that the body is the header's. False if it is known, not above the tip, or larger than any valid one.
    pub fn add_block(&mut self, block: Arc<Block>) -> bool {
        let seats = self.epoch.set.len();
        let certificate_fits = |c: &Certificate| c.signatures.len() <= seats && c.bitmap.len() <= seats.div_ceil(8);
        let fits = block.body.batches.len() <= self.epoch.record.params.block_batches_max as usize
            && block.body.parent_notarization.as_ref().is_none_or(certificate_fits);
        fits && self.chain.add(block)
    }

    /// Notes the citations of a final block at or below the tip, at start, of the last `batch_life` heights. One that is not
    /// executed goes in line for execution.
    pub fn restore_final(&mut self, block: &Arc<Block>) {
        self.chain.cite(block, self.epoch.record.params.batch_life);
        if block.header.height > self.executed.highest() {
            self.chain.enqueue(Arc::clone(block));
        }
    }

    /// What storage knows of a height above the tip's `executed` that the ledger has passed. Without the root a header that
    /// names this height can't be judged; with the receipts alone, one that names a later height can.
    pub fn restore_executed(&mut self, height: Height, state_root: Option<Hash>, receipts: &[Receipt], nonempty: bool) {
        if height <= self.executed.highest() {
            self.executed.restore(height, state_root, receipts, nonempty);
        }
    }

    /// A block is final: the tip moves to it, its batches go in line for execution, and batches that can't be cited any more
    /// end; what own ones held goes back in line.
    ///
    /// # Errors
    /// [`OutOfOrder`] if it is not the tip's child.
    pub fn finalized(&mut self, block: &Arc<Block>, now: Tick) -> Result<Vec<Dropped>, OutOfOrder> {
        let tip = self.chain.tip();
        if block.header.parent != tip.hash || block.header.height != tip.height.next() {
            return Err(OutOfOrder { expected: tip.height.next(), actual: block.header.height });
        }
        let life = self.epoch.record.params.batch_life;
        self.chain.advance(block, life);
        self.chain.enqueue(Arc::clone(block));
        for id in &block.body.batches {
            self.store.order(id);
        }
        self.executed.prune(block.header.executed);
        let height = block.header.height;
        let mut dropped = Vec::new();
        while let Some(batch) = self.store.take_expired(height) {
            self.take_back(&batch, now, &mut dropped);
        }
        if height.0 > life {
            self.store.forget_unknown_before(Height(height.0 - life));
        }
        Ok(dropped)
    }

    /// Puts what an own batch held back in line.
    fn take_back(&mut self, batch: &Batch, now: Tick, dropped: &mut Vec<Dropped>) {
        if Some(batch.header.author) != self.me {
            return;
        }
        let batch_id = batch.id();
        let height = self.chain.tip().height.next();
        for id in batch.transactions.iter().map(types::SignedTransaction::id) {
            let Some(entry) = self.pool.get(&id) else { continue };
            if entry.place != Place::Packed(batch_id) {
                continue;
            }
            if entry.tx.transaction.expiry < height {
                self.pool.remove(&id);
                dropped.push(Dropped { id, reason: DropReason::Expired });
            } else {
                self.pool.requeue(&id, now);
            }
        }
    }

    /// The final block to execute next, with its batches.
    pub fn next_execution(&self) -> Execution {
        let next = self.executed.highest().next();
        let Some(block) = self.chain.queue().get(&next) else { return Execution::Idle };
        let missing: Vec<BatchId> = block.body.batches.iter().filter(|id| self.store.get(id).is_none()).copied().collect();
        if !missing.is_empty() {
            return Execution::Missing(next, missing);
        }
        let batches = block.body.batches.iter().filter_map(|id| self.store.get(id)).map(Arc::clone).collect();
        Execution::Ready(Arc::clone(block), batches)
    }

    /// Batches that the next final blocks to execute cite and that are not held: of at most `blocks` of them, in their order.
    pub fn missing_for_execution(&self, blocks: usize) -> Vec<BatchId> {
        let next = self.executed.highest().next();
        let cited = self.chain.queue().range(next..).take(blocks).flat_map(|(_, block)| block.body.batches.iter());
        cited.filter(|id| self.store.get(id).is_none()).copied().collect()
    }

    /// A final block was executed: its receipts end their transactions; own ones that it skipped, and all whose expiry is
    /// reached, are dropped.
    ///
    /// # Errors
    /// [`OutOfOrder`] if its height is not the next to execute.
    pub fn executed(&mut self, outcome: &Outcome) -> Result<Vec<Dropped>, OutOfOrder> {
        let expected = self.executed.highest().next();
        let out_of_order = OutOfOrder { expected, actual: outcome.height };
        if outcome.height != expected {
            return Err(out_of_order);
        }
        let block = self.chain.dequeue(expected).ok_or(out_of_order)?;
        self.executed.push(outcome, !block.body.batches.is_empty());
        for receipt in &outcome.receipts {
            self.pool.remove(&receipt.id);
        }
        let mut dropped = Vec::new();
        for skipped in &outcome.skipped {
            let Some(entry) = self.pool.get(&skipped.id) else { continue };
            // Skipped in another's batch, it may yet succeed in the own one or from the line.
            let ours = matches!(entry.place, Place::Packed(batch) if block.body.batches.contains(&batch));
            if ours && let Some(entry) = self.pool.remove(&skipped.id) {
                self.pool.note_skip(&entry, outcome.height);
                dropped.push(Dropped { id: skipped.id, reason: DropReason::Skipped(skipped.reason) });
            }
        }
        for id in &block.body.batches {
            self.store.forget_ordered(id);
        }
        while let Some(id) = self.expired(outcome.height) {
            self.pool.remove(&id);
            dropped.push(Dropped { id, reason: DropReason::Expired });
        }
        Ok(dropped)
    }

    fn expired(&self, executed: Height) -> Option<TxId> {
        self.pool.expired(executed)
    }

    /// Enters the next epoch, once its base is final: announcements keep their keys, and batches that it can't cite end.
    pub fn enter_epoch(&mut self, record: EpochRecord, next: &EpochRecord, now: Tick) -> Vec<Dropped> {
        let old = std::mem::replace(&mut self.epoch, EpochView::new(record, next));
        let (epoch, set) = (self.epoch.record.epoch, self.epoch.set.clone());
        let keep = |batch: &Batch| batch.header.epoch.next() >= epoch && set.seat(&batch.header.author).is_some();
        let gone = self.store.change_set(&old.set, &set, keep);
        let mut dropped = Vec::new();
        for batch in gone {
            self.take_back(&batch, now, &mut dropped);
        }
        dropped
    }
}
