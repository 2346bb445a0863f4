//! Genesis: the record whose hash names the chain.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::epoch::{EpochError, EpochRecord};
use crate::hash::{Address, BlockHash, ChainId, Hash};
use crate::ids::{Amount, Epoch, Height, UnixMs};

const GENESIS_TAG: &str = "ebpf-blockchain/genesis/1";

/// How a chain begins: its hash is the chain id, and, as a block hash, the parent of height 1.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct GenesisRecord {
    /// When; the first header's time is later.
    pub time: UnixMs,
    /// Opening balances, sorted by address, no address twice: state leaves are created in this order.
    pub accounts: Vec<(Address, Amount)>,
    /// Epochs 0 and 1.
    pub epochs: [EpochRecord; 2],
}

/// Why a record can't begin a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// An epoch record breaks its rules.
    #[error("epoch record {0}")]
    Epoch(u64, #[source] EpochError),
    /// Epoch numbers or heights don't follow: 0 from height 1, 1 right after.
    #[error("epochs 0 and 1 do not follow each other from height 1")]
    Sequence,
    /// Accounts not strictly ascending.
    #[error("accounts are not sorted by address")]
    Unsorted,
    /// Balances and stakes exceed a u64.
    #[error("the opening supply exceeds 2^64 - 1")]
    Supply,
}

impl GenesisRecord {
    /// The chain id.
    pub fn chain_id(&self) -> ChainId {
        ChainId(Hash::of(GENESIS_TAG, self))
    }

    /// The block hash of height 0.
    pub fn block_hash(&self) -> BlockHash {
        BlockHash(self.chain_id().0)
    }

    /// All opening money: balances and stakes of epoch 0.
    ///
    /// # Errors
    /// [`GenesisError::Supply`] if it exceeds a u64.
    pub fn supply(&self) -> Result<Amount, GenesisError> {
        let balances: u128 = self.accounts.iter().map(|(_, amount)| u128::from(amount.0)).sum();
        let supply = balances + self.epochs[0].set().total();
        u64::try_from(supply).map(Amount).map_err(|_| GenesisError::Supply)
    }

    /// Checks the record's rules.
    ///
    /// # Errors
    /// [`GenesisError`].
    pub fn check(&self) -> Result<(), GenesisError> {
        for (i, record) in self.epochs.iter().enumerate() {
            record.check().map_err(|error| GenesisError::Epoch(i as u64, error))?;
        }
        let [first, second] = &self.epochs;
        let follows = first.epoch == Epoch(0)
            && first.first_height == Height(1)
            && second.epoch == Epoch(1)
            && second.first_height == first.last_height().next();
        if !follows {
            return Err(GenesisError::Sequence);
        }
        if self.accounts.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(GenesisError::Unsorted);
        }
        self.supply().map(|_| ())
    }
}
