//! Own statements: what is asked of the signer, and what follows when it has signed.

use types::{BlockHash, Certificate, Kind, Message, SignedStatement, Statement, View, Vote};

use crate::effect::{Effect, NullifyReason, Target};
use crate::engine::Engine;
use crate::input::Verdict;
use crate::slot::{Judging, Own, Slot};

impl Engine {
    /// Asks the signer. From here on the statement counts as said.
    pub(crate) fn ask(&mut self, statement: Statement) {
        let certificate = self.allowing(&statement);
        self.views.slot(statement.view).set_own(statement.kind, Own::Asked);
        self.emit(Effect::Sign { statement, certificate });
    }

    /// What allows a statement: of a finalize its notarization, of a view's first vote the certificate that admitted me.
    fn allowing(&self, statement: &Statement) -> Option<Certificate> {
        let slot = self.views.get(statement.view);
        if statement.kind == Kind::Finalize {
            return slot.and_then(|slot| slot.notarization.clone());
        }
        let first = statement.view == self.view && slot.is_none_or(|slot| !slot.has_voted());
        self.admitting.clone().filter(|_| first)
    }

    /// Whether this node may still say `kind` in a view: it has a seat, has not said it, and of nullify and finalize not the other.
    fn may_say(&self, view: View, kind: Kind) -> bool {
        let Some(slot) = self.views.get(view) else { return self.me.is_some() };
        let other = match kind {
            Kind::Nullify => slot.own(Kind::Finalize).is_said(),
            Kind::Finalize => slot.own(Kind::Nullify).is_said(),
            Kind::Propose | Kind::Notarize => false,
        };
        self.me.is_some() && *slot.own(kind) == Own::Unsaid && (!other || self.nullifies_and_finalizes())
    }

    #[cfg(not(feature = "planted-bugs"))]
    fn nullifies_and_finalizes(&self) -> bool {
        false
    }

    #[cfg(feature = "planted-bugs")]
    fn nullifies_and_finalizes(&self) -> bool {
        self.config.bugs.nullify_and_finalize
    }

    #[cfg(not(feature = "planted-bugs"))]
    pub(crate) fn checks_gaps(&self) -> bool {
        true
    }

    #[cfg(feature = "planted-bugs")]
    pub(crate) fn checks_gaps(&self) -> bool {
        !self.config.bugs.no_gap_check
    }

    /// Finalize votes for everything that is notarized where no nullify was sent; the payload need not be held.
    pub(crate) fn finalize_step(&mut self) -> bool {
        let ready: Vec<Statement> = self
            .views
            .iter()
            .filter(|(view, _)| self.may_say(*view, Kind::Finalize))
            .filter_map(|(_, slot)| slot.notarization.as_ref())
            .map(|notarization| notarization.statement.with_kind(Kind::Finalize))
            .collect();
        for statement in &ready {
            self.ask(*statement);
        }
        !ready.is_empty()
    }

    /// Looks at the view's proposal: is its parent notarized, is all between nullified? Then the shell judges it.
    pub(crate) fn judge_step(&mut self) {
        let view = self.view;
        let Some(slot) = self.views.get(view) else { return };
        let (Some(proposal), Judging::Open) = (slot.proposal, slot.judging) else {
            return self.notarize_step();
        };
        if self.me.is_none() {
            return;
        }
        let statement = proposal.head.statement;
        let parent_view = statement.parent_view;
        if parent_view < self.final_view() {
            return self.judged(view, Verdict::Invalid);
        }
        let gap = if self.checks_gaps() { self.views.gap(parent_view, view) } else { None };
        let missing = match (self.views.notarized(parent_view), gap) {
            (None, _) => (parent_view, Kind::Notarize),
            (Some(_), Some(gap)) => (gap, Kind::Nullify),
            (Some(parent), None) => {
                self.timers.fetched();
                if !self.follows(&proposal.block, parent_view, &parent) {
                    return self.judged(view, Verdict::Invalid);
                }
                self.views.slot(view).judging = Judging::Asked;
                let reproposal = proposal.block.digest == parent;
                let leader = self.leader(view);
                return self.emit(Effect::Judge { view, block: proposal.block, parent_view, leader, reproposal });
            }
        };
        if self.timers.may_fetch(self.now, &self.config) {
            let (view, kind) = missing;
            let leader = proposal.head.key;
            // A leader of an earlier life asks the others for what it knew then.
            let mine = self.me.is_some_and(|(key, _)| key == leader);
            let to = if mine { Target::Validators } else { Target::One(leader) };
            self.send(to, Message::FetchCertificate { epoch: self.context.set.epoch(), view, kind });
        }
    }

