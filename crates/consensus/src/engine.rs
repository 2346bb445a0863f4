//! The engine as one value, and the order in which consequences are drawn.
//!
//! ```text
//! upon a proposal of the view's leader     keep the first; a second one is evidence
//! upon a vote                              keep the first of each kind and seat; a contradiction is evidence;
//!                                          of a view that I left: answer with my certificates
//! upon a quorum for one statement          that is its certificate: send it to all, once
//! upon a certificate                       keep it, whichever kinds the view has already; new to me: send it to all, once
//! upon a finality certificate of v         v and its ancestors are final; forget all below
//! upon a notarization of v                 unless I sent nullify(v): send finalize(v) with it
//! upon a certificate of v ≥ my view        enter v + 1
//! in a view that I lead, with work         build on the highest notarized block over nullified views; sign, propose
//! in a view with a proposal                parent notarized? all between nullified? then have it judged; valid: notarize
//! upon an invalid proposal or a timeout    unless I sent finalize: nullify
//! upon the re-send pause                   my proposal and votes of this view, my finalize votes above the final view
//! ```

use std::collections::{BTreeSet, VecDeque};

use types::{
    BlockHash, Certificate, ChainId, Evidence, Height, Kind, Message, PublicKey, Seat, SignedStatement, Statement, Tick,
    ValidatorSet, View,
};

use crate::allowance::Allowances;
use crate::config::Config;
use crate::effect::{Effect, Target};
use crate::input::{BlockMeta, Input};
use crate::leading::Leading;
use crate::slot::{Own, Proposed};
use crate::tally::{Added, Signed};
use crate::timers::Timers;
use crate::views::Views;

/// The epoch that an engine works in.
#[derive(Clone, Debug)]
pub struct Context {
    /// The chain.
    pub chain: ChainId,
    /// The epoch's validators.
    pub set: ValidatorSet,
    /// The last block of the epoch before, or the genesis hash: the parent at view 0.
    pub base: BlockHash,
    /// Its height.
    pub base_height: Height,
    /// The epoch's last height.
    pub last_height: Height,
    /// What admits to view 1: the finality certificate of the base; none in epoch 0.
    pub admitting: Option<Certificate>,
}

/// What a node said earlier in the epoch, from its signer's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnVote {
    /// The statement.
    pub signed: SignedStatement,
    /// Its block, if the record of a proposal has it.
    pub block: Option<BlockMeta>,
}

/// What survived a restart. Empty for an epoch that was never entered before; a node that enters an epoch by a hand-over asks
/// its journal too, for it may have been there in an earlier life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The highest finality certificate of the epoch that storage has.
    pub finality: Option<Certificate>,
    /// Journaled certificates; those of other epochs are ignored.
    pub certificates: Vec<Certificate>,
    /// Own statements; those of other epochs and keys are ignored.
    pub votes: Vec<OwnVote>,
}

/// One epoch of one node.
///
/// Bounds: votes and proposals reach at most `future_views_max` views ahead and to slots that exist behind; one statement a
/// kind and seat; above `certificates_max` certificates the lowest views are forgotten, of a nullification only its bytes.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) context: Context,
    pub(crate) me: Option<(PublicKey, Seat)>,
    pub(crate) now: Tick,
    pub(crate) view: View,
    /// The certificate that admitted this node to its view.
    pub(crate) admitting: Option<Certificate>,
    pub(crate) views: Views,
    pub(crate) timers: Timers,
    pub(crate) leading: Leading,
    pub(crate) work: bool,
    pub(crate) allowances: Allowances,
    convicted: BTreeSet<Seat>,
    effects: VecDeque<Effect>,
}

impl Engine {
    /// Begins an epoch, or goes on with it. `me` is the node's validator key, if it has one; without a seat in the set the
    /// engine follows and never signs. Effects are waiting afterwards.
    pub fn new(config: Config, context: Context, me: Option<PublicKey>, recovered: Recovered, now: Tick) -> Engine {
        let me = me.and_then(|key| context.set.seat(&key).map(|seat| (key, seat)));
        let mut engine = Engine {
            view: View(0),
            admitting: context.admitting.clone(),
            views: Views::new(context.base, config.certificates_max),
            timers: Timers::new(now),
            leading: Leading::Idle,
            work: false,
            allowances: Allowances::default(),
            convicted: BTreeSet::new(),
            effects: VecDeque::new(),
            config,
            context,
            me,
            now,
        };
        engine.recover(recovered);
        engine.progress();
        engine
    }

    /// Finality first, then own votes, then certificates: so no finalize vote is asked for where a nullify was said. The view
    /// is the one above the highest certificate.
    fn recover(&mut self, recovered: Recovered) {
        let here = |statement: &Statement| {
            statement.chain == self.context.chain && statement.epoch == self.context.set.epoch() && statement.is_well_formed()
        };
        let certificates: Vec<Certificate> =
            recovered.finality.into_iter().chain(recovered.certificates).filter(|c| here(&c.statement)).collect();
        let votes: Vec<OwnVote> = recovered.votes.into_iter().filter(|vote| here(&vote.signed.statement)).collect();
        let (finality, others): (Vec<_>, Vec<_>) = certificates.into_iter().partition(|c| c.statement.kind == Kind::Finalize);
        for certificate in &finality {
            self.take_certificate(certificate);
        }
        for OwnVote { signed, block } in votes {
            let statement = signed.statement;
            let Some((_, seat)) = self.me.filter(|(key, _)| *key == signed.key) else { continue };
            if statement.view <= self.final_view() {
                continue;
            }
            let now = self.now;
            let slot = self.views.slot(statement.view);
            slot.set_own(statement.kind, Own::Signed(signed));
            slot.tally.add(seat, statement, signed.signature);
            if let Some(block) = block.filter(|block| statement.kind == Kind::Propose && block.digest == statement.digest) {
                slot.proposal = Some(Proposed { head: signed, block, seen_at: now });
            }
        }
        for certificate in &others {
            self.take_certificate(certificate);
        }
        self.enter_above();
    }

