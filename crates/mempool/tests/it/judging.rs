//! Every rule of validity by name: a good block, one thing wrong with it, the verdict.

use std::sync::Arc;

use mempool::{BuildError, Config, Invalid, JudgeContext, Verdict, Wait};
use types::{Batch, BatchId, Block, BlockHash, ChainId, Epoch, Hash, Height, PublicKey, Sequence, Tick, UnixMs, View};

use crate::world::{Node, START, genesis, notarization, params, transfer, validators};

const NOW: UnixMs = UnixMs(START.0 + 10_000);
const LATER: Tick = Tick(1_000_000);

/// A node whose chain is: 1 (final, executed, with a batch), 2 (unfinal, with a batch), and a batch to cite in 3.
struct Scene {
    node: Node,
    first: Arc<Block>,
    second: Arc<Block>,
    third: Block,
    batches: Vec<Arc<Batch>>,
}

fn scene() -> Scene {
    scene_of(100)
}

fn scene_of(length: u64) -> Scene {
    let mut node = Node::new(&genesis(4, length, &params()), 0, Config::default());
    let mut batches = Vec::new();
    let mut batch = |node: &mut Node, nonce: u64| {
        node.submit(transfer(node.chain, 0, nonce, 9), Tick(0)).unwrap();
        let batch = node.pack(LATER).unwrap();
        node.announce_all(&batch);
        batches.push(batch);
    };
    batch(&mut node, 0);
    let base = node.mempool.tip().hash;
    let first = Arc::new(node.build_on(base, View(0), NOW).unwrap());
    node.mempool.add_block(Arc::clone(&first));
    batch(&mut node, 1);
    let second = Arc::new(node.build_on(first.hash(), View(1), NOW).unwrap());
    node.mempool.add_block(Arc::clone(&second));
    batch(&mut node, 2);
    node.finalize(&first, Tick(0));
    assert!(node.execute());
    let third = node.build_on(second.hash(), View(2), NOW).unwrap();
    assert_eq!(node.judge(&third, View(2), NOW), Verdict::Valid);
    Scene { node, first, second, third, batches }
}

impl Scene {
    /// The verdict on the third block after a change, with the body root made to fit.
    fn verdict(&self, change: impl FnOnce(&mut Block)) -> Verdict {
        let mut block = self.third.clone();
        change(&mut block);
        block.header.body_root = block.body.root();
        self.node.judge(&block, View(2), NOW)
    }

    fn invalid(&self, change: impl FnOnce(&mut Block)) -> Invalid {
        match self.verdict(change) {
            Verdict::Invalid(invalid) => invalid,
            other => panic!("{other:?}"),
        }
    }

    /// A batch of another author or time, held without further questions.
    fn hold(&mut self, seat: usize, change: impl FnOnce(&mut Batch)) -> BatchId {
        let mut batch = Batch::clone(&self.batches[2]);
        batch.header.author = validators(4)[seat].public();
        batch.header.sequence = Sequence(77);
        change(&mut batch);
        let id = batch.id();
        assert!(self.node.mempool.hold(Arc::new(batch)));
        id
    }
}

#[test]
fn the_scene_is_what_it_says() {
    let scene = scene();
    let [one, two, three] = [0, 1, 2].map(|i| scene.batches[i].id());
    assert_eq!(scene.first.body.batches, [one]);
    assert_eq!(scene.second.body.batches, [two]);
    assert_eq!(scene.third.body.batches, [three]);
    assert_eq!((scene.second.header.executed, scene.third.header.executed), (Height(0), Height(1)));
}

