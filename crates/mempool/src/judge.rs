//! Judges a block's header and body: the rules of validity, each with its name.
//!
//! The order of the checks does not matter to the verdict: anything that is wrong whatever may still arrive makes it
//! [`Verdict::Invalid`]; else what is not here yet makes it [`Verdict::Wait`], with everything that is missing at once.

use std::collections::{BTreeMap, BTreeSet};

use types::{BLOCK_VERSION, BatchId, Block, BlockHash, Hash, Header, Height, Kind, PublicKey, UnixMs, View, merkle};

use crate::chain::{Ancestry, NoAncestry, Tip};
use crate::mempool::Mempool;

/// What a proposal says beside the block, and when it is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JudgeContext {
    /// The view's leader by the schedule.
    pub leader: PublicKey,
    /// The view that notarized the block's parent, from the signed statement; 0 is the epoch's base.
    pub parent_view: View,
    /// The epoch's last block under its own hash again: the statement's parent is the block itself, so proposer, clock and
    /// `parent_view` are not judged again.
    pub reproposal: bool,
    /// The voter's clock.
    pub unix: UnixMs,
}

/// What to vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Held and valid: notarize.
    Valid,
    /// Not yet: judge again when any of it changed.
    Wait(Wait),
    /// Below or beside the final chain: there is nothing to vote for, and nobody's fault in it.
    Stale,
    /// Breaks a rule, whatever may still arrive: nullify; the proposer's offence.
    Invalid(Invalid),
}

/// What a verdict still needs.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Wait {
    /// Ask the proposer for these batches.
    pub batches: Vec<BatchId>,
    /// An ancestor is missing: ask for this block.
    pub parent: Option<BlockHash>,
    /// The header names this height as final and executed; here it is not final yet.
    pub finality: Option<Height>,
    /// Final here, but not executed yet.
    pub execution: Option<Height>,
    /// The block's time is ahead of the voter's clock: in time when the clock shows this.
    pub until: Option<UnixMs>,
}

/// The rule that a block breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Header version.
    #[error("unknown header version {0}")]
    Version(u32),
    /// Another chain.
    #[error("block is of another chain")]
    Chain,
    /// Another epoch, or a height outside it.
    #[error("block is of another epoch")]
    Epoch,
    /// Hash of this epoch's record.
    #[error("wrong hash of the epoch's record")]
    EpochHash,
    /// Hash of the next epoch's record.
    #[error("wrong hash of the next epoch's record")]
    NextEpochHash,
    /// Height is not the parent's plus 1.
    #[error("height {actual} after a parent of height {parent}")]
    Height {
        /// The parent's.
        parent: Height,
        /// The block's.
        actual: Height,
    },
    /// Not later than the parent.
    #[error("time is not after the parent's")]
    Time,
    /// Not the leader; of a re-proposal: no validator.
    #[error("proposer is not the leader")]
    Proposer,
    /// Re-proposed, though not the epoch's last block.
    #[error("only an epoch's last block is proposed again")]
    Reproposal,
    /// Body root.
    #[error("header names another body")]
    BodyRoot,
    /// The parent's notarization is missing, superfluous, or about something else.
    #[error("parent notarization does not fit")]
    Notarization,
    /// `executed` below the parent's, or not below the block's own height.
    #[error("executed height {0} is no ancestor's, or below the parent's")]
    Executed(Height),
    /// State root after `executed`.
    #[error("wrong state root after height {0}")]
    StateRoot(Height),
    /// Receipts root up to `executed`.
    #[error("wrong receipts root up to height {0}")]
    ReceiptsRoot(Height),
    /// Batches, although `executed` lags by more than `lag_max`.
    #[error("execution lags by {0} heights, so the block may carry no batches")]
    Lag(u64),
    /// More batches than a block may have.
    #[error("{0} batches are too many")]
    BatchCount(usize),
    /// The same batch twice, here or in an ancestor.
    #[error("batch {0} is cited twice")]
    BatchRepeated(BatchId),
    /// Above its expiry, or more than a batch life below it.
    #[error("batch {0} is not citable at this height")]
    BatchExpiry(BatchId),
    /// Neither of this epoch nor of the one before.
    #[error("batch {0} is of another epoch")]
    BatchEpoch(BatchId),
    /// Its author is not in the set.
    #[error("author of batch {0} is no validator")]
    BatchAuthor(BatchId),
    /// More batches of one author than its share.
    #[error("more batches of one author than its share {0}")]
    BatchShare(u32),
}

