//! Random chains: every block's root, receipts, changes and proofs against the model.

use std::sync::Arc;

use ledger::{HISTORY_HEIGHTS, Ledger, LedgerError, RestoreError};
use proptest::prelude::*;
use types::{
    AccountKey, Action, Address, Amount, Batch, BatchHeader, ChainId, Epoch, EpochRecord, GenesisRecord, Hash, Height, Nonce,
    Params, PublicKey, Sequence, Signature, SignedTransaction, Stake, StateKey, StateValue, Transaction, UnixMs, Validator,
};

use crate::model::{Model, ModelEnd};
use crate::store::MemoryStore;

const KEYS: u32 = 8;

fn params() -> Params {
    Params {
        fee_base: Amount(3),
        fee_per_byte: Amount(1),
        account_creation_fee: Amount(50),
        transaction_life_max: 6,
        ..Params::default()
    }
}

fn record(epoch: u64, length: u64, validators: &[(u8, u64)]) -> EpochRecord {
    EpochRecord {
        epoch: Epoch(epoch),
        first_height: Height(1 + epoch * length),
        length,
        version: 1,
        params: params(),
        validators: validators.iter().map(|(k, w)| Validator { key: PublicKey([*k; 32]), weight: Stake(*w) }).collect(),
    }
}

/// Accounts 0 to 3 exist at genesis, the others do not.
fn genesis(balances: [u64; 4], length: u64) -> GenesisRecord {
    let mut accounts: Vec<(Address, Amount)> =
        (0..4).map(|i| (AccountKey::development(i).public().address(), Amount(balances[i as usize]))).collect();
    accounts.sort();
    let validators = [(1, 5), (2, 7), (9, 1)];
    GenesisRecord { time: UnixMs(1), accounts, epochs: [record(0, length, &validators), record(1, length, &validators)] }
}

/// A transaction in small numbers.
#[derive(Clone, Debug)]
struct Draft {
    from: u32,
    to: u32,
    nonce: u64,
    amount: u64,
    expiry: i64,
    memo: usize,
}

impl Draft {
    /// The ledger does not look at signatures, so any 64 bytes do.
    fn at(&self, height: u64) -> SignedTransaction {
        let expiry = Height(height.saturating_add_signed(self.expiry));
        let to = AccountKey::development(self.to).public().address();
        let action = Action::Transfer { to, amount: Amount(self.amount), memo: vec![7; self.memo] };
        let sender = AccountKey::development(self.from).public();
        let transaction = Transaction { chain: ChainId::default(), sender, nonce: Nonce(self.nonce), expiry, action };
        SignedTransaction { transaction, signature: Signature([1; 64]) }
    }
}

fn drafts() -> impl Strategy<Value = Draft> {
    let nonce = prop_oneof![20 => 0u64..12, 4 => 0u64..200, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1)];
    let amount = prop_oneof![8 => 0u64..300, 2 => 0u64..5_000, 1 => Just(u64::MAX)];
    let expiry = prop_oneof![8 => 0i64..=6, 1 => -2i64..9];
    (0..KEYS, 0..KEYS, nonce, amount, expiry, 0usize..3).prop_map(|(from, to, nonce, amount, expiry, memo)| Draft {
        from,
        to,
        nonce,
        amount,
        expiry,
        memo,
    })
}

fn batch(transactions: Vec<SignedTransaction>) -> Arc<Batch> {
    let header = BatchHeader {
        chain: ChainId::default(),
        epoch: Epoch(0),
        author: PublicKey([1; 32]),
        sequence: Sequence(0),
        expiry: Height(9),
        count: transactions.len() as u32,
        bytes: 0,
        root: Hash::ZERO,
    };
    Arc::new(Batch { header, signature: Signature([0; 64]), transactions })
}

/// Every key that could exist, with some that never do.
fn keys() -> Vec<StateKey> {
    let accounts = (0..KEYS + 2).map(|i| StateKey::account(AccountKey::development(i).public().address()));
    let validators = [0, 1, 2, 3, 9, 255].map(|k| StateKey::validator(PublicKey([k; 32])));
    let edges = [StateKey::account(Address(Hash::ZERO)), StateKey::account(Address(Hash([255; 32]))), StateKey::supply()];
    accounts.chain(validators).chain(edges).chain((0..9).map(StateKey::epoch)).collect()
}

