//! Why storage refused or failed.

use std::io;
use std::path::PathBuf;

use ledger::RestoreError;
use types::{ChainId, DecodeError, Epoch, GenesisError, Hash, Height};

use crate::columns::Column;

/// Why storage refused or failed. After [`StorageError::Engine`] from a commit nothing more is written: the process must end.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The directory or a file in it can't be made, read or written.
    #[error("{operation} {}", path.display())]
    Directory {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process (or another part of this one) has it open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Written by a later release.
    #[error("{} has format {found}, this release knows up to {known}: run the release that wrote it", path.display())]
    FormatNewer {
        /// The directory.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The latest that we know.
        known: u32,
    },
    /// The format file is missing beside a database, or isn't one.
    #[error("{} does not say its format version: it is no storage of a node, or damaged", path.display())]
    FormatUnknown {
        /// The directory.
        path: PathBuf,
    },
    /// An option is out of its range.
    #[error("option {name} is out of range: {allowed}")]
    Options {
        /// Which.
        name: &'static str,
        /// What is allowed.
        allowed: &'static str,
    },
    /// RocksDB failed.
    #[error("database: {operation}")]
    Engine {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        #[source]
        source: rocksdb::Error,
    },
    /// A stored value doesn't decode, or an index names what isn't there.
    #[error("damaged entry in column {}", column.as_str())]
    Damaged {
        /// Where.
        column: Column,
        /// The decoder's reason, if decoding failed.
        #[source]
        source: Option<DecodeError>,
    },
    /// The directory holds no chain yet.
    #[error("storage holds no chain")]
    Empty,
    /// The directory holds another chain.
    #[error("storage holds chain {stored}, genesis is of chain {given}")]
    OtherChain {
        /// The chain that it holds.
        stored: ChainId,
        /// The chain of the genesis record.
        given: ChainId,
    },
    /// The genesis record breaks its rules.
    #[error("genesis record")]
    Genesis(#[source] RestoreError<GenesisError>),
    /// A final block isn't the one after the tip.
    #[error("final block {actual} does not follow tip {tip}")]
    NotNext {
        /// The tip's height.
        tip: Height,
        /// The block's.
        actual: Height,
    },
    /// A final block doesn't name the tip as its parent: a fork.
    #[error("final block {height} does not name the block below as its parent")]
    Fork {
        /// The block's height.
        height: Height,
    },
    /// A certificate isn't a finality certificate of its block, or the last block of a group has none.
    #[error("final block {height} has no finality certificate of its own")]
    Certificate {
        /// The block's height.
        height: Height,
    },
    /// A height isn't the one after the last executed, or isn't final.
    #[error("executed height {actual} does not follow {executed}, or is above tip {tip}")]
    ExecutedNotNext {
        /// The last executed height.
        executed: Height,
        /// The height given.
        actual: Height,
        /// The tip's.
        tip: Height,
    },
    /// A height was executed again after a restart and ended in another state: execution isn't deterministic, or the disk lied.
    #[error("height {height} was executed to {stored}, now to {actual}")]
    Contradiction {
        /// Which.
        height: Height,
        /// The state root on disk.
        stored: Hash,
        /// The state root now.
        actual: Hash,
    },
    /// An epoch has another record already.
    #[error("epoch {epoch} has another record already")]
    EpochContradiction {
        /// Which.
        epoch: Epoch,
    },
    /// Too many batches that no final block cites: whoever admits batches has lost its bound.
    #[error("more than {max} batches wait for a block")]
    PendingFull {
        /// [`crate::Options::pending_batches_max`].
        max: usize,
    },
    /// An earlier write failed; nothing more is written.
    #[error("storage stopped after a failed write")]
    Stopped,
}

impl StorageError {
    /// For `map_err` around the engine.
    pub(crate) fn engine(operation: &'static str) -> impl Fn(rocksdb::Error) -> StorageError {
        move |source| StorageError::Engine { operation, source }
    }

    /// An entry that an index promises is missing, or has an impossible shape.
    pub(crate) fn damaged(column: Column) -> StorageError {
        StorageError::Damaged { column, source: None }
    }
}
