//! Every final block of every node, in order; hashes are recomputed from what they are hashes of, and compared between nodes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use api::info::{BatchInfo, BlockInfo};
use tokio::sync::OnceCell;
use types::{BatchId, BlockHash, TxId, transactions_root};

use super::Handle;

/// How often a node is asked for its next block while transactions are open.
pub const POLL_BUSY: Duration = Duration::from_millis(10);
/// The same without any.
const POLL_IDLE: Duration = Duration::from_millis(500);
/// Pause after a node did not answer.
const POLL_GONE: Duration = Duration::from_millis(250);
/// Heights that wait for the slowest node; beyond, the oldest are given up (and said so).
const HEIGHTS_MAX: usize = 100_000;
/// Batches whose transaction ids are kept for the nodes that have not shown them yet.
const BATCHES_MAX: usize = 2_048;

type Ids = Rc<OnceCell<Vec<TxId>>>;

/// Whether nodes show the same blocks.
#[derive(Debug)]
pub struct Agreement {
    heights: Vec<u64>,
    waiting: BTreeMap<u64, (BlockHash, usize)>,
    disagreements: Vec<String>,
    given_up: u64,
    batches: HashMap<BatchId, Ids>,
    order: VecDeque<BatchId>,
    last_cited: u64,
}

impl Agreement {
    /// Between this many nodes.
    pub fn new(nodes: usize) -> Agreement {
        Agreement {
            heights: vec![0; nodes],
            waiting: BTreeMap::new(),
            disagreements: Vec::new(),
            given_up: 0,
            batches: HashMap::new(),
            order: VecDeque::new(),
            last_cited: 0,
        }
    }

    /// Highest final height seen anywhere.
    pub fn height_max(&self) -> u64 {
        self.heights.iter().copied().max().unwrap_or(0)
    }

    /// Highest final height that every node showed.
    pub fn height_common(&self) -> u64 {
        self.heights.iter().copied().min().unwrap_or(0)
    }

    /// By node.
    pub fn heights(&self) -> &[u64] {
        &self.heights
    }

    /// Highest height that cites a transaction of ours.
    pub fn last_cited(&self) -> u64 {
        self.last_cited
    }

    /// What did not fit so far.
    pub fn problems(&self) -> Vec<String> {
        let given_up = (self.given_up > 0).then(|| format!("{} heights were given up: a node was too far behind", self.given_up));
        self.disagreements.iter().cloned().chain(given_up).collect()
    }

    /// A node shows a block at the height after its last.
    pub fn note(&mut self, node: usize, height: u64, hash: BlockHash) {
        let nodes = self.heights.len();
        if let Some(at) = self.heights.get_mut(node) {
            *at = height;
        }
        let (first, count) = self.waiting.entry(height).or_insert((hash, 0));
        *count += 1;
        if *first != hash && self.disagreements.len() < super::NAMED_MAX {
            self.disagreements.push(format!("height {height}: {first} and {hash} are both final"));
        }
        if *count == nodes {
            self.waiting.remove(&height);
        }
        if self.waiting.len() > HEIGHTS_MAX {
            self.waiting.pop_first();
            self.given_up += 1;
        }
    }

    fn complain(&mut self, text: String) {
        if self.disagreements.len() < super::NAMED_MAX {
            self.disagreements.push(text);
        }
    }

    fn batch(&mut self, id: BatchId) -> Ids {
        let ids = Rc::clone(self.batches.entry(id).or_insert_with(|| {
            self.order.push_back(id);
            Ids::default()
        }));
        if self.order.len() > BATCHES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.batches.remove(&oldest);
        }
        ids
    }
}

/// Follows one node for ever.
pub(crate) async fn follow(shared: Handle, node: usize) {
    let client = shared.borrow().client.clone();
    let mut height = 1;
    loop {
        match client.block(node, height).await {
            Ok(Some(block)) => {
                note_block(&shared, node, height, &block).await;
                height += 1;
            }
            Ok(None) => {
                let busy = {
                    let shared = shared.borrow();
                    shared.plan.tps > 0 || shared.tracker.open_count() > 0
                };
                tokio::time::sleep(if busy { POLL_BUSY } else { POLL_IDLE }).await;
            }
            Err(_) => tokio::time::sleep(POLL_GONE).await,
        }
    }
}

async fn note_block(shared: &Handle, node: usize, height: u64, block: &BlockInfo) {
    let seen = Instant::now();
    if let Err(error) = check_block(height, block) {
        let name = shared.borrow().plan.nodes[node].0.clone();
        shared.borrow_mut().ledger.complain(format!("height {height} on {name}: {error}"));
    }
    {
        let mut shared = shared.borrow_mut();
        shared.ledger.note(node, height, block.header.hash());
        shared.views[node].height = height;
    }
    for id in &block.body.batches {
        let ids = batch_ids(shared, node, *id).await;
        let mut shared = shared.borrow_mut();
        for id in ids.get().into_iter().flatten() {
            if let Some(open) = shared.tracker.cited(id, node, seen) {
                shared.accounts.succeeded(&open.transfer);
                shared.ledger.last_cited = shared.ledger.last_cited.max(height);
            }
        }
    }
}

fn check_block(height: u64, block: &BlockInfo) -> Result<()> {
    ensure!(block.header.height.0 == height && block.height.0 == height, "the block is of another height");
    ensure!(block.hash == block.header.hash(), "the hash shown is not the header's");
    ensure!(block.body.root() == block.header.body_root, "the body is not the header's");
    Ok(())
}

/// The ids of a batch's transactions, fetched once for all nodes, from the node that shows it first.
async fn batch_ids(shared: &Handle, node: usize, id: BatchId) -> Ids {
    let ids = shared.borrow_mut().ledger.batch(id);
    let client = shared.borrow().client.clone();
    let fetch = async {
        loop {
            match client.batch(node, id).await {
                Ok(Some(batch)) => return checked_ids(shared, id, &batch),
                Ok(None) => tokio::time::sleep(POLL_BUSY).await,
                Err(_) => tokio::time::sleep(POLL_GONE).await,
            }
        }
    };
    ids.get_or_init(|| fetch).await;
    ids
}

fn checked_ids(shared: &Handle, id: BatchId, batch: &BatchInfo) -> Vec<TxId> {
    let ids: Vec<TxId> = batch.transactions.iter().map(|listed| listed.signed.id()).collect();
    if batch.header.id() != id || transactions_root(ids.iter().copied()) != batch.header.root {
        shared.borrow_mut().ledger.complain(format!("batch {id} is not what its id names"));
        return Vec::new();
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Hash;

    fn hash(n: u8) -> BlockHash {
        BlockHash(Hash([n; 32]))
    }

    #[test]
    fn agreement_is_by_hash_at_every_height() {
        let mut agreement = Agreement::new(3);
        for node in 0..3 {
            agreement.note(node, 1, hash(1));
        }
        agreement.note(0, 2, hash(2));
        agreement.note(1, 2, hash(2));
        assert_eq!((agreement.height_common(), agreement.height_max()), (1, 2));
        assert!(agreement.problems().is_empty());
        agreement.note(2, 2, hash(3));
        assert_eq!(agreement.problems().len(), 1);
        assert_eq!(agreement.height_common(), 2);
    }
}
