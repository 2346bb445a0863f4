//! The journal as a file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::disk::Disk;

/// A new journal's bytes. They are written as zeros, not only allocated: then a sync of a record has no metadata to write.
pub const PREALLOCATED_BYTES: u64 = 4 << 20;

/// A full journal grows by this many bytes at once.
pub const GROWTH_BYTES: u64 = 1 << 20;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A preallocated file that is locked against other processes while this value lives.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    file: File,
    /// Where the next append goes.
    end: u64,
    /// How far the file is filled with records or zeros.
    allocated: u64,
    _lock: File,
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn zero(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let bytes = (to - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..bytes as usize], at)?;
        at += bytes;
    }
    Ok(())
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

impl FileDisk {
    /// Opens the journal, or makes an empty one. A lock file beside it keeps others away: the journal itself is replaced by
    /// renaming, and a lock would go with it.
    ///
    /// # Errors
    /// The file system's; [`io::ErrorKind::WouldBlock`] if somebody holds the lock.
    pub fn open(path: &Path) -> io::Result<FileDisk> {
        let lock = private().open(beside(path, ".lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, "the journal is in use"),
            TryLockError::Error(error) => error,
        })?;
        let file = private().open(path)?;
        let allocated = file.metadata()?.len();
        let mut disk = FileDisk { path: path.to_owned(), file, end: 0, allocated, _lock: lock };
        if allocated == 0 {
            zero(&disk.file, 0, PREALLOCATED_BYTES)?;
            disk.file.sync_all()?;
            disk.allocated = PREALLOCATED_BYTES;
            sync_folder(path)?;
        }
        Ok(disk)
    }
}

impl Disk for FileDisk {
    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.allocated).map_err(io::Error::other)?);
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.end = len;
        // Mostly there is nothing behind, and reading that is cheaper than writing zeros over zeros.
        let mut at = len;
        let mut chunk = [0; ZEROS.len()];
        let mut torn = false;
        while at < self.allocated {
            let bytes = (self.allocated - at).min(chunk.len() as u64) as usize;
            self.file.read_exact_at(&mut chunk[..bytes], at)?;
            if chunk[..bytes].iter().any(|byte| *byte != 0) {
                zero(&self.file, at, at + bytes as u64)?;
                torn = true;
            }
            at += bytes as u64;
        }
        if torn { self.file.sync_data() } else { Ok(()) }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.end + bytes.len() as u64;
        if end > self.allocated {
            let allocated = end.next_multiple_of(GROWTH_BYTES);
            zero(&self.file, self.allocated, allocated)?;
            self.file.sync_all()?;
            self.allocated = allocated;
        }
        self.file.write_all_at(bytes, self.end)?;
        self.end = end;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let next = beside(&self.path, ".next");
        let file = private().truncate(true).open(&next)?;
        file.write_all_at(bytes, 0)?;
        let len = bytes.len() as u64;
        let allocated = len.next_multiple_of(GROWTH_BYTES).max(PREALLOCATED_BYTES);
        zero(&file, len, allocated)?;
        file.sync_all()?;
        fs::rename(&next, &self.path)?;
        sync_folder(&self.path)?;
        (self.file, self.end, self.allocated) = (file, len, allocated);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(disk: &mut FileDisk) -> Vec<u8> {
        let mut bytes = disk.read_all().unwrap();
        let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn appends_survive_a_new_opening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sign.journal");
        let mut disk = FileDisk::open(&path).unwrap();
        disk.append(b"one").unwrap();
        disk.append(b"two").unwrap();
        disk.sync().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), PREALLOCATED_BYTES);
        drop(disk);
        let mut disk = FileDisk::open(&path).unwrap();
        assert_eq!(content(&mut disk), b"onetwo");
        disk.truncate(3).unwrap();
        disk.append(b"2").unwrap();
        assert_eq!(content(&mut disk), b"one2", "nothing of the torn tail is left");
    }

    #[test]
    fn locked_while_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sign.journal");
        let mut disk = FileDisk::open(&path).unwrap();
        disk.replace(b"new").unwrap();
        assert_eq!(FileDisk::open(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(disk);
        assert_eq!(content(&mut FileDisk::open(&path).unwrap()), b"new");
    }

    #[test]
    fn grows_and_shrinks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sign.journal");
        let mut disk = FileDisk::open(&path).unwrap();
        let piece = vec![7u8; 1 << 20];
        for _ in 0..5 {
            disk.append(&piece).unwrap();
            disk.sync().unwrap();
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), 5 << 20);
        assert_eq!(content(&mut disk).len(), 5 << 20);
        disk.replace(b"short").unwrap();
        disk.append(b"er").unwrap();
        assert_eq!(content(&mut disk), b"shorter");
        assert_eq!(fs::metadata(&path).unwrap().len(), PREALLOCATED_BYTES);
        assert!(!beside(&path, ".next").exists());
    }

    #[test]
    fn a_crash_while_replacing_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sign.journal");
        let mut disk = FileDisk::open(&path).unwrap();
        disk.append(b"old").unwrap();
        disk.sync().unwrap();
        drop(disk);
        fs::write(beside(&path, ".next"), b"half of a new o").unwrap();
        let mut disk = FileDisk::open(&path).unwrap();
        assert_eq!(content(&mut disk), b"old");
        disk.truncate(3).unwrap();
        disk.replace(b"new").unwrap();
        assert_eq!(content(&mut disk), b"new");
    }
}
