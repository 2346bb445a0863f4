//! What is missing, whom it was asked of, and when to ask again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use types::{BatchId, BlockHash, IDS_MAX, Message, PublicKey, Tick};

use crate::input::Peer;
use crate::replica::Replica;

/// How often the pause between two tries doubles: once for each round of all candidates, up to the idle interval.
const DOUBLINGS_MAX: usize = 16;

/// Batches that are remembered to be of no use: a node that was behind announces what the others are past.
const USELESS_MAX: usize = 256;

/// One missing thing.
#[derive(Clone, Copy, Debug, Default)]
struct Fetch {
    /// Not asked again before.
    next: Tick,
    /// How often it was asked for: each time of the next candidate.
    tries: usize,
}

/// Missing batches and blocks. Bounded by what wants them: open judgements, final blocks in line, announcements.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fetches {
    batches: BTreeMap<BatchId, Fetch>,
    blocks: BTreeMap<BlockHash, Fetch>,
    /// Announced batches that came and were of no use, oldest first.
    useless: VecDeque<BatchId>,
    /// When the next of them is due.
    due: Option<Tick>,
}

impl Fetches {
    /// Whether a batch was asked for: only such ones are taken from others than their author.
    pub(crate) fn is_asked(&self, id: &BatchId) -> bool {
        self.batches.contains_key(id)
    }

    /// A batch came and can't be cited any more: its announcement is no reason to ask again.
    pub(crate) fn useless(&mut self, id: BatchId) {
        if self.batches.remove(&id).is_some() {
            self.useless.push_back(id);
            if self.useless.len() > USELESS_MAX {
                self.useless.pop_front();
            }
        }
    }

    pub(crate) fn is_useless(&self, id: &BatchId) -> bool {
        self.useless.contains(id)
    }

    /// Whether a block was asked for.
    pub(crate) fn is_asked_block(&self, hash: &BlockHash) -> bool {
        self.blocks.contains_key(hash)
    }

    /// Somebody new is there to be asked: pauses that grew long end.
    pub(crate) fn ask_soon(&mut self, now: Tick) {
        for fetch in self.batches.values_mut().chain(self.blocks.values_mut()) {
            *fetch = Fetch { next: now, tries: 0 };
        }
    }

    pub(crate) fn due(&self) -> Option<Tick> {
        self.due
    }
}

/// Something missing, with those who should have it, best first.
pub(crate) struct Want<T> {
    pub(crate) what: T,
    pub(crate) holders: Vec<PublicKey>,
}

impl<D: signer::Disk> Replica<D> {
    /// Asks for what is missing and due: each thing of one peer at a time, another one each interval.
    pub(crate) fn fetch_step(&mut self, now: Tick) {
        let batches = self.wanted_batches();
        let blocks = self.wanted_blocks();
        let mut fetches = std::mem::take(&mut self.fetches);
        let wanted: BTreeSet<BatchId> = batches.iter().map(|want| want.what).collect();
        fetches.batches.retain(|id, _| wanted.contains(id));
        let wanted: BTreeSet<BlockHash> = blocks.iter().map(|want| want.what).collect();
        fetches.blocks.retain(|hash, _| wanted.contains(hash));
        let mut by_peer: BTreeMap<Peer, Vec<BatchId>> = BTreeMap::new();
        for want in batches {
            let fetch = fetches.batches.entry(want.what).or_default();
            if let Some(peer) = self.ask(fetch, &want.holders, now) {
                by_peer.entry(peer).or_default().push(want.what);
            }
        }
        for (peer, ids) in by_peer {
            for ids in ids.chunks(IDS_MAX) {
                self.send(peer, Message::FetchBatches(ids.to_vec()));
            }
        }
        for want in blocks {
            let fetch = fetches.blocks.entry(want.what).or_default();
            if let Some(peer) = self.ask(fetch, &want.holders, now) {
                self.send(peer, Message::FetchBlock(want.what));
            }
        }
        let all = fetches.batches.values().chain(fetches.blocks.values());
        fetches.due = all.map(|fetch| fetch.next).min();
        self.fetches = fetches;
    }

    /// Whom to ask now, if it is due: the holders in turn, then everybody else in turn.
    fn ask(&self, fetch: &mut Fetch, holders: &[PublicKey], now: Tick) -> Option<Peer> {
        if fetch.next > now {
            return None;
        }
        let mut candidates: Vec<Peer> = Vec::new();
        for key in holders.iter().filter(|key| Some(**key) != self.me) {
            candidates.extend(self.peers.of_validator(key));
        }
        if fetch.tries >= candidates.len() {
            candidates.extend(self.peers.iter().map(|(peer, _)| peer));
        }
        let pause = self.config.resend_ms << (fetch.tries / candidates.len().max(1)).min(DOUBLINGS_MAX);
        fetch.next = now.plus_ms(pause.min(self.config.consensus.idle_interval_ms));
        let peer = *candidates.get(fetch.tries % candidates.len().max(1))?;
        fetch.tries += 1;
        Some(peer)
    }
}
