//! Column families: one for each pattern of use, so that sequential keys are never merged with random ones.

use rocksdb::statistics::StatsLevel;
use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, LogLevel};

use crate::options::Options;

/// A column family. Its name is part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Column {
    /// Genesis, tip, state height, epoch records.
    Meta,
    /// Height → block. Sequential.
    Blocks,
    /// Height → finality certificate. Sequential, with gaps.
    Certificates,
    /// Block hash → height. Random, small.
    Hashes,
    /// Expiry and batch id → batch. Nearly sequential; values in blob files, so that they are written once.
    Batches,
    /// Batch id → expiry and count. Random, small.
    BatchPlaces,
    /// Batch id → height and place in the final block that cites it. Random, small.
    Citations,
    /// Expiry and id of batches that no final block cites. Short-lived.
    Pending,
    /// Leaf index → key and value. Overwritten.
    State,
    /// Height → state root and receipts. Sequential.
    Executed,
    /// Transaction id → height and receipt. Random and many: the most expensive column for each transaction.
    Transactions,
}

/// How a column is used.
enum Pattern {
    /// Looked up by height, read in ranges.
    Sequential,
    /// Looked up by a hash: a Bloom filter answers for what isn't there.
    Random,
    /// Overwritten by index.
    Overwritten,
    /// Large values under nearly sequential keys.
    Blobs,
}

/// Values from here on go to blob files.
const BLOB_BYTES_MIN: u64 = 4 << 10;
/// Size of a blob file.
const BLOB_FILE_BYTES: u64 = 64 << 20;
/// Bits of a Bloom filter for each key: about 1 % false positives.
const BLOOM_BITS: f64 = 10.0;
/// The database's own text log, in bytes.
const TEXT_LOG_BYTES: usize = 1 << 20;

impl Column {
    /// All.
    pub const ALL: [Column; 11] = [
        Column::Meta,
        Column::Blocks,
        Column::Certificates,
        Column::Hashes,
        Column::Batches,
        Column::BatchPlaces,
        Column::Citations,
        Column::Pending,
        Column::State,
        Column::Executed,
        Column::Transactions,
    ];

    /// The family's name, and the label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            // RocksDB insists on a family of this name.
            Column::Meta => "default",
            Column::Blocks => "blocks",
            Column::Certificates => "certificates",
            Column::Hashes => "hashes",
            Column::Batches => "batches",
            Column::BatchPlaces => "batch_places",
            Column::Citations => "citations",
            Column::Pending => "pending",
            Column::State => "state",
            Column::Executed => "executed",
            Column::Transactions => "transactions",
        }
    }

    const fn pattern(self) -> Pattern {
        match self {
            Column::Blocks | Column::Certificates | Column::Executed | Column::Pending => Pattern::Sequential,
            Column::Hashes | Column::BatchPlaces | Column::Citations | Column::Transactions => Pattern::Random,
            Column::Meta | Column::State => Pattern::Overwritten,
            Column::Batches => Pattern::Blobs,
        }
    }

    /// Large columns get the whole write buffer, the others an eighth.
    const fn is_large(self) -> bool {
        matches!(self, Column::Blocks | Column::Batches | Column::State | Column::Executed | Column::Transactions)
    }

    /// RocksDB's options of this column.
    pub(crate) fn tuned(self, options: &Options, cache: &Cache) -> rocksdb::Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_format_version(5);
        let mut tuned = rocksdb::Options::default();
        tuned.set_compression_type(DBCompressionType::Lz4);
        tuned.set_write_buffer_size(if self.is_large() { options.write_buffer_bytes } else { options.write_buffer_bytes / 8 });
        tuned.set_max_write_buffer_number(2);
        match self.pattern() {
            Pattern::Sequential => table.set_block_size(16 << 10),
            Pattern::Random => {
                table.set_bloom_filter(BLOOM_BITS, false);
                // Hashes don't compress.
                tuned.set_compression_type(DBCompressionType::None);
            }
            Pattern::Overwritten => {}
            Pattern::Blobs => {
                tuned.set_enable_blob_files(true);
                tuned.set_min_blob_size(BLOB_BYTES_MIN);
                tuned.set_blob_file_size(BLOB_FILE_BYTES);
                tuned.set_blob_compression_type(DBCompressionType::Lz4);
                tuned.set_enable_blob_gc(true);
            }
        }
        tuned.set_block_based_table_factory(&table);
        tuned
    }
}

/// RocksDB's options of the whole database.
pub(crate) fn tuned(options: &Options) -> rocksdb::Options {
    let mut tuned = rocksdb::Options::default();
    tuned.create_if_missing(true);
    tuned.create_missing_column_families(true);
    tuned.set_max_background_jobs(options.background_jobs);
    tuned.set_max_open_files(options.open_files_max);
    tuned.set_max_total_wal_size(options.log_bytes_max);
    // A log file that was synced and closed, and is gone or shorter on open, is an error and not a shorter history.
    tuned.set_track_and_verify_wals_in_manifest(true);
    // Flushes and compactions write in steps: else one large writeback delays the vote's fsync.
    tuned.set_bytes_per_sync(1 << 20);
    tuned.set_log_level(LogLevel::Warn);
    tuned.set_keep_log_file_num(2);
    tuned.set_max_log_file_size(TEXT_LOG_BYTES);
    tuned.set_stats_dump_period_sec(0);
    // Counters only: no clock reads, no histograms.
    tuned.enable_statistics();
    tuned.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    tuned
}
