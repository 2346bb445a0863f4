//! SIGKILL in the middle of writes, and a disk that refuses them: what a commit had called durable is there, and the rest is a
//! prefix that can be executed on.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crate::chain::{Chain, genesis};
use ledger::Ledger;
use storage::{FinalBlock, Options, Storage, StorageError, StoreOp};
use types::{Batch, Height};

const DIRECTORY: &str = "STORAGE_TEST_DIRECTORY";
const BATCHES: usize = 3;

fn options() -> Options {
    // Small, so that flushes and compactions are under way when the kill comes.
    Options { write_buffer_bytes: 1 << 20, log_bytes_max: 4 << 20, ..Options::default() }
}

/// The blocks and batches that both processes know.
fn next(chain: &mut Chain) -> (Vec<Arc<Batch>>, FinalBlock) {
    let expiry = chain.tip.height.plus(8);
    let batches: Vec<_> = (0..BATCHES).map(|_| chain.batch(100, expiry)).collect();
    let cited = batches.iter().map(|batch| batch.id()).collect();
    let certified = !(chain.tip.height.0 + 1).is_multiple_of(3);
    (batches, chain.block(cited, certified))
}

/// Writes until it is killed or a write fails; says what is durable.
fn write_on(storage: &Storage) -> StorageError {
    let mut chain = Chain::new();
    let mut out = std::io::stdout().lock();
    let mut open = Vec::new();
    let mut unexecuted = Vec::new();
    loop {
        let (batches, block) = next(&mut chain);
        if let Err(error) = storage.commit(&[StoreOp::Batches(batches.clone())]) {
            return error;
        }
        writeln!(out, "held {}", block.block.header.height).unwrap();
        unexecuted.push((block.block.clone(), batches));
        let certified = block.certificate.is_some();
        open.push(block);
        if !certified {
            continue;
        }
        if let Err(error) = storage.commit(&[StoreOp::Final(std::mem::take(&mut open))]) {
            return error;
        }
        writeln!(out, "final {}", chain.tip.height).unwrap();
        for (block, batches) in unexecuted.drain(..) {
            let executed = chain.execute(&block, &batches);
            if let Err(error) = storage.commit(&[StoreOp::Executed(executed)]) {
                return error;
            }
        }
    }
}

/// What a child said: heights up to which batches were held and blocks final, and its number of lines.
#[derive(Default)]
struct Said {
    held: Height,
    tip: Height,
    lines: usize,
}

/// Reads what a child says; `each` may end it.
fn listen(process: &mut Child, mut each: impl FnMut(&mut Child, usize)) -> Said {
    let mut said = Said::default();
    for line in BufReader::new(process.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // The test runner's own lines have other first words.
        match line.split_once(' ') {
            Some(("held", height)) => said.held = height.parse().unwrap(),
            Some(("final", height)) => said.tip = height.parse().unwrap(),
            _ => continue,
        }
        said.lines += 1;
        each(process, said.lines);
    }
    said
}

#[test]
#[ignore = "the child of `survives_sigkill`: it writes until it is killed"]
fn writer() {
    let directory = std::env::var_os(DIRECTORY).expect("started by survives_sigkill");
    let storage = Storage::open(Path::new(&directory), options(), &genesis()).unwrap();
    panic!("a write failed: {}", write_on(&storage));
}

#[test]
fn survives_sigkill() {
    for lines in [1, 2, 7, 40, 150] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "crash::writer", "--ignored", "--nocapture"]).env(DIRECTORY, directory.path());
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let said = listen(&mut process, |process, seen| {
            if seen == lines {
                process.kill().unwrap();
            }
        });
        let status = process.wait().unwrap();
        assert!(said.lines >= lines && status.code().is_none(), "the child ended by itself: {status}");
        check(directory.path(), &said);
    }
}

#[test]
#[ignore = "the child of `a_failed_write_is_the_last`: its files may not grow"]
fn limited_writer() {
    let directory = std::env::var_os(DIRECTORY).expect("started by a_failed_write_is_the_last");
    // Buffers larger than the limit, so that it is the log that can't grow.
    let storage = Storage::open(Path::new(&directory), Options::default(), &genesis()).unwrap();
    let before = storage.progress();
    let error = write_on(&storage);
    assert!(matches!(error, StorageError::Engine { .. }), "{error:?}");
    assert!(storage.progress().tip.height > before.tip.height, "nothing was written before the limit");
    for ops in [vec![], vec![StoreOp::Epoch(genesis().epochs[1].clone())]] {
        assert!(matches!(storage.commit(&ops), Err(StorageError::Stopped)));
    }
    assert!(matches!(storage.flush(), Err(StorageError::Stopped)));
}

#[test]
fn a_failed_write_is_the_last() {
    let directory = tempfile::tempdir().unwrap();
    // A limit on the size of files is a full disk that needs no privilege; with the signal ignored the write answers EFBIG.
    let script = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" --exact crash::limited_writer --ignored --nocapture";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(std::env::current_exe().unwrap()).env(DIRECTORY, directory.path());
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let said = listen(&mut process, |_, _| {});
    assert!(process.wait().unwrap().success());
    check(directory.path(), &said);
}

/// Everything acknowledged is there; the tail executes to the same roots; the chain goes on.
fn check(directory: &Path, said: &Said) {
    let Said { held, tip, .. } = *said;
    let mut chain = Chain::new();
    let storage = Storage::open(directory, options(), &chain.genesis).unwrap();
    let progress = storage.progress();
    assert!(progress.tip.height >= tip && progress.state <= progress.tip.height, "{progress:?}, acknowledged {tip}");
    let mut restored = Ledger::restore(&storage.state()).unwrap();
    assert_eq!(restored.height(), progress.state);
    let record = chain.genesis.epochs[0].clone();
    let mut open = Vec::new();
    // Execution lags the chain's tip as it did in the child, so the headers are the same.
    let mut unexecuted = Vec::new();
    for height in 1..=progress.tip.height.0.max(held.0) {
        let height = Height(height);
        let (batches, block) = next(&mut chain);
        if height <= held {
            for batch in &batches {
                assert_eq!(storage.batch(&batch.id()).unwrap().as_ref(), Some(&**batch), "batch of height {height}");
            }
        }
        open.push((height, block.clone(), batches.clone()));
        unexecuted.push((block.block.clone(), batches));
        if block.certificate.is_none() {
            continue;
        }
        for (height, block, batches) in open.drain(..).filter(|(height, ..)| *height <= progress.tip.height) {
            assert_eq!(storage.block(height).unwrap().as_ref(), Some(&*block.block));
            assert!(storage.finality_proof(height).unwrap().is_some());
            if height > progress.state {
                restored.apply(height, &record, &batches).unwrap();
            }
        }
        for (block, batches) in unexecuted.drain(..) {
            let executed = chain.execute(&block, &batches);
            if block.header.height == progress.state {
                let root = Ledger::restore(&storage.state()).unwrap().root();
                assert_eq!(root, executed.state_root);
            }
            if block.header.height > progress.state && block.header.height <= progress.tip.height {
                assert_eq!(restored.root_at(block.header.height), Some(executed.state_root));
                // Compared with what the child may have recorded.
                storage.commit(&[StoreOp::Executed(executed)]).unwrap();
            }
        }
    }
}
