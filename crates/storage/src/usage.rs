//! How many bytes each column has, and what the log did: for metrics.

use std::ffi::CStr;

use rocksdb::properties::{CUR_SIZE_ALL_MEM_TABLES, ESTIMATE_NUM_KEYS, TOTAL_SST_FILES_SIZE};
use rocksdb::statistics::Ticker;

use crate::columns::Column;
use crate::error::StorageError;
use crate::storage::Storage;

/// A property that the binding has no name for.
const BLOB_BYTES: &CStr = c"rocksdb.total-blob-file-size";

/// Bytes of one column. RocksDB's own figures: those of files are exact, of keys an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnUsage {
    /// Which.
    pub column: Column,
    /// In sorted files.
    pub table_bytes: u64,
    /// In blob files.
    pub blob_bytes: u64,
    /// In write buffers.
    pub buffer_bytes: u64,
    /// Entries, estimated.
    pub entries: u64,
}

/// What the write-ahead log did since the storage was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogUsage {
    /// Times that it was synced.
    pub syncs: u64,
    /// Bytes written to it.
    pub bytes: u64,
    /// µs for which RocksDB held writers back, because flushes or compactions did not keep up.
    pub stall_us: u64,
}

impl Storage {
    /// What the write-ahead log did since the storage was opened. Cost: a few loads.
    pub fn log_usage(&self) -> LogUsage {
        let counter = |ticker| self.engine.get_ticker_count(ticker);
        LogUsage {
            syncs: counter(Ticker::WalFileSynced),
            bytes: counter(Ticker::WalFileBytes),
            stall_us: counter(Ticker::StallMicros),
        }
    }

    /// Bytes of every column. Cost: a few µs, no reads from the disk.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn usage(&self) -> Result<Vec<ColumnUsage>, StorageError> {
        let usage = |column: Column| {
            Ok(ColumnUsage {
                column,
                table_bytes: self.figure(column, TOTAL_SST_FILES_SIZE.as_c_str())?,
                blob_bytes: self.figure(column, BLOB_BYTES)?,
                buffer_bytes: self.figure(column, CUR_SIZE_ALL_MEM_TABLES.as_c_str())?,
                entries: self.figure(column, ESTIMATE_NUM_KEYS.as_c_str())?,
            })
        };
        Column::ALL.into_iter().map(usage).collect()
    }

    fn figure(&self, column: Column, name: &CStr) -> Result<u64, StorageError> {
        let found = self.db.property_int_value_cf(self.family(column), name).map_err(StorageError::engine("usage"))?;
        Ok(found.unwrap_or(0))
    }
}
