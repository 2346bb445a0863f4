//! Transactions and batches from admission to their end, limit by limit.

use std::sync::Arc;

use ledger::SkipReason;
use mempool::{
    BatchRefusal, Boot, Config, ConfigError, DropReason, Dropped, Execution, Mempool, OutOfOrder, Source, SubmitError, Tip,
};
use types::{
    AccountKey, Action, Amount, Batch, BatchError, BatchId, Block, ChainId, Epoch, Hash, Height, Nonce, Sequence, Signature,
    SignedTransaction, Tick, TransactionError, TxId, View,
};

use crate::world::{ACCOUNTS, Node, START, genesis, params, transfer, validators};

const LATER: Tick = Tick(1_000_000);

fn node_with(config: Config) -> Node {
    config.check().unwrap();
    Node::new(&genesis(4, 100, &params()), 0, config)
}

fn node() -> Node {
    node_with(Config::default())
}

/// Builds, finalizes and executes a block on the tip.
fn grow(node: &mut Node) -> Arc<Block> {
    let tip = *node.mempool.tip();
    let view = View(tip.height.0);
    let block = Arc::new(node.build_on(tip.hash, view, START.plus(100 + tip.height.0)).unwrap());
    node.finalize(&block, LATER);
    assert!(node.execute());
    block
}

fn drops(node: &mut Node) -> Vec<Dropped> {
    std::mem::take(&mut node.dropped)
}

#[test]
fn admission_says_why_not() {
    let mut node = node();
    let chain = node.chain;
    let mut check = |tx: SignedTransaction, expect: SubmitError| assert_eq!(node.submit(tx, Tick(0)), Err(expect));
    let with = |change: &dyn Fn(&mut types::Transaction)| {
        let mut tx = transfer(chain, 0, 0, 5);
        change(&mut tx.transaction);
        tx
    };
    let skipped = SubmitError::Skipped;
    check(with(&|t| t.chain = ChainId(Hash([1; 32]))), SubmitError::Invalid(TransactionError::WrongChain));
    check(with(&|t| t.expiry = Height(0)), skipped(SkipReason::Expired));
    check(with(&|t| t.expiry = Height(1 + 12 + 1)), skipped(SkipReason::ExpiryTooFar));
    check(with(&|t| t.sender = AccountKey::development(ACCOUNTS).public()), skipped(SkipReason::NoAccount));
    check(with(&|t| t.nonce = Nonce(64)), SubmitError::NonceAhead { next: Nonce(0) });

    let id = node.submit(transfer(chain, 0, 0, 5), Tick(0)).unwrap();
    assert_eq!(node.submit(transfer(chain, 0, 0, 5), Tick(0)), Err(SubmitError::Duplicate(id)));
    assert_eq!(node.submit(transfer(chain, 0, 0, 6), Tick(0)), Err(SubmitError::NonceTaken(id)));
    let batch = node.pack(LATER).unwrap();
    node.announce_all(&batch);
    grow(&mut node);
    assert_eq!(node.receipts, [id]);
    assert_eq!(node.submit(transfer(chain, 0, 0, 5), Tick(0)), Err(skipped(SkipReason::NonceUsed)));
}

