//! A node's storage: what is written is seen at once, and survives a power loss only once it is synced.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use ledger::{Change, Ledger, StateStore, StoredLeaf};
use replica::{Boot, ExecutedHeight, FinalBlock, Load, Loaded, StoreOp};
use types::{Batch, BatchId, BlockHash, Epoch, EpochRecord, GenesisRecord, Height, StateKey, StateValue};

use crate::dice::Dice;

/// Older whole images that are kept for the fault *storage older than the journal*.
const IMAGES_MAX: usize = 4;

/// Everything on disk at one moment.
#[derive(Clone, Debug, Default)]
struct Image {
    leaves: BTreeMap<u64, (StateKey, StateValue)>,
    height: Height,
    executed: BTreeMap<Height, ExecutedHeight>,
    finals: BTreeMap<Height, FinalBlock>,
    heights: BTreeMap<BlockHash, Height>,
    batches: BTreeMap<BatchId, Arc<Batch>>,
    epochs: BTreeMap<Epoch, EpochRecord>,
}

impl StateStore for Image {
    type Error = Infallible;

    fn state_height(&self) -> Result<Height, Infallible> {
        Ok(self.height)
    }

    fn visit_state(&self, visit: &mut dyn FnMut(StoredLeaf)) -> Result<(), Infallible> {
        for (index, (key, value)) in &self.leaves {
            visit(StoredLeaf { index: *index, key: *key, value: value.to_bytes() });
        }
        Ok(())
    }
}

impl Image {
    fn put_leaves(&mut self, changes: &[Change]) {
        for change in changes {
            self.leaves.insert(change.index, (change.key, change.value));
        }
    }

    fn apply(&mut self, op: &StoreOp) {
        match op {
            StoreOp::Batches(batches) => {
                for batch in batches {
                    self.batches.insert(batch.id(), Arc::clone(batch));
                }
            }
            StoreOp::Final(blocks) => {
                for block in blocks {
                    let height = block.block.header.height;
                    self.heights.insert(block.block.hash(), height);
                    self.finals.insert(height, block.clone());
                }
            }
            StoreOp::Executed(executed) => {
                self.put_leaves(&executed.changes);
                self.height = executed.height;
                let (height, state_root, receipts) = (executed.height, executed.state_root, executed.receipts.clone());
                self.executed.insert(height, ExecutedHeight { height, state_root, receipts });
            }
            StoreOp::Epoch(record) => {
                self.epochs.insert(record.epoch, record.clone());
            }
        }
    }

    fn load(&self, load: &Load) -> Loaded {
        match load {
            Load::FinalBlocks { from, max } => {
                let epoch = self.finals.get(from).map(|block| block.block.header.epoch);
                let range = self.finals.range(*from..).map(|(_, block)| block).take(*max);
                let mut found: Vec<&FinalBlock> = range.take_while(|b| Some(b.block.header.epoch) == epoch).collect();
                if let Some(last) = found.iter().rposition(|block| block.certificate.is_some()) {
                    found.truncate(last + 1);
                }
                let certificate = found.last().and_then(|block| block.certificate.clone());
                Loaded::FinalBlocks { blocks: found.iter().map(|block| Arc::clone(&block.block)).collect(), certificate }
            }
            Load::Block(hash) => {
                let height = self.heights.get(hash);
                Loaded::Block(height.and_then(|height| self.finals.get(height)).map(|block| Arc::clone(&block.block)))
            }
            Load::Batches(ids) => Loaded::Batches(ids.iter().filter_map(|id| self.batches.get(id)).map(Arc::clone).collect()),
            Load::Finality(epoch) => {
                let last = self.finals.values().rev().find(|block| block.block.header.epoch == *epoch);
                Loaded::Certificate(last.and_then(|block| block.certificate.clone()))
            }
        }
    }
}

/// A node's storage.
#[derive(Clone, Debug)]
pub struct Store {
    live: Image,
    durable: Image,
    /// Written, not yet synced, with the number of each.
    tail: VecDeque<(u64, StoreOp)>,
    written: u64,
    older: VecDeque<Image>,
    keep_older: bool,
}

impl Store {
    /// A new disk. With `keep_older` it can be rolled back.
    pub fn new(genesis: &[Change], keep_older: bool) -> Store {
        let mut image = Image::default();
        image.put_leaves(genesis);
        Store { live: image.clone(), durable: image, tail: VecDeque::new(), written: 0, older: VecDeque::new(), keep_older }
    }

