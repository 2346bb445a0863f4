//! Why a block can't be applied, or a stored state not be restored.

use types::{Epoch, GenesisError, Height, StateKey};

/// Why [`crate::Ledger::apply`] refused; the ledger is unchanged. None of these can come from a final block of an honest
/// quorum: the node that sees one stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Not the height after the last applied one.
    #[error("block of height {actual} does not follow height {executed}")]
    Height {
        /// The last applied height.
        executed: Height,
        /// The height given.
        actual: Height,
    },
    /// The record is of an epoch without this height.
    #[error("epoch {epoch} does not contain height {height}")]
    Epoch {
        /// The record's epoch.
        epoch: Epoch,
        /// The height given.
        height: Height,
    },
    /// The state would have more leaves than an index can name.
    #[error("the state is full")]
    Full,
    /// Balances + stake + burned differ from genesis + minted: a bug here, never a transaction's fault.
    #[error("supply: {held} held and burned, {made} made")]
    Supply {
        /// Balances + stake + burned.
        held: u128,
        /// Genesis + minted.
        made: u128,
    },
}

/// Why a genesis record or a stored state is no ledger. `E` is the store's error.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError<E: std::error::Error + 'static> {
    /// The store failed.
    #[error("state store")]
    Store(#[source] E),
    /// The genesis record breaks its rules.
    #[error("genesis record")]
    Genesis(#[source] GenesisError),
    /// Indexes are not 0, 1, 2, …
    #[error("state leaf {expected} is missing")]
    Gap {
        /// The index that should have come.
        expected: u64,
    },
    /// A key stands twice.
    #[error("state key {0:?} stands twice")]
    Repeated(StateKey),
    /// A value is not of its key's kind, or not canonical.
    #[error("state value under {0:?} is not canonical")]
    Value(StateKey),
    /// There is no supply leaf.
    #[error("the state has no supply leaf")]
    NoSupply,
    /// The restored state breaks the supply invariant, or is full.
    #[error("restored state")]
    Ledger(#[source] LedgerError),
}
