//! Epochs: who validates, with what weight, and every number that decides validity. None of this is in a node's config.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::hash::{ChainId, Hash};
use crate::ids::{Amount, Epoch, Height, Stake, View};
use crate::key::PublicKey;

const EPOCH_TAG: &str = "ebpf-blockchain/epoch/1";
const LEADER_TAG: &str = "ebpf-blockchain/leader/1";

/// Most validators a set may have; bounds every bitmap and certificate.
pub const VALIDATORS_MAX: usize = 256;

/// The numbers that decide validity.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Params {
    /// A block carries no batches if its `executed` lags its height by more than this (`LAG_MAX`, ≥ 4).
    pub lag_max: u64,
    /// A batch may be cited at heights in `expiry - batch_life ..= expiry` (`BATCH_LIFE`).
    pub batch_life: u64,
    /// Most bytes of transactions in a batch.
    pub batch_bytes_max: u32,
    /// Most transactions in a batch.
    pub batch_transactions_max: u32,
    /// Most batches in a block; each author's share of them is by stake, at least one.
    pub block_batches_max: u32,
    /// Most bytes of one signed transaction.
    pub transaction_bytes_max: u32,
    /// Most heights that a transaction's expiry may lie above the block's height.
    pub transaction_life_max: u64,
    /// Most bytes of a memo.
    pub memo_bytes_max: u32,
    /// How far a header's time may lie ahead of a voter's clock, in ms.
    pub clock_drift_ms: u64,
    /// Fee of any transaction.
    pub fee_base: Amount,
    /// Fee of each byte of the signed transaction.
    pub fee_per_byte: Amount,
    /// Charged beside the fee when a transfer creates an account.
    pub account_creation_fee: Amount,
}

impl Default for Params {
    fn default() -> Params {
        Params {
            lag_max: 16,
            batch_life: 256,
            batch_bytes_max: 128 * 1024,
            batch_transactions_max: 1_024,
            block_batches_max: 32,
            transaction_bytes_max: 1_024,
            transaction_life_max: 4_096,
            memo_bytes_max: 512,
            clock_drift_ms: 1_000,
            fee_base: Amount(10),
            fee_per_byte: Amount(1),
            account_creation_fee: Amount(1_000),
        }
    }
}

/// A validator of an epoch: bitmaps, seats and the leader schedule use its place in the record, which is sorted by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Validator {
    /// Its key.
    pub key: PublicKey,
    /// Its weight.
    pub weight: Stake,
}

/// One epoch: every header names the hash of its own and of the next.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Which.
    pub epoch: Epoch,
    /// Its first height; epoch 0 starts at 1.
    pub first_height: Height,
    /// Heights in it.
    pub length: u64,
    /// The version of the rules, 1.
    pub version: u32,
    /// The rules' numbers.
    pub params: Params,
    /// Sorted by key, no key twice, no weight zero.
    pub validators: Vec<Validator>,
}

/// Why a record is no valid epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// No validators, or more than [`VALIDATORS_MAX`].
    #[error("an epoch has 1 to {VALIDATORS_MAX} validators, this one {0}")]
    ValidatorCount(usize),
    /// Not strictly ascending by key.
    #[error("validators are not sorted by key")]
    Unsorted,
    /// A weight of zero.
    #[error("a validator has no weight")]
    ZeroWeight,
    /// Too short: an epoch has at least 3 heights.
    #[error("an epoch has at least 3 heights")]
    TooShort,
    /// `lag_max` below 4.
    #[error("lag_max is at least 4")]
    LagMax,
}

impl EpochRecord {
    /// The record's hash.
    pub fn hash(&self) -> Hash {
        Hash::of(EPOCH_TAG, self)
    }

    /// Its last height.
    pub fn last_height(&self) -> Height {
        self.first_height.plus(self.length.saturating_sub(1))
    }

    /// Whether a height lies in it.
    pub fn contains(&self, height: Height) -> bool {
        (self.first_height..=self.last_height()).contains(&height)
    }

    /// Checks the record's own rules.
    ///
    /// # Errors
    /// [`EpochError`].
    pub fn check(&self) -> Result<(), EpochError> {
        if self.validators.is_empty() || self.validators.len() > VALIDATORS_MAX {
            return Err(EpochError::ValidatorCount(self.validators.len()));
        }
        if self.validators.windows(2).any(|pair| pair[0].key >= pair[1].key) {
            return Err(EpochError::Unsorted);
        }
        if self.validators.iter().any(|v| v.weight.0 == 0) {
            return Err(EpochError::ZeroWeight);
        }
        if self.length < 3 {
            return Err(EpochError::TooShort);
        }
        if self.params.lag_max < 4 {
            return Err(EpochError::LagMax);
        }
        Ok(())
    }

