//! A state store in memory: what storage must do with changes.

use std::collections::BTreeMap;
use std::convert::Infallible;

use ledger::{Change, StateStore, StoredLeaf};
use types::{Height, StateKey};

#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    pub height: Height,
    pub leaves: BTreeMap<u64, (StateKey, Vec<u8>)>,
}

impl MemoryStore {
    pub fn put(&mut self, height: Height, changes: &[Change]) {
        self.height = height;
        self.leaves.extend(changes.iter().map(|change| (change.index, (change.key, change.value.to_bytes()))));
    }
}

impl StateStore for MemoryStore {
    type Error = Infallible;

    fn state_height(&self) -> Result<Height, Infallible> {
        Ok(self.height)
    }

    fn visit_state(&self, visit: &mut dyn FnMut(StoredLeaf)) -> Result<(), Infallible> {
        for (index, (key, value)) in &self.leaves {
            visit(StoredLeaf { index: *index, key: *key, value: value.clone() });
        }
        Ok(())
    }
}
