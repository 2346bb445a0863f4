//! What recent blocks overwrote, so that a state a few heights back can still be proved.
//!
//! A light client trusts the state root in a *final header*, which is that of a height some blocks behind the one executed
//! last: without this, no proof would ever fit a header.

use std::collections::{BTreeMap, VecDeque};

use types::{Hash, Height};

use crate::state::Before;

/// Heights before the last one that can be proved, unless [`HISTORY_LEAVES_MAX`] cuts it shorter.
pub const HISTORY_HEIGHTS: usize = 128;

/// Most overwritten leaves that are kept, about 64 bytes each; the oldest heights go first, the last one always stays.
pub const HISTORY_LEAVES_MAX: usize = 1 << 20;

/// What one block overwrote: with it, the state after the height before it.
#[derive(Clone, Debug)]
struct Overwritten {
    /// The height *before* the block.
    height: Height,
    /// The state root then.
    root: Hash,
    /// Leaves then.
    count: u32,
    /// Leaves as they were then, ascending by index; leaves that the block made are not among them.
    before: Vec<Before>,
}

/// A ring of recent heights.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    ring: VecDeque<Overwritten>,
    leaves: usize,
}

impl History {
    /// Adds what the block after `height` overwrote. Heights are added in order.
    pub(crate) fn push(&mut self, height: Height, root: Hash, count: u32, before: Vec<Before>) {
        self.leaves += before.len();
        self.ring.push_back(Overwritten { height, root, count, before });
        while self.ring.len() > HISTORY_HEIGHTS || (self.leaves > HISTORY_LEAVES_MAX && self.ring.len() > 1) {
            self.leaves -= self.ring.pop_front().map_or(0, |entry| entry.before.len());
        }
    }

    fn position(&self, height: Height) -> Option<usize> {
        let place = self.ring.binary_search_by_key(&height, |entry| entry.height).ok()?;
        Some(place)
    }

    /// The state root after a past height.
    pub(crate) fn root(&self, height: Height) -> Option<Hash> {
        self.position(height).map(|place| self.ring[place].root)
    }

    /// Leaf count after a past height, and all leaves that were different then. Of the leaves, the first overwriting wins.
    pub(crate) fn differences(&self, height: Height) -> Option<(u32, BTreeMap<u32, Before>)> {
        let place = self.position(height)?;
        let count = self.ring[place].count;
        let mut old = BTreeMap::new();
        for entry in self.ring.range(place..) {
            for before in entry.before.iter().filter(|before| before.index < count) {
                old.entry(before.index).or_insert(*before);
            }
        }
        Some((count, old))
    }

    /// The lowest height that can be proved from here.
    pub(crate) fn oldest(&self) -> Option<Height> {
        self.ring.front().map(|entry| entry.height)
    }
}
