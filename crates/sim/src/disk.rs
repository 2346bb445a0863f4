//! The journal's disk: what was appended and not synced is lost in a power loss, but for some torn first part.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use crate::dice::Dice;

#[derive(Debug, Default)]
struct State {
    durable: Vec<u8>,
    tail: Vec<u8>,
    fail: bool,
}

/// A disk that outlives its node's processes; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Rc<RefCell<State>>);

impl Disk {
    /// The next sync fails, and nothing after it works: the power goes between append and sync.
    pub fn fail_next_sync(&self) {
        self.0.borrow_mut().fail = true;
    }

    /// Takes an armed failure back.
    pub fn work_again(&self) {
        self.0.borrow_mut().fail = false;
    }

    /// Power loss: of what was not synced, some first bytes survive.
    pub fn crash(&self, dice: &mut Dice) {
        let mut state = self.0.borrow_mut();
        let tail = std::mem::take(&mut state.tail);
        let keep = dice.below(tail.len() + 1);
        state.durable.extend_from_slice(&tail[..keep]);
        state.fail = false;
    }

    /// Bytes on the disk.
    pub fn len(&self) -> usize {
        self.0.borrow().durable.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl signer::Disk for Disk {
    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.0.borrow().durable.clone())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.tail.clear();
        state.durable.truncate(len as usize);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().tail.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        if state.fail {
            return Err(io::Error::other("power loss"));
        }
        let tail = std::mem::take(&mut state.tail);
        state.durable.extend_from_slice(&tail);
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        if state.fail {
            return Err(io::Error::other("power loss"));
        }
        state.tail.clear();
        state.durable = bytes.to_vec();
        Ok(())
    }
}