    /// Takes in one input. `now` never goes back.
    pub fn handle(&mut self, input: Input, now: Tick) {
        self.now = self.now.max(now);
        match input {
            Input::Proposal { head, block, from } => self.on_proposal(head, block, from),
            Input::Vote { signed, from } => self.on_vote(signed, from),
            Input::Certificate(certificate) => self.on_certificate(&certificate),
            Input::Judged { view, digest, verdict } => self.on_judged(view, digest, verdict),
            Input::Built { view, block } => self.on_built(view, block),
            Input::Signed(signed) => self.on_signed(signed),
            Input::SignRefused(statement) => self.on_refused(&statement),
            Input::Work(work) => self.work = work,
            Input::PeerConnected(peer) => self.on_connected(peer),
            Input::PeerDisconnected(peer) => self.allowances.disconnect(&peer),
            Input::FetchCertificate { epoch, view, kind: _, from } => self.on_fetch_certificate(epoch, view, from),
            Input::FetchProposal { epoch, view, from } => self.on_fetch_proposal(epoch, view, from),
            Input::Timeout => {}
        }
        self.progress();
        if self.timers.resend_due().is_some_and(|due| due <= self.now) {
            let anything = self.resend(Target::Validators);
            self.timers.resent(self.now, anything, &self.config);
        }
    }

    /// Draws every consequence. Each step that returns true has entered a higher view or asked for a signature, so it ends.
    fn progress(&mut self) {
        loop {
            let finalized = self.finalize_step();
            if self.enter_above() || finalized {
                continue;
            }
            self.work_step();
            self.lead_step();
            self.judge_step();
            if !self.timeout_step() {
                break;
            }
        }
        self.views.evict(self.view);
    }

    /// Enters the view above the highest certificate, if that is above this one.
    fn enter_above(&mut self) -> bool {
        let mut next = self.views.highest_certified(self.view).map(|(view, certificate)| (view.next(), Some(certificate.clone())));
        if next.is_none() && self.view <= self.final_view() {
            let admitting = self.views.finality().or(self.context.admitting.as_ref()).cloned();
            next = Some((self.final_view().next(), admitting));
        }
        let Some((view, admitting)) = next else { return false };
        self.view = view;
        self.admitting = admitting;
        self.timers.enter(self.now);
        self.timers.resend_soon(self.now, &self.config);
        self.leading = Leading::Idle;
        let leader = self.leader(view);
        self.emit(Effect::Entered { view, leader });
        true
    }

    /// The next effect.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(crate) fn emit(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(crate) fn send(&mut self, to: Target, message: Message) {
        self.emit(Effect::Send { to, message });
    }

    /// Half the first re-send pause: the interval of allowances.
    pub(crate) fn allowance_ms(&self) -> u64 {
        self.config.resend_ms / 2
    }

    pub(crate) fn is_here(&self, statement: &Statement) -> bool {
        statement.chain == self.context.chain && statement.epoch == self.context.set.epoch() && statement.is_well_formed()
    }

    /// Counts a statement in an open view; a contradiction becomes evidence, once a key. False if it was heard before or contradicts.
    pub(crate) fn count(&mut self, seat: Seat, statement: Statement, signed: Signed) -> bool {
        match self.views.slot(statement.view).tally.add(seat, statement, signed.1) {
            Added::New => true,
            Added::Known => false,
            Added::Contradicts(first) => {
                self.convict(seat, first, signed);
                false
            }
        }
    }

    fn convict(&mut self, seat: Seat, first: Signed, second: Signed) {
        let Some(validator) = self.context.set.get(seat) else { return };
        let key = validator.key;
        if self.convicted.insert(seat) {
            self.emit(Effect::Evidence(Evidence { key, first, second }));
        }
    }

    /// Whether a view is near enough, or open already, to keep statements of it.
    pub(crate) fn is_kept(&self, view: View) -> bool {
        let far = self.config.future_views_max;
        let near = view <= self.view.plus(far) && view.plus(far) >= self.view;
        view > self.final_view() && (self.views.get(view).is_some() || near)
    }

    /// The current view.
    pub fn view(&self) -> View {
        self.view
    }

    /// The highest final view; 0 at the epoch's base.
    pub fn final_view(&self) -> View {
        self.views.final_view()
    }

    /// The certificate of the final view; none at the base.
    pub fn finality(&self) -> Option<&Certificate> {
        self.views.finality()
    }

    /// Who leads a view.
    pub fn leader(&self, view: View) -> PublicKey {
        let seat = self.context.set.leader(&self.context.chain, view);
        self.context.set.get(seat).map_or(PublicKey([0; 32]), |validator| validator.key)
    }

    /// The notarization of the highest notarized view above the final one.
    pub fn highest_notarization(&self) -> Option<&Certificate> {
        self.views.iter().rev().find_map(|(_, slot)| slot.notarization.as_ref())
    }

    /// How many views above the final one are open.
    pub fn open_views(&self) -> usize {
        self.views.iter().count()
    }
}