#[test]
fn every_limit_of_the_pool_holds() {
    let chain = node().chain;
    let retry_after_ms = Config::default().retry_after_ms;
    let full = SubmitError::Full { retry_after_ms };
    assert_eq!(full.retry_after_ms(), Some(retry_after_ms));

    let mut node = node_with(Config { transactions_max: 2, ..Config::default() });
    (0..2).for_each(|from| assert!(node.submit(transfer(chain, from, 0, 5), Tick(0)).is_ok()));
    assert_eq!(node.submit(transfer(chain, 2, 0, 5), Tick(0)), Err(full));

    let size = transfer(chain, 0, 0, 5).size();
    let mut node = node_with(Config { bytes_max: 2 * size - 1, ..Config::default() });
    assert!(node.submit(transfer(chain, 0, 0, 5), Tick(0)).is_ok());
    assert_eq!(node.submit(transfer(chain, 1, 0, 5), Tick(0)), Err(full));

    let mut node = node_with(Config { sender_transactions_max: 2, ..Config::default() });
    (0..2).for_each(|nonce| assert!(node.submit(transfer(chain, 0, nonce, 5), Tick(0)).is_ok()));
    assert_eq!(node.submit(transfer(chain, 0, 2, 5), Tick(0)), Err(SubmitError::SenderFull { retry_after_ms }));
    assert!(node.submit(transfer(chain, 1, 0, 5), Tick(0)).is_ok());

    let mut node = node_with(Config { forwarder_transactions_max: 1, ..Config::default() });
    let from = |node: &mut Node, sender, peer| {
        node.mempool.insert(transfer(chain, sender, 0, 5), Source::Peer(peer), &node.ledger, Tick(0))
    };
    assert!(from(&mut node, 0, 7).is_ok());
    assert_eq!(from(&mut node, 1, 7), Err(SubmitError::ForwarderFull { retry_after_ms }));
    assert!(from(&mut node, 1, 8).is_ok());
    assert!(node.submit(transfer(chain, 2, 0, 5), Tick(0)).is_ok());

    assert_eq!(Config { bytes_max: 0, ..Config::default() }.check(), Err(ConfigError::Zero("bytes_max")));
}

#[test]
fn fees_in_the_pool_are_counted_together() {
    let mut genesis = genesis(4, 100, &params());
    let fee = transfer(genesis.chain_id(), 0, 0, 5).fee(&params());
    let poor = AccountKey::development(0).public().address();
    let account = genesis.accounts.iter_mut().find(|(address, _)| *address == poor).unwrap();
    account.1 = Amount(2 * fee.0 + 1);
    let mut node = Node::new(&genesis, 0, Config::default());
    let chain = node.chain;
    (0..2).for_each(|nonce| assert!(node.submit(transfer(chain, 0, nonce, 5), Tick(0)).is_ok()));
    assert_eq!(node.submit(transfer(chain, 0, 2, 5), Tick(0)), Err(SubmitError::FeesInPool));
}