impl Mempool {
    /// Judges a block in a view. The caller has checked the proposal's head and the signatures of the body's notarization.
    pub fn judge(&self, block: &Block, context: &JudgeContext) -> Verdict {
        let checked = self
            .check_alone(block, context)
            .and_then(|()| self.check_batches_alone(block))
            .and_then(|()| self.check_notarization(block, context));
        if let Err(invalid) = checked {
            return Verdict::Invalid(invalid);
        }
        let mut wait = Wait::default();
        match self.chain.ancestry(&block.header.parent) {
            Ok(ancestry) => {
                let checked = self
                    .check_parent(&block.header, &ancestry.parent)
                    .and_then(|()| check_repeats(block, &ancestry, |id| self.chain.is_cited(id)))
                    .and_then(|()| self.check_executed(&block.header, &ancestry.parent, &mut wait));
                if let Err(invalid) = checked {
                    return Verdict::Invalid(invalid);
                }
            }
            Err(NoAncestry::Stale) => return Verdict::Stale,
            Err(NoAncestry::Missing(_)) if block.header.height <= self.chain.tip().height.next() => return Verdict::Stale,
            Err(NoAncestry::Missing(hash)) => wait.parent = Some(hash),
        }
        wait.batches = block.body.batches.iter().filter(|id| self.store.get(id).is_none()).copied().collect();
        let early = block.header.time.since(context.unix.plus(self.epoch.record.params.clock_drift_ms)) > 0;
        if early && !context.reproposal {
            wait.until = Some(UnixMs(block.header.time.since(UnixMs(self.epoch.record.params.clock_drift_ms))));
        }
        if wait == Wait::default() { Verdict::Valid } else { Verdict::Wait(wait) }
    }

    /// What the block and the epoch alone decide.
    fn check_alone(&self, block: &Block, context: &JudgeContext) -> Result<(), Invalid> {
        let (header, epoch) = (&block.header, &self.epoch);
        if header.version != BLOCK_VERSION {
            return Err(Invalid::Version(header.version));
        }
        if header.chain != self.chain_id {
            return Err(Invalid::Chain);
        }
        if header.epoch != epoch.record.epoch || !epoch.record.contains(header.height) {
            return Err(Invalid::Epoch);
        }
        if header.epoch_hash != epoch.hash {
            return Err(Invalid::EpochHash);
        }
        if header.next_epoch_hash != epoch.next_hash {
            return Err(Invalid::NextEpochHash);
        }
        if context.reproposal && header.height != epoch.record.last_height() {
            return Err(Invalid::Reproposal);
        }
        let entitled = if context.reproposal { epoch.seat(&header.proposer).is_some() } else { header.proposer == context.leader };
        if !entitled {
            return Err(Invalid::Proposer);
        }
        // Before the body is hashed: a frame has room for many more ids than a block may have.
        let (batches, batches_max) = (block.body.batches.len(), epoch.record.params.block_batches_max as usize);
        if batches > batches_max {
            return Err(Invalid::BatchCount(batches));
        }
        if !block.body_matches() {
            return Err(Invalid::BodyRoot);
        }
        if header.executed >= header.height {
            return Err(Invalid::Executed(header.executed));
        }
        Ok(())
    }

