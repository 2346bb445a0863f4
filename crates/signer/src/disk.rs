//! The port to the journal's disk.

use std::io;

/// An append-only journal. A real one is a file ([`crate::file::FileDisk`]), a simulated one loses what was not synced.
///
/// After an error nothing is assumed about what is on the disk: the signer is poisoned and the process must end.
pub trait Disk {
    /// All bytes that were appended and survived, from the start. What lies behind the last whole record is told apart by the
    /// signer, not by the disk: trailing bytes of any value may follow.
    ///
    /// # Errors
    /// The disk's.
    fn read_all(&mut self) -> io::Result<Vec<u8>>;

    /// The next append goes to this offset: what lies behind it is torn.
    ///
    /// # Errors
    /// The disk's.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// Adds bytes at the end. Not durable yet.
    ///
    /// # Errors
    /// The disk's.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes all that was appended durable.
    ///
    /// # Errors
    /// The disk's.
    fn sync(&mut self) -> io::Result<()>;

    /// Replaces the whole journal, durably and atomically: after a crash it is the old or the new one.
    ///
    /// # Errors
    /// The disk's.
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()>;
}