#[test]
fn packing_waits_for_age_or_size() {
    let mut node = node();
    let (chain, delay) = (node.chain, Config::default().batch_delay_ms);
    assert_eq!(node.mempool.pack_at(), None);
    let since = Tick(5_000);
    node.submit(transfer(chain, 0, 0, 5), since).unwrap();
    let due = since.plus_ms(delay);
    assert_eq!(node.mempool.pack_at(), Some(due));
    assert!(node.pack(Tick(due.0 - 1)).is_none());
    let batch = node.pack(due).unwrap();
    assert_eq!((batch.header.count, batch.header.sequence, batch.header.expiry), (1, Sequence(0), Height(8)));
    assert_eq!(node.mempool.pack_at(), None);

    // Four make a batch at once, the fifth waits for its own.
    (1..6).for_each(|nonce| assert!(node.submit(transfer(chain, 0, nonce, 5), due).is_ok()));
    assert_eq!(node.mempool.pack_at(), Some(due));
    let batch = node.pack(due).unwrap();
    assert_eq!((batch.header.count, batch.header.sequence), (4, Sequence(1)));
    assert_eq!(batch.transactions.iter().map(|tx| tx.transaction.nonce.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(node.pack(due).is_none());

    // Bytes count as well.
    let mut small = params();
    small.batch_bytes_max = 2 * transfer(chain, 0, 0, 5).size() as u32 + 1;
    let mut node = Node::new(&genesis(4, 100, &small), 0, Config::default());
    let chain = node.chain;
    (0..3).for_each(|nonce| assert!(node.submit(transfer(chain, 0, nonce, 5), Tick(0)).is_ok()));
    assert_eq!(node.pack(Tick(0)).unwrap().header.count, 2);
}

#[test]
fn own_batches_are_bounded_also_before_they_are_held() {
    let mut node = node_with(Config { own_batches_max: 1, ..Config::default() });
    let chain = node.chain;
    node.submit(transfer(chain, 0, 0, 5), Tick(0)).unwrap();
    let first = node.mempool.pack(&node.ledger, LATER).draft.unwrap();
    node.submit(transfer(chain, 0, 1, 5), Tick(0)).unwrap();
    assert_eq!((node.mempool.pack_at(), node.mempool.status().own_batches), (None, 1));
    let batch = Arc::new(first.sign(Signature([0; 64])));
    assert!(node.mempool.hold(Arc::clone(&batch)) && !node.mempool.hold(Arc::clone(&batch)));
    assert_eq!((node.mempool.pack_at(), node.mempool.status().own_batches), (None, 1));
    node.announce_all(&batch);
    grow(&mut node);
    assert!(node.mempool.pack_at().is_some());
}

#[test]
fn an_uncited_batch_gives_its_transactions_back() {
    let mut node = node();
    let chain = node.chain;
    let long = node.submit(transfer(chain, 0, 0, 13), Tick(0)).unwrap();
    let short = node.submit(transfer(chain, 1, 0, 8), Tick(0)).unwrap();
    let lost = node.pack(LATER).unwrap();
    for _ in 0..7 {
        grow(&mut node);
        assert_eq!(node.mempool.status().own_batches, 1);
    }
    // Height 8 is the batch's expiry, and the short transaction's.
    grow(&mut node);
    assert_eq!(drops(&mut node), [Dropped { id: short, reason: DropReason::Expired }]);
    assert_eq!((node.mempool.status().own_batches, node.mempool.status().waiting), (0, 1));
    assert_eq!(node.mempool.check_batch(&lost), Err(BatchRefusal::Expiry));
    let again = node.pack(Tick(LATER.0 * 2)).unwrap();
    assert_ne!(again.id(), lost.id());
    node.announce_all(&again);
    grow(&mut node);
    assert_eq!(node.receipts, [long]);
    assert_eq!((node.mempool.status().transactions, node.mempool.contains(&long)), (0, false));
}

#[test]
fn what_stays_in_line_expires_with_a_reason() {
    let mut node = node_with(Config { own_batches_max: 1, ..Config::default() });
    let chain = node.chain;
    node.submit(transfer(chain, 0, 0, 13), Tick(0)).unwrap();
    node.pack(LATER).unwrap();
    let id = node.submit(transfer(chain, 1, 0, 2), Tick(0)).unwrap();
    grow(&mut node);
    assert_eq!(drops(&mut node), []);
    grow(&mut node);
    assert_eq!(drops(&mut node), [Dropped { id, reason: DropReason::Expired }]);
}

#[test]
fn a_skip_costs_room_and_nothing_else() {
    let mut node = node_with(Config { sender_transactions_max: 4, ..Config::default() });
    let (chain, other) = (node.chain, validators(4)[1].clone());
    // The same nonce through another validator, final first.
    let id = node.submit(transfer(chain, 0, 0, 9), Tick(0)).unwrap();
    let mine = node.pack(LATER).unwrap();
    let rival = transfer(chain, 0, 0, 10);
    let theirs = sign_batch(&other, chain, vec![rival.clone()], 0);
    assert_eq!(node.mempool.check_batch(&theirs), Ok(theirs.id()));
    assert!(node.mempool.hold(Arc::clone(&theirs)));
    node.announce_all(&theirs);
    grow(&mut node);
    assert_eq!((node.receipts.clone(), drops(&mut node)), (vec![rival.id()], vec![]));
    node.announce_all(&mine);
    grow(&mut node);
    assert_eq!(drops(&mut node), [Dropped { id, reason: DropReason::Skipped(SkipReason::NonceUsed) }]);
    // Half the room for this sender, all of it for others, and a while later it is forgiven.
    let room = |node: &Node, from| {
        let mut probe = node.clone();
        let expiry = probe.mempool.tip().height.0 + 5;
        (1..10).take_while(|nonce| probe.submit(transfer(chain, from, *nonce, expiry), Tick(0)).is_ok()).count()
    };
    assert_eq!((room(&node, 0), room(&node, 1)), (2, 4));
    (0..16).for_each(|_| drop(grow(&mut node)));
    assert_eq!(room(&node, 0), 4);
}

fn sign_batch(author: &AccountKey, chain: ChainId, transactions: Vec<SignedTransaction>, sequence: u64) -> Arc<Batch> {
    let header = types::BatchHeader {
        chain,
        epoch: Epoch(0),
        author: author.public(),
        sequence: Sequence(sequence),
        expiry: Height(8),
        count: transactions.len() as u32,
        bytes: transactions.iter().map(SignedTransaction::size).sum::<usize>() as u32,
        root: types::transactions_root(transactions.iter().map(SignedTransaction::id)),
    };
    let signature = author.sign(&header.signing_bytes());
    Arc::new(Batch { header, signature, transactions })
}

#[test]
fn batches_are_refused_by_rule() {
    let mut node = node_with(Config { author_batches_max: 2, ..Config::default() });
    let (chain, author) = (node.chain, validators(4)[1].clone());
    let of = |sequence| sign_batch(&author, chain, vec![transfer(chain, 0, sequence, 9)], sequence);
    let refused = |node: &Node, change: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::clone(&of(0));
        change(&mut batch);
        batch.signature = author.sign(&batch.header.signing_bytes());
        node.mempool.check_batch(&batch).unwrap_err()
    };
    assert_eq!(refused(&node, &|b| b.header.author = AccountKey::development(0).public()), BatchRefusal::Author);
    assert_eq!(refused(&node, &|b| b.header.epoch = Epoch(2)), BatchRefusal::Epoch);
    assert_eq!(refused(&node, &|b| b.header.expiry = Height(0)), BatchRefusal::Expiry);
    assert_eq!(refused(&node, &|b| b.header.expiry = Height(17)), BatchRefusal::Expiry);
    let mismatch = refused(&node, &|b| b.header.count = 2);
    assert_eq!(mismatch, BatchRefusal::Invalid(BatchError::HeaderMismatch));
    assert!(!mismatch.is_innocent() && BatchRefusal::Full.is_innocent());
    let mut forged = Batch::clone(&of(0));
    forged.signature.0[0] ^= 1;
    assert!(matches!(node.mempool.check_batch(&forged), Err(BatchRefusal::Invalid(BatchError::Signature(_)))));

    for sequence in 0..2 {
        assert!(node.mempool.check_batch(&of(sequence)).is_ok() && node.mempool.hold(of(sequence)));
    }
    assert_eq!(node.mempool.check_batch(&of(1)), Err(BatchRefusal::Known(of(1).id())));
    assert_eq!(node.mempool.check_batch(&of(2)), Err(BatchRefusal::Full));
    // A block that cites it makes room: else a full author could stop the vote.
    let mut block = node.build_on(node.mempool.tip().hash, View(0), START.next()).unwrap();
    block.body.batches.push(of(2).id());
    block.header.body_root = block.body.root();
    assert!(node.mempool.add_block(Arc::new(block)));
    assert_eq!(node.mempool.check_batch(&of(2)), Ok(of(2).id()));

    // Final ones are not taken again.
    node.announce_all(&of(0));
    let block = grow(&mut node);
    assert_eq!(block.body.batches, [of(0).id()]);
    assert_eq!(node.mempool.check_batch(&of(0)), Err(BatchRefusal::Final(of(0).id())));
    assert!(!node.mempool.hold(of(0)));
}

#[test]
fn memory_is_shared_equally_by_authors() {
    let (chain, authors) = (node().chain, validators(4));
    let of = |seat: usize, sequence| sign_batch(&authors[seat], chain, vec![transfer(chain, 0, sequence, 9)], sequence);
    let one = of(1, 0).header.bytes as usize + size_of::<Batch>();
    let mut node = node_with(Config { held_bytes_max: 4 * 2 * one, ..Config::default() });
    assert!(node.mempool.hold(of(1, 0)) && node.mempool.hold(of(1, 1)));
    assert_eq!(node.mempool.check_batch(&of(1, 2)), Err(BatchRefusal::Full));
    assert!(node.mempool.check_batch(&of(2, 0)).is_ok());
}

#[test]
fn announcements_make_batches_wanted_and_citable() {
    let mut node = node_with(Config { unknown_announcements_max: 3, ..Config::default() });
    let (chain, keys) = (node.chain, validators(4));
    let batch = sign_batch(&keys[1], chain, vec![transfer(chain, 0, 0, 9)], 0);
    let id = batch.id();
    let say = |node: &mut Node, seat: usize| node.mempool.announced(&keys[seat].public(), &[id]);
    assert_eq!(say(&mut node, 1), 0);
    assert_eq!(say(&mut node, 1), 0);
    assert!(node.mempool.missing().is_empty(), "one of four is no third");
    assert_eq!(node.mempool.announced(&AccountKey::development(0).public(), &[id]), 0);
    say(&mut node, 2);
    assert_eq!(node.mempool.missing(), [id]);
    assert_eq!(node.mempool.holders(&id), [keys[1].public(), keys[2].public()]);
    // Held: its announcements count, and with mine it is a quorum's.
    assert!(!node.mempool.has_citable_work());
    assert!(node.mempool.hold(Arc::clone(&batch)));
    assert!(node.mempool.missing().is_empty() && node.mempool.has_citable_work());
    assert_eq!(node.mempool.take_announcements(), [id]);
    assert!(node.mempool.take_announcements().is_empty());
    assert_eq!(node.mempool.open_batches(), [id]);
    assert!(node.mempool.own_batches().is_empty());

    // A liar fills its own part only.
    let junk: Vec<BatchId> = (0..5).map(|i| BatchId(Hash([i; 32]))).collect();
    assert_eq!(node.mempool.announced(&keys[3].public(), &junk), 2);
    assert_eq!(node.mempool.announced(&keys[2].public(), &junk[..3]), 0);
    assert_eq!(node.mempool.status().unknown_batches, 3);
    // What nobody ever sends is forgotten after a batch life.
    (0..params().batch_life).for_each(|_| drop(grow(&mut node)));
    assert_eq!(node.mempool.status().unknown_batches, 3);
    grow(&mut node);
    assert_eq!(node.mempool.status().unknown_batches, 0);
    assert_eq!(node.mempool.announced(&keys[3].public(), &junk), 2);
}

#[test]
fn work_lasts_until_the_root_is_named() {
    let mut node = node();
    let base = node.mempool.tip().hash;
    assert!(!node.mempool.has_work(&base));
    node.submit(transfer(node.chain, 0, 0, 9), Tick(0)).unwrap();
    let batch = node.pack(LATER).unwrap();
    assert!(!node.mempool.has_work(&base), "held by one");
    node.announce_all(&batch);
    assert!(node.mempool.has_work(&base));
    let first = Arc::new(node.build_on(base, View(0), START.next()).unwrap());
    node.mempool.add_block(Arc::clone(&first));
    assert!(node.mempool.has_work(&first.hash()), "cited, not final");
    node.finalize(&first, Tick(0));
    assert!(!node.mempool.has_work(&first.hash()), "a root that can't be computed is no work");
    assert!(node.execute());
    assert!(node.mempool.has_work(&first.hash()), "executed, not named");
    let second = Arc::new(node.build_on(first.hash(), View(1), START.plus(9)).unwrap());
    assert_eq!(second.header.executed, Height(1));
    node.mempool.add_block(Arc::clone(&second));
    assert!(!node.mempool.has_work(&second.hash()));
    assert!(node.mempool.has_work(&first.hash()), "another head does not name it");
}

#[test]
fn a_restarted_node_goes_on() {
    let genesis = genesis(4, 100, &params());
    let mut node = Node::new(&genesis, 0, Config::default());
    let chain = node.chain;
    let send = |node: &mut Node, nonce| {
        node.submit(transfer(chain, 0, nonce, 12), Tick(0)).unwrap();
        let batch = node.pack(LATER).unwrap();
        node.announce_all(&batch);
        batch
    };
    let first = send(&mut node, 0);
    let one = grow(&mut node);
    let second = send(&mut node, 1);
    let tip = *node.mempool.tip();
    let two = Arc::new(node.build_on(tip.hash, View(1), START.plus(200)).unwrap());
    node.finalize(&two, Tick(0));
    let open = send(&mut node, 2);

    // Storage: tip 2, executed 1, the open batch and the one of block 2 held.
    let [epoch, next] = genesis.epochs.clone();
    let me = Some(node.me());
    let boot = Boot { chain, me, epoch, next, tip: Tip::of(&two.header), executed: Height(1) };
    let mut restarted = Node::new(&genesis, 0, Config::default());
    restarted.mempool = Mempool::new(Config::default(), boot);
    restarted.ledger = node.ledger.clone();
    [&one, &two].iter().for_each(|block| restarted.mempool.restore_final(block));
    let outcome = &node.outcomes[0];
    restarted.mempool.restore_executed(Height(1), Some(outcome.state_root), &outcome.receipts, true);
    assert_eq!(restarted.mempool.next_execution(), Execution::Missing(Height(2), vec![second.id()]));
    assert!(!restarted.mempool.hold(first), "executed");
    assert!(restarted.mempool.hold(second) && restarted.mempool.hold(Arc::clone(&open)));
    assert!(restarted.mempool.contains(&open.transactions[0].id()));
    assert!(node.execute() && restarted.execute());
    let head = restarted.mempool.tip().hash;
    for node in [&mut node, &mut restarted] {
        node.announce_all(&open);
    }
    let block = node.build_on(head, View(2), START.plus(300)).unwrap();
    assert_eq!(restarted.build_on(head, View(2), START.plus(300)).unwrap(), block);
    assert_eq!(restarted.submit(transfer(chain, 1, 0, 9), Tick(0)).map(drop), Ok(()));
    assert_eq!(restarted.pack(LATER).unwrap().header.sequence, Sequence(3), "after the highest that is held");
}

#[test]
fn calls_out_of_turn_are_refused() {
    let mut node = node();
    let block = Arc::new(node.build_on(node.mempool.tip().hash, View(0), START.next()).unwrap());
    let outcome = node.ledger.clone().apply(Height(1), &node.record, &[]).unwrap();
    let refused = OutOfOrder { expected: Height(1), actual: Height(1) };
    assert_eq!(node.mempool.executed(&outcome), Err(refused), "not final");
    node.finalize(&block, Tick(0));
    let refused = OutOfOrder { expected: Height(2), actual: Height(1) };
    assert_eq!(node.mempool.finalized(&block, Tick(0)), Err(refused));
    assert!(node.execute());
    assert!(node.mempool.executed(&outcome).is_err());
}

#[test]
fn a_node_without_a_seat_forwards_until_there_is_a_receipt() {
    let genesis = genesis(4, 100, &params());
    let mut node = Node::new(&genesis, 0, Config { forward_patience: 3, ..Config::default() });
    let [epoch, next] = genesis.epochs.clone();
    let tip = Tip::genesis(&genesis, node.ledger.root());
    let boot = Boot { chain: node.chain, me: None, epoch, next, tip, executed: Height(0) };
    node.mempool = Mempool::new(Config { forward_patience: 3, ..Config::default() }, boot);
    let ids: Vec<TxId> = (0..3).map(|from| node.submit(transfer(node.chain, from, 0, 12), Tick(0)).unwrap()).collect();
    assert!(node.mempool.pack_at().is_none() && node.pack(LATER).is_none());
    let take = |node: &mut Node| -> Vec<TxId> { node.mempool.take_forwards(2, LATER).iter().map(SignedTransaction::id).collect() };
    assert_eq!(take(&mut node), ids[..2]);
    assert_eq!(take(&mut node), ids[2..]);
    assert!(take(&mut node).is_empty());
    let author = validators(4)[1].clone();
    let batch = sign_batch(&author, node.chain, vec![transfer(node.chain, 1, 0, 12)], 0);
    assert!(node.mempool.hold(Arc::clone(&batch)));
    node.announce_all(&batch);
    (0..2).for_each(|_| drop(grow(&mut node)));
    assert!(take(&mut node).is_empty());
    grow(&mut node);
    assert_eq!(node.receipts, [ids[1]]);
    assert_eq!(take(&mut node), [ids[0], ids[2]], "the ones without a receipt");
}

#[test]
fn a_memo_is_bounded_at_admission() {
    let mut node = node();
    let mut tx = transfer(node.chain, 0, 0, 5);
    let Action::Transfer { memo, .. } = &mut tx.transaction.action;
    *memo = vec![0; params().memo_bytes_max as usize + 1];
    let refused = node.submit(tx, Tick(0)).unwrap_err();
    assert!(matches!(refused, SubmitError::Invalid(TransactionError::MemoOversize { .. })));
    assert_eq!((refused.as_str(), refused.retry_after_ms()), ("invalid", None));
}

/// What a batch packed is not lost with the epochs that ended while it was stored.
#[test]
fn a_batch_that_was_stored_for_too_long_gives_back_what_it_packed() {
    let params = types::Params { batch_life: 12, ..params() };
    let genesis = genesis(4, 4, &params);
    let mut node = Node::new(&genesis, 0, Config::default());
    let kept = node.submit(transfer(node.chain, 0, 0, 12), Tick(0)).unwrap();
    let late = node.submit(transfer(node.chain, 1, 0, 5), Tick(0)).unwrap();
    let draft = node.mempool.pack(&node.ledger, LATER).draft.unwrap();
    let signature = node.key.sign(&draft.header.signing_bytes());
    let batch = Arc::new(draft.sign(signature));
    let blocks = |node: &mut Node, count: usize| {
        for _ in 0..count {
            let (parent, view) =
                (node.mempool.tip().hash, View(u64::from(node.mempool.tip().height.next() != node.record.first_height)));
            let height = node.mempool.tip().height.next();
            let block = Arc::new(node.build_on(parent, view, START.plus(100 + height.0)).unwrap());
            node.finalize(&block, LATER);
        }
    };
    blocks(&mut node, 8);
    assert_eq!(node.record.epoch, Epoch(2));
    assert!(batch.header.expiry > Height(8), "not expired");
    assert!(!node.mempool.hold(Arc::clone(&batch)), "its epoch ended twice");
    let dropped = node.mempool.give_back(&batch, LATER);
    assert_eq!(dropped, [Dropped { id: late, reason: DropReason::Expired }]);
    assert_eq!((node.mempool.status().own_batches, node.mempool.status().waiting), (0, 1));
    let again = node.pack(Tick(LATER.0 * 2)).unwrap();
    assert_eq!(again.transactions.iter().map(SignedTransaction::id).collect::<Vec<_>>(), [kept]);
    assert_eq!(node.mempool.give_back(&again, LATER), [], "nothing happens to one that is held");
    assert_eq!(node.mempool.status().waiting, 0);
}
