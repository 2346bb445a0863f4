//! The directory of a storage: one process at a time, and a format version that is read before anything else.
//!
//! ```text
//! <path>/lock       locked while open (flock); its content means nothing
//! <path>/format     the format version, decimal, and a newline
//! <path>/rocksdb/   the database
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::StorageError;

/// The format that this release writes. An older one would be migrated on open; there is none yet.
pub const FORMAT_VERSION: u32 = 1;

/// An entered directory; the lock falls with the value, and with the process.
#[derive(Debug)]
pub(crate) struct Home {
    _lock: File,
    database: PathBuf,
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> StorageError {
    move |source| StorageError::Directory { operation, path: path.to_path_buf(), source }
}

impl Home {
    /// Makes the directory if there is none, locks it, and checks the format.
    pub(crate) fn enter(path: &Path) -> Result<Home, StorageError> {
        fs::create_dir_all(path).map_err(failed("create", path))?;
        let lock_path = path.join("lock");
        let options = File::options().create(true).truncate(false).write(true).clone();
        let lock = options.open(&lock_path).map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StorageError::Locked { path: path.to_path_buf() }),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &lock_path)(source)),
        }
        let database = path.join("rocksdb");
        check_format(path, &database)?;
        Ok(Home { _lock: lock, database })
    }

    /// Where RocksDB lives.
    pub(crate) fn database(&self) -> &Path {
        &self.database
    }
}

/// Reads the version, or writes ours into a directory without a database.
fn check_format(path: &Path, database: &Path) -> Result<(), StorageError> {
    let file = path.join("format");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !database.exists() => return write_format(path, &file),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
            return Err(StorageError::FormatUnknown { path: path.to_path_buf() });
        }
        Err(error) => return Err(failed("read", &file)(error)),
    };
    match text.trim_end().parse::<u32>() {
        Ok(found) if found > FORMAT_VERSION => {
            Err(StorageError::FormatNewer { path: path.to_path_buf(), found, known: FORMAT_VERSION })
        }
        Ok(FORMAT_VERSION) => Ok(()),
        _ => Err(StorageError::FormatUnknown { path: path.to_path_buf() }),
    }
}

/// Whole or not at all, and durable before the database appears.
fn write_format(path: &Path, file: &Path) -> Result<(), StorageError> {
    let partial = path.join("format.partial");
    let mut out = File::create(&partial).map_err(failed("create", &partial))?;
    writeln!(out, "{FORMAT_VERSION}").and_then(|()| out.sync_all()).map_err(failed("write", &partial))?;
    fs::rename(&partial, file).map_err(failed("rename to", file))?;
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = Home::enter(directory.path()).unwrap();
        assert!(matches!(Home::enter(directory.path()), Err(StorageError::Locked { .. })));
        drop(first);
        Home::enter(directory.path()).unwrap();
    }

    #[test]
    fn formats() {
        let check = |content: Option<&[u8]>, database: bool| {
            let directory = tempfile::tempdir().unwrap();
            if let Some(content) = content {
                fs::write(directory.path().join("format"), content).unwrap();
            }
            if database {
                fs::create_dir(directory.path().join("rocksdb")).unwrap();
            }
            Home::enter(directory.path()).map(|_| fs::read_to_string(directory.path().join("format")).unwrap())
        };
        assert_eq!(check(None, false).unwrap(), "1\n");
        assert_eq!(check(Some(b"1\n"), true).unwrap(), "1\n");
        assert!(matches!(check(Some(b"2\n"), true), Err(StorageError::FormatNewer { found: 2, known: 1, .. })));
        for unknown in [b"".as_slice(), b"0\n", b"one\n", b"\xff"] {
            assert!(matches!(check(Some(unknown), true), Err(StorageError::FormatUnknown { .. })), "{unknown:?}");
        }
        assert!(matches!(check(None, true), Err(StorageError::FormatUnknown { .. })));
    }
}
