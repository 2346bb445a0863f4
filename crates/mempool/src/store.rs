//! Batches that are held, and who announced what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use types::{Batch, BatchId, Height, PublicKey, Seat, ValidatorSet};

use crate::seats::Seats;

/// A batch that no final block cites yet.
#[derive(Clone, Debug)]
struct Open {
    batch: Arc<Batch>,
    order: u64,
    announcers: Seats,
}

/// What one author has open.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AuthorUse {
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

/// An id that was announced by somebody, without the batch.
#[derive(Clone, Copy, Debug)]
struct Unknown {
    announcers: Seats,
    since: Height,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    open: BTreeMap<BatchId, Open>,
    by_expiry: BTreeSet<(Height, BatchId)>,
    by_author: BTreeMap<PublicKey, AuthorUse>,
    /// Open and announced by a quorum, in order of arrival.
    available: BTreeMap<u64, BatchId>,
    /// Cited by a final block that is not executed.
    ordered: BTreeMap<BatchId, Arc<Batch>>,
    unknown: BTreeMap<BatchId, Unknown>,
    unknown_since: BTreeSet<(Height, BatchId)>,
    unknown_by_seat: BTreeMap<Seat, usize>,
    /// Unknown and announced by more than a third.
    missing: BTreeSet<BatchId>,
    /// Held and not announced yet.
    to_announce: BTreeMap<u64, BatchId>,
    order: u64,
}

/// Size of a batch in the accounting of memory.
pub(crate) fn weigh(batch: &Batch) -> usize {
    batch.header.bytes as usize + size_of::<Batch>()
}

