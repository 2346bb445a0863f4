//! A ledger of a few lines, slow and plain: the second opinion that the vectors are made with.

use types::{
    Account, Action, Amount, Batch, EpochRecord, GenesisRecord, Hash, Height, Receipt, SignedTransaction, Stake, StateKey,
    StateLeaf, StateProof, StateValue, Supply, TxResult, ValidatorState,
    merkle::{self, MerklePath},
    state_root,
};

/// All leaves in order of their creation.
#[derive(Clone, Default)]
pub struct State(Vec<(StateKey, StateValue)>);

impl State {
    pub fn genesis(record: &GenesisRecord) -> State {
        let supply = Supply { genesis: record.supply().expect("supply"), ..Supply::default() };
        let mut state = State(vec![(StateKey::supply(), StateValue::Supply(supply))]);
        for validator in &record.epochs[0].validators {
            let value = ValidatorState { stake: Stake(validator.weight.0) };
            state.0.push((StateKey::validator(validator.key), StateValue::Validator(value)));
        }
        for epoch in &record.epochs {
            state.0.push((StateKey::epoch(epoch.epoch.0), StateValue::Epoch(epoch.hash())));
        }
        for (address, balance) in &record.accounts {
            let account = Account { balance: *balance, ..Account::default() };
            state.0.push((StateKey::account(*address), StateValue::Account(account)));
        }
        state
    }

    pub fn leaves(&self) -> Vec<(StateLeaf, Vec<u8>)> {
        let mut keys: Vec<StateKey> = self.0.iter().map(|(key, _)| *key).collect();
        keys.sort();
        let next = |key: &StateKey| {
            let at = keys.binary_search(key).expect("own key");
            keys[(at + 1) % keys.len()]
        };
        let leaf = |(key, value): &(StateKey, StateValue)| {
            (StateLeaf { key: *key, next: next(key), value: value.hash() }, value.to_bytes())
        };
        self.0.iter().map(leaf).collect()
    }

    fn hashes(&self) -> Vec<Hash> {
        self.leaves().iter().map(|(leaf, _)| leaf.leaf()).collect()
    }

    pub fn root(&self) -> Hash {
        state_root(self.0.len() as u64, &merkle::root(self.hashes()))
    }

    /// All of a [`StateProof`] but its finality, taken from `like`.
    pub fn prove(&self, key: StateKey, finality: types::FinalityProof) -> StateProof {
        let leaves = self.leaves();
        let present = leaves.iter().position(|(leaf, _)| leaf.key == key);
        let at = present.or_else(|| leaves.iter().position(|(leaf, _)| leaf.excludes(&key))).expect("a ring has no gap");
        let path = MerklePath::build(&self.hashes(), at).expect("a leaf's path");
        let value = present.map(|at| leaves[at].1.clone());
        StateProof { key, leaf: leaves[at].0, value, path, finality }
    }

    fn account(&mut self, key: StateKey) -> Option<&mut Account> {
        self.0.iter_mut().find(|(k, _)| *k == key).and_then(|(_, value)| match value {
            StateValue::Account(account) => Some(account),
            _ => None,
        })
    }

    /// Executes a block; gives its receipts. `next` is the record after the block's epoch.
    pub fn apply(&mut self, height: Height, record: &EpochRecord, next: &EpochRecord, batches: &[&Batch]) -> Vec<Receipt> {
        if height == record.first_height && record.epoch.0 > 0 {
            self.0.push((StateKey::epoch(next.epoch.0), StateValue::Epoch(next.hash())));
        }
        let mut receipts = Vec::new();
        for tx in batches.iter().flat_map(|batch| &batch.transactions) {
            if let Some((result, fee)) = self.execute(tx, height, record) {
                receipts.push(Receipt { height, index: receipts.len() as u32, id: tx.id(), result, fee });
            }
        }
        let burned: u64 = receipts.iter().map(|receipt| receipt.fee.0).sum();
        if let Some((_, StateValue::Supply(supply))) = self.0.first_mut() {
            supply.burned.0 += burned;
        }
        receipts
    }

    fn execute(&mut self, tx: &SignedTransaction, height: Height, record: &EpochRecord) -> Option<(TxResult, Amount)> {
        let body = &tx.transaction;
        let Action::Transfer { to, amount, .. } = &body.action;
        let (sender, to) = (StateKey::account(body.sender.address()), StateKey::account(*to));
        let fee = tx.fee(&record.params);
        if height > body.expiry || body.expiry.0 > height.0 + record.params.transaction_life_max {
            return None;
        }
        let creation = if self.account(to).is_some() { 0 } else { record.params.account_creation_fee.0 };
        let from = self.account(sender)?;
        if !from.nonce_fits(body.nonce) || from.balance < fee {
            return None;
        }
        from.use_nonce(body.nonce);
        from.balance.0 -= fee.0;
        if from.balance.0 < amount.0 + creation {
            return Some((TxResult::InsufficientBalance, fee));
        }
        from.balance.0 -= amount.0 + creation;
        match self.account(to) {
            Some(account) => account.balance.0 += amount.0,
            None => self.0.push((to, StateValue::Account(Account { balance: *amount, ..Account::default() }))),
        }
        Some((TxResult::Success, Amount(fee.0 + creation)))
    }
}
