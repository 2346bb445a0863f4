//! Final blocks: linked to the tip, stored, executed in order; and the hand-over between epochs.

use std::sync::Arc;

use mempool::Execution;
use types::{BatchId, Block, BlockHash, Certificate, EpochRecord, Tick, UnixMs, View};

use crate::effect::{Effect, Event, Executed, Fatal, FinalBlock, Finalized, StoreOp};
use crate::fetch::Want;
use crate::replica::{EpochState, Pending, Replica};

/// Records of epochs that are kept in memory: those that final blocks not executed yet may be of, and those around.
const RECORDS_MAX: usize = 8;

/// Final blocks whose batches are fetched ahead of their execution.
const EXECUTE_FETCH_BLOCKS: usize = 64;

/// Finality certificates of epochs' last blocks that are kept in memory; older ones are storage's.
const EPOCH_ENDS_MAX: usize = 8;

/// The highest finality certificate that is not linked to the tip.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    pub(crate) certificate: Certificate,
    /// The ancestor (or the block itself) that is missing.
    missing: Option<BlockHash>,
}

impl<D: signer::Disk> Replica<D> {
    /// A verified finality certificate of this epoch.
    pub(crate) fn finality_learnt(&mut self, certificate: Certificate) {
        let view = certificate.statement.view;
        if self.final_view() >= view || self.goal.as_ref().is_some_and(|goal| goal.certificate.statement.view >= view) {
            return;
        }
        self.goal = Some(Goal { certificate, missing: None });
        self.fetch_again();
    }

    /// The view of the tip's certificate in this epoch; 0 at its base.
    pub(crate) fn final_view(&self) -> View {
        match &self.finality {
            Some(certificate) if certificate.statement.epoch == self.epoch.record.epoch => certificate.statement.view,
            _ => View(0),
        }
    }

    /// The block that is missing between the tip and the highest finality certificate.
    pub(crate) fn finality_missing(&self) -> Option<BlockHash> {
        self.goal.as_ref().and_then(|goal| goal.missing)
    }

    /// Moves the tip up to what a sync vouches for, and to the highest finality certificate, if all blocks between are held.
    pub(crate) fn link_step(&mut self, now: Tick, unix: UnixMs) {
        let full = |replica: &Self| {
            let ahead = replica.tip.height.since(replica.ledger.height());
            ahead >= replica.config.sync_blocks_max as u64 || replica.stores >= replica.config.stores_max
        };
        if full(self) {
            return;
        }
        if let Some(certificate) = self.sync.take_vouched()
            && certificate.statement.epoch == self.epoch.record.epoch
            && certificate.statement.view > self.final_view()
            && let Some(path) = self.synced_path(&certificate)
        {
            self.finalize(path, certificate, now, unix);
            if full(self) {
                return;
            }
        }
        let reached = |goal: &Goal| goal.certificate.statement.view <= self.final_view();
        if self.goal.as_ref().is_some_and(reached) {
            self.goal = None;
        }
        let Some(goal) = &self.goal else { return };
        let certificate = goal.certificate.clone();
        let mut path: Vec<Arc<Block>> = Vec::new();
        let mut hash = certificate.statement.digest;
        while hash != self.tip.hash {
            let Some(block) = self.mempool.block(&hash).or_else(|| self.sync.block(&hash)).map(Arc::clone) else {
                if let Some(goal) = &mut self.goal
                    && goal.missing != Some(hash)
                {
                    goal.missing = Some(hash);
                    self.fetch_again();
                }
                return;
            };
            if block.header.height <= self.tip.height.next() && block.header.parent != self.tip.hash {
                let detail = "does not descend from the final tip";
                return self.fatal(Fatal::InvalidFinal { height: block.header.height, detail });
            }
            hash = block.header.parent;
            path.push(block);
        }
        self.goal = None;
        path.reverse();
        self.finalize(path, certificate, now, unix);
    }

