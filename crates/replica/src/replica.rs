//! The replica as one value: its parts, and the order in which an input goes through them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use consensus::Engine;
use ledger::Ledger;
use mempool::{Mempool, Tip};
use signer::Signer;
use types::{
    BlockHash, Certificate, ChainId, Epoch, EpochRecord, Height, Message, Offence, PublicKey, Tick, UnixMs, ValidatorSet, View,
};

use crate::claims::Claims;
use crate::config::Config;
use crate::data::{Storing, Submission};
use crate::effect::{Effect, Event, FinalBlock, Load, StoreOp};
use crate::fetch::Fetches;
use crate::finality::Goal;
use crate::input::{Input, Loaded, Peer, Token};
use crate::judging::Judging;
use crate::peers::{Ask, Peers};
use crate::recent::Recent;
use crate::sync::Sync;
use crate::verify::Verifier;

/// What a token waits for.
#[derive(Clone, Debug)]
pub(crate) enum Pending {
    /// An operation whose end changes nothing.
    Nothing,
    /// Verdicts on submitted transactions.
    Submission(Submission),
    /// Verdicts on a batch.
    Batch(Peer, Arc<types::Batch>),
    /// A sync of batches.
    Batches(Vec<Arc<types::Batch>>),
    /// A sync of final blocks.
    Final { blocks: Vec<FinalBlock>, certificate: Certificate, at: UnixMs },
    /// A read of batches for a peer.
    BatchesFor(Peer),
    /// A read of a block for a peer.
    BlockFor(Peer),
    /// A read of final blocks for a peer.
    BlocksFor(Peer),
    /// A read of an epoch's finality certificate for a peer.
    FinalityFor(Peer),
}

/// The epoch under way.
#[derive(Clone, Debug)]
pub(crate) struct EpochState {
    pub(crate) record: EpochRecord,
    /// The one after.
    pub(crate) next: EpochRecord,
    pub(crate) set: ValidatorSet,
}

impl EpochState {
    pub(crate) fn new(record: EpochRecord, next: EpochRecord) -> EpochState {
        EpochState { set: record.set(), record, next }
    }
}

/// One node's part in the protocol.
#[derive(Debug)]
pub struct Replica<D: signer::Disk> {
    pub(crate) config: Config,
    pub(crate) chain: ChainId,
    pub(crate) me: Option<PublicKey>,
    pub(crate) epoch: EpochState,
    pub(crate) engine: Engine,
    /// Whether it was told something since it was last asked.
    pub(crate) engine_due: bool,
    pub(crate) signer: Option<Signer<D>>,
    pub(crate) mempool: Mempool,
    pub(crate) ledger: Ledger,
    pub(crate) verifier: Verifier,
    pub(crate) peers: Peers,
    /// The final tip, as the mempool has it.
    pub(crate) tip: Tip,
    /// The certificate that made the tip final; none at genesis.
    pub(crate) finality: Option<Certificate>,
    pub(crate) goal: Option<Goal>,
    /// Finality certificates of the last blocks of epochs.
    pub(crate) ends: BTreeMap<Epoch, Certificate>,
    pub(crate) records: BTreeMap<Epoch, EpochRecord>,
    pub(crate) recent: Recent,
    pub(crate) claims: Claims,
    /// Views' proposals that the engine wants judged.
    pub(crate) judging: BTreeMap<View, Judging>,
    pub(crate) judge_due: bool,
    /// The first block seen of each view above the final one.
    pub(crate) proposed: BTreeMap<View, BlockHash>,
    /// The ancestor that a block to build waits for.
    pub(crate) building: Option<BlockHash>,
    pub(crate) fetches: Fetches,
    pub(crate) fetch_due: bool,
    pub(crate) sync: Sync,
    pub(crate) storing: Storing,
    /// Own votes and certificates of epochs that are not entered yet.
    pub(crate) journal: Vec<signer::Record>,
    /// What the engine was last told of work.
    pub(crate) work: bool,
    pub(crate) announce_at: Option<Tick>,
    pub(crate) forward_at: Option<Tick>,
    pub(crate) forward_turn: usize,
    /// Whether the next block can be executed at once, but this input's turn is over.
    pub(crate) execute_more: bool,
    /// The height whose batches are missing.
    pub(crate) execution_waits: Option<Height>,
    pub(crate) pending: BTreeMap<Token, Pending>,
    pub(crate) next_token: u64,
    pub(crate) verifying: usize,
    pub(crate) loads: usize,
    pub(crate) stores: usize,
    pub(crate) effects: VecDeque<Effect>,
    pub(crate) dead: bool,
    /// Of the last input.
    pub(crate) now: Tick,
    pub(crate) unix: UnixMs,
}