#[test]
fn header_rules() {
    let scene = scene();
    let not_leader = validators(4)[1].public();
    assert_eq!(scene.invalid(|b| b.header.version = 2), Invalid::Version(2));
    assert_eq!(scene.invalid(|b| b.header.chain = ChainId(Hash([1; 32]))), Invalid::Chain);
    assert_eq!(scene.invalid(|b| b.header.epoch = Epoch(1)), Invalid::Epoch);
    assert_eq!(scene.invalid(|b| b.header.height = Height(101)), Invalid::Epoch);
    assert_eq!(scene.invalid(|b| b.header.height = Height(4)), Invalid::Height { parent: Height(2), actual: Height(4) });
    assert_eq!(scene.invalid(|b| b.header.time = scene.second.header.time), Invalid::Time);
    assert_eq!(scene.invalid(|b| b.header.epoch_hash = Hash::ZERO), Invalid::EpochHash);
    assert_eq!(scene.invalid(|b| b.header.next_epoch_hash = Hash::ZERO), Invalid::NextEpochHash);
    assert_eq!(scene.invalid(|b| b.header.state_root = Hash::ZERO), Invalid::StateRoot(Height(1)));
    assert_eq!(scene.invalid(|b| b.header.receipts_root = Hash::ZERO), Invalid::ReceiptsRoot(Height(1)));
    assert_eq!(scene.invalid(|b| b.header.executed = Height(3)), Invalid::Executed(Height(3)));
    let mut body = scene.third.clone();
    body.body.batches.clear();
    assert_eq!(scene.node.judge(&body, View(2), NOW), Verdict::Invalid(Invalid::BodyRoot));
    let context = JudgeContext { leader: not_leader, parent_view: View(2), reproposal: false, unix: NOW };
    assert_eq!(scene.node.mempool.judge(&scene.third, &context), Verdict::Invalid(Invalid::Proposer));
    let context = JudgeContext { leader: scene.node.me(), reproposal: true, ..context };
    assert_eq!(scene.node.mempool.judge(&scene.third, &context), Verdict::Invalid(Invalid::Reproposal));
}

#[test]
fn executed_rules() {
    let scene = scene();
    // Copied from the parent: only the parent's root, and no receipts.
    let copy = |b: &mut Block| {
        b.header.executed = scene.second.header.executed;
        b.header.state_root = scene.second.header.state_root;
        b.header.receipts_root = types::merkle::empty_root();
    };
    assert_eq!(scene.verdict(copy), Verdict::Valid);
    let wrong = |b: &mut Block| b.header.state_root = Hash([9; 32]);
    assert_eq!(scene.invalid(|b| (copy(b), wrong(b)).0), Invalid::StateRoot(Height(0)));
    let wrong = |b: &mut Block| b.header.receipts_root = Hash([9; 32]);
    assert_eq!(scene.invalid(|b| (copy(b), wrong(b)).0), Invalid::ReceiptsRoot(Height(0)));
    // Larger than what is final here: wait, whatever the root says.
    let verdict = scene.verdict(|b| b.header.executed = Height(2));
    assert_eq!(verdict, Verdict::Wait(Wait { finality: Some(Height(2)), ..Wait::default() }));

    // Final here but not executed: wait; a parent that names more than the child: wrong.
    let mut scene = scene_of(100);
    scene.node.mempool.add_block(Arc::new(scene.third.clone()));
    let fourth = scene.node.build_on(scene.third.hash(), View(3), NOW).unwrap();
    let mut behind = fourth.clone();
    behind.header.executed = Height(0);
    assert_eq!(scene.node.judge(&behind, View(3), NOW), Verdict::Invalid(Invalid::Executed(Height(0))));
    let second = Arc::clone(&scene.second);
    scene.node.finalize(&second, Tick(0));
    let mut ahead = fourth;
    ahead.header.executed = Height(2);
    let wait = Wait { execution: Some(Height(2)), ..Wait::default() };
    assert_eq!(scene.node.judge(&ahead, View(3), NOW), Verdict::Wait(wait));
    assert!(scene.node.execute());
    assert_eq!(scene.node.judge(&ahead, View(3), NOW), Verdict::Invalid(Invalid::StateRoot(Height(2))));
}

