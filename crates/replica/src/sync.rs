//! Final blocks from peers, for those who come late or lost touch.
//!
//! One peer is asked at a time, from the tip on; what it sends is kept apart until a finality certificate vouches for it.

use std::sync::Arc;

use types::{Block, BlockHash, Certificate, Epoch, Height, Kind, Message, Offence, SYNC_BLOCKS_MAX, SyncBlocks, Tick, View};

use crate::effect::{Event, Load};
use crate::input::Peer;
use crate::peers::{Ask, PeerState};
use crate::replica::{Pending, Replica};

/// Requests without a useful answer after which a peer's claim to be ahead is forgotten.
const MISSES_MAX: u32 = 8;

/// The sync's state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sync {
    /// Who was asked, and until when the answer is awaited.
    asked: Option<(Peer, Tick)>,
    /// Blocks of that peer above the tip, linked to it, that no certificate vouches for yet.
    buffer: Vec<Arc<Block>>,
    /// Whose they are.
    source: Option<Peer>,
    /// A verified finality certificate of a buffered block. The highest certificate that is known may be thousands of heights
    /// further on: who comes late becomes final step by step, with what vouches for each part.
    vouched: Option<Certificate>,
    turn: usize,
}

impl Sync {
    /// A buffered block.
    pub(crate) fn block(&self, hash: &BlockHash) -> Option<&Arc<Block>> {
        // Few, and asked for only while something is missing.
        self.buffer.iter().find(|block| block.hash() == *hash)
    }

    /// The tip moved: forgets what is below it.
    pub(crate) fn advance(&mut self, tip: Height) {
        self.buffer.retain(|block| block.header.height > tip);
    }

    /// The certificate that vouches for buffered blocks, once.
    pub(crate) fn take_vouched(&mut self) -> Option<Certificate> {
        self.vouched.take()
    }

    pub(crate) fn due(&self) -> Option<Tick> {
        self.asked.map(|(_, until)| until)
    }

    fn drop_source(&mut self) {
        self.buffer.clear();
        self.vouched = None;
        self.source = None;
    }
}

impl<D: signer::Disk> Replica<D> {
    /// Whether final blocks above the tip are known to exist and can't be linked from here.
    fn behind(&self) -> bool {
        self.finality_missing().is_some() || self.peers.iter().any(|(_, state)| self.is_ahead(state))
    }

    /// Whether a peer claimed, or showed by a certificate of a later epoch, to be further.
    fn is_ahead(&self, state: &PeerState) -> bool {
        state.height > self.tip.height || state.shown > (self.epoch.record.epoch, self.final_view())
    }

    /// Asks the next peer if there is something to ask for and nobody's answer is awaited.
    pub(crate) fn sync_step(&mut self, now: Tick) {
        if let Some((peer, until)) = self.sync.asked {
            let gone = self.peers.get(peer).is_none();
            if !gone && until > now {
                return;
            }
            self.sync.asked = None;
            self.sync_missed(peer);
        }
        let ahead = self.tip.height.since(self.ledger.height());
        if !self.behind() || ahead >= self.config.sync_blocks_max as u64 {
            return;
        }
        let Some(peer) = self.sync_candidate() else { return };
        if self.sync.source != Some(peer) {
            self.sync.drop_source();
        }
        let from = self.sync.buffer.last().map_or(self.tip.height, |block| block.header.height).next();
        self.sync.source = Some(peer);
        self.sync.asked = Some((peer, now.plus_ms(self.config.resend_ms)));
        self.event(Event::Syncing { from: self.tip.height, to: self.peers.highest().max(from) });
        self.send(peer, Message::Sync(from));
    }

    /// The peer asked last while it delivers, else the next of those that claim to be ahead, else, for a certificate whose
    /// block is missing, any.
    fn sync_candidate(&mut self) -> Option<Peer> {
        if let Some(peer) = self.sync.source
            && self.peers.get(peer).is_some_and(|state| state.misses == 0 && self.is_ahead(state))
        {
            return Some(peer);
        }
        let mut candidates: Vec<Peer> = self.peers.iter().filter(|(_, state)| self.is_ahead(state)).map(|(peer, _)| peer).collect();
        if candidates.is_empty() {
            candidates = self.peers.iter().map(|(peer, _)| peer).collect();
        }
        self.sync.turn = self.sync.turn.wrapping_add(1);
        candidates.get(self.sync.turn % candidates.len().max(1)).copied()
    }

