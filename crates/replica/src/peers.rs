//! Who is connected, and how much each may ask.

use std::collections::BTreeMap;

use types::{Epoch, Height, PublicKey, Tick, ValidatorSet, View};

use crate::input::Peer;
use crate::repeats::Repeats;

/// Most peers that may stand for one validator key at once.
pub(crate) const PEERS_PER_KEY_MAX: usize = 2;

/// Answers of one kind that a peer may get at once; one more each interval.
const ANSWER_BURST: u64 = 4;

/// What a peer may ask for: each kind has a budget of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Own status, for an older one.
    Status,
    /// A signed proposal.
    Proposal,
    /// A block.
    Block,
    /// Batches.
    Batches,
    /// Final blocks.
    Sync,
    /// The finality certificate of an older epoch.
    OldEpoch,
}

const ASKS: usize = 6;

impl Ask {
    /// Whether a peer asks on purpose. The others are our answers to what a peer that is late says by itself.
    pub(crate) const fn is_question(self) -> bool {
        !matches!(self, Ask::Status | Ask::OldEpoch)
    }
}

/// A connected peer.
#[derive(Clone, Debug)]
pub(crate) struct PeerState {
    /// The validator key that it proved.
    pub(crate) validator: Option<PublicKey>,
    /// Its final height as far as it is known: claimed, or shown.
    pub(crate) height: Height,
    /// The highest view of a later epoch that it showed a finality certificate of, not verified: the set is not known yet.
    pub(crate) shown: (Epoch, View),
    /// Syncs that it was asked for since it last delivered.
    pub(crate) misses: u32,
    /// What it brings and asks again and again.
    pub(crate) repeats: Repeats,
    /// Earliest time at which a budget is full again, for each kind.
    spent_until: [Tick; ASKS],
}

/// All peers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    all: BTreeMap<Peer, PeerState>,
}

impl Peers {
    /// Takes in a peer; false if there is no room, or its key has its peers already.
    pub(crate) fn connect(&mut self, peer: Peer, validator: Option<PublicKey>, max: usize) -> bool {
        if self.all.len() >= max || self.all.contains_key(&peer) {
            return false;
        }
        if let Some(key) = validator
            && self.of_validator(&key).count() >= PEERS_PER_KEY_MAX
        {
            return false;
        }
        let state = PeerState {
            validator,
            height: Height(0),
            shown: (Epoch(0), View(0)),
            misses: 0,
            repeats: Repeats::default(),
            spent_until: [Tick(0); ASKS],
        };
        self.all.insert(peer, state);
        true
    }

    pub(crate) fn disconnect(&mut self, peer: Peer) -> bool {
        self.all.remove(&peer).is_some()
    }

    pub(crate) fn get(&self, peer: Peer) -> Option<&PeerState> {
        self.all.get(&peer)
    }

    pub(crate) fn get_mut(&mut self, peer: Peer) -> Option<&mut PeerState> {
        self.all.get_mut(&peer)
    }

    /// Ascending by handle.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Peer, &PeerState)> {
        self.all.iter().map(|(peer, state)| (*peer, state))
    }

    pub(crate) fn of_validator(&self, key: &PublicKey) -> impl Iterator<Item = Peer> + '_ {
        let key = *key;
        self.all.iter().filter(move |(_, state)| state.validator == Some(key)).map(|(peer, _)| *peer)
    }

    /// Peers that stand for a validator of the set.
    pub(crate) fn validators<'a>(&'a self, set: &'a ValidatorSet) -> impl Iterator<Item = Peer> + 'a {
        let seated = |key: &PublicKey| set.seat(key).is_some();
        self.all.iter().filter(move |(_, state)| state.validator.as_ref().is_some_and(seated)).map(|(peer, _)| *peer)
    }

    /// Whether a peer's question is answered now: a burst of [`ANSWER_BURST`], then one each `interval_ms`.
    pub(crate) fn may_ask(&mut self, peer: Peer, ask: Ask, now: Tick, interval_ms: u64) -> bool {
        let Some(state) = self.all.get_mut(&peer) else { return false };
        let Some(until) = state.spent_until.get_mut(ask as usize) else { return false };
        let interval = interval_ms.saturating_mul(1_000);
        if until.since(now) > interval.saturating_mul(ANSWER_BURST - 1) {
            return false;
        }
        *until = (*until).max(now).plus(interval);
        true
    }

    /// The highest final height that a peer claims.
    pub(crate) fn highest(&self) -> Height {
        self.all.values().map(|state| state.height).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_refill() {
        let mut peers = Peers::default();
        let peer = Peer(1);
        assert!(peers.connect(peer, None, 4));
        let asked = |peers: &mut Peers, now| (0..20).filter(|_| peers.may_ask(peer, Ask::Sync, Tick(now), 1)).count();
        assert_eq!(asked(&mut peers, 10_000), 4);
        assert_eq!(asked(&mut peers, 10_000), 0);
        assert_eq!(asked(&mut peers, 11_000), 1);
        assert_eq!(asked(&mut peers, 99_000), 4);
        assert!(peers.may_ask(peer, Ask::Block, Tick(10_000), 1), "each kind has its own");
        assert!(!peers.may_ask(Peer(9), Ask::Block, Tick(10_000), 1));
    }

    #[test]
    fn seats_are_bounded() {
        let mut peers = Peers::default();
        let key = PublicKey([1; 32]);
        assert!(peers.connect(Peer(1), Some(key), 3) && peers.connect(Peer(2), Some(key), 3));
        assert!(!peers.connect(Peer(3), Some(key), 3), "a third peer of one key");
        assert!(peers.connect(Peer(4), None, 3) && !peers.connect(Peer(5), None, 3));
        assert!(peers.disconnect(Peer(4)) && !peers.disconnect(Peer(4)));
    }
}