/// Proofs at `height` say what the model of that height says, under its root.
fn check_proofs(ledger: &Ledger, height: Height, model: &Model) {
    let root = model.root();
    assert_eq!(ledger.root_at(height), Some(root));
    for key in keys() {
        let proof = ledger.prove_at(height, &key).unwrap();
        let tree_root = proof.path.root(proof.leaf.leaf()).unwrap();
        assert_eq!(types::state_root(proof.path.count, &tree_root), root, "{key:?} at {height}");
        match model.value(&key) {
            Some(value) => {
                assert_eq!(proof.value, Some(value.bytes()));
                assert_eq!(proof.leaf.key, key);
                let value = StateValue::from_bytes(key.kind, proof.value.as_deref().unwrap()).unwrap();
                assert_eq!(value.hash(), proof.leaf.value);
            }
            None => {
                assert_eq!(proof.value, None);
                assert!(proof.leaf.excludes(&key), "{key:?} at {height}: {:?}", proof.leaf);
            }
        }
    }
}

fn check_block(ledger: &mut Ledger, model: &mut Model, record: &EpochRecord, batches: &[Arc<Batch>]) -> ledger::Outcome {
    let height = ledger.height().next();
    let outcome = ledger.apply(height, record, batches).unwrap();
    model.begin(height, record);
    let (mut receipts, mut skipped) = (outcome.receipts.iter(), outcome.skipped.iter());
    for tx in batches.iter().flat_map(|batch| &batch.transactions) {
        let (id, end) = model.execute(tx, height.0, record);
        match end {
            ModelEnd::Skip(reason) => {
                let ours = skipped.next().unwrap();
                assert_eq!((ours.id, ours.reason.as_str()), (id, reason));
            }
            ModelEnd::Receipt { result, fee } => {
                let ours = receipts.next().unwrap();
                assert_eq!((ours.id, ours.result as u8, ours.fee.0, ours.height), (id, result, fee, height));
            }
        }
    }
    assert!(receipts.next().is_none() && skipped.next().is_none());
    assert!(outcome.receipts.iter().enumerate().all(|(i, receipt)| receipt.index as usize == i));
    assert_eq!(outcome.state_root, model.root());
    for change in &outcome.changes {
        let (key, value) = &model.leaves[change.index as usize];
        assert_eq!((change.key, change.value.to_bytes(), change.next), (*key, value.bytes(), model.next_key(key)));
    }
    ledger.audit().unwrap();
    outcome
}

proptest! {
    #[test]
    fn a_chain_equals_the_model(
        blocks in prop::collection::vec(prop::collection::vec(drafts(), 0..25), 1..12),
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        balances in prop::array::uniform4(0u64..6_000),
        length in 3u64..5,
    ) {
        let genesis = genesis(balances, length);
        let (mut ledger, changes) = Ledger::genesis(&genesis).unwrap();
        let mut model = Model::genesis(&genesis);
        let mut store = MemoryStore::default();
        store.put(Height(0), &changes);
        let (mut record, mut past, mut seen) = (genesis.epochs[0].clone(), vec![model.clone()], Vec::<SignedTransaction>::new());
        for (at, drafts) in blocks.iter().enumerate() {
            let height = ledger.height().next();
            if height > record.last_height() {
                record = ledger.next_epoch(&record);
                prop_assert!(record.check().is_ok() && record.contains(height));
            }
            let mut txs: Vec<SignedTransaction> = drafts.iter().map(|draft| draft.at(height.0)).collect();
            if let Some(index) = repeats.get(at)
                && !seen.is_empty()
            {
                txs.push(index.get(&seen).clone());
            }
            seen.extend(txs.iter().cloned());
            let (left, right) = txs.split_at(txs.len() / 2);
            let outcome = check_block(&mut ledger, &mut model, &record, &[batch(left.to_vec()), batch(right.to_vec())]);
            store.put(height, &outcome.changes);
            past.push(model.clone());
        }
        for (height, model) in past.iter().enumerate() {
            check_proofs(&ledger, Height(height as u64), model);
        }
        // What was stored is the same ledger: same root, same next block.
        let mut restored = Ledger::restore(&store).unwrap();
        prop_assert_eq!((restored.height(), restored.root()), (ledger.height(), ledger.root()));
        let next = if ledger.height() == record.last_height() { ledger.next_epoch(&record) } else { record };
        let more = [batch(seen)];
        let height = ledger.height().next();
        prop_assert_eq!(restored.apply(height, &next, &more).unwrap(), ledger.apply(height, &next, &more).unwrap());
    }
}