#[test]
fn notarization_rules() {
    let scene = scene();
    let (record, chain) = (&scene.node.record, scene.node.chain);
    let with = |view: u64, digest: BlockHash| {
        let certificate = notarization(record, chain, View(view), digest);
        move |b: &mut Block| b.body.parent_notarization = Some(certificate)
    };
    let parent = scene.second.hash();
    assert_eq!(scene.verdict(with(2, parent)), Verdict::Valid);
    assert_eq!(scene.invalid(with(1, parent)), Invalid::Notarization);
    assert_eq!(scene.invalid(with(2, scene.first.hash())), Invalid::Notarization);
    assert_eq!(scene.invalid(|b| b.body.parent_notarization = None), Invalid::Notarization);
    let other_kind = |kind| {
        move |b: &mut Block| {
            if let Some(certificate) = &mut b.body.parent_notarization {
                certificate.statement.kind = kind;
            }
        }
    };
    assert_eq!(scene.invalid(other_kind(types::Kind::Finalize)), Invalid::Notarization);
    let few = |b: &mut Block| {
        if let Some(certificate) = &mut b.body.parent_notarization {
            certificate.bitmap = vec![0b11];
            certificate.signatures.truncate(2);
        }
    };
    assert_eq!(scene.invalid(few), Invalid::Notarization);
    // The epoch's first block has none.
    let mut node = Node::new(&genesis(4, 100, &params()), 0, Config::default());
    let base = node.mempool.tip().hash;
    let mut block = node.build_on(base, View(0), NOW).unwrap();
    assert_eq!(node.judge(&block, View(1), NOW), Verdict::Invalid(Invalid::Notarization));
    block.body.parent_notarization = Some(notarization(&node.record, node.chain, View(1), base));
    block.header.body_root = block.body.root();
    assert_eq!(node.judge(&block, View(0), NOW), Verdict::Invalid(Invalid::Notarization));
    assert_eq!(node.build_on(base, View(1), NOW), Err(BuildError::Notarization));
    let first = Arc::new(node.build_on(base, View(0), NOW).unwrap());
    node.mempool.add_block(Arc::clone(&first));
    assert_eq!(node.build_on(first.hash(), View(0), NOW), Err(BuildError::Notarization));
}

#[test]
fn batch_rules() {
    let mut scene = scene();
    let [one, two, three] = [0, 1, 2].map(|i| scene.batches[i].id());
    let cite = |ids: &[BatchId]| {
        let ids = ids.to_vec();
        move |b: &mut Block| b.body.batches = ids
    };
    assert_eq!(scene.invalid(cite(&[three, three])), Invalid::BatchRepeated(three));
    assert_eq!(scene.invalid(cite(&[two])), Invalid::BatchRepeated(two), "cited by an unfinal ancestor");
    assert_eq!(scene.invalid(cite(&[one])), Invalid::BatchRepeated(one), "cited by a final block");

    // Height 3, batch life 8: expiry 3 to 11.
    for (expiry, valid) in [(3, true), (11, true), (12, false)] {
        let id = scene.hold(1, |batch| batch.header.expiry = Height(expiry));
        let verdict = scene.verdict(cite(&[id]));
        assert_eq!(verdict == Verdict::Valid, valid, "expiry {expiry}");
        assert_eq!(verdict == Verdict::Invalid(Invalid::BatchExpiry(id)), !valid, "expiry {expiry}");
    }
    let early = scene.hold(1, |batch| batch.header.expiry = Height(2));
    assert_eq!(scene.invalid(cite(&[early])), Invalid::BatchExpiry(early));
    let epoch = scene.hold(1, |batch| batch.header.epoch = Epoch(1));
    assert_eq!(scene.invalid(cite(&[epoch])), Invalid::BatchEpoch(epoch));
    let author = scene.hold(1, |batch| batch.header.author = PublicKey([3; 32]));
    assert_eq!(scene.invalid(cite(&[author])), Invalid::BatchAuthor(author));

    // Four equal validators, eight batches a block: two each.
    let mine: Vec<BatchId> = (0..3).map(|i| scene.hold(1, |batch| batch.header.sequence = Sequence(100 + i))).collect();
    let other = scene.hold(2, |_| {});
    assert_eq!(scene.verdict(cite(&[mine[0], other, mine[1]])), Verdict::Valid);
    assert_eq!(scene.invalid(cite(&[mine[0], other, mine[1], mine[2]])), Invalid::BatchShare(2));
    let many: Vec<BatchId> = (0..9).map(|i| BatchId(Hash([i; 32]))).collect();
    assert_eq!(scene.invalid(cite(&many)), Invalid::BatchCount(9));
    let mut large = scene.third.clone();
    cite(&many)(&mut large);
    assert!(!scene.node.mempool.add_block(Arc::new(large)), "nor is it kept");
}

