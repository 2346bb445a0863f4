//! Storage against ordered maps: whatever is stored in whatever order and however often it is reopened, every question has the
//! maps' answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::chain::Chain;
use ledger::Ledger;
use proptest::prelude::*;
use storage::{COLLECT_MAX, Executed, FinalBlock, Options, Storage, StoreOp};
use types::{Batch, BatchId, Hash, Height, Receipt, TxId};

const STATE_INTERVAL: u64 = 3;

#[derive(Clone, Debug)]
enum Action {
    /// Store batches of one transaction each, citable for so many heights.
    Hold { count: u8, life: u8 },
    /// Finalize a block that cites up to so many; `late`: its batches are stored after it.
    Finalize { cite: u8, certified: bool, late: bool },
    /// Execute what is final.
    Execute { count: u8 },
    /// Write the leaves that wait.
    Flush,
    /// Close and open.
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (1..4u8, 1..6u8).prop_map(|(count, life)| Action::Hold { count, life }),
        5 => (0..3u8, any::<bool>(), any::<bool>())
            .prop_map(|(cite, certified, late)| Action::Finalize { cite, certified, late }),
        3 => (1..5u8).prop_map(|count| Action::Execute { count }),
        1 => Just(Action::Flush),
        1 => Just(Action::Reopen),
    ]
}

/// What was stored, in maps.
#[derive(Default)]
struct Model {
    batches: BTreeMap<BatchId, Arc<Batch>>,
    pending: BTreeSet<(Height, BatchId)>,
    citations: BTreeMap<BatchId, (Height, u32)>,
    blocks: BTreeMap<Height, FinalBlock>,
    executed: BTreeMap<Height, Executed>,
    receipts: BTreeMap<TxId, Receipt>,
    roots: BTreeMap<Height, Hash>,
    state: Height,
}

struct World {
    chain: Chain,
    model: Model,
    storage: Option<Storage>,
    directory: tempfile::TempDir,
    /// Uncertified final blocks that wait for one with a certificate.
    open: Vec<FinalBlock>,
}