#[test]
fn a_refused_block_changes_nothing() {
    let genesis = genesis([1_000; 4], 3);
    let (mut ledger, _) = Ledger::genesis(&genesis).unwrap();
    let before = ledger.root();
    let wrong = ledger.apply(Height(2), &genesis.epochs[0], &[]);
    assert_eq!(wrong, Err(LedgerError::Height { executed: Height(0), actual: Height(2) }));
    let wrong = ledger.apply(Height(1), &genesis.epochs[1], &[]);
    assert_eq!(wrong, Err(LedgerError::Epoch { epoch: Epoch(1), height: Height(1) }));
    assert_eq!((ledger.height(), ledger.root()), (Height(0), before));
}

#[test]
fn an_empty_block_has_no_changes() {
    let genesis = genesis([1_000; 4], 3);
    let (mut ledger, _) = Ledger::genesis(&genesis).unwrap();
    let before = ledger.root();
    let outcome = ledger.apply(Height(1), &genesis.epochs[0], &[]).unwrap();
    assert!(outcome.changes.is_empty() && outcome.receipts.is_empty());
    assert_eq!(outcome.state_root, before);
}

#[test]
fn history_is_a_window() {
    let genesis = genesis([1_000_000; 4], 1_000);
    let (mut ledger, _) = Ledger::genesis(&genesis).unwrap();
    let mut past = vec![Model::genesis(&genesis)];
    let blocks = HISTORY_HEIGHTS as u64 + 20;
    for height in 1..=blocks {
        let draft = Draft { from: 0, to: height as u32 % KEYS, nonce: height, amount: 1, expiry: 0, memo: 0 };
        let mut model = past.last().unwrap().clone();
        check_block(&mut ledger, &mut model, &genesis.epochs[0], &[batch(vec![draft.at(height)])]);
        past.push(model);
    }
    let oldest = ledger.oldest_provable();
    assert_eq!(oldest, Height(20));
    assert!(ledger.prove_at(oldest.prev(), &StateKey::supply()).is_none());
    assert!(ledger.prove_at(Height(blocks + 1), &StateKey::supply()).is_none());
    for height in [20, 21, 40, blocks - 1, blocks] {
        check_proofs(&ledger, Height(height), &past[height as usize]);
    }
}

#[test]
fn a_broken_store_is_named() {
    let genesis = genesis([1_000; 4], 3);
    let (_, changes) = Ledger::genesis(&genesis).unwrap();
    let mut good = MemoryStore::default();
    good.put(Height(0), &changes);
    assert!(Ledger::restore(&good).is_ok());

    let mut gap = good.clone();
    gap.leaves.remove(&2);
    assert!(matches!(Ledger::restore(&gap), Err(RestoreError::Gap { expected: 2 })));

    let mut twice = good.clone();
    let copy = twice.leaves[&6].clone();
    twice.leaves.insert(changes.len() as u64, copy);
    assert!(matches!(Ledger::restore(&twice), Err(RestoreError::Repeated(_))));

    let mut bytes = good.clone();
    bytes.leaves.get_mut(&7).unwrap().1.push(0);
    assert!(matches!(Ledger::restore(&bytes), Err(RestoreError::Value(_))));

    let mut money = good.clone();
    money.leaves.get_mut(&7).unwrap().1[0] ^= 1;
    assert!(matches!(Ledger::restore(&money), Err(RestoreError::Ledger(LedgerError::Supply { .. }))));

    let mut none = good;
    let rest = none.leaves.split_off(&1);
    none.leaves = rest.into_iter().map(|(index, leaf)| (index - 1, leaf)).collect();
    assert!(matches!(Ledger::restore(&none), Err(RestoreError::NoSupply)));
}