    pub(crate) fn on_judged(&mut self, view: View, digest: BlockHash, verdict: Verdict) {
        let asked = self.views.get(view).is_some_and(|slot| {
            slot.judging == Judging::Asked && slot.proposal.is_some_and(|proposal| proposal.block.digest == digest)
        });
        if asked {
            self.judged(view, verdict);
        }
    }

    fn judged(&mut self, view: View, verdict: Verdict) {
        self.views.slot(view).judging = Judging::Done(verdict);
        if view != self.view {
            return;
        }
        match verdict {
            Verdict::Valid => self.notarize_step(),
            Verdict::Invalid => {
                self.nullify(NullifyReason::InvalidProposal);
            }
        }
    }

    /// Votes for the view's proposal once it is valid, also after a nullify.
    fn notarize_step(&mut self) {
        let view = self.view;
        let Some(slot) = self.views.get(view) else { return };
        if let (Some(proposal), Judging::Done(Verdict::Valid)) = (slot.proposal, slot.judging)
            && self.may_say(view, Kind::Notarize)
        {
            self.ask(proposal.head.statement.with_kind(Kind::Notarize));
        }
    }

    /// Gives the view up, unless it was done or finalized. True if the signer was asked.
    pub(crate) fn nullify(&mut self, reason: NullifyReason) -> bool {
        let view = self.view;
        if !self.may_say(view, Kind::Nullify) {
            return false;
        }
        self.timers.level_up(&self.config);
        self.emit(Effect::Nullifying { view, reason });
        self.ask(Statement::nullify(self.context.chain, self.context.set.epoch(), view));
        true
    }

    pub(crate) fn may_nullify(&self) -> bool {
        self.may_say(self.view, Kind::Nullify)
    }

    pub(crate) fn on_signed(&mut self, signed: SignedStatement) {
        let statement = signed.statement;
        let Some((_, seat)) = self.me.filter(|(key, _)| *key == signed.key) else { return };
        let asked = |slot: &Slot| *slot.own(statement.kind) == Own::Asked;
        if !self.is_here(&statement) || !self.views.get(statement.view).is_some_and(asked) {
            return;
        }
        // Before it is set: the first vote of a view takes the admitting certificate along.
        let slot = self.views.slot(statement.view);
        slot.set_own(statement.kind, Own::Unsaid);
        let certificate = self.allowing(&statement);
        self.views.slot(statement.view).set_own(statement.kind, Own::Signed(signed));
        self.timers.resend_soon(self.now, &self.config);
        let new = self.count(seat, statement, (statement, signed.signature));
        if statement.kind == Kind::Propose {
            return self.proposed(signed);
        }
        self.send(Target::Validators, Message::Vote(Box::new(Vote { signed, certificate })));
        if new {
            self.certify(signed);
        }
    }

    pub(crate) fn on_refused(&mut self, statement: &Statement) {
        if self.is_here(statement)
            && let Some(slot) = self.views.get_mut(statement.view)
            && *slot.own(statement.kind) == Own::Asked
        {
            slot.set_own(statement.kind, Own::Refused);
        }
    }

    /// Sends again what may not have arrived: this view's own statements, and finalize votes of views that are not final. True if
    /// there was anything.
    pub(crate) fn resend(&mut self, to: Target) -> bool {
        let mut votes = Vec::new();
        let mut proposal = None;
        for (view, slot) in self.views.iter().rev() {
            if view == self.view {
                proposal = slot.own(Kind::Propose).signed();
                for kind in [Kind::Notarize, Kind::Nullify] {
                    votes.extend(slot.own(kind).signed().map(|signed| Vote { signed, certificate: self.admitting.clone() }));
                }
            }
        }
        let finalize = self.views.iter().rev().filter_map(|(_, slot)| {
            let certificate = slot.notarization.clone();
            slot.own(Kind::Finalize).signed().map(|signed| Vote { signed, certificate })
        });
        votes.extend(finalize.take(self.config.finalize_resend_max));
        let anything = proposal.is_some() || !votes.is_empty();
        if let Some(head) = proposal {
            let admitting = self.admitting.clone();
            self.emit(Effect::SendProposal { to, head, admitting });
        }
        for vote in votes {
            self.send(to, Message::Vote(Box::new(vote)));
        }
        anything
    }
}
