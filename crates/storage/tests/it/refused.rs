//! What storage refuses, and that a refused group leaves nothing behind.

use std::sync::Arc;

use crate::chain::{Chain, certificate};
use storage::{Executed, FinalBlock, Options, Storage, StorageError, StoreOp};
use types::{Block, Hash, Height, Kind};

fn open(options: Options) -> (tempfile::TempDir, Storage, Chain) {
    let directory = tempfile::tempdir().unwrap();
    let chain = Chain::new();
    let storage = Storage::open(directory.path(), options, &chain.genesis).unwrap();
    (directory, storage, chain)
}

#[test]
fn final_blocks_form_one_chain() {
    let (_directory, storage, mut chain) = open(Options::default());
    let first = chain.block(vec![], true);
    let second = chain.block(vec![], true);
    let refuse = |blocks: Vec<FinalBlock>| {
        let before = storage.progress();
        let error = storage.commit(&[StoreOp::Final(blocks)]).unwrap_err();
        assert_eq!(storage.progress(), before);
        error
    };
    assert!(matches!(refuse(vec![second.clone()]), StorageError::NotNext { tip: Height(0), actual: Height(2) }));

    let mut header = first.block.header.clone();
    header.parent.0.0[0] ^= 1;
    let fork = FinalBlock {
        certificate: Some(certificate(&chain.genesis, &header)),
        block: Arc::new(Block { header, body: first.block.body.clone() }),
    };
    assert!(matches!(refuse(vec![fork]), StorageError::Fork { height: Height(1) }));

    let bare = FinalBlock { certificate: None, ..first.clone() };
    assert!(matches!(refuse(vec![bare.clone()]), StorageError::Certificate { height: Height(1) }));
    let swapped = FinalBlock { certificate: second.certificate.clone(), ..first.clone() };
    assert!(matches!(refuse(vec![swapped]), StorageError::Certificate { height: Height(1) }));
    let mut notarization = first.certificate.clone().unwrap();
    notarization.statement.kind = Kind::Notarize;
    let notarized = FinalBlock { certificate: Some(notarization), ..first.clone() };
    assert!(matches!(refuse(vec![notarized]), StorageError::Certificate { height: Height(1) }));
    assert_eq!(storage.block(Height(1)).unwrap(), None);

    storage.commit(&[StoreOp::Final(vec![bare, second])]).unwrap();
    assert_eq!(storage.progress().tip.height, Height(2));
    assert_eq!(storage.certificate(Height(1)).unwrap(), None);
    assert_eq!(storage.certificate_from(Height(1)).unwrap().unwrap().0, Height(2));
}

#[test]
fn execution_follows_finality_in_order() {
    let (_directory, storage, mut chain) = open(Options::default());
    let block = chain.block(vec![], true);
    let executed = chain.execute(&block.block, &[]);
    let early = storage.commit(&[StoreOp::Executed(executed.clone())]);
    assert!(matches!(early, Err(StorageError::ExecutedNotNext { actual: Height(1), tip: Height(0), .. })));
    // In one group the order of operations counts.
    storage.commit(&[StoreOp::Final(vec![block]), StoreOp::Executed(executed.clone())]).unwrap();
    let again = storage.commit(&[StoreOp::Executed(executed)]);
    assert!(matches!(again, Err(StorageError::ExecutedNotNext { executed: Height(1), actual: Height(1), .. })));
}

#[test]
fn another_outcome_after_a_restart_is_refused() {
    let (directory, storage, mut chain) = open(Options::default());
    let block = chain.block(vec![], true);
    let executed = chain.execute(&block.block, &[]);
    storage.commit(&[StoreOp::Final(vec![block]), StoreOp::Executed(executed.clone())]).unwrap();
    drop(storage);
    let storage = Storage::open(directory.path(), Options::default(), &chain.genesis).unwrap();
    assert_eq!(storage.progress().executed, Height(0), "leaves were not due yet");
    let other = Executed { state_root: Hash::ZERO, ..executed.clone() };
    let refused = storage.commit(&[StoreOp::Executed(other)]);
    assert!(matches!(refused, Err(StorageError::Contradiction { height: Height(1), .. })), "{refused:?}");
    storage.commit(&[StoreOp::Executed(executed)]).unwrap();
}

#[test]
fn an_epoch_has_one_record() {
    let (_directory, storage, chain) = open(Options::default());
    let mut record = chain.genesis.epochs[1].clone();
    storage.commit(&[StoreOp::Epoch(record.clone())]).unwrap();
    record.length += 1;
    let refused = storage.commit(&[StoreOp::Epoch(record)]);
    assert!(matches!(refused, Err(StorageError::EpochContradiction { .. })));
}

#[test]
fn pending_batches_are_bounded() {
    let (_directory, storage, mut chain) = open(Options { pending_batches_max: 3, ..Options::default() });
    let batches: Vec<_> = (0..4).map(|_| chain.batch(1, Height(1))).collect();
    let refused = storage.commit(&[StoreOp::Batches(batches.clone())]);
    assert!(matches!(refused, Err(StorageError::PendingFull { max: 3 })));
    assert!(!storage.holds_batch(&batches[0].id()).unwrap());
    storage.commit(&[StoreOp::Batches(batches[..3].to_vec())]).unwrap();
    // Held already: no place is needed.
    storage.commit(&[StoreOp::Batches(batches[..3].to_vec())]).unwrap();
    // A citation makes room at once, an expiry with the next commit.
    let block = chain.block(vec![batches[0].id()], true);
    storage.commit(&[StoreOp::Final(vec![block]), StoreOp::Batches(batches[3..].to_vec())]).unwrap();
    storage.commit(&[]).unwrap();
    assert_eq!(storage.pending_batches().unwrap(), []);
    assert!(storage.holds_batch(&batches[0].id()).unwrap() && !storage.holds_batch(&batches[3].id()).unwrap());
}