    /// The synced blocks from the tip up to the one that a certificate is about. They were checked to follow the tip.
    fn synced_path(&self, certificate: &Certificate) -> Option<Vec<Arc<Block>>> {
        let mut path = Vec::new();
        let mut hash = certificate.statement.digest;
        while hash != self.tip.hash {
            let block = self.sync.block(&hash)?;
            hash = block.header.parent;
            path.push(Arc::clone(block));
        }
        path.reverse();
        Some(path)
    }

    fn finalize(&mut self, path: Vec<Arc<Block>>, certificate: Certificate, now: Tick, unix: UnixMs) {
        for block in &path {
            if let Err(fatal) = self.claims.finalized(&block.header, self.tip.executed) {
                return self.fatal(fatal);
            }
            match self.mempool.finalized(block, now) {
                Ok(dropped) => dropped.into_iter().for_each(|dropped| self.event(Event::TransactionDropped(dropped))),
                Err(_) => {
                    let detail = "is out of turn";
                    return self.fatal(Fatal::InvalidFinal { height: block.header.height, detail });
                }
            }
            self.tip = *self.mempool.tip();
            self.recent.push(Arc::clone(block));
        }
        self.finality = Some(certificate.clone());
        self.sync.advance(self.tip.height);
        self.proposed = self.proposed.split_off(&certificate.statement.view);
        #[cfg(feature = "planted-bugs")]
        if self.config.bugs.early_cut
            && let Some(signer) = &mut self.signer
            && let Err(error) = signer.cut(&certificate)
        {
            return self.sign_failed(error);
        }
        self.judge_again();
        self.fetch_again();
        if path.is_empty() {
            return;
        }
        let last = path.len() - 1;
        let own = |i: usize| (i == last).then(|| certificate.clone());
        let blocks: Vec<FinalBlock> =
            path.into_iter().enumerate().map(|(i, block)| FinalBlock { block, certificate: own(i) }).collect();
        self.store(Pending::Final { blocks: blocks.clone(), certificate: certificate.clone(), at: unix }, StoreOp::Final(blocks));
        if self.tip.height >= self.epoch.record.last_height() {
            self.hand_over(certificate, now);
        }
    }

    /// Final blocks are durable: what the journal says below them may go.
    pub(crate) fn final_stored(&mut self, blocks: Vec<FinalBlock>, certificate: Certificate, at: UnixMs) {
        if let Some(signer) = &mut self.signer
            && let Err(error) = signer.cut(&certificate)
        {
            return self.sign_failed(error);
        }
        for FinalBlock { block, certificate: own } in blocks {
            let hash = block.hash();
            let view = certificate.statement.view;
            self.event(Event::Finalized(Finalized { block, hash, view, certificate: own, at }));
        }
    }

    /// The epoch's last block is final: the next engine starts from it.
    fn hand_over(&mut self, certificate: Certificate, now: Tick) {
        let ended = self.epoch.record.epoch;
        self.goal = None;
        let record = self.epoch.next.clone();
        // By the plan the set is that of the state that the ended epoch's last header names as executed. No action changes a
        // stake yet, so every state says the same.
        let next = self.ledger.next_epoch(&record);
        self.store(Pending::Nothing, StoreOp::Epoch(next.clone()));
        self.ends.insert(ended, certificate);
        while self.ends.len() > EPOCH_ENDS_MAX {
            self.ends.pop_first();
        }
        for dropped in self.mempool.enter_epoch(record.clone(), &next, now) {
            self.event(Event::TransactionDropped(dropped));
        }
        self.enter_epoch(EpochState::new(record, next), now);
    }

    /// Keeps a record for the execution of its heights.
    pub(crate) fn remember_record(&mut self, record: EpochRecord) {
        self.records.insert(record.epoch, record);
        while self.records.len() > RECORDS_MAX
            && self.records.first_key_value().is_some_and(|(_, old)| old.last_height() <= self.ledger.height())
        {
            self.records.pop_first();
        }
    }

