//! What a node remembers, in RocksDB: blocks, batches, certificates, state, receipts and their indexes.
//!
//! ```text
//! home       the directory: its lock and the version of its format
//! options    what an operator may tune
//! columns    column families: names, tuning by pattern of use
//! keys       bytes of keys and of small values
//! storage    open, progress (tip, executed, state)
//! op, plan   what can be stored; a group of it as one atomic write
//! pending    batches that no final block cites
//! blocks, batches, transactions, state    what can be asked
//! usage      bytes by column, for metrics
//! ```
//!
//! **What survives.** [`StoreOp::Batches`] and [`StoreOp::Final`] are on the disk when [`Storage::commit`] returns. All else is
//! in the write-ahead log, in order: after SIGKILL all of it is there, after power loss a prefix that holds everything synced.
//! State leaves are written every few heights together with the height after which they stand; who opens the storage again
//! executes the heights above [`Progress::state`] up to the tip once more.
//!
//! The layout is described in `docs/spec/storage.md`.
//!
//! Never here: consensus rules, signature checks (what is stored was verified), async.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batches;
mod blocks;
mod columns;
mod error;
mod home;
mod keys;
mod op;
mod options;
mod pending;
mod plan;
mod state;
mod storage;
mod transactions;
mod usage;

pub use blocks::READ_BLOCKS_MAX;
pub use columns::Column;
pub use error::StorageError;
pub use home::FORMAT_VERSION;
pub use op::{Executed, ExecutedRecord, FinalBlock, StoreOp};
pub use options::Options;
pub use plan::COLLECT_MAX;
pub use state::StateSnapshot;
pub use storage::{Progress, Storage, Tip};
pub use transactions::StoredTransaction;
pub use usage::{ColumnUsage, LogUsage};
