//! What an operator may tune. Nothing here decides validity.

use crate::error::StorageError;

/// Sizes and intervals of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes that the read cache may hold. Raise it for a node whose API is asked for old blocks often.
    pub cache_bytes: usize,
    /// Bytes of the write buffer of each large column, at most two of them at a time. Lower it on a small machine.
    pub write_buffer_bytes: usize,
    /// The write-ahead log is kept below this many bytes: it bounds the time to open after a crash.
    pub log_bytes_max: u64,
    /// Files that may be open at once.
    pub open_files_max: i32,
    /// Threads that flush and compact.
    pub background_jobs: i32,
    /// Heights between two writes of state leaves. Larger writes less, and replays more after a crash.
    pub state_interval: u64,
    /// State leaves that may wait for their write, however few the heights.
    pub state_leaves_max: usize,
    /// Batches that may be stored and cited by no final block. Above the mempool's own bound.
    pub pending_batches_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cache_bytes: 32 << 20,
            write_buffer_bytes: 16 << 20,
            log_bytes_max: 128 << 20,
            open_files_max: 256,
            background_jobs: 2,
            state_interval: 8,
            state_leaves_max: 65_536,
            pending_batches_max: 65_536,
        }
    }
}

impl Options {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`StorageError::Options`] names the first option out of range.
    pub fn check(&self) -> Result<(), StorageError> {
        let checks = [
            ("cache_bytes", self.cache_bytes >= 1 << 20, "at least 1 MiB"),
            ("write_buffer_bytes", (1 << 20..=1 << 30).contains(&self.write_buffer_bytes), "1 MiB to 1 GiB"),
            ("log_bytes_max", self.log_bytes_max >= 4 << 20, "at least 4 MiB"),
            ("open_files_max", self.open_files_max >= 64, "at least 64"),
            ("background_jobs", (1..=64).contains(&self.background_jobs), "1 to 64"),
            ("state_interval", (1..=4_096).contains(&self.state_interval), "1 to 4096"),
            ("state_leaves_max", self.state_leaves_max >= 1, "at least 1"),
            ("pending_batches_max", self.pending_batches_max >= 1, "at least 1"),
        ];
        match checks.iter().find(|(_, holds, _)| !holds) {
            Some((name, _, allowed)) => Err(StorageError::Options { name, allowed }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        Options::default().check().unwrap();
        let refused = Options { state_interval: 0, ..Options::default() }.check();
        assert!(matches!(refused, Err(StorageError::Options { name: "state_interval", .. })));
        let refused = Options { write_buffer_bytes: 5, ..Options::default() }.check();
        assert!(matches!(refused, Err(StorageError::Options { name: "write_buffer_bytes", .. })));
    }
}