    /// Executes the next final block, if its batches are held. True if there may be more.
    pub(crate) fn execute_step(&mut self) -> bool {
        if self.stores >= self.config.stores_max {
            return false;
        }
        let (block, batches) = match self.mempool.next_execution() {
            Execution::Idle => return false,
            Execution::Missing(height, _) => {
                // What the next block lacks shows only when it is its turn.
                self.fetch_due |= self.execution_waits.replace(height) != Some(height);
                return false;
            }
            Execution::Ready(block, batches) => (block, batches),
        };
        let height = block.header.height;
        let Some(record) = self.records.get(&block.header.epoch) else {
            self.fatal(Fatal::Ledger { height, detail: "no record of the epoch".to_owned() });
            return false;
        };
        let outcome = match self.ledger.apply(height, record, &batches) {
            Ok(outcome) => outcome,
            Err(error) => {
                self.fatal(Fatal::Ledger { height, detail: error.to_string() });
                return false;
            }
        };
        match self.mempool.executed(&outcome) {
            Ok(dropped) => dropped.into_iter().for_each(|dropped| self.event(Event::TransactionDropped(dropped))),
            Err(error) => {
                self.fatal(Fatal::Ledger { height, detail: error.to_string() });
                return false;
            }
        }
        if let Err(fatal) = self.claims.executed(height, outcome.state_root, &outcome.receipts) {
            self.fatal(fatal);
            return false;
        }
        let ledger::Outcome { receipts, skipped, changes, state_root, .. } = outcome;
        let executed = Arc::new(Executed { height, state_root, receipts, skipped, changes, batches });
        self.store(Pending::Nothing, StoreOp::Executed(Arc::clone(&executed)));
        self.event(Event::Executed(executed));
        self.judge_again();
        true
    }

    /// Batches that judgements, execution and the announcements of more than a third wait for.
    pub(crate) fn wanted_batches(&self) -> Vec<Want<BatchId>> {
        let mut wanted: Vec<BatchId> = self.mempool.missing();
        wanted.retain(|id| !self.fetches.is_useless(id));
        // Of the blocks behind the next one, too: a round trip for each alone is slower than the chain.
        wanted.extend(self.mempool.missing_for_execution(EXECUTE_FETCH_BLOCKS));
        wanted.extend(self.judging.values().flat_map(|judging| judging.batches.iter().copied()));
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|id| !self.storing.under_way.contains(id));
        wanted.into_iter().map(|what| Want { what, holders: self.mempool.holders(&what) }).collect()
    }

    /// Blocks that judgements and finality wait for.
    pub(crate) fn wanted_blocks(&self) -> Vec<Want<BlockHash>> {
        let mut wanted: Vec<Want<BlockHash>> = Vec::new();
        if let Some(goal) = &self.goal
            && let Some(what) = goal.missing
            && self.is_validator()
        {
            wanted.push(Want { what, holders: self.signers_of(&goal.certificate) });
        }
        for judging in self.judging.values() {
            if let Some(what) = judging.missing {
                wanted.push(Want { what, holders: vec![judging.leader] });
            }
        }
        if let Some(what) = self.building {
            wanted.push(Want { what, holders: Vec::new() });
        }
        wanted.sort_by_key(|want| want.what);
        wanted.dedup_by_key(|want| want.what);
        wanted.retain(|want| self.held_block(&want.what).is_none());
        wanted
    }

    fn signers_of(&self, certificate: &Certificate) -> Vec<types::PublicKey> {
        certificate.seats().filter_map(|seat| self.epoch.set.get(seat)).map(|validator| validator.key).collect()
    }

    /// Stops: nothing comes out after it.
    pub(crate) fn fatal(&mut self, fatal: Fatal) {
        if !self.dead {
            self.emit(Effect::Fatal(fatal));
            self.dead = true;
        }
    }
}
