//! The leaves by index, and their ring by key.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::error::{LedgerError, RestoreError};
use types::{Account, Amount, StateKey, StateLeaf, StateValue, Supply};

/// Most leaves of a state: an index is a u32, its largest value is kept free.
pub const LEAVES_MAX: u32 = u32::MAX - 1;

/// A leaf as it stands after a block, for storage: put it under its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place: order of creation, from 0, dense.
    pub index: u64,
    /// What it is about; a leaf's key never changes.
    pub key: StateKey,
    /// What it holds now.
    pub value: StateValue,
    /// The next larger key now.
    pub next: StateKey,
}

/// A leaf in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) key: StateKey,
    /// Index of the leaf with the next larger key.
    pub(crate) next: u32,
    /// Whether this block touched it already.
    pub(crate) dirty: bool,
    pub(crate) value: StateValue,
}

/// What a leaf was before this block first touched it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    pub(crate) index: u32,
    pub(crate) next: u32,
    pub(crate) value: StateValue,
}

/// Everything that execution may read or write.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    slots: Vec<Slot>,
    by_key: BTreeMap<StateKey, u32>,
    before: Vec<Before>,
    /// Leaves when the block began.
    count_before: u32,
}

impl State {
    /// A whole state from its leaves in order of creation: one sort instead of a search for each leaf.
    pub(crate) fn from_leaves<E: std::error::Error>(leaves: Vec<(StateKey, StateValue)>) -> Result<State, RestoreError<E>> {
        if leaves.len() > LEAVES_MAX as usize {
            return Err(RestoreError::Ledger(LedgerError::Full));
        }
        let mut ring: Vec<(StateKey, u32)> = leaves.iter().enumerate().map(|(i, (key, _))| (*key, i as u32)).collect();
        ring.sort_unstable();
        if let Some(pair) = ring.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(RestoreError::Repeated(pair[0].0));
        }
        let mut slots: Vec<Slot> = leaves.into_iter().map(|(key, value)| Slot { key, next: 0, dirty: false, value }).collect();
        for (place, (_, index)) in ring.iter().enumerate() {
            slots[*index as usize].next = ring[(place + 1) % ring.len()].1;
        }
        let by_key = ring.into_iter().collect();
        Ok(State { slots, by_key, before: Vec::new(), count_before: 0 })
    }

    pub(crate) fn count(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(crate) fn slot(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }

    pub(crate) fn find(&self, key: &StateKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn get(&self, key: &StateKey) -> Option<&StateValue> {
        self.find(key).map(|index| &self.slot(index).value)
    }

    /// Index of the leaf with the largest key below `key` among the first `count` leaves; past the smallest, of the largest.
    pub(crate) fn predecessor(&self, key: &StateKey, count: u32) -> Option<u32> {
        let below = self.by_key.range((Bound::Unbounded, Bound::Excluded(key))).rev();
        let wrapped = self.by_key.iter().rev();
        below.chain(wrapped).map(|(_, index)| *index).find(|index| *index < count)
    }

    /// Keys and values of one kind, ascending by key.
    pub(crate) fn of_kind(&self, kind: types::LeafKind) -> impl Iterator<Item = (&StateKey, &StateValue)> {
        let first = StateKey { kind, key: types::Hash::ZERO };
        self.by_key.range(first..).take_while(move |(key, _)| key.kind == kind).map(|(key, index)| (key, &self.slot(*index).value))
    }

    /// The leaf with given link and value, as it is hashed.
    pub(crate) fn leaf(&self, index: u32, next: u32, value: &StateValue) -> StateLeaf {
        StateLeaf { key: self.slot(index).key, next: self.slot(next).key, value: value.hash() }
    }

    fn touch(&mut self, index: u32) -> &mut Slot {
        let slot = &mut self.slots[index as usize];
        if !slot.dirty {
            slot.dirty = true;
            self.before.push(Before { index, next: slot.next, value: slot.value });
        }
        slot
    }

    /// Overwrites the value of a leaf.
    pub(crate) fn set(&mut self, index: u32, value: StateValue) {
        self.touch(index).value = value;
    }

    /// Appends a leaf under a new key and links it into the ring.
    ///
    /// Returns its index, `None` when the state is full. The key must be new.
    pub(crate) fn append(&mut self, key: StateKey, value: StateValue) -> Option<u32> {
        let index = self.count();
        if index >= LEAVES_MAX {
            return None;
        }
        debug_assert!(!self.by_key.contains_key(&key));
        let next = match self.predecessor(&key, index) {
            Some(previous) => std::mem::replace(&mut self.touch(previous).next, index),
            None => index,
        };
        // A new leaf has nothing to restore: taking it back is truncation.
        self.slots.push(Slot { key, next, dirty: true, value });
        self.by_key.insert(key, index);
        Some(index)
    }

    /// Account under an index; `None` if the leaf is of another kind.
    pub(crate) fn account(&self, index: u32) -> Option<Account> {
        match self.slot(index).value {
            StateValue::Account(account) => Some(account),
            _ => None,
        }
    }

    pub(crate) fn supply(&self) -> Option<(u32, Supply)> {
        let index = self.find(&StateKey::supply())?;
        match self.slot(index).value {
            StateValue::Supply(supply) => Some((index, supply)),
            _ => None,
        }
    }

    /// Sum of balances and stakes of all leaves. Cost: all leaves.
    pub(crate) fn held(&self) -> u128 {
        self.slots.iter().map(|slot| money(&slot.value)).sum()
    }

    /// How money in the touched leaves changed since the block began: (was, is).
    pub(crate) fn money_moved(&self) -> (u128, u128) {
        let was = self.before.iter().map(|before| money(&before.value)).sum();
        let touched = self.before.iter().map(|before| self.slot(before.index));
        let is = touched.chain(&self.slots[self.count_before as usize..]).map(|slot| money(&slot.value)).sum();
        (was, is)
    }

    /// Indexes that this block touched or made, ascending.
    pub(crate) fn touched(&self) -> Vec<u32> {
        let mut touched: Vec<u32> = self.before.iter().map(|before| before.index).collect();
        touched.sort_unstable();
        touched.extend(self.count_before..self.count());
        touched
    }

    /// Ends the block: what was overwritten, and the leaf count before it.
    pub(crate) fn commit(&mut self) -> (u32, Vec<Before>) {
        let mut before = std::mem::take(&mut self.before);
        before.sort_unstable_by_key(|before| before.index);
        for entry in &before {
            self.slots[entry.index as usize].dirty = false;
        }
        for slot in &mut self.slots[self.count_before as usize..] {
            slot.dirty = false;
        }
        let now = self.count();
        let count = std::mem::replace(&mut self.count_before, now);
        (count, before)
    }

    /// Takes the block back.
    pub(crate) fn revert(&mut self) {
        for entry in std::mem::take(&mut self.before) {
            let slot = &mut self.slots[entry.index as usize];
            (slot.next, slot.value, slot.dirty) = (entry.next, entry.value, false);
        }
        for slot in self.slots.drain(self.count_before as usize..) {
            self.by_key.remove(&slot.key);
        }
    }

    /// The leaf for storage.
    pub(crate) fn change(&self, index: u32) -> Change {
        let slot = self.slot(index);
        Change { index: u64::from(index), key: slot.key, value: slot.value, next: self.slot(slot.next).key }
    }
}

/// The money in a value.
fn money(value: &StateValue) -> u128 {
    match value {
        StateValue::Account(account) => u128::from(account.balance.0),
        StateValue::Validator(validator) => u128::from(validator.stake.0),
        StateValue::Epoch(_) | StateValue::Supply(_) => 0,
    }
}

/// What the supply says exists, less what it says was burned.
pub(crate) fn expected(supply: &Supply) -> (u128, u128) {
    let Supply { genesis: Amount(genesis), minted: Amount(minted), burned: Amount(burned) } = *supply;
    (u128::from(genesis) + u128::from(minted), u128::from(burned))
}
