//! What storage hands over at the start. Order of recovery: storage tip → the signer's cut check → held batches and headers →
//! journal → the view above the highest certificate → connect → re-send.

use std::sync::Arc;

use ledger::Ledger;
use types::{Batch, Block, Certificate, EpochRecord, GenesisRecord, Hash, Height, Receipt};

/// What a replica begins from. An empty store gives genesis, the ledger of genesis, and nothing else.
#[derive(Debug)]
pub struct Boot {
    /// The chain's genesis.
    pub genesis: GenesisRecord,
    /// Stored records of epochs, ascending. The two of genesis need not be among them; those of the tip's epoch and of the
    /// one after must be, if they are later.
    pub epochs: Vec<EpochRecord>,
    /// The finality certificate of the highest final block; none at genesis.
    pub tip: Option<Certificate>,
    /// The ledger as restored: at or below the tip.
    pub ledger: Ledger,
    /// Roots and receipts of executed heights, ascending: those above the `executed` that the header of the *ledger's own*
    /// height names, up to the ledger's.
    pub executed: Vec<ExecutedHeight>,
    /// Final blocks, ascending without a gap up to the tip: at least those from the ledger's height on (itself included) and
    /// the last `batch_life` (they tell which batches were cited), as far as they exist.
    pub blocks: Vec<Arc<Block>>,
    /// Batches: all that blocks above the ledger's height cite, and all others whose expiry is above the tip.
    pub batches: Vec<Arc<Batch>>,
}

/// What headers have to say about an executed height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutedHeight {
    /// The height.
    pub height: Height,
    /// The state root after it.
    pub state_root: Hash,
    /// Its receipts.
    pub receipts: Vec<Receipt>,
}

/// Why a store is no beginning. Each means corruption or a bug: the process ends.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The genesis record breaks its rules.
    #[error("genesis record")]
    Genesis(#[source] types::GenesisError),
    /// Blocks have a gap, do not reach the tip, or do not link.
    #[error("stored blocks: {0}")]
    Blocks(&'static str),
    /// The record of an epoch is missing.
    #[error("record of epoch {0} is missing")]
    Epoch(types::Epoch),
    /// The ledger is above the tip.
    #[error("ledger is at height {ledger}, above the final height {tip}")]
    Ledger {
        /// The ledger's height.
        ledger: Height,
        /// The tip's.
        tip: Height,
    },
    /// The signer's journal failed.
    #[error("signer's journal: {0}")]
    Journal(String),
}