    /// A request brought nothing: after some, the peer's claim is forgotten.
    fn sync_missed(&mut self, peer: Peer) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        state.misses += 1;
        if state.misses >= MISSES_MAX {
            (state.height, state.shown, state.misses) = (Height(0), (Epoch(0), View(0)), 0);
            if self.sync.source == Some(peer) {
                self.sync.drop_source();
            }
        }
    }

    /// An answer: blocks that link to the tip and follow each other, and maybe a certificate that makes them final.
    pub(crate) fn sync_received(&mut self, peer: Peer, answer: SyncBlocks, now: Tick) {
        if self.sync.asked.is_none_or(|(asked, _)| asked != peer) {
            return;
        }
        self.sync.asked = None;
        let count = self.sync.buffer.len();
        for block in answer.blocks {
            if block.header.height <= self.tip.height {
                continue;
            }
            let (parent, height) = match self.sync.buffer.last() {
                Some(last) => (last.hash(), last.header.height),
                None => (self.tip.hash, self.tip.height),
            };
            if block.header.height <= height {
                continue;
            }
            if block.header.height > height.next() {
                // Answers an earlier question, whose blocks before these were given up meanwhile.
                return self.sync_missed(peer);
            }
            let fits = block.header.parent == parent
                && block.header.epoch == self.epoch.record.epoch
                && self.epoch.record.contains(block.header.height)
                && block.body_matches();
            if !fits {
                // Above the tip itself everybody's final blocks fit; above the buffer only the same peer's.
                self.sync.drop_source();
                return self.offence(peer, Offence::InvalidBlock, "synced blocks do not follow the final tip");
            }
            self.sync.buffer.push(Arc::new(block));
        }
        let grew = self.sync.buffer.len() > count;
        if let Some(certificate) = answer.certificate {
            return self.sync_certificate(peer, certificate, now);
        }
        if self.sync.buffer.len() > self.config.sync_blocks_max {
            // So many that nothing vouches for: another peer may have a certificate among them.
            self.sync.drop_source();
        }
        if !grew || self.sync.source.is_none() {
            self.sync_missed(peer);
        }
    }

    /// A finality certificate of a synced block: the last, or one that a late answer is about.
    fn sync_certificate(&mut self, peer: Peer, certificate: Certificate, now: Tick) {
        let statement = certificate.statement;
        if statement.chain != self.chain || statement.kind != Kind::Finalize {
            self.sync.drop_source();
            return self.offence(peer, Offence::Malformed, "synced certificate is none of finality");
        }
        let height = self.sync.block(&statement.digest).map(|block| block.header.height);
        let Some(height) = height.filter(|_| statement.epoch == self.epoch.record.epoch) else {
            // The tip went past it meanwhile, or it answers an earlier question.
            return self.sync_missed(peer);
        };
        if self.verifier.certificate(&certificate, &self.epoch.set).is_err() {
            self.sync.drop_source();
            return self.offence(peer, Offence::BadSignature, "synced certificate does not verify");
        }
        if let Some(state) = self.peers.get_mut(peer) {
            state.misses = 0;
            state.height = state.height.max(height);
        }
        self.sync.vouched = Some(certificate.clone());
        self.finality_learnt(certificate.clone());
        self.tell(consensus::Input::Certificate(certificate), now);
    }

    /// A peer asks for final blocks: from storage, unless there are none.
    pub(crate) fn sync_asked(&mut self, peer: Peer, from: Height, now: Tick) {
        if let Some(state) = self.peers.get_mut(peer) {
            // Who asks from here on has what is below.
            state.height = state.height.max(from.prev());
        }
        if from == Height(0) || from > self.tip.height || !self.may_ask(peer, Ask::Sync, now) {
            return;
        }
        self.load(Pending::BlocksFor(peer), Load::FinalBlocks { from, max: SYNC_BLOCKS_MAX });
    }

    /// Storage found final blocks that a peer asked for.
    pub(crate) fn sync_loaded(&mut self, peer: Peer, blocks: Vec<Arc<Block>>, certificate: Option<Certificate>) {
        let Some(last) = blocks.last() else { return };
        let ends_epoch =
            self.epoch.record.epoch.since(last.header.epoch) == 1 && last.header.height.next() == self.epoch.record.first_height;
        let next_record = ends_epoch.then(|| self.epoch.next.clone());
        let blocks = blocks.into_iter().map(Arc::unwrap_or_clone).collect();
        self.send(peer, Message::SyncBlocks(Box::new(SyncBlocks { blocks, certificate, next_record })));
    }
}
