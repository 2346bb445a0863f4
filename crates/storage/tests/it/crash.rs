//! SIGKILL in the middle of writes: what a commit had called durable is there, and the rest is a prefix that can be executed on.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::chain::Chain;
use ledger::Ledger;
use storage::{FinalBlock, Options, Storage, StoreOp};
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

/// Writes until it is killed; says what is durable.
fn child(directory: &Path) -> ! {
    let mut chain = Chain::new();
    let storage = Storage::open(directory, options(), &chain.genesis).unwrap();
    let mut out = std::io::stdout().lock();
    let mut open = Vec::new();
    let mut unexecuted = Vec::new();
    loop {
        let (batches, block) = next(&mut chain);
        storage.commit(&[StoreOp::Batches(batches.clone())]).unwrap();
        writeln!(out, "held {}", block.block.header.height).unwrap();
        unexecuted.push((block.block.clone(), batches));
        let certified = block.certificate.is_some();
        open.push(block);
        if !certified {
            continue;
        }
        storage.commit(&[StoreOp::Final(std::mem::take(&mut open))]).unwrap();
        writeln!(out, "final {}", chain.tip.height).unwrap();
        for (block, batches) in unexecuted.drain(..) {
            let executed = chain.execute(&block, &batches);
            storage.commit(&[StoreOp::Executed(executed)]).unwrap();
        }
    }
}

/// Kills a child after so many lines; gives the heights up to which batches were held and blocks final.
fn run_and_kill(directory: &Path, lines: usize) -> (Height, Height) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::writer", "--ignored", "--nocapture"]).env(DIRECTORY, directory);
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(process.stdout.take().unwrap());
    let (mut held, mut tip, mut seen) = (Height(0), Height(0), 0);
    for line in output.lines() {
        let line = line.unwrap();
        // The test runner's own lines have other first words.
        match line.split_once(' ') {
            Some(("held", height)) => held = height.parse().unwrap(),
            Some(("final", height)) => tip = height.parse().unwrap(),
            _ => continue,
        }
        seen += 1;
        if seen == lines {
            process.kill().unwrap();
        }
    }
    assert!(seen >= lines, "the child ended by itself: {:?}", process.wait());
    process.wait().unwrap();
    (held, tip)
}

#[test]
#[ignore = "the child of `survives_sigkill`: it writes until it is killed"]
fn writer() {
    let directory = std::env::var_os(DIRECTORY).expect("started by survives_sigkill");
    child(Path::new(&directory));
}

#[test]
fn survives_sigkill() {
    for lines in [1, 2, 7, 40, 150] {
        let directory = tempfile::tempdir().unwrap();
        let (held, tip) = run_and_kill(directory.path(), lines);
        check(directory.path(), held, tip);
    }
}

/// Everything acknowledged is there; the tail executes to the same roots; the chain goes on.
fn check(directory: &Path, held: Height, tip: Height) {
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
