//! Receipts: the one final answer to a transaction.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::hash::{Hash, TxId, encode};
use crate::ids::{Amount, Height};
use crate::merkle;

/// How an included transaction ended. Nonce and fee are consumed either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = true)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum TxResult {
    /// Done.
    Success = 0,
    /// The balance covers the fee but not the rest.
    InsufficientBalance = 1,
    /// The recipient's balance would exceed a u64.
    BalanceOverflow = 2,
}

impl TxResult {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            TxResult::Success => "success",
            TxResult::InsufficientBalance => "insufficient_balance",
            TxResult::BalanceOverflow => "balance_overflow",
        }
    }
}

/// One receipt; skipped transactions have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Receipt {
    /// The block's height.
    pub height: Height,
    /// Its place among the receipts of that height, from 0.
    pub index: u32,
    /// The transaction.
    pub id: TxId,
    /// How it ended.
    pub result: TxResult,
    /// What was charged, account creation included.
    pub fee: Amount,
}

impl Receipt {
    /// The hash of its leaf in the receipts tree; leaf data are the borsh bytes.
    pub fn leaf(&self) -> Hash {
        merkle::leaf_hash(&encode(self))
    }
}

/// Merkle root over receipts.
pub fn receipts_root<'a>(receipts: impl IntoIterator<Item = &'a Receipt>) -> Hash {
    merkle::root(receipts.into_iter().map(Receipt::leaf).collect())
}
