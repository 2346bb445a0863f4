//! Measures what a block costs the state: `cargo run --release -p ledger --example state_update [accounts] [transfers]`.
//!
//! Prints µs per touched leaf of whole blocks (execution, ids, tree) and, beside it, of the bare SHA-256 calls that the touched
//! leaves need, so that the figure says how far the ledger is from its floor.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use ledger::Ledger;
use types::{
    Action, Address, Amount, Batch, BatchHeader, ChainId, Epoch, EpochRecord, GenesisRecord, Hash, Height, Nonce, Params,
    PublicKey, Sequence, Signature, SignedTransaction, Stake, StateKey, Transaction, UnixMs, Validator, merkle,
};

const BLOCKS: u64 = 20;

fn sender(index: u64) -> PublicKey {
    PublicKey(Hash::tagged("state_update", &index.to_le_bytes()).0)
}

fn genesis(accounts: u64) -> GenesisRecord {
    let mut list: Vec<(Address, Amount)> = (0..accounts).map(|i| (sender(i).address(), Amount(1_000_000))).collect();
    list.sort();
    let record = |epoch: u64| EpochRecord {
        epoch: Epoch(epoch),
        first_height: Height(1 + epoch * 1_000),
        length: 1_000,
        version: 1,
        params: Params::default(),
        validators: vec![Validator { key: PublicKey([1; 32]), weight: Stake(1) }],
    };
    GenesisRecord { time: UnixMs(1), accounts: list, epochs: [record(0), record(1)] }
}

/// Distinct senders and recipients, spread over all accounts: every transfer touches two leaves.
fn block(height: u64, accounts: u64, transfers: u64) -> Arc<Batch> {
    let stride = (accounts / (2 * transfers)).max(1);
    let pick = |n: u64| (n * stride + height * 7_919) % accounts;
    let transfer = |n: u64| {
        let action = Action::Transfer { to: sender(pick(2 * n + 1)).address(), amount: Amount(1), memo: Vec::new() };
        let sender = sender(pick(2 * n));
        let transaction = Transaction { chain: ChainId::default(), sender, nonce: Nonce(height), expiry: Height(height), action };
        SignedTransaction { transaction, signature: Signature([0; 64]) }
    };
    let header = BatchHeader {
        chain: ChainId::default(),
        epoch: Epoch(0),
        author: PublicKey([1; 32]),
        sequence: Sequence(height),
        expiry: Height(height),
        count: transfers as u32,
        bytes: 0,
        root: Hash::ZERO,
    };
    Arc::new(Batch { header, signature: Signature([0; 64]), transactions: (0..transfers).map(transfer).collect() })
}

fn main() {
    let mut args = std::env::args().skip(1).map(|text| text.parse::<u64>().unwrap());
    let (accounts, transfers) = (args.next().unwrap_or(1_000_000), args.next().unwrap_or(5_000));
    let genesis = genesis(accounts);
    let start = Instant::now();
    let (mut ledger, _) = Ledger::genesis(&genesis).unwrap();
    println!("genesis: {accounts} accounts in {:.2} s", start.elapsed().as_secs_f64());

    let blocks: Vec<_> = (1..=BLOCKS).map(|height| [block(height, accounts, transfers)]).collect();
    let (mut seconds, mut touched, mut receipts) = (Vec::new(), 0, 0);
    for (at, batches) in blocks.iter().enumerate() {
        let start = Instant::now();
        let outcome = ledger.apply(Height(at as u64 + 1), &genesis.epochs[0], batches).unwrap();
        seconds.push(start.elapsed().as_secs_f64());
        (touched, receipts) = (touched + outcome.changes.len(), receipts + outcome.receipts.len());
    }
    seconds.sort_by(f64::total_cmp);
    let per_leaf = |seconds: f64| seconds * 1e6 / (touched as f64 / BLOCKS as f64);
    let median = seconds[seconds.len() / 2];
    println!(
        "apply: {} receipts, {} leaves a block, median {:.1} ms = {:.2} µs a leaf, {:.0} transfers/s",
        receipts as u64 / BLOCKS,
        touched as u64 / BLOCKS,
        median * 1e3,
        per_leaf(median),
        transfers as f64 / median
    );

    // The floor: value hash and leaf hash of each touched leaf, and the nodes above them that spread leaves can't share.
    let width = touched as f64 / BLOCKS as f64;
    let own = (accounts as f64 / width).log2().max(0.0) + 1.0;
    let nodes = (width * own) as u64;
    let start = Instant::now();
    let (mut node, leaf) = (Hash::ZERO, [0u8; 98]);
    for _ in 0..nodes {
        node = merkle::node_hash(&node, &Hash::ZERO);
    }
    for _ in 0..width as u64 {
        node = Hash::tagged("ebpf-blockchain/state-value/1", &node.0[..24]);
        node.0[0] ^= merkle::leaf_hash(&leaf).0[0];
    }
    let floor = start.elapsed().as_secs_f64();
    println!(
        "bare hashing: {:.2} µs a leaf ({:.1} nodes a leaf); ratio {:.2} {}",
        per_leaf(floor),
        own,
        median / floor,
        &node.to_string()[..4]
    );

    for back in [0, 1, 4, 16] {
        let start = Instant::now();
        let proof = ledger.prove_at(Height(BLOCKS - back), &StateKey::account(genesis.accounts[0].0)).unwrap();
        println!(
            "proof {back} heights back: {:.2} ms, {} siblings",
            start.elapsed().as_secs_f64() * 1e3,
            proof.path.siblings.len()
        );
    }
}
