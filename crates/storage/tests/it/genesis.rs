//! How a storage begins.

use crate::chain::{Chain, genesis, genesis_with};
use ledger::Ledger;
use storage::{Column, Options, Progress, Storage, StorageError, StoreOp, Tip};
use types::{Amount, Epoch, EpochRecord, Height};

#[test]
fn a_chain_begins_once() {
    let directory = tempfile::tempdir().unwrap();
    let empty = Storage::open_existing(directory.path(), Options::default());
    assert!(matches!(empty, Err(StorageError::Empty)), "{empty:?}");

    let genesis = genesis();
    let storage = Storage::open(directory.path(), Options::default(), &genesis).unwrap();
    let tip = Tip { height: Height(0), hash: genesis.block_hash() };
    assert_eq!(storage.progress(), Progress { tip, executed: Height(0), state: Height(0) });
    for record in &genesis.epochs {
        assert_eq!(storage.epoch(record.epoch).unwrap().as_ref(), Some(record));
    }
    assert_eq!(storage.epoch(Epoch(2)).unwrap(), None);
    let (ledger, _) = Ledger::genesis(&genesis).unwrap();
    assert_eq!(Ledger::restore(&storage.state()).unwrap().root(), ledger.root());

    let second = Storage::open(directory.path(), Options::default(), &genesis);
    assert!(matches!(second, Err(StorageError::Locked { .. })), "{second:?}");
    drop(storage);

    let other = genesis_with(Amount(7));
    let refused = Storage::open(directory.path(), Options::default(), &other);
    let expected = (genesis.chain_id(), other.chain_id());
    assert!(matches!(refused, Err(StorageError::OtherChain { stored, given }) if (stored, given) == expected));
    assert_eq!(Storage::open_existing(directory.path(), Options::default()).unwrap().genesis(), &genesis);
}

#[test]
fn a_later_format_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(Storage::open(directory.path(), Options::default(), &genesis()).unwrap());
    std::fs::write(directory.path().join("format"), "2\n").unwrap();
    let refused = Storage::open(directory.path(), Options::default(), &genesis());
    assert!(matches!(refused, Err(StorageError::FormatNewer { found: 2, known: 1, .. })), "{refused:?}");
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("format 2") && text.contains("up to 1"), "{text}");
    std::fs::write(directory.path().join("format"), "1\n").unwrap();
    Storage::open(directory.path(), Options::default(), &genesis()).unwrap();
}

#[test]
fn usage_counts_what_was_stored() {
    let directory = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    let storage = Storage::open(directory.path(), Options::default(), &chain.genesis).unwrap();
    let batches: Vec<_> = (0..20).map(|_| chain.batch(100, Height(9))).collect();
    storage.commit(&[StoreOp::Batches(batches)]).unwrap();
    let usage = storage.usage().unwrap();
    assert_eq!(usage.iter().map(|usage| usage.column).collect::<Vec<_>>(), Column::ALL);
    let bytes = |column| usage.iter().find(|usage| usage.column == column).unwrap().buffer_bytes;
    assert!(bytes(Column::Batches) > 20 * 100 * 200, "{usage:?}");
}

#[test]
fn a_group_is_synced_once_and_only_if_it_must() {
    let directory = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    let storage = Storage::open(directory.path(), Options::default(), &chain.genesis).unwrap();
    let check = |ops: Vec<StoreOp>, syncs: u64| {
        let before = storage.log_usage();
        storage.commit(&ops).unwrap();
        let after = storage.log_usage();
        assert_eq!(after.syncs - before.syncs, syncs, "{:?}", ops.iter().map(StoreOp::as_str).collect::<Vec<_>>());
        assert!(after.bytes > before.bytes);
    };
    let batches: Vec<_> = (0..2).map(|_| chain.batch(2, Height(9))).collect();
    let blocks: Vec<_> = batches.iter().map(|batch| chain.block(vec![batch.id()], true)).collect();
    check(vec![StoreOp::Batches(batches[..1].to_vec())], 1);
    check(vec![StoreOp::Final(blocks[..1].to_vec())], 1);
    check(vec![StoreOp::Executed(chain.execute(&blocks[0].block, &batches[..1]))], 0);
    check(vec![StoreOp::Epoch(EpochRecord { epoch: Epoch(2), ..chain.genesis.epochs[1].clone() })], 0);
    let executed = chain.execute(&blocks[1].block, &batches[1..]);
    let group = vec![StoreOp::Batches(batches[1..].to_vec()), StoreOp::Final(blocks[1..].to_vec()), StoreOp::Executed(executed)];
    check(group, 1);
    let before = storage.log_usage().syncs;
    storage.flush().unwrap();
    assert_eq!((storage.log_usage().syncs - before, storage.progress().state), (1, Height(2)));
}
