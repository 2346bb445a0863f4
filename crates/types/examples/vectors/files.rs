//! What each file of vectors holds.

use borsh::BorshSerialize;
use serde_json::{Value, json};
use types::merkle::{self, MerklePath};
use types::{
    AccountKey, Batch, Block, Epoch, EpochRecord, Hash, LeafKind, SignedTransaction, StateKey, StateProof, StateValue, View, encode,
};

#[path = "chain.rs"]
mod chain;
#[path = "ledger.rs"]
mod ledger;
#[path = "messages.rs"]
mod messages;
#[path = "refused.rs"]
mod refused;
#[path = "signatures.rs"]
mod signatures;
#[path = "votes.rs"]
mod votes;

use chain::Chain;

/// All files with their content.
pub fn all() -> Vec<(&'static str, Value)> {
    let chain = Chain::build();
    vec![
        ("hashes.json", hashes()),
        ("merkle.json", merkle_trees()),
        ("signatures.json", signatures::file()),
        ("leaders.json", leaders(&chain)),
        ("chain.json", chain_file(&chain)),
        ("proofs.json", proofs(&chain)),
        ("refused.json", refused::file(&chain)),
        ("messages.json", messages::file(&chain)),
        ("votes.json", votes::file(&chain)),
    ]
}

fn hex_of<T: BorshSerialize>(value: &T) -> String {
    hex::encode(encode(value))
}

/// Tagged hashes, and the addresses of development accounts.
fn hashes() -> Value {
    let tagged = [("ebpf-blockchain/block/1", ""), ("ebpf-blockchain/block/1", "00"), ("a", "62"), ("ab", "")];
    let tagged = tagged.map(|(tag, bytes)| {
        let hash = Hash::tagged(tag, &hex::decode(bytes).expect("hex"));
        json!({ "tag": tag, "bytes": bytes, "hash": hash })
    });
    let accounts = (0..3).map(|i| {
        let public = AccountKey::development(i).public();
        json!({ "index": i, "key": public, "address": public.address() })
    });
    json!({ "tagged": tagged, "development_accounts": accounts.collect::<Vec<_>>() })
}

/// Trees of 0 to 9 leaves; leaf `i` is the one byte `i`.
fn merkle_trees() -> Value {
    let trees = (0..=9u8).map(|count| {
        let leaves: Vec<Hash> = (0..count).map(|i| merkle::leaf_hash(&[i])).collect();
        let paths: Vec<MerklePath> = (0..leaves.len()).filter_map(|i| MerklePath::build(&leaves, i)).collect();
        json!({ "leaves": (0..count).map(|i| hex::encode([i])).collect::<Vec<_>>(), "root": merkle::root(leaves), "paths": paths })
    });
    json!({ "trees": trees.collect::<Vec<_>>() })
}

/// The leader schedule of two epochs.
fn leaders(chain: &Chain) -> Value {
    let schedule = [0u64, 1].map(|epoch| {
        let set = chain.epochs[epoch as usize].set();
        let seats: Vec<u16> = (1..=32).map(|view| set.leader(&chain.id, View(view)).0).collect();
        json!({ "epoch": Epoch(epoch), "first_view": 1, "seats": seats })
    });
    json!({ "chain": chain.id, "weights": chain::WEIGHTS, "schedule": schedule })
}

fn record(record: &EpochRecord) -> Value {
    json!({ "hash": record.hash(), "record": record, "bytes": hex_of(record) })
}

fn transaction(signed: &SignedTransaction) -> Value {
    json!({
        "id": signed.id(),
        "transaction": signed.transaction,
        "signature": signed.signature,
        "signing_bytes": hex::encode(signed.transaction.signing_bytes()),
        "bytes": hex::encode(signed.to_bytes()),
    })
}

fn batch(batch: &Batch) -> Value {
    json!({
        "id": batch.id(),
        "header": batch.header,
        "signature": batch.signature,
        "transactions": batch.transactions.iter().map(transaction).collect::<Vec<_>>(),
        "header_bytes": hex_of(&batch.header),
        "signing_bytes": hex::encode(batch.header.signing_bytes()),
        "bytes": hex::encode(batch.to_bytes()),
    })
}

fn block(chain: &Chain, block: &Block) -> Value {
    let height = block.header.height;
    json!({
        "height": height,
        "hash": block.hash(),
        "header": block.header,
        "header_bytes": hex_of(&block.header),
        "body": block.body,
        "body_bytes": hex_of(&block.body),
        "body_items": block.body.items(),
        "finality": chain.finality(height.0),
        "epoch": chain.record(height.0),
    })
}

fn state(chain: &Chain, height: usize) -> Value {
    let state = &chain.states[height];
    let leaves = state.leaves().into_iter().map(|(leaf, bytes)| json!({ "leaf": leaf, "value_bytes": hex::encode(bytes) }));
    json!({ "height": height, "root": state.root(), "leaves": leaves.collect::<Vec<_>>() })
}

/// Genesis, epochs, batches, blocks, states and receipts.
fn chain_file(chain: &Chain) -> Value {
    json!({
        "genesis": { "chain_id": chain.id, "record": chain.genesis, "bytes": hex_of(&chain.genesis) },
        "epochs": chain.epochs.iter().map(record).collect::<Vec<_>>(),
        "batches": chain.batches.iter().map(batch).collect::<Vec<_>>(),
        "blocks": chain.blocks.iter().map(|b| block(chain, b)).collect::<Vec<_>>(),
        "states": (0..chain.states.len()).map(|height| state(chain, height)).collect::<Vec<_>>(),
        "receipts": chain.receipts.iter().flatten().map(|r| json!({ "receipt": r, "bytes": hex_of(r) })).collect::<Vec<_>>(),
    })
}

fn state_proof(proof: StateProof) -> Value {
    let value =
        proof.value.as_ref().map(|bytes| match StateValue::from_bytes(proof.key.kind, bytes).expect("a value of its kind") {
            StateValue::Account(account) => json!(account),
            StateValue::Validator(validator) => json!(validator),
            StateValue::Epoch(hash) => json!(hash),
            StateValue::Supply(supply) => json!(supply),
        });
    json!({ "proof": proof, "value": value, "bytes": hex_of(&proof) })
}

/// Proofs that hold.
fn proofs(chain: &Chain) -> Value {
    let account = |i| StateKey::account(AccountKey::development(i).public().address());
    let keys = [
        account(0),
        account(8),
        account(9),
        account(77),
        StateKey { kind: LeafKind::Account, key: Hash::ZERO },
        StateKey { kind: LeafKind::Account, key: Hash([0xff; 32]) },
        StateKey::validator(chain.epochs[0].validators[0].key),
        StateKey::validator(AccountKey::development(0).public()),
        StateKey::epoch(1),
        StateKey::epoch(9),
        StateKey::supply(),
    ];
    let state = [1, 6, 10].into_iter().flat_map(|height| keys.map(|key| state_proof(chain.state_proof(key, height))));
    json!({
        "finality": (1..=10).map(|h| json!({ "proof": chain.finality(h), "bytes": hex_of(&chain.finality(h)) })).collect::<Vec<_>>(),
        "transaction": chain.transaction_proofs().iter().map(|p| json!({ "proof": p, "bytes": hex_of(p) })).collect::<Vec<_>>(),
        "state": state.collect::<Vec<_>>(),
    })
}
