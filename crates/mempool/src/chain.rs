//! The blocks above the final tip, and what recent final blocks cite.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use types::{BatchId, Block, BlockHash, GenesisRecord, Hash, Header, Height, UnixMs};

/// Most blocks above the final tip; one more pushes out the lowest, which can be fetched again.
pub const UNFINAL_BLOCKS_MAX: usize = 1_024;

/// What a child's header is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// The block.
    pub hash: BlockHash,
    /// Its height.
    pub height: Height,
    /// Its time.
    pub time: UnixMs,
    /// The height that it names as executed.
    pub executed: Height,
    /// The state root after that.
    pub state_root: Hash,
}

impl Tip {
    /// Genesis as a parent; `state_root` is the genesis ledger's.
    pub fn genesis(record: &GenesisRecord, state_root: Hash) -> Tip {
        Tip { hash: record.block_hash(), height: Height(0), time: record.time, executed: Height(0), state_root }
    }

    /// A block as a parent.
    pub fn of(header: &Header) -> Tip {
        Tip {
            hash: header.hash(),
            height: header.height,
            time: header.time,
            executed: header.executed,
            state_root: header.state_root,
        }
    }
}

/// The way from a parent down to the final tip.
#[derive(Clone, Debug)]
pub(crate) struct Ancestry {
    pub(crate) parent: Tip,
    /// Batches that unfinal ancestors cite, the parent among them.
    pub(crate) cited: BTreeSet<BatchId>,
}

/// Why there is no way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAncestry {
    /// This block is not held.
    Missing(BlockHash),
    /// It leads past the final tip.
    Stale,
}

#[derive(Clone, Debug)]
pub(crate) struct Chain {
    tip: Tip,
    unfinal: BTreeMap<BlockHash, Arc<Block>>,
    by_height: BTreeSet<(Height, BlockHash)>,
    /// Batches cited by final blocks, until no block may cite them any more.
    cited: BTreeSet<BatchId>,
    cited_until: BTreeSet<(Height, BatchId)>,
    /// Final blocks that are not executed.
    queue: BTreeMap<Height, Arc<Block>>,
    /// What they cite.
    ordered: BTreeSet<BatchId>,
}

impl Chain {
    pub(crate) fn new(tip: Tip) -> Chain {
        Chain {
            tip,
            unfinal: BTreeMap::new(),
            by_height: BTreeSet::new(),
            cited: BTreeSet::new(),
            cited_until: BTreeSet::new(),
            queue: BTreeMap::new(),
            ordered: BTreeSet::new(),
        }
    }

    pub(crate) fn tip(&self) -> &Tip {
        &self.tip
    }

    pub(crate) fn block(&self, hash: &BlockHash) -> Option<&Arc<Block>> {
        self.unfinal.get(hash)
    }

    pub(crate) fn unfinal_count(&self) -> usize {
        self.unfinal.len()
    }

    pub(crate) fn queue(&self) -> &BTreeMap<Height, Arc<Block>> {
        &self.queue
    }

    /// Keeps a block above the tip; false if it is not above it, or known.
    pub(crate) fn add(&mut self, block: Arc<Block>) -> bool {
        let (hash, height) = (block.hash(), block.header.height);
        if height <= self.tip.height || self.unfinal.contains_key(&hash) {
            return false;
        }
        self.by_height.insert((height, hash));
        self.unfinal.insert(hash, block);
        if self.unfinal.len() > UNFINAL_BLOCKS_MAX
            && let Some((_, lowest)) = self.by_height.pop_first()
        {
            self.unfinal.remove(&lowest);
        }
        true
    }

    /// The way from a parent down to the tip. Heights strictly fall on the way, so it ends.
    pub(crate) fn ancestry(&self, parent: &BlockHash) -> Result<Ancestry, NoAncestry> {
        let mut cited = BTreeSet::new();
        let Some(first) = self.unfinal.get(parent) else {
            let at_tip = *parent == self.tip.hash;
            return if at_tip { Ok(Ancestry { parent: self.tip, cited }) } else { Err(NoAncestry::Missing(*parent)) };
        };
        let mut block = first;
        loop {
            cited.extend(block.body.batches.iter().copied());
            let above = &block.header.parent;
            if *above == self.tip.hash {
                let parent = Tip { hash: *parent, ..Tip::of(&first.header) };
                return Ok(Ancestry { parent, cited });
            }
            if block.header.height <= self.tip.height.next() {
                return Err(NoAncestry::Stale);
            }
            match self.unfinal.get(above) {
                Some(next) if next.header.height < block.header.height => block = next,
                Some(_) => return Err(NoAncestry::Stale),
                None => return Err(NoAncestry::Missing(*above)),
            }
        }
    }

    /// Whether a final block cites it and its life is not over.
    pub(crate) fn is_cited(&self, id: &BatchId) -> bool {
        self.cited.contains(id)
    }

    /// Whether a block that is not executed cites it: such a batch is needed whatever its author's quota.
    pub(crate) fn needs(&self, id: &BatchId) -> bool {
        self.is_ordered(id) || self.unfinal.values().any(|block| block.body.batches.contains(id))
    }

    /// Notes the citations of a final block at or below the tip.
    pub(crate) fn cite(&mut self, block: &Block, batch_life: u64) {
        let until = block.header.height.plus(batch_life);
        for id in &block.body.batches {
            self.cited.insert(*id);
            self.cited_until.insert((until, *id));
        }
    }

    /// Puts a final block that is not executed in line for execution.
    pub(crate) fn enqueue(&mut self, block: Arc<Block>) {
        self.ordered.extend(block.body.batches.iter().copied());
        self.queue.insert(block.header.height, block);
    }

    /// Whether a final block that is not executed cites it.
    pub(crate) fn is_ordered(&self, id: &BatchId) -> bool {
        self.ordered.contains(id)
    }

    /// Moves the tip to its child.
    pub(crate) fn advance(&mut self, block: &Block, batch_life: u64) {
        self.tip = Tip::of(&block.header);
        self.cite(block, batch_life);
        while let Some((height, hash)) = self.by_height.first().copied()
            && height <= self.tip.height
        {
            self.by_height.pop_first();
            self.unfinal.remove(&hash);
        }
        while let Some((until, id)) = self.cited_until.first().copied()
            && until < self.tip.height
        {
            self.cited_until.pop_first();
            self.cited.remove(&id);
        }
    }

    /// Takes the block of an executed height out of the line.
    pub(crate) fn dequeue(&mut self, height: Height) -> Option<Arc<Block>> {
        let block = self.queue.remove(&height)?;
        for id in &block.body.batches {
            self.ordered.remove(id);
        }
        Some(block)
    }
}
