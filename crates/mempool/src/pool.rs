//! Transactions from admission to their end.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use types::{Address, Amount, BatchId, Height, Nonce, Params, SignedTransaction, Tick, TxId};

use crate::config::Config;
use crate::error::SubmitError;
use crate::quota::Quotas;

/// Who brought a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A client of this node, or a batch of its own read back from storage.
    Local,
    /// A peer, by the shell's handle of its connection.
    Peer(u64),
}

/// Where a transaction of the pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In line, since then.
    Waiting { order: u64, since: Tick },
    /// In an own batch.
    Packed(BatchId),
    /// Given to validators when this height was executed.
    Forwarded(Height),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) tx: SignedTransaction,
    pub(crate) size: usize,
    pub(crate) sender: Address,
    fee: Amount,
    source: Source,
    pub(crate) place: Place,
}

/// The pool. Look-ups by id are the hot path and nothing iterates over that map.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    entries: HashMap<TxId, Entry>,
    waiting: BTreeMap<u64, TxId>,
    waiting_bytes: usize,
    by_expiry: BTreeSet<(Height, TxId)>,
    forwarded: BTreeSet<(Height, TxId)>,
    nonces: BTreeMap<(Address, Nonce), TxId>,
    fees: BTreeMap<Address, u64>,
    senders: Quotas<Address>,
    forwarders: Quotas<u64>,
    bytes: usize,
    order: u64,
}

