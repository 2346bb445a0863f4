//! The storage thread: writes in their order, several at the price of one sync, and the reads that the replica asks for.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use replica::{FinalBlock, Load, Loaded, StoreOp, Token};
use storage::{Storage, StorageError};
use tokio::sync::mpsc;
use types::{Block, Certificate, Epoch, Height};

/// Most requests waiting for the thread. The replica has few under way at a time; a full queue makes it wait, never lose one.
const QUEUE_MAX: usize = 4_096;
/// Most operations in one commit.
const GROUP_MAX: usize = 64;

enum Request {
    Store(Token, StoreOp),
    Load(Token, Load),
}

/// What the thread answers.
pub enum Reply {
    /// Done, and synced where the operation says so.
    Stored(Token),
    /// What was read.
    Loaded(Token, Loaded),
    /// A read or write failed: the process must end.
    Failed(StorageError),
}

/// Where answers go. Twice the size of the queue: the asking thread takes answers out between any two inputs, and one input
/// asks for far less than a queue's worth, so the two never wait for each other.
pub fn replies() -> (mpsc::Sender<Reply>, mpsc::Receiver<Reply>) {
    mpsc::channel(2 * QUEUE_MAX)
}

/// The thread's mailbox.
pub struct StoreThread {
    requests: std::sync::mpsc::SyncSender<Request>,
    thread: JoinHandle<()>,
}

impl StoreThread {
    /// Starts the thread; answers go to `replies`, made by [`replies`].
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(storage: Arc<Storage>, replies: mpsc::Sender<Reply>) -> Result<StoreThread> {
        let (requests, receiver) = std::sync::mpsc::sync_channel(QUEUE_MAX);
        let work = move || run(&storage, &receiver, &replies);
        let thread = std::thread::Builder::new().name("storage".into()).spawn(work).context("starting the storage thread")?;
        Ok(StoreThread { requests, thread })
    }

    /// Queues a write. Waits while the queue is full.
    pub fn store(&self, token: Token, op: StoreOp) {
        // The thread ends early only after it has reported a failure, which ends the process.
        let _ = self.requests.send(Request::Store(token, op));
    }

    /// Queues a read, behind the writes before it.
    pub fn load(&self, token: Token, load: Load) {
        let _ = self.requests.send(Request::Load(token, load));
    }

    /// Finishes what is queued, flushes, and ends the thread.
    pub fn stop(self) {
        drop(self.requests);
        let _ = self.thread.join();
    }
}

fn run(storage: &Storage, requests: &std::sync::mpsc::Receiver<Request>, replies: &mpsc::Sender<Reply>) {
    let mut next = requests.recv().ok();
    while let Some(request) = next.take() {
        let done = match request {
            Request::Load(token, load) => read(storage, load).map(|loaded| {
                let _ = replies.blocking_send(Reply::Loaded(token, loaded));
            }),
            Request::Store(token, op) => {
                let (mut tokens, mut ops) = (vec![token], vec![convert(op)]);
                while ops.len() < GROUP_MAX {
                    match requests.try_recv() {
                        Ok(Request::Store(token, op)) => {
                            tokens.push(token);
                            ops.push(convert(op));
                        }
                        Ok(load) => {
                            next = Some(load);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                storage.commit(&ops).map(|()| {
                    for token in tokens {
                        let _ = replies.blocking_send(Reply::Stored(token));
                    }
                })
            }
        };
        if let Err(error) = done {
            let _ = replies.blocking_send(Reply::Failed(error));
            return;
        }
        if next.is_none() {
            next = requests.recv().ok();
        }
    }
    if let Err(error) = storage.flush() {
        let _ = replies.blocking_send(Reply::Failed(error));
    }
}

fn convert(op: StoreOp) -> storage::StoreOp {
    match op {
        StoreOp::Batches(batches) => storage::StoreOp::Batches(batches),
        StoreOp::Final(blocks) => {
            let convert = |FinalBlock { block, certificate }| storage::FinalBlock { block, certificate };
            storage::StoreOp::Final(blocks.into_iter().map(convert).collect())
        }
        StoreOp::Executed(executed) => storage::StoreOp::Executed(storage::Executed {
            height: executed.height,
            state_root: executed.state_root,
            receipts: executed.receipts.clone(),
            changes: executed.changes.clone(),
        }),
        StoreOp::Epoch(record) => storage::StoreOp::Epoch(record),
    }
}

fn read(storage: &Storage, load: Load) -> Result<Loaded, StorageError> {
    Ok(match load {
        Load::FinalBlocks { from, max } => final_blocks(storage, from, max)?,
        Load::Block(hash) => {
            let height = storage.height_of(&hash)?;
            Loaded::Block(height.map(|height| storage.block(height)).transpose()?.flatten().map(Arc::new))
        }
        Load::Batches(ids) => {
            let mut found = Vec::new();
            for id in ids {
                found.extend(storage.batch(&id)?.map(Arc::new));
            }
            Loaded::Batches(found)
        }
        Load::Finality(epoch) => Loaded::Certificate(finality(storage, epoch)?),
    })
}

fn finality(storage: &Storage, epoch: Epoch) -> Result<Option<Certificate>, StorageError> {
    match storage.epoch(epoch)? {
        Some(record) => storage.certificate(record.last_height()),
        None => Ok(None),
    }
}

/// Blocks of one epoch from a height on, cut after the last one that has a certificate, if one has.
fn final_blocks(storage: &Storage, from: Height, max: usize) -> Result<Loaded, StorageError> {
    let mut blocks: Vec<Block> = storage.blocks(from, max)?;
    let epoch = blocks.first().map(|block| block.header.epoch);
    blocks.retain(|block| Some(block.header.epoch) == epoch);
    for count in (1..=blocks.len()).rev() {
        if let Some(certificate) = storage.certificate(blocks[count - 1].header.height)? {
            blocks.truncate(count);
            return Ok(Loaded::FinalBlocks { blocks: blocks.into_iter().map(Arc::new).collect(), certificate: Some(certificate) });
        }
    }
    Ok(Loaded::FinalBlocks { blocks: blocks.into_iter().map(Arc::new).collect(), certificate: None })
}
