//! A naive ledger, written from the rules and apart from `ledger`: money in a map, nonces in sets, the whole tree hashed anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use types::{
    Account, Action, Address, Amount, Batch, EpochRecord, GenesisRecord, Hash, Height, Nonce, Params, Receipt, SignedTransaction,
    StateKey, StateLeaf, StateValue, Supply, TxResult, ValidatorState, merkle, state_root,
};

/// An account as the rules speak of it.
#[derive(Clone, Debug, Default)]
struct Purse {
    money: u64,
    used: BTreeSet<u64>,
}

/// What a leaf is about, in order of creation.
#[derive(Clone, Copy, Debug)]
enum Leaf {
    Supply,
    Validator(StateKey, ValidatorState),
    Epoch(u64, Hash),
    Purse(Address),
}

/// The whole state.
#[derive(Clone, Debug)]
pub struct Model {
    leaves: Vec<Leaf>,
    purses: BTreeMap<Address, Purse>,
    opening: u64,
    burned: u64,
}

impl Model {
    /// The state of genesis.
    pub fn new(genesis: &GenesisRecord) -> Model {
        let mut model = Model { leaves: vec![Leaf::Supply], purses: BTreeMap::new(), opening: 0, burned: 0 };
        for validator in &genesis.epochs[0].validators {
            model.opening += validator.weight.0;
            let state = ValidatorState { stake: validator.weight };
            model.leaves.push(Leaf::Validator(StateKey::validator(validator.key), state));
        }
        for epoch in &genesis.epochs {
            model.leaves.push(Leaf::Epoch(epoch.epoch.0, epoch.hash()));
        }
        for (address, amount) in &genesis.accounts {
            model.opening += amount.0;
            model.leaves.push(Leaf::Purse(*address));
            model.purses.insert(*address, Purse { money: amount.0, used: BTreeSet::new() });
        }
        model
    }

    /// Runs a block: its receipts and the state root after it. `later` is the record after the block's epoch, if the block is
    /// the first of an epoch above 0.
    pub fn run(
        &mut self,
        height: Height,
        params: &Params,
        batches: &[Arc<Batch>],
        later: Option<&EpochRecord>,
    ) -> (Vec<Receipt>, Hash) {
        if let Some(record) = later {
            self.leaves.push(Leaf::Epoch(record.epoch.0, record.hash()));
        }
        let mut receipts = Vec::new();
        for tx in batches.iter().flat_map(|batch| &batch.transactions) {
            if let Some((result, fee)) = self.spend(height, params, tx) {
                receipts.push(Receipt { height, index: receipts.len() as u32, id: tx.id(), result, fee: Amount(fee) });
            }
        }
        (receipts, self.root())
    }

    fn spend(&mut self, height: Height, params: &Params, tx: &SignedTransaction) -> Option<(TxResult, u64)> {
        let body = &tx.transaction;
        if body.expiry < height || body.expiry.0 - height.0 > params.transaction_life_max {
            return None;
        }
        let from = body.sender.address();
        let fee = params.fee_base.0 + params.fee_per_byte.0 * tx.to_bytes().len() as u64;
        let purse = self.purses.get_mut(&from)?;
        let newest = purse.used.last().copied();
        let too_old = newest.is_some_and(|newest| body.nonce.0 + 64 <= newest);
        if purse.used.contains(&body.nonce.0) || too_old || body.nonce.0 == u64::MAX || purse.money < fee {
            return None;
        }
        purse.used.insert(body.nonce.0);
        purse.money -= fee;
        self.burned += fee;
        let left = purse.money;
        let Action::Transfer { to, amount, .. } = &body.action;
        let creation = if self.purses.contains_key(to) { 0 } else { params.account_creation_fee.0 };
        if u128::from(left) < u128::from(amount.0) + u128::from(creation) {
            return Some((TxResult::InsufficientBalance, fee));
        }
        if *to != from && self.purses.get(to).is_some_and(|purse| purse.money.checked_add(amount.0).is_none()) {
            return Some((TxResult::BalanceOverflow, fee));
        }
        if creation > 0 {
            self.leaves.push(Leaf::Purse(*to));
            self.burned += creation;
        }
        self.purses.get_mut(&from)?.money -= amount.0 + creation;
        self.purses.entry(*to).or_default().money += amount.0;
        Some((TxResult::Success, fee + creation))
    }

    /// Balances + stake + burned − genesis: zero, always.
    pub fn supply_error(&self) -> i128 {
        let purses: i128 = self.purses.values().map(|purse| i128::from(purse.money)).sum();
        let stake: i128 =
            self.leaves.iter().map(|leaf| if let Leaf::Validator(_, state) = leaf { i128::from(state.stake.0) } else { 0 }).sum();
        purses + stake + i128::from(self.burned) - i128::from(self.opening)
    }

    fn value(&self, leaf: &Leaf) -> (StateKey, StateValue) {
        match leaf {
            Leaf::Supply => {
                let supply = Supply { genesis: Amount(self.opening), minted: Amount(0), burned: Amount(self.burned) };
                (StateKey::supply(), StateValue::Supply(supply))
            }
            Leaf::Validator(key, state) => (*key, StateValue::Validator(*state)),
            Leaf::Epoch(epoch, hash) => (StateKey::epoch(*epoch), StateValue::Epoch(*hash)),
            Leaf::Purse(address) => {
                let purse = self.purses.get(address).cloned().unwrap_or_default();
                let next = purse.used.last().map_or(0, |newest| newest + 1);
                let bit = |i: &u64| next > *i && purse.used.contains(&(next - 1 - i));
                let seen = (0..64u64).filter(bit).fold(0u64, |bits, i| bits | 1 << i);
                let account = Account { balance: Amount(purse.money), nonce_next: Nonce(next), nonces_seen: seen };
                (StateKey::account(*address), StateValue::Account(account))
            }
        }
    }

    /// The state root, from nothing.
    pub fn root(&self) -> Hash {
        let values: Vec<(StateKey, StateValue)> = self.leaves.iter().map(|leaf| self.value(leaf)).collect();
        let keys: BTreeSet<StateKey> = values.iter().map(|(key, _)| *key).collect();
        let next = |key: &StateKey| {
            let above = keys.range((std::ops::Bound::Excluded(*key), std::ops::Bound::Unbounded)).next();
            above.or_else(|| keys.first()).copied().unwrap_or(*key)
        };
        let leaves: Vec<Hash> =
            values.iter().map(|(key, value)| StateLeaf { key: *key, next: next(key), value: value.hash() }.leaf()).collect();
        state_root(leaves.len() as u64, &merkle::root(leaves))
    }
}