impl Store {
    pub(crate) fn get(&self, id: &BatchId) -> Option<&Arc<Batch>> {
        self.open.get(id).map(|open| &open.batch).or_else(|| self.ordered.get(id))
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn open_bytes(&self) -> usize {
        self.by_author.values().map(|used| used.bytes).sum()
    }

    pub(crate) fn available_count(&self) -> usize {
        self.available.len()
    }

    pub(crate) fn ordered_count(&self) -> usize {
        self.ordered.len()
    }

    pub(crate) fn unknown_count(&self) -> usize {
        self.unknown.len()
    }

    pub(crate) fn used_by(&self, author: &PublicKey) -> AuthorUse {
        self.by_author.get(author).copied().unwrap_or_default()
    }

    /// Open batches, ascending by id.
    pub(crate) fn open(&self) -> impl Iterator<Item = (&BatchId, &Arc<Batch>)> {
        self.open.iter().map(|(id, open)| (id, &open.batch))
    }

    /// Open batches that a quorum announced, in order of arrival.
    pub(crate) fn available(&self) -> impl Iterator<Item = (&BatchId, &Arc<Batch>)> {
        self.available.values().filter_map(|id| Some((id, &self.open.get(id)?.batch)))
    }

    pub(crate) fn missing(&self) -> impl Iterator<Item = &BatchId> {
        self.missing.iter()
    }

    /// Who announced a batch.
    pub(crate) fn announcers(&self, id: &BatchId) -> Seats {
        let open = self.open.get(id).map(|open| open.announcers);
        open.or_else(|| self.unknown.get(id).map(|unknown| unknown.announcers)).unwrap_or_default()
    }

    /// Takes a batch whose bytes are durable; what was announced of it counts. False if it is held.
    pub(crate) fn hold(&mut self, batch: Arc<Batch>, mine: Option<Seat>, set: &ValidatorSet) -> bool {
        let id = batch.id();
        if self.get(&id).is_some() {
            return false;
        }
        let announcers = self.forget_unknown(&id).map_or_else(Seats::default, |unknown| unknown.announcers);
        let used = self.by_author.entry(batch.header.author).or_default();
        used.count += 1;
        used.bytes += weigh(&batch);
        self.by_expiry.insert((batch.header.expiry, id));
        self.open.insert(id, Open { batch, order: self.order, announcers });
        if let Some(seat) = mine {
            self.to_announce.insert(self.order, id);
            self.mark(&id, seat, set);
        }
        self.order += 1;
        self.refresh(&id, set);
        true
    }

    /// Takes a batch that a final block cites: straight into the line of execution.
    pub(crate) fn hold_ordered(&mut self, batch: Arc<Batch>) -> bool {
        let id = batch.id();
        self.forget_unknown(&id);
        self.ordered.insert(id, batch).is_none()
    }

    fn mark(&mut self, id: &BatchId, seat: Seat, set: &ValidatorSet) {
        if let Some(open) = self.open.get_mut(id)
            && open.announcers.insert(seat)
        {
            self.refresh(id, set);
        }
    }

    /// Puts an open batch among the available ones if a quorum announced it.
    fn refresh(&mut self, id: &BatchId, set: &ValidatorSet) {
        let Some(open) = self.open.get(id) else { return };
        if set.is_quorum(open.announcers.weight(set)) {
            self.available.insert(open.order, *id);
        } else {
            self.available.remove(&open.order);
        }
    }

    /// Notes an announcement; false if this seat has announced too many unknown batches.
    pub(crate) fn announce(&mut self, id: BatchId, seat: Seat, set: &ValidatorSet, now: Height, unknown_max: usize) -> bool {
        if self.open.contains_key(&id) {
            self.mark(&id, seat, set);
            return true;
        }
        if self.ordered.contains_key(&id) {
            return true;
        }
        let count = self.unknown_by_seat.get(&seat).copied().unwrap_or(0);
        let mut entry = self.unknown.get(&id).copied().unwrap_or(Unknown { announcers: Seats::default(), since: now });
        if !entry.announcers.insert(seat) {
            return true;
        }
        if count >= unknown_max {
            return false;
        }
        self.unknown_by_seat.insert(seat, count + 1);
        self.unknown_since.insert((entry.since, id));
        self.unknown.insert(id, entry);
        if set.is_blocking(entry.announcers.weight(set)) {
            self.missing.insert(id);
        }
        true
    }

    fn forget_unknown(&mut self, id: &BatchId) -> Option<Unknown> {
        let unknown = self.unknown.remove(id)?;
        self.unknown_since.remove(&(unknown.since, *id));
        self.missing.remove(id);
        for seat in unknown.announcers.iter() {
            if let Some(count) = self.unknown_by_seat.get_mut(&seat) {
                *count = count.saturating_sub(1);
            }
        }
        Some(unknown)
    }

    /// Forgets announcements made at or below a height.
    pub(crate) fn forget_unknown_before(&mut self, height: Height) {
        while let Some((since, id)) = self.unknown_since.first().copied()
            && since <= height
        {
            self.forget_unknown(&id);
        }
    }

    /// At most `max` batches to announce: held, open, not announced yet.
    pub(crate) fn take_announcements(&mut self, max: usize) -> Vec<BatchId> {
        let mut ids = Vec::new();
        while ids.len() < max
            && let Some((_, id)) = self.to_announce.pop_first()
        {
            ids.push(id);
        }
        ids
    }

    fn close(&mut self, id: &BatchId) -> Option<Arc<Batch>> {
        let open = self.open.remove(id)?;
        let author = open.batch.header.author;
        if let Some(used) = self.by_author.get_mut(&author) {
            used.count -= 1;
            used.bytes -= weigh(&open.batch);
            if used.count == 0 {
                assert_eq!(used.bytes, 0, "bytes of open batches are given back");
                self.by_author.remove(&author);
            }
        }
        self.by_expiry.remove(&(open.batch.header.expiry, *id));
        self.available.remove(&open.order);
        self.to_announce.remove(&open.order);
        Some(open.batch)
    }

    /// A final block cites it: in line for execution, if it is held.
    pub(crate) fn order(&mut self, id: &BatchId) {
        self.forget_unknown(id);
        if let Some(batch) = self.close(id) {
            self.ordered.insert(*id, batch);
        }
    }

    /// Its block was executed.
    pub(crate) fn forget_ordered(&mut self, id: &BatchId) {
        self.ordered.remove(id);
    }

    /// Takes out an open batch that no coming block may cite.
    pub(crate) fn take_expired(&mut self, final_height: Height) -> Option<Arc<Batch>> {
        let (expiry, id) = self.by_expiry.first().copied()?;
        if expiry > final_height { None } else { self.close(&id) }
    }

    /// Enters another validator set: announcers keep their keys, and what `keep` refuses is given back.
    pub(crate) fn change_set(&mut self, old: &ValidatorSet, new: &ValidatorSet, keep: impl Fn(&Batch) -> bool) -> Vec<Arc<Batch>> {
        let gone: Vec<BatchId> = self.open().filter(|(_, batch)| !keep(batch)).map(|(id, _)| *id).collect();
        let gone = gone.iter().filter_map(|id| self.close(id)).collect();
        let ids: Vec<BatchId> = self.open.keys().copied().collect();
        for id in ids {
            if let Some(open) = self.open.get_mut(&id) {
                open.announcers = open.announcers.moved(old, new);
            }
            self.refresh(&id, new);
        }
        self.unknown_by_seat.clear();
        self.missing.clear();
        for (id, unknown) in &mut self.unknown {
            unknown.announcers = unknown.announcers.moved(old, new);
            unknown.announcers.iter().for_each(|seat| *self.unknown_by_seat.entry(seat).or_default() += 1);
            if new.is_blocking(unknown.announcers.weight(new)) {
                self.missing.insert(*id);
            }
        }
        gone
    }
}
