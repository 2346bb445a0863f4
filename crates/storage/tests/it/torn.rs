//! Power loss: a log that ends anywhere leaves a prefix of history.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chain::Chain;
use ledger::Ledger;
use storage::{Options, Storage, StoreOp};
use types::{Batch, Block, Hash, Height};

const HEIGHTS: u64 = 30;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}

/// The newest log of a closed database.
fn log(directory: &Path) -> PathBuf {
    let entries = fs::read_dir(directory.join("rocksdb")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap()
}

/// Writes a history that fits one log; each block cites the batch of the height before.
fn write(directory: &Path) -> (Chain, Vec<Arc<Block>>, Vec<Hash>) {
    let mut chain = Chain::new();
    let storage = Storage::open(directory, Options { state_interval: 4, ..Options::default() }, &chain.genesis).unwrap();
    let (mut blocks, mut roots) = (Vec::new(), vec![chain.ledger.root()]);
    let mut waiting: Vec<Arc<Batch>> = Vec::new();
    for height in 1..=HEIGHTS {
        let batch = chain.batch(3, Height(height + 1));
        storage.commit(&[StoreOp::Batches(vec![batch.clone()])]).unwrap();
        let block = chain.block(waiting.iter().map(|batch| batch.id()).collect(), true);
        storage.commit(&[StoreOp::Final(vec![block.clone()])]).unwrap();
        let executed = chain.execute(&block.block, &waiting);
        blocks.push(block.block);
        roots.push(executed.state_root);
        storage.commit(&[StoreOp::Executed(executed)]).unwrap();
        waiting = vec![batch];
    }
    (chain, blocks, roots)
}

#[test]
fn any_end_of_the_log_is_a_prefix() {
    let written = tempfile::tempdir().unwrap();
    let (chain, blocks, roots) = write(written.path());
    let length = fs::metadata(log(written.path())).unwrap().len();
    let mut tips = Vec::new();
    const CUTS: u64 = 24;
    for cut in 0..=CUTS {
        let torn = tempfile::tempdir().unwrap();
        copy(written.path(), torn.path());
        // Odd steps, so that cuts fall into the middle of records.
        let keep = (length * cut / CUTS).saturating_sub(cut % 7);
        fs::File::options().write(true).open(log(torn.path())).unwrap().set_len(keep).unwrap();
        let storage = Storage::open(torn.path(), Options::default(), &chain.genesis).unwrap();
        let progress = storage.progress();
        let tip = progress.tip.height;
        assert!(progress.state <= tip);
        assert_eq!(storage.block(tip.next()).unwrap(), None);
        for block in &blocks[..tip.0 as usize] {
            assert_eq!(storage.block(block.header.height).unwrap().as_ref(), Some(&**block));
            assert!(storage.batches_of(block).unwrap().iter().all(Option::is_some), "a batch was held before it was cited");
        }
        let ledger = Ledger::restore(&storage.state()).unwrap();
        assert_eq!((ledger.height(), ledger.root()), (progress.state, roots[progress.state.0 as usize]));
        tips.push(tip.0);
    }
    assert!(tips.is_sorted(), "{tips:?}");
    assert_eq!((tips[0], tips[CUTS as usize]), (0, HEIGHTS));
}
