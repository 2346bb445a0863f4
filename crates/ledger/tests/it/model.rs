//! The oracle: `docs/spec/ledger.md` written down a second time, slowly. It shares no code with the ledger.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use types::{Action, Address, EpochRecord, GenesisRecord, Hash, Height, LeafKind, SignedTransaction, StateKey, TxId};

#[derive(Clone, Debug, Default)]
pub struct ModelAccount {
    pub balance: u128,
    pub used: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
pub enum ModelValue {
    Account(ModelAccount),
    Stake(u64),
    Epoch(Hash),
    Supply { genesis: u64, burned: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelEnd {
    Receipt { result: u8, fee: u64 },
    Skip(&'static str),
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub leaves: Vec<(StateKey, ModelValue)>,
}

fn sha(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

impl ModelValue {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            ModelValue::Account(account) => {
                let next = account.used.last().map_or(0, |highest| highest + 1);
                let seen = account.used.iter().filter(|nonce| next - 1 - **nonce < 64);
                let bits = seen.fold(0u64, |bits, nonce| bits | 1 << (next - 1 - nonce));
                [u64::try_from(account.balance).unwrap(), next, bits].iter().flat_map(|n| n.to_le_bytes()).collect()
            }
            ModelValue::Stake(stake) => stake.to_le_bytes().to_vec(),
            ModelValue::Epoch(hash) => hash.0.to_vec(),
            ModelValue::Supply { genesis, burned } => [*genesis, 0, *burned].iter().flat_map(|n| n.to_le_bytes()).collect(),
        }
    }
}

/// RFC 6962's definition.
fn mth(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves.len() {
        0 => sha(&[]),
        1 => leaves[0],
        n => {
            let k = n.next_power_of_two() / 2;
            sha(&[&[1], &mth(&leaves[..k]), &mth(&leaves[k..])])
        }
    }
}

impl Model {
    pub fn genesis(record: &GenesisRecord) -> Model {
        let stakes: u64 = record.epochs[0].validators.iter().map(|v| v.weight.0).sum();
        let balances: u64 = record.accounts.iter().map(|(_, balance)| balance.0).sum();
        let mut leaves = vec![(StateKey::supply(), ModelValue::Supply { genesis: stakes + balances, burned: 0 })];
        leaves.extend(record.epochs[0].validators.iter().map(|v| (StateKey::validator(v.key), ModelValue::Stake(v.weight.0))));
        leaves.extend(record.epochs.iter().map(|e| (StateKey::epoch(e.epoch.0), ModelValue::Epoch(e.hash()))));
        leaves.extend(record.accounts.iter().map(|(address, balance)| {
            let account = ModelAccount { balance: u128::from(balance.0), used: BTreeSet::new() };
            (StateKey::account(*address), ModelValue::Account(account))
        }));
        Model { leaves }
    }

    pub fn value(&self, key: &StateKey) -> Option<&ModelValue> {
        self.leaves.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    fn account(&mut self, address: &Address) -> Option<&mut ModelAccount> {
        let key = StateKey::account(*address);
        self.leaves.iter_mut().find_map(|(k, value)| match value {
            ModelValue::Account(account) if *k == key => Some(account),
            _ => None,
        })
    }

    pub fn next_key(&self, key: &StateKey) -> StateKey {
        let keys: BTreeSet<StateKey> = self.leaves.iter().map(|(k, _)| *k).collect();
        *keys.iter().find(|k| *k > key).or(keys.first()).unwrap()
    }

    pub fn root(&self) -> Hash {
        let keys: BTreeSet<StateKey> = self.leaves.iter().map(|(k, _)| *k).collect();
        let next: BTreeMap<StateKey, StateKey> =
            keys.iter().zip(keys.iter().skip(1).chain(keys.first())).map(|(a, b)| (*a, *b)).collect();
        let hashes: Vec<[u8; 32]> = self
            .leaves
            .iter()
            .map(|(key, value)| {
                let value = sha(&[b"ebpf-blockchain/state-value/1\0", &value.bytes()]);
                let next = next[key];
                sha(&[&[0], &[key.kind as u8], &key.key.0, &[next.kind as u8], &next.key.0, &value])
            })
            .collect();
        let count = (hashes.len() as u64).to_le_bytes();
        Hash(sha(&[b"ebpf-blockchain/state-root/1\0", &count, &mth(&hashes)]))
    }

    /// The validators of the next record, and its leaf when an epoch begins.
    pub fn begin(&mut self, height: Height, record: &EpochRecord) {
        if height == record.first_height && record.epoch.0 > 0 {
            let mut next = record.clone();
            next.epoch.0 += 1;
            next.first_height.0 += record.length;
            self.leaves.push((StateKey::epoch(next.epoch.0), ModelValue::Epoch(next.hash())));
        }
    }

    pub fn execute(&mut self, tx: &SignedTransaction, height: u64, record: &EpochRecord) -> (TxId, ModelEnd) {
        let (id, params, body) = (tx.id(), &record.params, &tx.transaction);
        let skip = |reason| (id, ModelEnd::Skip(reason));
        let sender = body.sender.address();
        let fee = u128::from(params.fee_base.0) + u128::from(params.fee_per_byte.0) * tx.to_bytes().len() as u128;
        if body.expiry.0 < height {
            return skip("expired");
        }
        if u128::from(body.expiry.0) > u128::from(height) + u128::from(params.transaction_life_max) {
            return skip("expiry_too_far");
        }
        let Some(from) = self.account(&sender) else { return skip("no_account") };
        let below_window = from.used.last().is_some_and(|highest| u128::from(body.nonce.0) + 64 <= u128::from(*highest));
        if from.used.contains(&body.nonce.0) || below_window || body.nonce.0 == u64::MAX {
            return skip("nonce_used");
        }
        if from.balance < fee {
            return skip("fee_not_payable");
        }
        from.used.insert(body.nonce.0);
        from.balance -= fee;
        let available = from.balance;
        let Action::Transfer { to, amount, .. } = &body.action;
        let amount = u128::from(amount.0);
        let is_new = self.account(to).is_none();
        let creation = if is_new { u128::from(params.account_creation_fee.0) } else { 0 };
        let done = available >= amount + creation;
        if done {
            if is_new {
                self.leaves.push((StateKey::account(*to), ModelValue::Account(ModelAccount::default())));
            }
            self.account(&sender).unwrap().balance -= amount + creation;
            self.account(to).unwrap().balance += amount;
        }
        let charged = (fee + if done { creation } else { 0 }) as u64;
        match self.leaves.iter_mut().find(|(key, _)| key.kind == LeafKind::Supply) {
            Some((_, ModelValue::Supply { burned, .. })) => *burned += charged,
            _ => unreachable!("the model always has a supply"),
        }
        (id, ModelEnd::Receipt { result: u8::from(!done), fee: charged })
    }
}