/// Where a replica stands, for its API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its view.
    pub view: View,
    /// Its highest final view in this epoch.
    pub final_view: View,
    /// Its final height.
    pub height: Height,
    /// The final block's hash.
    pub hash: BlockHash,
    /// Its executed height.
    pub executed: Height,
    /// The highest height that a peer claims, if above its own.
    pub goal: Option<Height>,
    /// Whether it signs in this epoch.
    pub validator: bool,
}

impl<D: signer::Disk> Replica<D> {
    /// Takes in one input. `now` never goes back.
    pub fn handle(&mut self, input: Input, now: Tick, unix: UnixMs) {
        if self.dead {
            return;
        }
        match input {
            Input::PeerConnected { peer, validator } => self.peer_connected(peer, validator, now),
            Input::PeerDisconnected(peer) => self.peer_disconnected(peer, now),
            Input::Message { peer, message } => self.message_received(peer, message, now),
            Input::Submit { token, transactions } => self.submit(crate::data::Submitter::Local(token), transactions, now),
            Input::Verified { token, good } => self.verified(token, &good, now),
            Input::Stored { token } => self.stored(token, now),
            Input::Loaded { token, loaded } => self.loaded(token, loaded),
            Input::Timeout => {}
        }
        self.advance(now, unix);
    }

    /// Carries every consequence through, until nothing moves.
    pub(crate) fn advance(&mut self, now: Tick, unix: UnixMs) {
        let mut executed = 0;
        self.execute_more = false;
        loop {
            self.engine_step(now, unix);
            self.link_step(now, unix);
            let more = executed < self.config.execute_blocks_max && self.execute_step();
            executed += usize::from(more);
            self.pack_step(now);
            self.judge_step(now, unix);
            self.work_step(now);
            if self.dead {
                return;
            }
            if !self.engine_due && !self.judge_due && !more {
                break;
            }
        }
        self.execute_more = executed >= self.config.execute_blocks_max;
        self.announce_step(now);
        if self.fetch_due || self.fetches.due().is_some_and(|due| due <= now) {
            self.fetch_due = false;
            self.fetch_step(now);
        }
        self.sync_step(now);
        self.now = now;
        self.unix = unix;
    }

    /// Tells the engine whether there is work that it can't see, when that changes.
    fn work_step(&mut self, now: Tick) {
        let head = self.engine.highest_notarization().map_or(self.tip.hash, |certificate| certificate.statement.digest);
        let work = self.mempool.has_work(&head);
        if work != self.work {
            self.work = work;
            self.tell(consensus::Input::Work(work), now);
        }
    }

    /// When [`Input::Timeout`] is due; at or before the last input's time if something can be done at once.
    pub fn poll_timeout(&self) -> Option<Tick> {
        if self.dead {
            return None;
        }
        let waits = self.judging.values().filter_map(|judging| judging.until).min();
        let judge_at = waits.map(|until| self.now.plus_ms(until.since(self.unix)));
        let pack_at = if self.is_validator() { self.mempool.pack_at() } else { self.forward_at };
        let now = self.execute_more.then_some(self.now);
        let all = [self.engine.poll_timeout(), self.announce_at, pack_at, judge_at, self.fetches.due(), self.sync.due(), now];
        all.into_iter().flatten().min()
    }

    /// The state as executed.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Figures of the pool.
    pub fn pool(&self) -> mempool::Status {
        self.mempool.status()
    }

    /// Whether a transaction is in the pool: taken, and neither executed nor dropped yet.
    pub fn is_pending(&self, id: &types::TxId) -> bool {
        self.mempool.contains(id)
    }

    /// The records of this epoch and the next.
    pub fn epochs(&self) -> [&EpochRecord; 2] {
        [&self.epoch.record, &self.epoch.next]
    }

    /// The certificate that made the tip final; none at genesis.
    pub fn finality(&self) -> Option<&Certificate> {
        self.finality.as_ref()
    }

    /// Where it stands.
    pub fn summary(&self) -> Summary {
        let highest = self.peers.highest();
        Summary {
            epoch: self.epoch.record.epoch,
            view: self.engine.view(),
            final_view: self.engine.final_view(),
            height: self.tip.height,
            hash: self.tip.hash,
            executed: self.ledger.height(),
            goal: (highest > self.tip.height).then_some(highest),
            validator: self.is_validator(),
        }
    }