    /// The rules of citing, as far as held batches tell; the others are waited for.
    fn check_batches_alone(&self, block: &Block) -> Result<(), Invalid> {
        let (header, params) = (&block.header, &self.epoch.record.params);
        let lag = header.height.since(header.executed);
        if lag > params.lag_max && !block.body.batches.is_empty() {
            return Err(Invalid::Lag(lag));
        }
        let mut shares: BTreeMap<PublicKey, u32> = BTreeMap::new();
        for id in &block.body.batches {
            let Some(batch) = self.store.get(id) else { continue };
            if !batch.header.citable_at(header.height, params) {
                return Err(Invalid::BatchExpiry(*id));
            }
            if batch.header.epoch > header.epoch || batch.header.epoch.next() < header.epoch {
                return Err(Invalid::BatchEpoch(*id));
            }
            let seat = self.epoch.seat(&batch.header.author).ok_or(Invalid::BatchAuthor(*id))?;
            let cited = shares.entry(batch.header.author).or_default();
            *cited += 1;
            let share = self.epoch.set.batch_share(params, seat);
            if *cited > share {
                return Err(Invalid::BatchShare(share));
            }
        }
        Ok(())
    }

    /// Present exactly when the parent is not the epoch's base, and about the parent in the view that the proposal names.
    fn check_notarization(&self, block: &Block, context: &JudgeContext) -> Result<(), Invalid> {
        let at_base = block.header.height == self.epoch.record.first_height;
        let Some(certificate) = &block.body.parent_notarization else {
            let fits = at_base && (context.reproposal || context.parent_view == View(0));
            return if fits { Ok(()) } else { Err(Invalid::Notarization) };
        };
        let statement = &certificate.statement;
        let about_parent = statement.kind == Kind::Notarize
            && statement.chain == self.chain_id
            && statement.epoch == block.header.epoch
            && statement.digest == block.header.parent
            && (context.reproposal || statement.view == context.parent_view);
        let fits = !at_base && about_parent && certificate.check_shape(&self.epoch.set).is_ok();
        if fits { Ok(()) } else { Err(Invalid::Notarization) }
    }

    fn check_parent(&self, header: &Header, parent: &Tip) -> Result<(), Invalid> {
        if header.height != parent.height.next() {
            return Err(Invalid::Height { parent: parent.height, actual: header.height });
        }
        if header.time <= parent.time {
            return Err(Invalid::Time);
        }
        Ok(())
    }

    /// `executed` equal to the parent's is taken from the parent's header: a quorum vouched for it. A larger one needs the
    /// voter's own finality and execution.
    fn check_executed(&self, header: &Header, parent: &Tip, wait: &mut Wait) -> Result<(), Invalid> {
        let executed = header.executed;
        if executed < parent.executed {
            return Err(Invalid::Executed(executed));
        }
        let (state, receipts) = if executed == parent.executed {
            (Some(parent.state_root), Some(merkle::empty_root()))
        } else if executed > self.chain.tip().height {
            wait.finality = Some(executed);
            return Ok(());
        } else {
            (self.executed.state_root(executed), self.executed.receipts_root(parent.executed, executed))
        };
        let check = |ours: Option<Hash>, theirs: Hash, invalid: Invalid| match ours {
            Some(ours) if ours != theirs => Err(invalid),
            Some(_) => Ok(true),
            None => Ok(false),
        };
        let known = check(state, header.state_root, Invalid::StateRoot(executed))?
            & check(receipts, header.receipts_root, Invalid::ReceiptsRoot(executed))?;
        if !known {
            wait.execution = Some(executed);
        }
        Ok(())
    }
}

/// No batch twice: in the block, in its unfinal ancestors, in final blocks of the last batch life.
fn check_repeats(block: &Block, ancestry: &Ancestry, is_final: impl Fn(&BatchId) -> bool) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    for id in &block.body.batches {
        if !seen.insert(*id) || ancestry.cited.contains(id) || is_final(id) {
            return Err(Invalid::BatchRepeated(*id));
        }
    }
    Ok(())
}