#[test]
fn what_is_not_here_is_waited_for_at_once() {
    let mut scene = scene();
    let unknown = BatchId(Hash([8; 32]));
    let mut block = scene.third.clone();
    block.body.batches.push(unknown);
    block.header.body_root = block.body.root();
    block.header.time = NOW.plus(params().clock_drift_ms + 1);
    block.header.executed = Height(2);
    let wait = Wait { batches: vec![unknown], finality: Some(Height(2)), until: Some(NOW.next()), ..Wait::default() };
    assert_eq!(scene.node.judge(&block, View(2), NOW), Verdict::Wait(wait));
    // At the very edge of the drift it is in time.
    let edge = |b: &mut Block| b.header.time = NOW.plus(params().clock_drift_ms);
    assert_eq!(scene.verdict(edge), Verdict::Valid);

    // A missing ancestor, and what is invalid whatever arrives.
    let orphan = |b: &mut Block| b.header.parent = BlockHash(Hash([5; 32]));
    let about = |b: &mut Block| {
        orphan(b);
        b.body.parent_notarization = Some(notarization(&scene.node.record, scene.node.chain, View(2), b.header.parent));
    };
    let wait = Wait { parent: Some(BlockHash(Hash([5; 32]))), ..Wait::default() };
    assert_eq!(scene.verdict(about), Verdict::Wait(wait));
    assert_eq!(scene.invalid(|b| (about(b), b.header.epoch_hash = Hash::ZERO).0), Invalid::EpochHash);

    // Once its height is final, there is nothing to vote for.
    let second = Arc::clone(&scene.second);
    scene.node.finalize(&second, Tick(0));
    assert_eq!(scene.verdict(|_| {}), Verdict::Valid);
    let third = Arc::new(scene.third.clone());
    scene.node.finalize(&third, Tick(0));
    assert_eq!(scene.verdict(|_| {}), Verdict::Stale);
    assert_eq!(scene.node.build_on(scene.second.hash(), View(2), NOW), Err(BuildError::Missing(scene.second.hash())));
}

#[test]
fn a_branch_beside_the_final_chain_is_stale() {
    let mut scene = scene();
    let third = Arc::new(scene.third.clone());
    scene.node.mempool.add_block(Arc::clone(&third));
    let fourth = scene.node.build_on(third.hash(), View(3), NOW).unwrap();
    assert_eq!(scene.node.judge(&fourth, View(3), NOW), Verdict::Valid);
    let rival = Arc::new(scene.node.build_on(scene.first.hash(), View(1), NOW.plus(1)).unwrap());
    // On another branch the same batches are free.
    assert_eq!(rival.body.batches, [scene.batches[1].id(), scene.batches[2].id()]);
    scene.node.finalize(&rival, Tick(0));
    assert_eq!(scene.node.judge(&fourth, View(3), NOW), Verdict::Stale);
    assert_eq!(scene.node.build_on(third.hash(), View(3), NOW), Err(BuildError::Stale));
}

#[test]
fn a_chain_whose_execution_lags_goes_on_empty() {
    let mut node = Node::new(&genesis(4, 100, &params()), 0, Config::default());
    node.submit(transfer(node.chain, 0, 0, 9), Tick(0)).unwrap();
    let batch = node.pack(LATER).unwrap();
    let mut parent = node.mempool.tip().hash;
    for height in 1..=6u64 {
        if height == 5 {
            node.announce_all(&batch);
        }
        let view = View(height - 1);
        let block = node.build_on(parent, view, NOW).unwrap();
        assert_eq!(node.judge(&block, view, NOW), Verdict::Valid);
        assert!(block.body.batches.is_empty(), "lag is {height}");
        if height > params().lag_max {
            let mut loaded = block.clone();
            loaded.body.batches.push(batch.id());
            loaded.header.body_root = loaded.body.root();
            assert_eq!(node.judge(&loaded, view, NOW), Verdict::Invalid(Invalid::Lag(height)));
        }
        let block = Arc::new(block);
        parent = block.hash();
        node.mempool.add_block(Arc::clone(&block));
        node.finalize(&block, Tick(0));
    }
    while node.execute() {}
    let block = node.build_on(parent, View(6), NOW).unwrap();
    assert_eq!((block.body.batches.len(), block.header.executed), (1, Height(6)));
}

#[test]
fn an_epochs_last_block_is_judged_again_without_clock_and_leader() {
    let scene = scene_of(3);
    let block = &scene.third;
    assert_eq!(block.header.height, scene.node.record.last_height());
    let again = JudgeContext { leader: validators(4)[3].public(), parent_view: View(3), reproposal: true, unix: UnixMs(0) };
    assert_eq!(scene.node.mempool.judge(block, &again), Verdict::Valid);
    let mut foreign = block.clone();
    foreign.header.proposer = PublicKey([1; 32]);
    assert_eq!(scene.node.mempool.judge(&foreign, &again), Verdict::Invalid(Invalid::Proposer));
    let mut node = scene.node.clone();
    node.mempool.add_block(Arc::new(block.clone()));
    assert_eq!(node.build_on(block.hash(), View(3), NOW), Err(BuildError::EpochEnd));
}
