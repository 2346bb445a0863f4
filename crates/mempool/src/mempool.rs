//! The mempool as one value, and what can be asked of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use types::{
    Batch, BatchHeader, BatchId, Block, BlockHash, ChainId, EpochRecord, Height, PublicKey, Signature, SignedTransaction, TxId,
};

use crate::chain::{Chain, Tip};
use crate::config::Config;
use crate::epoch::EpochView;
use crate::error::Dropped;
use crate::executed::ExecutedRoots;
use crate::pool::Pool;
use crate::store::Store;

/// Where the chain stands when the node starts.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The chain.
    pub chain: ChainId,
    /// This node's validator key, if it is one.
    pub me: Option<PublicKey>,
    /// The epoch of the height after the tip.
    pub epoch: EpochRecord,
    /// The one after.
    pub next: EpochRecord,
    /// The final tip in storage, or genesis.
    pub tip: Tip,
    /// The height that the ledger stands at.
    pub executed: Height,
}

/// A batch that wants its author's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What is signed.
    pub header: BatchHeader,
    /// What it holds.
    pub transactions: Vec<SignedTransaction>,
}

impl Draft {
    /// The batch, once the signer has signed the header.
    pub fn sign(self, signature: Signature) -> Batch {
        Batch { header: self.header, signature, transactions: self.transactions }
    }
}

/// What [`Mempool::pack`] gives.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Packed {
    /// A batch to be signed, stored (synced), then given to [`Mempool::hold`] and pushed to all validators.
    pub draft: Option<Draft>,
    /// Transactions that were in line and would be skipped now.
    pub dropped: Vec<Dropped>,
}

/// Which block is to be executed next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Execution {
    /// No final block is left to execute.
    Idle,
    /// The next block cites batches that are not held: fetch them.
    Missing(Height, Vec<BatchId>),
    /// Give these to [`ledger::Ledger::apply`], then its outcome to [`Mempool::executed`].
    Ready(Arc<Block>, Vec<Arc<Batch>>),
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Status {
    /// Transactions in the pool, waiting, packed and forwarded.
    pub transactions: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Those in line for a batch.
    pub waiting: usize,
    /// Bytes in line.
    pub waiting_bytes: usize,
    /// Own batches that no final block cites, those on their way to the disk among them.
    pub own_batches: usize,
    /// Held batches that no final block cites.
    pub open_batches: usize,
    /// Their bytes, against `held_bytes_max`.
    pub open_bytes: usize,
    /// Of these, those that a quorum announced.
    pub available_batches: usize,
    /// Batches of final blocks that are not executed.
    pub ordered_batches: usize,
    /// Batches announced to us that we don't hold.
    pub unknown_batches: usize,
    /// Blocks above the final tip.
    pub unfinal_blocks: usize,
    /// Final height.
    pub final_height: Height,
    /// Executed height.
    pub executed_height: Height,
}

/// Transactions, batches and the unfinal chain of one node. Pure: time is an input, effects are returned.
#[derive(Clone, Debug)]
pub struct Mempool {
    pub(crate) config: Config,
    pub(crate) chain_id: ChainId,
    pub(crate) me: Option<PublicKey>,
    pub(crate) epoch: EpochView,
    pub(crate) pool: Pool,
    pub(crate) store: Store,
    pub(crate) chain: Chain,
    pub(crate) executed: ExecutedRoots,
    pub(crate) next_sequence: u64,
    /// Own batches that were packed and are not held yet: they are being signed and synced.
    pub(crate) drafts: BTreeSet<BatchId>,
}

impl Mempool {
    /// An empty mempool at a final tip. The caller then restores, in this order: [`Mempool::restore_final`] for the blocks of
    /// the last `batch_life` heights, [`Mempool::restore_executed`] for the heights above the tip's `executed` that the ledger
    /// has passed, [`Mempool::hold`] for the held batches, [`Mempool::add_block`] for the held blocks above the tip.
    pub fn new(config: Config, boot: Boot) -> Mempool {
        Mempool {
            pool: Pool::new(&config),
            config,
            chain_id: boot.chain,
            me: boot.me,
            epoch: EpochView::new(boot.epoch, &boot.next),
            store: Store::default(),
            chain: Chain::new(boot.tip),
            executed: ExecutedRoots::start(boot.executed),
            next_sequence: 0,
            drafts: BTreeSet::new(),
        }
    }

    /// The final tip.
    pub fn tip(&self) -> &Tip {
        self.chain.tip()
    }

    /// What own execution says about recent heights.
    pub fn executed_roots(&self) -> &ExecutedRoots {
        &self.executed
    }

    /// A held block above the final tip.
    pub fn block(&self, hash: &BlockHash) -> Option<&Arc<Block>> {
        self.chain.block(hash)
    }

    /// A held batch that is open or in line for execution; executed ones are storage's.
    pub fn batch(&self, id: &BatchId) -> Option<&Arc<Batch>> {
        self.store.get(id)
    }

    /// Whether the pool has a transaction; it ends as a receipt or a [`Dropped`].
    pub fn contains(&self, id: &TxId) -> bool {
        self.pool.get(id).is_some()
    }

    /// A transaction of the pool.
    pub fn transaction(&self, id: &TxId) -> Option<&SignedTransaction> {
        self.pool.get(id).map(|entry| &entry.tx)
    }

    /// Figures for metrics. Cost: one look at each author.
    pub fn status(&self) -> Status {
        Status {
            transactions: self.pool.len(),
            bytes: self.pool.bytes(),
            waiting: self.pool.waiting_len(),
            waiting_bytes: self.pool.waiting_bytes(),
            own_batches: self.own_open_count(),
            open_batches: self.store.open_count(),
            open_bytes: self.store.open_bytes(),
            available_batches: self.store.available_count(),
            ordered_batches: self.store.ordered_count(),
            unknown_batches: self.store.unknown_count(),
            unfinal_blocks: self.chain.unfinal_count(),
            final_height: self.chain.tip().height,
            executed_height: self.executed.highest(),
        }
    }

    pub(crate) fn own_open_count(&self) -> usize {
        self.me.map_or(0, |me| self.store.used_by(&me).count) + self.drafts.len()
    }

    /// Whether a block of this epoch may cite a batch with this header, its expiry aside.
    pub(crate) fn in_epoch(&self, header: &BatchHeader) -> bool {
        let epoch = self.epoch.record.epoch;
        (header.epoch == epoch || header.epoch.next() == epoch) && self.epoch.seat(&header.author).is_some()
    }

    /// Whether a held batch that a quorum announced is not final and can be cited yet: the first kind of the engine's *work*.
    pub fn has_citable_work(&self) -> bool {
        let (first, life) = (self.chain.tip().height.next(), self.epoch.record.params.batch_life);
        self.store.available().any(|(_, batch)| {
            let expiry = batch.header.expiry;
            expiry >= first && expiry <= first.plus(life) && self.in_epoch(&batch.header)
        })
    }

    /// The engine's `work` input as far as payloads decide it: a citable batch that isn't final, or an executed non-empty block
    /// whose root no header on the highest notarized chain names. `head` is that chain's end; roots are named by every header
    /// above the first that does, so its `executed` alone decides.
    pub fn has_work(&self, head: &BlockHash) -> bool {
        let named = match self.chain.block(head) {
            Some(block) => block.header.executed,
            None => self.chain.tip().executed,
        };
        self.has_citable_work() || self.executed.any_nonempty_above(named)
    }
}
