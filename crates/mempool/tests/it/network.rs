//! Small random networks: nodes hold different batches, announcements get lost, leaders fork, execution lags. What must hold:
//! nobody calls an honest block invalid, no batch is final twice, and every transaction ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mempool::{Config, Execution, Verdict};
use proptest::prelude::*;
use types::{Batch, BatchId, Block, BlockHash, Height, Tick, TxId, View};

use crate::world::{ACCOUNTS, Node, START, genesis, params, transfer};

const NODES: usize = 4;
/// Heights of an epoch: several epochs a run.
const LENGTH: u64 = 6;

#[derive(Clone, Debug)]
enum Step {
    Submit {
        node: usize,
        from: u32,
        nonce: u64,
        life: u64,
    },
    Pack {
        node: usize,
    },
    Deliver {
        batch: prop::sample::Index,
        to: usize,
    },
    Announce {
        from: usize,
        to: usize,
    },
    /// A leader proposes on the head, or (fork) on the block below it; those without `deaf` see and keep it.
    Propose {
        leader: usize,
        fork: bool,
        deaf: Option<usize>,
    },
    Finalize {
        node: usize,
    },
    Execute {
        node: usize,
    },
}

fn steps() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    prop_oneof![
        6 => (node(), 0..ACCOUNTS, 0u64..20, 1u64..12)
            .prop_map(|(node, from, nonce, life)| Step::Submit { node, from, nonce, life }),
        4 => node().prop_map(|node| Step::Pack { node }),
        8 => (any::<prop::sample::Index>(), node()).prop_map(|(batch, to)| Step::Deliver { batch, to }),
        8 => (node(), node()).prop_map(|(from, to)| Step::Announce { from, to }),
        4 => (node(), prop::bool::weighted(0.2), prop::option::weighted(0.3, node()))
            .prop_map(|(leader, fork, deaf)| Step::Propose { leader, fork, deaf }),
        4 => node().prop_map(|node| Step::Finalize { node }),
        4 => node().prop_map(|node| Step::Execute { node }),
    ]
}

struct Network {
    nodes: Vec<Node>,
    batches: BTreeMap<BatchId, Arc<Batch>>,
    /// All notarized blocks with the view that notarized them.
    notarized: BTreeMap<BlockHash, (View, Arc<Block>)>,
    head: BlockHash,
    base: BlockHash,
    view: View,
    submitted: Vec<BTreeSet<TxId>>,
    now: Tick,
}

impl Network {
    fn new() -> Network {
        let genesis = genesis(NODES as u32, LENGTH, &params());
        let nodes = (0..NODES).map(|seat| Node::new(&genesis, seat as u32, Config::default())).collect();
        let base = genesis.block_hash();
        let submitted = vec![BTreeSet::new(); NODES];
        let (batches, notarized) = (BTreeMap::new(), BTreeMap::new());
        Network { nodes, batches, notarized, head: base, base, view: View(1), submitted, now: Tick(0) }
    }

    fn final_height(&self) -> Height {
        self.nodes.iter().map(|node| node.mempool.tip().height).max().unwrap()
    }

    fn unix(&self) -> types::UnixMs {
        START.plus(1_000 + self.now.0 / 1_000)
    }

    fn step(&mut self, step: &Step) {
        self.now = self.now.plus_ms(7);
        match step {
            Step::Submit { node, from, nonce, life } => {
                let expiry = self.nodes[*node].mempool.tip().height.0 + life;
                let tx = transfer(self.nodes[*node].chain, *from, *nonce, expiry);
                if let Ok(id) = self.nodes[*node].submit(tx, self.now) {
                    self.submitted[*node].insert(id);
                }
            }
            Step::Pack { node } => {
                if let Some(batch) = self.nodes[*node].pack(self.now) {
                    self.batches.insert(batch.id(), batch);
                }
            }
            Step::Deliver { batch, to } => {
                let all: Vec<_> = self.batches.values().cloned().collect();
                if !all.is_empty() {
                    self.deliver(batch.get(&all), *to);
                }
            }
            Step::Announce { from, to } => {
                let (ids, key) = (self.nodes[*from].mempool.open_batches(), self.nodes[*from].me());
                self.nodes[*to].mempool.announced(&key, &ids);
            }
            Step::Propose { leader, fork, deaf } => self.propose(*leader, *fork, *deaf),
            Step::Finalize { node } => self.finalize_next(*node),
            Step::Execute { node } => {
                self.nodes[*node].execute();
            }
        }
    }

