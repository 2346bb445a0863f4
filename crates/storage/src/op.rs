//! What can be stored.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::Change;
use types::{Batch, Block, Certificate, EpochRecord, Hash, Height, Receipt};

/// A final block. The last of a group has a finality certificate of its own; below it one is kept if it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalBlock {
    /// The block.
    pub block: Arc<Block>,
    /// A finality certificate of exactly this block.
    pub certificate: Option<Certificate>,
}

/// What the execution of one height left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Which height.
    pub height: Height,
    /// The state root after it.
    pub state_root: Hash,
    /// Its receipts, in order.
    pub receipts: Vec<Receipt>,
    /// All leaves that it made or touched.
    pub changes: Vec<Change>,
}

/// What is kept of an executed height: enough to build and judge headers that name it, and to prove its receipts.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ExecutedRecord {
    /// The state root after the height.
    pub state_root: Hash,
    /// Its receipts, in order.
    pub receipts: Vec<Receipt>,
}

/// One thing to store. Everything in it was verified before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// Batches to hold: durable when the commit returns. Those that are held already are passed over.
    Batches(Vec<Arc<Batch>>),
    /// Final blocks in order, from the one after the tip on: durable when the commit returns. Batches that expired uncited are
    /// deleted.
    Final(Vec<FinalBlock>),
    /// The next executed height, at most the tip.
    Executed(Executed),
    /// The record of an epoch after 1.
    Epoch(EpochRecord),
}

impl StoreOp {
    /// Whether a commit with it waits for the disk.
    pub const fn is_synced(&self) -> bool {
        match self {
            StoreOp::Batches(_) | StoreOp::Final(_) => true,
            StoreOp::Executed(_) | StoreOp::Epoch(_) => false,
        }
    }

    /// The label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            StoreOp::Batches(_) => "batches",
            StoreOp::Final(_) => "final",
            StoreOp::Executed(_) => "executed",
            StoreOp::Epoch(_) => "epoch",
        }
    }
}
