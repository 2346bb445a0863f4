//! What a replica asks of its shell.

use std::sync::Arc;

use consensus::NullifyReason;
use ledger::{Change, Skipped};
use mempool::{Dropped, SubmitError};
use types::{
    Batch, BatchId, Block, BlockHash, Certificate, Epoch, EpochRecord, Evidence, Hash, Height, Message, Offence, PublicKey,
    Receipt, SignedTransaction, Statement, TxId, UnixMs, View,
};

use crate::input::{Peer, Token};

/// What the shell must do, in this order of coming out.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a message to a peer on its lane. May be lost if the peer goes; a full queue drops it.
    Send {
        /// To whom.
        peer: Peer,
        /// Shared between the peers that get the same.
        message: Arc<Message>,
    },
    /// Check the signatures of transactions (ZIP-215), then [`crate::Input::Verified`].
    Verify {
        /// To be handed back.
        token: Token,
        /// Whose signatures.
        transactions: Verifiable,
    },
    /// Store, then [`crate::Input::Stored`]. Operations are carried out in order. An error ends the process.
    Store {
        /// To be handed back.
        token: Token,
        /// What.
        op: StoreOp,
    },
    /// Read from storage, then [`crate::Input::Loaded`]; reads see the operations that came out before.
    Load {
        /// To be handed back.
        token: Token,
        /// What.
        load: Load,
    },
    /// A peer did what no honest node does, in bytes that it authenticated.
    Offence {
        /// Who.
        peer: Peer,
        /// What.
        offence: Offence,
        /// A note for logs.
        detail: &'static str,
    },
    /// Close the streams of a validator that is proven guilty, until a final block jails it.
    CloseStreams {
        /// Its key.
        validator: PublicKey,
    },
    /// Keep proof against a key.
    Evidence(Evidence),
    /// Answers [`crate::Input::Submit`]: a result for each transaction, in order. One that is taken ends as a receipt in
    /// [`Event::Executed`] or in [`Event::TransactionDropped`].
    Answer {
        /// The shell's token.
        token: Token,
        /// The id once it is taken in (or was already), or why not.
        results: Vec<Result<TxId, SubmitError>>,
    },
    /// Something worth a metric, a log line or a subscriber's attention.
    Event(Event),
    /// Stop the process now; nothing comes out after it.
    Fatal(Fatal),
}

/// Transactions to verify, without a copy.
#[derive(Clone, Debug)]
pub enum Verifiable {
    /// Of a batch.
    Batch(Arc<Batch>),
    /// Submitted or forwarded.
    List(Arc<Vec<SignedTransaction>>),
}

impl Verifiable {
    /// The transactions.
    pub fn transactions(&self) -> &[SignedTransaction] {
        match self {
            Verifiable::Batch(batch) => &batch.transactions,
            Verifiable::List(list) => list,
        }
    }
}

/// What is stored.
#[derive(Clone, Debug)]
pub enum StoreOp {
    /// Batches, verified. **Synced**: they are announced once this is durable.
    Batches(Vec<Arc<Batch>>),
    /// Blocks that became final, ascending without a gap from the stored tip; the last one has its certificate. **Synced** and
    /// atomic: the last is the new tip, and the signer's journal is cut below it.
    Final(Vec<FinalBlock>),
    /// What the execution of a height did. Not synced: replayed after a crash.
    Executed(Arc<Executed>),
    /// The record of a later epoch. Not synced by itself; before the first final block of the epoch in front of it.
    Epoch(EpochRecord),
}

/// A final block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalBlock {
    /// The block.
    pub block: Arc<Block>,
    /// Its own finality certificate; ancestors that became final with it may have none.
    pub certificate: Option<Certificate>,
}

/// What the execution of one height did.
#[derive(Clone, Debug)]
pub struct Executed {
    /// The height.
    pub height: Height,
    /// The state root after it.
    pub state_root: Hash,
    /// In order of execution.
    pub receipts: Vec<Receipt>,
    /// Transactions without a receipt.
    pub skipped: Vec<Skipped>,
    /// State leaves to put.
    pub changes: Vec<Change>,
    /// Batches that the block cited, in its order.
    pub batches: Vec<Arc<Batch>>,
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// Final blocks from a height on, at most `max`, all of one epoch; preferably ending at a block with a certificate of its
    /// own: the last such one among the `max`, or the first `max` blocks if there is none.
    FinalBlocks {
        /// The first height.
        from: Height,
        /// At most so many.
        max: usize,
    },
    /// A final block by its hash.
    Block(BlockHash),
    /// Batches by id.
    Batches(Vec<BatchId>),
    /// The finality certificate of the last block of an epoch.
    Finality(Epoch),
}

/// Why the process must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// A final header contradicts this node's own execution.
    #[error("final header of height {height} contradicts the own execution of height {executed}")]
    Contradiction {
        /// Of the header.
        height: Height,
        /// What it names as executed.
        executed: Height,
    },
    /// A final block breaks a rule that its quorum vouched for.
    #[error("final block of height {height}: {detail}")]
    InvalidFinal {
        /// The block's.
        height: Height,
        /// Which rule.
        detail: &'static str,
    },
    /// The ledger refused a final block.
    #[error("ledger refused height {height}: {detail}")]
    Ledger {
        /// The block's.
        height: Height,
        /// Why.
        detail: String,
    },
    /// The signer's disk failed: nothing may be signed any more.
    #[error("signer's journal: {0}")]
    Journal(String),
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// This node proposed a block.
    Proposed {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
        /// The block's height.
        height: Height,
        /// The block.
        hash: BlockHash,
    },
    /// This node judged another's proposal valid.
    Validated {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
        /// The block's height.
        height: Height,
    },
    /// A view's block has a notarization.
    Notarized {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
        /// The block.
        hash: BlockHash,
    },
    /// A view has a nullification.
    Nullified {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
    },
    /// This node entered a view.
    Entered {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
        /// Its leader.
        leader: PublicKey,
    },
    /// A block is final and durable here.
    Finalized(Finalized),
    /// A height was executed.
    Executed(Arc<Executed>),
    /// A batch of this node was signed, synced and sent out.
    BatchMade {
        /// Which.
        id: BatchId,
        /// Transactions in it.
        transactions: usize,
    },
    /// A peer's transaction was not taken.
    TransactionRefused(SubmitError),
    /// A transaction that was taken will have no receipt from here.
    TransactionDropped(Dropped),
    /// The signer refused a statement.
    SignRefused(Statement),
    /// Storage is older than the journal's cut: this node signs nothing in this life.
    StorageBehind,
    /// This node gives a view up.
    Nullifying {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
        /// Why.
        reason: NullifyReason,
    },
    /// A sync of final blocks began or moved on.
    Syncing {
        /// Own final height.
        from: Height,
        /// The highest that a peer claims.
        to: Height,
    },
}

/// A block that is final and durable.
#[derive(Clone, Debug)]
pub struct Finalized {
    /// The block.
    pub block: Arc<Block>,
    /// Its hash.
    pub hash: BlockHash,
    /// The epoch's view that finalized it or its descendant.
    pub view: View,
    /// Its own certificate, if it has one.
    pub certificate: Option<Certificate>,
    /// When this node learnt that it is final (the shell's clock).
    pub at: UnixMs,
}