    /// Writes; gives the number to sync up to.
    pub fn write(&mut self, op: StoreOp) -> u64 {
        self.live.apply(&op);
        self.written += 1;
        self.tail.push_back((self.written, op));
        self.written
    }

    /// Makes all writes up to a number durable.
    pub fn sync(&mut self, number: u64) {
        while let Some((_, op)) = self.tail.pop_front_if(|(n, _)| *n <= number) {
            if self.keep_older && matches!(op, StoreOp::Final(_)) {
                self.older.push_back(self.durable.clone());
                if self.older.len() > IMAGES_MAX {
                    self.older.pop_front();
                }
            }
            self.durable.apply(&op);
        }
    }

    /// Power loss: of what was not synced, with `keep` some first part survives, else nothing.
    pub fn crash(&mut self, dice: &mut Dice, keep: bool) {
        let keep = if keep { dice.below(self.tail.len() + 1) } else { 0 };
        for (_, op) in self.tail.drain(..).take(keep) {
            self.durable.apply(&op);
        }
        self.live = self.durable.clone();
    }

    /// A backup is put back: storage of some final blocks ago. False if there is none.
    pub fn roll_back(&mut self) -> bool {
        let Some(image) = self.older.pop_front() else { return false };
        self.older.clear();
        self.tail.clear();
        self.durable = image;
        self.live = self.durable.clone();
        true
    }

    /// Answers a read.
    pub fn load(&self, load: &Load) -> Loaded {
        self.live.load(load)
    }

    /// The highest final height on disk.
    pub fn final_height(&self) -> Height {
        self.live.finals.last_key_value().map(|(height, _)| *height).unwrap_or_default()
    }

    /// What a replica begins from.
    ///
    /// # Errors
    /// If the stored state is none: the disk model or the ledger is wrong.
    pub fn boot(&self, genesis: &GenesisRecord) -> Result<Boot, String> {
        let image = &self.live;
        let ledger = Ledger::restore(image).map_err(|error| error.to_string())?;
        let tip = image.finals.last_key_value().map(|(_, block)| block);
        let tip_height = tip.map(|tip| tip.block.header.height).unwrap_or_default();
        let at_ledger = image.finals.get(&ledger.height());
        let named = at_ledger.map(|block| block.block.header.executed).unwrap_or_default();
        let life = genesis.epochs[0].params.batch_life;
        let lowest = Height(tip_height.0.saturating_sub(life)).min(ledger.height().prev());
        let blocks: Vec<_> = image.finals.range(lowest.next()..).map(|(_, block)| Arc::clone(&block.block)).collect();
        let cited: Vec<BatchId> = blocks
            .iter()
            .filter(|block| block.header.height > ledger.height())
            .flat_map(|block| block.body.batches.iter().copied())
            .collect();
        let useful = |batch: &Arc<Batch>| batch.header.expiry >= tip_height || cited.contains(&batch.id());
        Ok(Boot {
            genesis: genesis.clone(),
            epochs: image.epochs.values().cloned().collect(),
            tip: tip.and_then(|tip| tip.certificate.clone()),
            executed: image.executed.range(named.next()..).map(|(_, executed)| executed.clone()).collect(),
            blocks,
            batches: image.batches.values().filter(|batch| useful(batch)).map(Arc::clone).collect(),
            ledger,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_synced_writes_are_sure_to_survive() {
        let record = |epoch: u64| EpochRecord {
            epoch: Epoch(epoch),
            first_height: Height(1),
            length: 3,
            version: 1,
            params: types::Params::default(),
            validators: Vec::new(),
        };
        let mut lost = 0;
        for seed in 0..32 {
            let mut store = Store::new(&[], false);
            let first = store.write(StoreOp::Epoch(record(1)));
            store.write(StoreOp::Epoch(record(2)));
            store.write(StoreOp::Epoch(record(3)));
            store.sync(first);
            assert_eq!(store.live.epochs.len(), 3);
            store.crash(&mut Dice::new(seed), true);
            let left: Vec<u64> = store.live.epochs.keys().map(|epoch| epoch.0).collect();
            assert!([vec![1], vec![1, 2], vec![1, 2, 3]].contains(&left), "a prefix: {left:?}");
            lost += usize::from(left.len() < 3);
        }
        assert!(lost > 8);
    }
}