impl World {
    fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let chain = Chain::new();
        let mut model = Model::default();
        model.roots.insert(Height(0), chain.ledger.root());
        let mut world = World { chain, model, storage: None, directory, open: Vec::new() };
        world.reopen();
        world
    }

    fn storage(&self) -> &Storage {
        self.storage.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.storage = None;
        let options = Options { state_interval: STATE_INTERVAL, ..Options::default() };
        self.storage = Some(Storage::open(self.directory.path(), options, &self.chain.genesis).unwrap());
    }

    fn hold(&mut self, batches: Vec<Arc<Batch>>) {
        for batch in &batches {
            let id = batch.id();
            self.model.batches.insert(id, batch.clone());
            if !self.model.citations.contains_key(&id) {
                self.model.pending.insert((batch.header.expiry, id));
            }
        }
        self.storage().commit(&[StoreOp::Batches(batches)]).unwrap();
        self.collect();
    }

    /// What no block can cite any more goes with the next commit.
    fn collect(&mut self) {
        let tip = self.storage().progress().tip.height;
        let expired: Vec<_> = self.model.pending.iter().copied().filter(|(expiry, _)| *expiry <= tip).collect();
        assert!(expired.len() <= COLLECT_MAX);
        for (expiry, id) in expired {
            self.model.pending.remove(&(expiry, id));
            self.model.batches.remove(&id);
        }
    }

    fn finalize(&mut self, cite: usize, certified: bool, late: bool) {
        let height = self.chain.tip.height.next();
        let taken: BTreeSet<BatchId> = self.open.iter().flat_map(|block| block.block.body.batches.clone()).collect();
        let citable = self.model.pending.iter().filter(|(expiry, id)| *expiry >= height && !taken.contains(id));
        let mut cited: Vec<BatchId> = citable.map(|(_, id)| *id).take(cite).collect();
        let mut after = Vec::new();
        if late {
            let batch = self.chain.batch(2, height);
            cited.push(batch.id());
            after.push(batch);
        }
        let block = self.chain.block(cited, certified);
        self.open.push(block);
        if !certified {
            // Its batch comes before its block then, which is the other order.
            self.hold(after);
            return;
        }
        let blocks = std::mem::take(&mut self.open);
        for block in &blocks {
            let height = block.block.header.height;
            for (place, id) in block.block.body.batches.iter().enumerate() {
                self.model.citations.insert(*id, (height, place as u32));
                self.model.pending.retain(|(_, pending)| pending != id);
            }
            self.model.blocks.insert(height, block.clone());
        }
        self.storage().commit(&[StoreOp::Final(blocks)]).unwrap();
        self.collect();
        self.hold(after);
    }

    fn execute(&mut self, count: usize) {
        for _ in 0..count {
            let height = self.storage().progress().executed.next();
            let Some(block) = self.model.blocks.get(&height).map(|block| block.block.clone()) else { return };
            let batches: Vec<_> = block.body.batches.iter().map(|id| self.model.batches[id].clone()).collect();
            let executed = match self.model.executed.get(&height) {
                // After a reopening: the same again.
                Some(executed) => executed.clone(),
                None => self.chain.execute(&block, &batches),
            };
            self.model.roots.insert(height, executed.state_root);
            self.model.receipts.extend(executed.receipts.iter().map(|receipt| (receipt.id, *receipt)));
            self.model.executed.insert(height, executed.clone());
            self.storage().commit(&[StoreOp::Executed(executed)]).unwrap();
            if height.since(self.model.state) >= STATE_INTERVAL {
                self.model.state = height;
            }
            self.collect();
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Hold { count, life } => {
                let expiry = self.chain.tip.height.plus(u64::from(life));
                let batches = (0..count).map(|_| self.chain.batch(1, expiry)).collect();
                self.hold(batches);
            }
            Action::Finalize { cite, certified, late } => self.finalize(cite.into(), certified, late),
            Action::Execute { count } => self.execute(count.into()),
            Action::Flush => {
                self.storage().flush().unwrap();
                self.model.state = self.storage().progress().executed;
            }
            Action::Reopen => self.reopen(),
        }
    }

    fn compare(&self) {
        let (storage, model) = (self.storage(), &self.model);
        let tip = model.blocks.keys().next_back().copied().unwrap_or_default();
        assert_eq!(storage.progress().tip.height, tip);
        assert_eq!(storage.progress().state, model.state);
        for id in model.citations.keys().chain(model.batches.keys()) {
            assert_eq!(storage.batch(id).unwrap().as_ref(), model.batches.get(id).map(|batch| &**batch));
            assert_eq!(storage.holds_batch(id).unwrap(), model.batches.contains_key(id));
            assert_eq!(storage.citation(id).unwrap(), model.citations.get(id).copied());
        }
        let pending: Vec<_> = storage.pending_batches().unwrap().iter().map(|b| (b.header.expiry, b.id())).collect();
        assert_eq!(pending, model.pending.iter().copied().collect::<Vec<_>>());
        self.compare_blocks(tip);
        for (height, executed) in &model.executed {
            let record = storage.executed(*height).unwrap().unwrap();
            assert_eq!((record.state_root, &record.receipts), (executed.state_root, &executed.receipts));
        }
        for (id, receipt) in &model.receipts {
            assert_eq!(storage.receipt(id).unwrap(), Some(*receipt));
            let stored = storage.transaction(id).unwrap().unwrap();
            assert_eq!((stored.transaction.id(), stored.receipt), (*id, *receipt));
            assert_eq!(model.batches[&stored.batch].transactions[stored.position as usize], stored.transaction);
        }
        assert_eq!(storage.receipt(&TxId::default()).unwrap(), None);
        let ledger = Ledger::restore(&storage.state()).unwrap();
        assert_eq!((ledger.height(), ledger.root()), (model.state, model.roots[&model.state]));
    }

    fn compare_blocks(&self, tip: Height) {
        let (storage, model) = (self.storage(), &self.model);
        let all: Vec<_> = model.blocks.values().map(|block| (*block.block).clone()).collect();
        for from in 0..=tip.0 + 2 {
            let expected: Vec<_> = all.iter().filter(|block| block.header.height.0 >= from).take(3).cloned().collect();
            let headers: Vec<_> = expected.iter().map(|block| block.header.clone()).collect();
            assert_eq!(storage.headers(Height(from), 3).unwrap(), headers);
            assert_eq!(storage.blocks(Height(from), 3).unwrap(), expected);
        }
        for (height, block) in &model.blocks {
            assert_eq!(storage.block(*height).unwrap().as_ref(), Some(&*block.block));
            assert_eq!(storage.height_of(&block.block.hash()).unwrap(), Some(*height));
            assert_eq!(storage.certificate(*height).unwrap(), block.certificate);
            let certified = model.blocks.range(*height..).find_map(|(h, block)| Some((*h, block.certificate.clone()?)));
            assert_eq!(storage.certificate_from(*height).unwrap(), certified);
            let proof = storage.finality_proof(*height).unwrap().unwrap();
            let proven = proof.verify(&self.chain.genesis.chain_id(), &self.chain.genesis.epochs[0].set()).unwrap();
            assert_eq!(proven, &block.block.header);
        }
        assert_eq!(storage.finality_proof(tip.next()).unwrap(), None);
        assert_eq!(storage.block(tip.next()).unwrap(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn equals_maps(actions in prop::collection::vec(action(), 1..40)) {
        let mut world = World::new();
        for action in &actions {
            world.act(action);
        }
        world.compare();
        world.reopen();
        world.compare();
    }
}

/// A value large enough for a blob file, read after it has left the write buffer.
#[test]
fn large_batches_survive_the_write_buffer() {
    let mut world = World::new();
    let expiry = Height(1);
    // 64 × 64 KiB: more than the smallest write buffer.
    world.storage = None;
    let options = Options { write_buffer_bytes: 1 << 20, ..Options::default() };
    world.storage = Some(Storage::open(world.directory.path(), options, &world.chain.genesis).unwrap());
    let batches: Vec<_> = (0..64).map(|_| world.chain.batch(220, expiry)).collect();
    let cited: Vec<_> = batches[..32].iter().map(|batch| batch.id()).collect();
    for batch in &batches {
        world.hold(vec![batch.clone()]);
    }
    let block = world.chain.block(cited, true);
    world.storage().commit(&[StoreOp::Final(vec![block])]).unwrap();
    for (i, batch) in batches.iter().enumerate() {
        let expected = (i < 32).then_some(&**batch);
        assert_eq!(world.storage().batch(&batch.id()).unwrap().as_ref(), expected, "batch {i}");
    }
}
