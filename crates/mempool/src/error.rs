//! Why a transaction or batch is not taken, or no longer kept.

use ledger::SkipReason;
use types::{BatchError, BatchId, Height, Nonce, TransactionError, TxId};

/// Why a submitted transaction is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Never valid on this chain.
    #[error("transaction is invalid")]
    Invalid(#[source] TransactionError),
    /// The signature does not verify (said by the caller of the signature pool; never by the mempool).
    #[error("signature does not verify")]
    Signature,
    /// In the pool already.
    #[error("transaction {0} is known already")]
    Duplicate(TxId),
    /// Would be skipped on top of the executed state.
    #[error("transaction would be skipped: {}", .0.as_str())]
    Skipped(SkipReason),
    /// The nonce is a window or more above the next: an accident that would make the ones between unusable.
    #[error("nonce is too far ahead of {next}")]
    NonceAhead {
        /// The sender's next nonce in the executed state.
        next: Nonce,
    },
    /// Another transaction in the pool has the nonce.
    #[error("nonce is taken by transaction {0}")]
    NonceTaken(TxId),
    /// The balance does not cover the fees of all the sender's transactions in the pool.
    #[error("balance does not cover the fees of the sender's waiting transactions")]
    FeesInPool,
    /// The sender's quota here is used up.
    #[error("too many transactions of this sender, retry after {retry_after_ms} ms")]
    SenderFull {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The forwarding peer's quota here is used up.
    #[error("too many transactions from this peer, retry after {retry_after_ms} ms")]
    ForwarderFull {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The pool is full.
    #[error("the pool is full, retry after {retry_after_ms} ms")]
    Full {
        /// When to try again.
        retry_after_ms: u64,
    },
}

impl SubmitError {
    /// The label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            SubmitError::Invalid(_) => "invalid",
            SubmitError::Signature => "signature",
            SubmitError::Duplicate(_) => "duplicate",
            SubmitError::Skipped(reason) => reason.as_str(),
            SubmitError::NonceAhead { .. } => "nonce_ahead",
            SubmitError::NonceTaken(_) => "nonce_taken",
            SubmitError::FeesInPool => "fees_in_pool",
            SubmitError::SenderFull { .. } => "sender_full",
            SubmitError::ForwarderFull { .. } => "forwarder_full",
            SubmitError::Full { .. } => "full",
        }
    }

    /// When to try again, if waiting helps: HTTP's 429.
    pub const fn retry_after_ms(&self) -> Option<u64> {
        match self {
            SubmitError::SenderFull { retry_after_ms }
            | SubmitError::ForwarderFull { retry_after_ms }
            | SubmitError::Full { retry_after_ms } => Some(*retry_after_ms),
            _ => None,
        }
    }
}

/// Why a transaction that was taken will have no receipt from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// The height of its expiry was executed without it.
    Expired,
    /// It was skipped, or would be.
    Skipped(SkipReason),
}

impl DropReason {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::Expired => "expired",
            DropReason::Skipped(reason) => reason.as_str(),
        }
    }
}

/// The end of a transaction without receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Which.
    pub id: TxId,
    /// Why.
    pub reason: DropReason,
}

/// Why a batch is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchRefusal {
    /// Not valid. [`BatchError::Transaction`] is evidence, the others are an offence of the peer that sent it.
    #[error("batch is invalid")]
    Invalid(#[source] BatchError),
    /// The author is not in the present set.
    #[error("batch author is no validator")]
    Author,
    /// Neither of this epoch nor of the one before.
    #[error("batch is of another epoch")]
    Epoch,
    /// No coming block may cite it, or none for a long time.
    #[error("batch expiry is out of range")]
    Expiry,
    /// Held already.
    #[error("batch {0} is held already")]
    Known(BatchId),
    /// Cited by a final block that was executed.
    #[error("batch {0} is final already")]
    Final(BatchId),
    /// The author's part of the memory is used up.
    #[error("too many open batches of this author")]
    Full,
}

impl BatchRefusal {
    /// Whether an honest peer may cause it, by race or lag.
    pub const fn is_innocent(&self) -> bool {
        !matches!(self, BatchRefusal::Invalid(_))
    }
}

/// A call for a height out of turn: the replica's bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("height {expected} is next, not {actual}, or its parent is another")]
pub struct OutOfOrder {
    /// The height whose turn it is.
    pub expected: Height,
    /// The height given.
    pub actual: Height,
}