    fn deliver(&mut self, batch: &Arc<Batch>, to: usize) {
        let node = &mut self.nodes[to];
        match node.mempool.check_batch(batch) {
            Ok(_) => assert!(node.mempool.hold(Arc::clone(batch)), "what is wanted is taken"),
            Err(refusal) => assert!(refusal.is_innocent(), "{refusal}"),
        }
    }

    /// Gives a node whatever its verdict waits for; then it must be able to vote.
    fn help(&mut self, at: usize, block: &Block, parent_view: View) -> Verdict {
        for _ in 0..200 {
            let verdict = self.nodes[at].judge(block, parent_view, self.unix());
            let Verdict::Wait(wait) = &verdict else { return verdict };
            assert!(wait.until.is_none(), "all clocks are the same");
            for id in &wait.batches {
                let batch = Arc::clone(&self.batches[id]);
                self.nodes[at].mempool.check_batch(&batch).expect("a proposed batch is taken once its block is known");
                self.nodes[at].mempool.hold(batch);
            }
            if let Some(hash) = wait.parent {
                let parent = Arc::clone(&self.notarized[&hash].1);
                self.nodes[at].mempool.add_block(parent);
            }
            if wait.finality.is_some() {
                self.finalize_next(at);
            }
            if wait.execution.is_some() {
                self.execute_with_help(at);
            }
        }
        panic!("node {at} still waits: {:?}", self.nodes[at].judge(block, parent_view, self.unix()));
    }

    fn execute_with_help(&mut self, at: usize) {
        if let Execution::Missing(_, ids) = self.nodes[at].mempool.next_execution() {
            for id in ids {
                let batch = Arc::clone(&self.batches[&id]);
                assert_eq!(self.nodes[at].mempool.check_batch(&batch), Ok(id));
                assert!(self.nodes[at].mempool.hold(batch));
            }
        }
        self.nodes[at].execute();
    }

    fn height_of(&self, hash: &BlockHash) -> Height {
        self.notarized.get(hash).map_or(Height(0), |(_, block)| block.header.height)
    }

    fn parent_of(&self, hash: &BlockHash) -> BlockHash {
        self.notarized.get(hash).map_or(self.base, |(_, block)| block.header.parent)
    }

    fn propose(&mut self, leader: usize, fork: bool, deaf: Option<usize>) {
        let mut parent = self.head;
        // Only what is not final may be abandoned.
        if fork && self.height_of(&parent) > self.final_height() {
            parent = self.parent_of(&parent);
        }
        // An epoch's last block is final before the next epoch begins; the leader is there already.
        let record = self.nodes[leader].record.clone();
        if self.height_of(&parent).0.is_multiple_of(LENGTH) && self.height_of(&parent) > self.nodes[leader].mempool.tip().height {
            return;
        }
        if self.height_of(&parent).next() < record.first_height || self.height_of(&parent).next() > record.last_height() {
            return;
        }
        let at_base = self.height_of(&parent).next() == record.first_height;
        let parent_view = if at_base { View(0) } else { self.notarized[&parent].0 };
        let Ok(block) = self.nodes[leader].build_on(parent, parent_view, self.unix()) else { return };
        let verdict = self.nodes[leader].judge(&block, parent_view, self.unix());
        assert_eq!(verdict, Verdict::Valid, "a leader votes for what it builds");
        let block = Arc::new(block);
        for at in 0..NODES {
            if Some(at) == deaf {
                continue;
            }
            // A node in an older epoch must first learn that it is over.
            while self.nodes[at].record.epoch < block.header.epoch {
                self.finalize_next(at);
            }
            self.nodes[at].mempool.add_block(Arc::clone(&block));
            let verdict = self.help(at, &block, parent_view);
            assert_eq!(verdict, Verdict::Valid, "node {at}");
        }
        self.head = block.hash();
        self.notarized.insert(self.head, (self.view, block));
        self.view = self.view.next();
    }

