//! State leaves: what the state tree is made of.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::hash::{Address, Hash, encode};
use crate::ids::{Amount, Nonce, Stake};
use crate::key::PublicKey;
use crate::merkle;

const VALUE_TAG: &str = "ebpf-blockchain/state-value/1";
const ROOT_TAG: &str = "ebpf-blockchain/state-root/1";

/// What a leaf holds. Unbonding (2) and evidence (5) are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = true)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum LeafKind {
    /// An [`Account`] under its address.
    Account = 0,
    /// A [`ValidatorState`] under its key's bytes.
    Validator = 1,
    /// An epoch record's hash under its number (big-endian in the last 8 of 32 bytes).
    Epoch = 3,
    /// The [`Supply`] under a zero key.
    Supply = 4,
}

/// Kind and key: leaves are ordered by it for proofs of absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct StateKey {
    /// What it holds.
    pub kind: LeafKind,
    /// Its 32-byte key within the kind.
    pub key: Hash,
}

impl StateKey {
    /// The key of an account.
    pub fn account(address: Address) -> StateKey {
        StateKey { kind: LeafKind::Account, key: address.0 }
    }

    /// The key of a validator.
    pub fn validator(key: PublicKey) -> StateKey {
        StateKey { kind: LeafKind::Validator, key: Hash(key.0) }
    }

    /// The key of an epoch's record.
    pub fn epoch(epoch: u64) -> StateKey {
        let mut key = [0u8; 32];
        key[24..].copy_from_slice(&epoch.to_be_bytes());
        StateKey { kind: LeafKind::Epoch, key: Hash(key) }
    }

    /// The key of the supply.
    pub fn supply() -> StateKey {
        StateKey { kind: LeafKind::Supply, key: Hash::ZERO }
    }
}

/// Width of the nonce window.
pub const NONCE_WINDOW: u64 = 64;

/// An account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Account {
    /// Its money.
    pub balance: Amount,
    /// One above the highest nonce used; 0 if none was.
    pub nonce_next: Nonce,
    /// Bit `i` set: nonce `nonce_next - 1 - i` was used.
    pub nonces_seen: u64,
}

impl Account {
    /// Whether a nonce is unused and not older than the window.
    pub fn nonce_fits(&self, nonce: Nonce) -> bool {
        if nonce >= self.nonce_next {
            return nonce.0 != u64::MAX;
        }
        let age = self.nonce_next.0 - 1 - nonce.0;
        age < NONCE_WINDOW && self.nonces_seen & (1 << age) == 0
    }

    /// Marks a fitting nonce as used.
    pub fn use_nonce(&mut self, nonce: Nonce) {
        debug_assert!(self.nonce_fits(nonce));
        if nonce >= self.nonce_next {
            let shift = nonce.0 + 1 - self.nonce_next.0;
            self.nonces_seen = if shift >= NONCE_WINDOW { 0 } else { self.nonces_seen << shift };
            self.nonces_seen |= 1;
            self.nonce_next = nonce.next();
        } else {
            self.nonces_seen |= 1 << (self.nonce_next.0 - 1 - nonce.0);
        }
    }
}

/// A validator's standing in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct ValidatorState {
    /// Its stake.
    pub stake: Stake,
}

/// Where all money is: balances + stake + burned = genesis + minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Supply {
    /// Opening balances and stakes.
    pub genesis: Amount,
    /// Made since.
    pub minted: Amount,
    /// Destroyed since: fees.
    pub burned: Amount,
}

/// A leaf's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateValue {
    /// Of an account.
    Account(Account),
    /// Of a validator.
    Validator(ValidatorState),
    /// Of an epoch: its record's hash.
    Epoch(Hash),
    /// Of the supply.
    Supply(Supply),
}

impl StateValue {
    /// Canonical bytes: the borsh bytes of what it holds, without a tag (the key's kind tells).
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            StateValue::Account(value) => encode(value),
            StateValue::Validator(value) => encode(value),
            StateValue::Epoch(value) => encode(value),
            StateValue::Supply(value) => encode(value),
        }
    }

    /// Reads the canonical bytes of a value under a key of this kind; `None` if they are not.
    pub fn from_bytes(kind: LeafKind, bytes: &[u8]) -> Option<StateValue> {
        match kind {
            LeafKind::Account => borsh::from_slice(bytes).ok().map(StateValue::Account),
            LeafKind::Validator => borsh::from_slice(bytes).ok().map(StateValue::Validator),
            LeafKind::Epoch => borsh::from_slice(bytes).ok().map(StateValue::Epoch),
            LeafKind::Supply => borsh::from_slice(bytes).ok().map(StateValue::Supply),
        }
    }

    /// The hash that a leaf holds.
    pub fn hash(&self) -> Hash {
        Hash::tagged(VALUE_TAG, &self.to_bytes())
    }
}

/// A leaf of the state tree. Leaves form a ring by key: each names the next larger one, the largest the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct StateLeaf {
    /// What it is about.
    pub key: StateKey,
    /// The next larger key in the tree; of the largest, the smallest.
    pub next: StateKey,
    /// [`StateValue::hash`].
    pub value: Hash,
}

impl StateLeaf {
    /// The hash of the leaf; leaf data are its 98 borsh bytes.
    pub fn leaf(&self) -> Hash {
        merkle::leaf_hash(&encode(self))
    }

    /// Whether a tree with this leaf has no leaf under `key`.
    pub fn excludes(&self, key: &StateKey) -> bool {
        if self.key < self.next {
            self.key < *key && *key < self.next
        } else {
            // The ring's seam; a lone leaf names itself.
            *key > self.key || *key < self.next
        }
    }
}

/// The state root: `H(tag, leaf count as u64 ‖ tree root)`.
pub fn state_root(count: u64, tree_root: &Hash) -> Hash {
    Hash::of(ROOT_TAG, &(count, tree_root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// The window against a set of all used nonces.
        #[test]
        fn nonce_window_is_a_set(nonces in prop::collection::vec(0u64..200, 0..200)) {
            let mut account = Account::default();
            let mut used = BTreeSet::new();
            for nonce in nonces {
                let highest = used.last().copied();
                let expect = !used.contains(&nonce) && highest.is_none_or(|h| nonce + NONCE_WINDOW > h);
                prop_assert_eq!(account.nonce_fits(Nonce(nonce)), expect);
                if expect {
                    account.use_nonce(Nonce(nonce));
                    used.insert(nonce);
                }
            }
        }
    }

    #[test]
    fn the_last_nonce_is_refused() {
        assert!(!Account::default().nonce_fits(Nonce(u64::MAX)));
        let mut account = Account::default();
        account.use_nonce(Nonce(u64::MAX - 1));
        assert!(!account.nonce_fits(Nonce(u64::MAX - 1)) && account.nonce_fits(Nonce(u64::MAX - 2)));
    }

    #[test]
    fn the_ring_excludes() {
        let key = |n: u8| StateKey::account(Address(Hash([n; 32])));
        let leaf = |a, b| StateLeaf { key: key(a), next: key(b), value: Hash::ZERO };
        assert!(leaf(1, 5).excludes(&key(3)) && !leaf(1, 5).excludes(&key(1)) && !leaf(1, 5).excludes(&key(5)));
        assert!(leaf(5, 1).excludes(&key(9)) && leaf(5, 1).excludes(&key(0)) && !leaf(5, 1).excludes(&key(3)));
        assert!(leaf(2, 2).excludes(&key(1)) && leaf(2, 2).excludes(&key(3)) && !leaf(2, 2).excludes(&key(2)));
    }
}
