//! The layout on disk as `docs/spec/storage.md` says it, read with RocksDB alone: a change here is a new format version.

use std::collections::BTreeMap;

use crate::chain::Chain;
use rocksdb::{ColumnFamilyDescriptor, DB, IteratorMode};
use storage::{Options, Storage, StoreOp};
use types::{Height, StateKey, StateValue, encode};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

const FAMILIES: [&str; 11] = [
    "default",
    "blocks",
    "certificates",
    "hashes",
    "batches",
    "batch_places",
    "citations",
    "pending",
    "state",
    "executed",
    "transactions",
];

fn dump(directory: &std::path::Path) -> BTreeMap<String, Entries> {
    let options = rocksdb::Options::default();
    let path = directory.join("rocksdb");
    let mut names = DB::list_cf(&options, &path).unwrap();
    names.sort();
    let mut expected = FAMILIES.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(names, expected);
    let families = names.iter().map(|name| ColumnFamilyDescriptor::new(name, rocksdb::Options::default()));
    let db = DB::open_cf_descriptors(&options, path, families).unwrap();
    let entries = |name: &String| {
        let family = db.cf_handle(name).unwrap();
        let all = db.iterator_cf(family, IteratorMode::Start).map(|entry| entry.unwrap());
        (name.clone(), all.map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
    };
    names.iter().map(entries).collect()
}

/// A u64, big-endian.
fn n(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// A u64 and a u32, big-endian.
fn pair(first: u64, second: u32) -> Vec<u8> {
    [n(first), second.to_be_bytes().to_vec()].concat()
}

#[test]
fn entries_are_as_described() {
    let directory = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    let storage = Storage::open(directory.path(), Options::default(), &chain.genesis).unwrap();
    let (cited, waiting) = (chain.batch(2, Height(5)), chain.batch(1, Height(6)));
    let block = chain.block(vec![cited.id()], true);
    let executed = chain.execute(&block.block, std::slice::from_ref(&cited));
    storage.commit(&[StoreOp::Batches(vec![cited.clone(), waiting.clone()])]).unwrap();
    storage.commit(&[StoreOp::Final(vec![block.clone()]), StoreOp::Executed(executed.clone())]).unwrap();
    storage.flush().unwrap();
    drop(storage);

    let dump = dump(directory.path());
    let check = |family: &str, expected: Vec<(Vec<u8>, Vec<u8>)>| {
        assert_eq!(dump[family], expected.into_iter().collect::<Entries>(), "{family}");
    };
    let genesis = &chain.genesis;
    check(
        "default",
        vec![
            (b"genesis".to_vec(), encode(genesis)),
            (b"tip".to_vec(), n(1)),
            (b"state".to_vec(), n(1)),
            ([b"epoch/".to_vec(), n(0)].concat(), encode(&genesis.epochs[0])),
            ([b"epoch/".to_vec(), n(1)].concat(), encode(&genesis.epochs[1])),
        ],
    );
    check("blocks", vec![(n(1), encode(&*block.block))]);
    check("certificates", vec![(n(1), encode(&block.certificate.unwrap()))]);
    check("hashes", vec![(block.block.hash().0.0.to_vec(), n(1))]);
    let key = |expiry, batch: &types::Batch| [n(expiry), batch.id().0.0.to_vec()].concat();
    check("batches", vec![(key(5, &cited), encode(&*cited)), (key(6, &waiting), encode(&*waiting))]);
    let places = [(&cited, pair(5, 2)), (&waiting, pair(6, 1))];
    check("batch_places", places.into_iter().map(|(batch, place)| (batch.id().0.0.to_vec(), place)).collect());
    check("citations", vec![(cited.id().0.0.to_vec(), pair(1, 0))]);
    check("pending", vec![(key(6, &waiting), vec![])]);
    let record = [executed.state_root.0.to_vec(), encode(&executed.receipts)].concat();
    check("executed", vec![(n(1), record)]);
    let ids = cited.transactions.iter().enumerate();
    check("transactions", ids.map(|(i, transaction)| (transaction.id().0.0.to_vec(), pair(1, i as u32))).collect());
    let supply = StateValue::Supply(chain.ledger.supply());
    assert_eq!(dump["state"][&n(0)], [encode(&StateKey::supply()), supply.to_bytes()].concat());
    assert_eq!(dump["state"].keys().cloned().collect::<Vec<_>>(), (0..chain.ledger.leaf_count()).map(n).collect::<Vec<_>>());
}