impl Pool {
    pub(crate) fn new(config: &Config) -> Pool {
        Pool {
            entries: HashMap::new(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            by_expiry: BTreeSet::new(),
            forwarded: BTreeSet::new(),
            nonces: BTreeMap::new(),
            fees: BTreeMap::new(),
            senders: Quotas::new(config.sender_transactions_max),
            forwarders: Quotas::new(config.forwarder_transactions_max),
            bytes: 0,
            order: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    pub(crate) fn get(&self, id: &TxId) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Since when the first in line waits.
    pub(crate) fn waiting_since(&self) -> Option<Tick> {
        let (_, id) = self.waiting.first_key_value()?;
        match self.entries.get(id)?.place {
            Place::Waiting { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Ids in line, first come first.
    pub(crate) fn line(&self) -> impl Iterator<Item = TxId> + '_ {
        self.waiting.values().copied()
    }

    /// The bounds: pool, sender, forwarder, nonce, fees. `balance` is the sender's in the executed state.
    pub(crate) fn check_room(
        &self,
        tx: &SignedTransaction,
        id: &TxId,
        source: Source,
        balance: Amount,
        at: &RoomContext<'_>,
    ) -> Result<(), SubmitError> {
        let retry_after_ms = at.config.retry_after_ms;
        let sender = tx.transaction.sender.address();
        if self.entries.contains_key(id) {
            return Err(SubmitError::Duplicate(*id));
        }
        if let Some(other) = self.nonces.get(&(sender, tx.transaction.nonce)) {
            return Err(SubmitError::NonceTaken(*other));
        }
        if self.len() >= at.config.transactions_max || self.bytes + tx.size() > at.config.bytes_max {
            return Err(SubmitError::Full { retry_after_ms });
        }
        if !self.senders.has_room(&sender, at.height) {
            return Err(SubmitError::SenderFull { retry_after_ms });
        }
        if let Source::Peer(peer) = source
            && !self.forwarders.has_room(&peer, at.height)
        {
            return Err(SubmitError::ForwarderFull { retry_after_ms });
        }
        let fees = self.fees.get(&sender).copied().unwrap_or(0);
        if fees.saturating_add(tx.fee(at.params).0) > balance.0 {
            return Err(SubmitError::FeesInPool);
        }
        Ok(())
    }

    /// Adds a transaction; its id must be new. With a batch, it is in that one already.
    pub(crate) fn add(&mut self, tx: SignedTransaction, id: TxId, source: Source, params: &Params, place: NewPlace) {
        let (size, fee, sender) = (tx.size(), tx.fee(params), tx.transaction.sender.address());
        self.bytes += size;
        self.by_expiry.insert((tx.transaction.expiry, id));
        self.nonces.insert((sender, tx.transaction.nonce), id);
        let fees = self.fees.entry(sender).or_default();
        *fees = fees.saturating_add(fee.0);
        self.senders.take(sender);
        if let Source::Peer(peer) = source {
            self.forwarders.take(peer);
        }
        let place = match place {
            NewPlace::Line(since) => self.stand_in_line(id, size, since),
            NewPlace::Batch(batch) => Place::Packed(batch),
        };
        self.entries.insert(id, Entry { tx, size, sender, fee, source, place });
    }

    fn stand_in_line(&mut self, id: TxId, size: usize, since: Tick) -> Place {
        let order = self.order;
        self.order += 1;
        self.waiting.insert(order, id);
        self.waiting_bytes += size;
        Place::Waiting { order, since }
    }

    fn leave(&mut self, id: &TxId, size: usize, place: Place) {
        match place {
            Place::Waiting { order, .. } => {
                self.waiting.remove(&order);
                self.waiting_bytes -= size;
            }
            Place::Forwarded(height) => {
                self.forwarded.remove(&(height, *id));
            }
            Place::Packed(_) => {}
        }
    }

    /// Moves a transaction into an own batch.
    pub(crate) fn pack(&mut self, id: &TxId, batch: BatchId) {
        self.move_to(id, |_, _, _| Place::Packed(batch));
    }

    /// Marks a transaction as given to validators.
    pub(crate) fn forward(&mut self, id: &TxId, height: Height) {
        self.move_to(id, |pool, id, _| {
            pool.forwarded.insert((height, id));
            Place::Forwarded(height)
        });
    }

    /// Puts a transaction back in line.
    pub(crate) fn requeue(&mut self, id: &TxId, since: Tick) {
        self.move_to(id, |pool, id, size| pool.stand_in_line(id, size, since));
    }

    fn move_to(&mut self, id: &TxId, enter: impl FnOnce(&mut Pool, TxId, usize) -> Place) {
        let Some((size, place)) = self.entries.get(id).map(|entry| (entry.size, entry.place)) else { return };
        self.leave(id, size, place);
        let place = enter(self, *id, size);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.place = place;
        }
    }

    /// Takes a transaction out, whatever its place.
    pub(crate) fn remove(&mut self, id: &TxId) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        self.leave(id, entry.size, entry.place);
        self.bytes -= entry.size;
        self.by_expiry.remove(&(entry.tx.transaction.expiry, *id));
        self.nonces.remove(&(entry.sender, entry.tx.transaction.nonce));
        if let Some(fees) = self.fees.get_mut(&entry.sender) {
            *fees = fees.saturating_sub(entry.fee.0);
            if *fees == 0 {
                self.fees.remove(&entry.sender);
            }
        }
        self.senders.give_back(&entry.sender);
        if let Source::Peer(peer) = entry.source {
            self.forwarders.give_back(&peer);
        }
        Some(entry)
    }

    /// Notes that a transaction was skipped: its sender and forwarder get less room for a while.
    pub(crate) fn note_skip(&mut self, entry: &Entry, height: Height) {
        self.senders.note_skip(entry.sender, height);
        if let Source::Peer(peer) = entry.source {
            self.forwarders.note_skip(peer, height);
        }
    }

    /// The next transaction whose expiry is at or below a height.
    pub(crate) fn expired(&self, executed: Height) -> Option<TxId> {
        self.by_expiry.first().filter(|(expiry, _)| *expiry <= executed).map(|(_, id)| *id)
    }

    /// The next transaction forwarded at or below a height.
    pub(crate) fn forwarded_before(&self, height: Height) -> Option<TxId> {
        self.forwarded.first().filter(|(at, _)| *at <= height).map(|(_, id)| *id)
    }
}

/// Where a new transaction begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NewPlace {
    /// In line, since then.
    Line(Tick),
    /// In an own batch read back from storage.
    Batch(BatchId),
}

/// What room is measured by.
pub(crate) struct RoomContext<'a> {
    pub(crate) config: &'a Config,
    pub(crate) params: &'a Params,
    pub(crate) height: Height,
}
