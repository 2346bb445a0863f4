//! RocksDB: blocks, batches, state, receipts, certificates, indexes.