    /// The next effect, to be carried out before the next input.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn verified(&mut self, token: Token, good: &[bool], now: Tick) {
        match self.pending.remove(&token) {
            Some(Pending::Submission(submission)) => self.submission_verified(submission, good, now),
            Some(Pending::Batch(peer, batch)) => self.batch_verified(peer, batch, good),
            _ => return,
        }
        self.verifying = self.verifying.saturating_sub(1);
    }

    fn stored(&mut self, token: Token, now: Tick) {
        let Some(pending) = self.pending.remove(&token) else { return };
        self.stores = self.stores.saturating_sub(1);
        match pending {
            Pending::Batches(batches) => self.batches_stored(batches, now),
            Pending::Final { blocks, certificate, at } => self.final_stored(blocks, certificate, at),
            _ => {}
        }
    }

    fn loaded(&mut self, token: Token, loaded: Loaded) {
        let Some(pending) = self.pending.remove(&token) else { return };
        self.loads = self.loads.saturating_sub(1);
        match (pending, loaded) {
            (Pending::BatchesFor(peer), Loaded::Batches(batches)) => self.batches_loaded(peer, batches),
            (Pending::BlocksFor(peer), Loaded::FinalBlocks { blocks, certificate }) => self.sync_loaded(peer, blocks, certificate),
            (Pending::BlockFor(peer), Loaded::Block(Some(block))) => {
                self.send(peer, Message::Block(Box::new(Arc::unwrap_or_clone(block))));
            }
            (Pending::FinalityFor(peer), Loaded::Certificate(Some(certificate))) => {
                self.send(peer, Message::Certificates(vec![certificate]));
            }
            _ => {}
        }
    }

    pub(crate) fn emit(&mut self, effect: Effect) {
        if !self.dead {
            self.effects.push_back(effect);
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.emit(Effect::Event(event));
    }

    pub(crate) fn expect(&mut self, pending: Pending) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.pending.insert(token, pending);
        token
    }

    pub(crate) fn store(&mut self, pending: Pending, op: StoreOp) {
        self.stores += 1;
        let token = self.expect(pending);
        self.emit(Effect::Store { token, op });
    }

    /// Reads from storage for a peer, unless too many reads are under way: then the peer asks again.
    pub(crate) fn load(&mut self, pending: Pending, load: Load) {
        if self.loads >= self.config.loads_max {
            return;
        }
        self.loads += 1;
        let token = self.expect(pending);
        self.emit(Effect::Load { token, load });
    }

    pub(crate) fn send(&mut self, peer: Peer, message: Message) {
        self.emit(Effect::Send { peer, message: Arc::new(message) });
    }

    pub(crate) fn send_all(&mut self, peers: Vec<Peer>, message: Message) {
        let message = Arc::new(message);
        for peer in peers {
            self.emit(Effect::Send { peer, message: Arc::clone(&message) });
        }
    }

    pub(crate) fn offence(&mut self, peer: Peer, offence: Offence, detail: &'static str) {
        self.emit(Effect::Offence { peer, offence, detail });
    }

    pub(crate) fn may_ask(&mut self, peer: Peer, ask: Ask, now: Tick) -> bool {
        if self.peers.may_ask(peer, ask, now, self.config.resend_ms / 2) {
            return true;
        }
        if ask.is_question() && self.peers.get_mut(peer).is_some_and(|state| state.repeats.refused(now)) {
            self.offence(peer, Offence::Rate, "asks far above the pace of answers");
        }
        false
    }

    /// A peer brought what was there already. Once is no offence, nor are some times.
    pub(crate) fn came_again(&mut self, peer: Peer, thing: types::Hash, now: Tick) {
        if self.peers.get_mut(peer).is_some_and(|state| state.repeats.again(thing, now)) {
            self.offence(peer, Offence::Replay, "brings the same transaction or batch again and again");
        }
    }

    pub(crate) fn judge_again(&mut self) {
        self.judge_due = true;
    }

    pub(crate) fn fetch_again(&mut self) {
        self.fetch_due = true;
    }

    /// Whether it signs in this epoch.
    pub(crate) fn is_validator(&self) -> bool {
        self.signer.is_some() && self.me.is_some_and(|me| self.epoch.set.seat(&me).is_some())
    }
}