    /// The validator set with its sums.
    pub fn set(&self) -> ValidatorSet {
        ValidatorSet::new(self.epoch, self.validators.clone())
    }
}

/// A validator's place in its epoch's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Seat(pub u16);

impl Seat {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The validators of one epoch with their total; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorSet {
    epoch: Epoch,
    validators: Arc<[Validator]>,
    total: u128,
}

impl ValidatorSet {
    /// From a record's list, in the record's order.
    pub fn new(epoch: Epoch, validators: Vec<Validator>) -> ValidatorSet {
        let total = validators.iter().map(|v| u128::from(v.weight.0)).sum();
        ValidatorSet { epoch, validators: validators.into(), total }
    }

    /// The epoch that it is of.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.validators.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.validators.is_empty()
    }

    /// All, in order of their seats.
    pub fn validators(&self) -> &[Validator] {
        &self.validators
    }

    /// Who sits there.
    pub fn get(&self, seat: Seat) -> Option<&Validator> {
        self.validators.get(seat.index())
    }

    /// Where a key sits.
    pub fn seat(&self, key: &PublicKey) -> Option<Seat> {
        self.validators.binary_search_by(|v| v.key.cmp(key)).ok().map(|i| Seat(i as u16))
    }

    /// Sum of all weights.
    pub fn total(&self) -> u128 {
        self.total
    }

    /// Weight of a seat, zero if nobody sits there.
    pub fn weight(&self, seat: Seat) -> u128 {
        self.get(seat).map_or(0, |v| u128::from(v.weight.0))
    }

    /// Strictly more than two thirds of the total.
    pub fn is_quorum(&self, weight: u128) -> bool {
        weight * 3 > self.total * 2
    }

    /// Strictly more than a third of the total: at least one of them is honest.
    pub fn is_blocking(&self, weight: u128) -> bool {
        weight * 3 > self.total
    }

    /// The leader of a view: the seat in whose weight interval the number
    /// `SHA-256(tag ‖ chain ‖ epoch ‖ view)`, its first 16 bytes big-endian, modulo the total, falls.
    pub fn leader(&self, chain: &ChainId, view: View) -> Seat {
        let hash = Hash::of(LEADER_TAG, &(chain, self.epoch, view));
        let mut first = [0u8; 16];
        first.copy_from_slice(&hash.0[..16]);
        let mut point = u128::from_be_bytes(first) % self.total.max(1);
        for (i, validator) in self.validators.iter().enumerate() {
            let weight = u128::from(validator.weight.0);
            if point < weight {
                return Seat(i as u16);
            }
            point -= weight;
        }
        Seat(0)
    }

    /// How many of a block's batches an author may have: by stake, rounded up, at least one.
    pub fn batch_share(&self, params: &Params, seat: Seat) -> u32 {
        let share = (u128::from(params.block_batches_max) * self.weight(seat)).div_ceil(self.total.max(1));
        u32::try_from(share).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(weights: &[u64]) -> ValidatorSet {
        let validators = weights.iter().enumerate().map(|(i, w)| Validator { key: PublicKey([i as u8; 32]), weight: Stake(*w) });
        ValidatorSet::new(Epoch(0), validators.collect())
    }

    #[test]
    fn quorum_is_strict() {
        let four = set(&[1, 1, 1, 1]);
        assert!(!four.is_quorum(2) && four.is_quorum(3));
        assert!(!four.is_blocking(1) && four.is_blocking(2));
        let three = set(&[1, 1, 1]);
        assert!(!three.is_quorum(2) && three.is_quorum(3));
        let huge = set(&[u64::MAX; 256]);
        assert!(huge.is_quorum(huge.total()));
    }

    #[test]
    fn leaders_follow_stake() {
        let set = set(&[1, 2, 5]);
        let mut seen = [0u32; 3];
        for view in 1..=8_000 {
            seen[set.leader(&ChainId::default(), View(view)).index()] += 1;
        }
        for (count, weight) in seen.iter().zip([1u32, 2, 5]) {
            assert!(count.abs_diff(weight * 1_000) < 200, "{seen:?}");
        }
    }

    #[test]
    fn shares_never_starve_a_validator() {
        let set = set(&[1, 1_000_000]);
        let params = Params::default();
        assert_eq!(set.batch_share(&params, Seat(0)), 1);
        assert_eq!(set.batch_share(&params, Seat(1)), 32);
    }
}
