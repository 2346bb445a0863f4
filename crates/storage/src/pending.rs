//! Batches that are stored and that no final block cites: what a restarted validator still holds for others.

use std::collections::{BTreeMap, BTreeSet};

use types::{BatchId, Height};

/// The set, by id and by expiry. Bounded by [`crate::Options::pending_batches_max`].
#[derive(Debug, Default)]
pub(crate) struct Pending {
    by_id: BTreeMap<BatchId, Height>,
    by_expiry: BTreeSet<(Height, BatchId)>,
}

impl Pending {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The expiry of a batch in it.
    pub(crate) fn expiry(&self, id: &BatchId) -> Option<Height> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn insert(&mut self, expiry: Height, id: BatchId) {
        self.by_id.insert(id, expiry);
        self.by_expiry.insert((expiry, id));
    }

    pub(crate) fn remove(&mut self, id: &BatchId) {
        if let Some(expiry) = self.by_id.remove(id) {
            self.by_expiry.remove(&(expiry, *id));
        }
    }

    /// In order of expiry, those first that no block above `tip` may cite.
    pub(crate) fn expired(&self, tip: Height) -> impl Iterator<Item = (Height, BatchId)> + '_ {
        self.by_expiry.iter().copied().take_while(move |(expiry, _)| *expiry <= tip)
    }

    /// All, in order of expiry.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Height, BatchId)> + '_ {
        self.by_expiry.iter().copied()
    }
}
