//! Builds a leader's block. What it builds, [`Mempool::judge`] calls valid: both read the same facts.

use std::collections::{BTreeMap, BTreeSet};

use types::{BLOCK_VERSION, BatchId, Block, BlockHash, Body, Certificate, Hash, Header, Height, PublicKey, UnixMs, View, merkle};

use crate::chain::{Ancestry, NoAncestry, Tip};
use crate::mempool::Mempool;

/// What the engine asks a leader for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildContext {
    /// The notarized parent, or the epoch's base.
    pub parent: BlockHash,
    /// The view that notarized it; 0 for the epoch's base.
    pub parent_view: View,
    /// Its notarization in that view; none for the epoch's base.
    pub notarization: Option<Certificate>,
    /// The leader.
    pub proposer: PublicKey,
    /// The leader's clock.
    pub unix: UnixMs,
}

/// Why there is no block to propose in this view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// An ancestor is not held: ask for it.
    #[error("ancestor {0} is not held")]
    Missing(BlockHash),
    /// The parent is below or beside the final chain.
    #[error("the parent is not on the final chain")]
    Stale,
    /// The parent ends the epoch: propose it again instead.
    #[error("the parent is the epoch's last block")]
    EpochEnd,
    /// A notarization without a view, or a view without a notarization.
    #[error("the parent's notarization does not fit its view")]
    Notarization,
}

impl Mempool {
    /// Builds the block of a view. The same inputs give the same block.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(&self, context: &BuildContext) -> Result<Block, BuildError> {
        let ancestry = self.chain.ancestry(&context.parent).map_err(|error| match error {
            NoAncestry::Missing(hash) => BuildError::Missing(hash),
            NoAncestry::Stale => BuildError::Stale,
        })?;
        let (parent, epoch) = (ancestry.parent, &self.epoch);
        let height = parent.height.next();
        if !epoch.record.contains(height) {
            return Err(if height > epoch.record.last_height() { BuildError::EpochEnd } else { BuildError::Stale });
        }
        let at_base = height == epoch.record.first_height;
        if at_base != context.notarization.is_none() || at_base != (context.parent_view == View(0)) {
            return Err(BuildError::Notarization);
        }
        let (executed, state_root, receipts_root) = self.choose_executed(&parent);
        let may_cite = height.since(executed) <= epoch.record.params.lag_max;
        let batches = if may_cite { self.choose_batches(height, &ancestry) } else { Vec::new() };
        let body = Body { batches, parent_notarization: context.notarization.clone() };
        let header = Header {
            version: BLOCK_VERSION,
            chain: self.chain_id,
            epoch: epoch.record.epoch,
            height,
            parent: context.parent,
            time: context.unix.max(parent.time.next()),
            proposer: context.proposer,
            body_root: body.root(),
            executed,
            state_root,
            receipts_root,
            epoch_hash: epoch.hash,
            next_epoch_hash: epoch.next_hash,
        };
        Ok(Block { header, body })
    }

    /// The highest height that is final and executed here, with its roots; a leader behind its parent copies.
    fn choose_executed(&self, parent: &Tip) -> (Height, Hash, Hash) {
        let mine = self.executed.highest().min(self.chain.tip().height);
        if mine > parent.executed
            && let Some(state_root) = self.executed.state_root(mine)
            && let Some(receipts_root) = self.executed.receipts_root(parent.executed, mine)
        {
            return (mine, state_root, receipts_root);
        }
        (parent.executed, parent.state_root, merkle::empty_root())
    }

    /// Citable batches in order of arrival, each author within its share, so that nobody's backlog starves another's.
    fn choose_batches(&self, height: Height, ancestry: &Ancestry) -> Vec<BatchId> {
        let params = &self.epoch.record.params;
        let (mut chosen, mut shares) = (Vec::new(), BTreeMap::<PublicKey, u32>::new());
        let mut full: BTreeSet<PublicKey> = BTreeSet::new();
        for (id, batch) in self.store.available() {
            if chosen.len() >= params.block_batches_max as usize {
                break;
            }
            let author = batch.header.author;
            let citable = batch.header.citable_at(height, params) && self.in_epoch(&batch.header);
            if !citable || full.contains(&author) || ancestry.cited.contains(id) || self.chain.is_cited(id) {
                continue;
            }
            let Some(seat) = self.epoch.seat(&author) else { continue };
            let cited = shares.entry(author).or_default();
            *cited += 1;
            if *cited >= self.epoch.set.batch_share(params, seat) {
                full.insert(author);
            }
            chosen.push(*id);
        }
        chosen
    }
}