    /// Moves one node's final tip a block towards the head.
    fn finalize_next(&mut self, at: usize) {
        let tip = *self.nodes[at].mempool.tip();
        let mut hash = self.head;
        while self.height_of(&hash) > tip.height.next() {
            hash = self.parent_of(&hash);
        }
        if self.height_of(&hash) != tip.height.next() {
            return;
        }
        let block = Arc::clone(&self.notarized[&hash].1);
        self.nodes[at].finalize(&block, self.now);
    }

    /// Empty blocks, all final and executed everywhere, until every expiry has passed.
    fn wind_down(&mut self) {
        for _ in 0..(params().transaction_life_max + params().batch_life + 4) {
            let leader = (self.view.0 % NODES as u64) as usize;
            self.now = self.now.plus_ms(7);
            (0..NODES).for_each(|at| {
                while self.nodes[at].mempool.tip().height < self.height_of(&self.head) {
                    self.finalize_next(at);
                }
                while self.nodes[at].mempool.next_execution() != Execution::Idle {
                    self.execute_with_help(at);
                }
            });
            self.propose(leader, false, None);
        }
        let head = self.height_of(&self.head);
        for at in 0..NODES {
            while self.nodes[at].mempool.tip().height < head {
                self.finalize_next(at);
            }
            while self.nodes[at].mempool.next_execution() != Execution::Idle {
                self.execute_with_help(at);
            }
        }
    }

    fn check_end(&self) {
        let first = &self.nodes[0];
        let mut cited = BTreeSet::new();
        for id in first.blocks.iter().flat_map(|block| &block.body.batches) {
            assert!(cited.insert(*id), "a batch is final twice");
        }
        for (node, submitted) in self.nodes.iter().zip(&self.submitted) {
            assert_eq!(node.outcomes, first.outcomes, "one chain, one state");
            let status = node.mempool.status();
            assert_eq!((status.transactions, status.bytes, status.waiting, status.waiting_bytes), (0, 0, 0, 0));
            assert_eq!((status.open_bytes, status.available_batches), (0, 0));
            assert_eq!((status.open_batches, status.ordered_batches, status.own_batches), (0, 0, 0));
            let ended: BTreeSet<TxId> = node.receipts.iter().copied().chain(node.dropped.iter().map(|d| d.id)).collect();
            assert!(submitted.is_subset(&ended), "every transaction ends with a receipt or a reason");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn random_networks(steps in prop::collection::vec(steps(), 0..250)) {
        let mut network = Network::new();
        steps.iter().for_each(|step| network.step(step));
        network.wind_down();
        network.check_end();
    }
}

/// The random networks reach what they are for: full blocks, forks, laggards, expired batches.
#[test]
fn a_busy_network_ends_transactions_both_ways() {
    let mut network = Network::new();
    for round in 0..40u64 {
        for node in 0..NODES {
            network.step(&Step::Submit { node, from: node as u32, nonce: round, life: 12 });
            network.step(&Step::Pack { node });
        }
        let ids: Vec<Arc<Batch>> = network.batches.values().cloned().collect();
        for batch in &ids {
            // Node 3's batches reach nobody in time.
            let own = batch.header.author == network.nodes[3].me();
            (0..NODES).filter(|_| !own).for_each(|to| network.deliver(batch, to));
        }
        for from in 0..NODES {
            (0..NODES).for_each(|to| network.step(&Step::Announce { from, to }));
        }
        network.step(&Step::Propose { leader: (round % 4) as usize, fork: round % 7 == 6, deaf: (round % 5 == 4).then_some(1) });
        for node in 0..NODES {
            network.step(&Step::Finalize { node });
            network.step(&Step::Execute { node });
        }
    }
    network.wind_down();
    network.check_end();
    let dropped: usize = network.nodes.iter().map(|node| node.dropped.len()).sum();
    assert!(network.nodes[0].receipts.len() > 60, "{}", network.nodes[0].receipts.len());
    assert!(dropped > 0);
    assert!(network.nodes[0].record.epoch.0 > 3);
}
