//! A disk in memory that forgets what was not synced, and fails on command.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use signer::Disk;

#[derive(Default)]
pub struct Platter {
    pub durable: Vec<u8>,
    pub written: Vec<u8>,
    pub syncs: usize,
    pub replaced: usize,
    /// The operation with this number (from 1) and all later ones fail.
    pub fail_from: Option<usize>,
    pub operations: usize,
}

/// Clones share the platter, so it outlives a signer.
#[derive(Clone, Default)]
pub struct Memory(pub Rc<RefCell<Platter>>);

impl Memory {
    /// Power is lost: only what was synced is left, and `torn` bytes of what was not.
    pub fn lose_power(&self, torn: usize) {
        let mut platter = self.0.borrow_mut();
        let kept = (platter.durable.len() + torn).min(platter.written.len());
        let mut written = platter.durable.clone();
        if kept > written.len() {
            written.extend_from_slice(&platter.written[written.len()..kept]);
        }
        platter.written = written;
    }

    fn operate(&self) -> io::Result<std::cell::RefMut<'_, Platter>> {
        let mut platter = self.0.borrow_mut();
        platter.operations += 1;
        if platter.fail_from.is_some_and(|from| platter.operations >= from) {
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(platter)
    }
}

impl Disk for Memory {
    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.operate()?.written.clone())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut platter = self.operate()?;
        platter.written.truncate(len as usize);
        platter.durable = platter.written.clone();
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.operate()?.written.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut platter = self.operate()?;
        platter.durable = platter.written.clone();
        platter.syncs += 1;
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut platter = self.operate()?;
        platter.written = bytes.to_vec();
        platter.durable = bytes.to_vec();
        platter.replaced += 1;
        Ok(())
    }
}
