//! What peers say: proposals, votes, certificates, and questions.

use types::{Certificate, Epoch, Kind, Message, PublicKey, SignedStatement, View};

use crate::allowance::Allow;
use crate::effect::{Effect, Target};
use crate::engine::Engine;
use crate::input::BlockMeta;
use crate::slot::Proposed;

impl Engine {
    pub(crate) fn on_proposal(&mut self, head: SignedStatement, block: BlockMeta, from: PublicKey) {
        let statement = head.statement;
        let view = statement.view;
        let fits = self.is_here(&statement) && statement.kind == Kind::Propose && statement.digest == block.digest;
        if !fits || head.key != self.leader(view) {
            return;
        }
        if view < self.view {
            self.answer_left(view, from);
        }
        let Some(seat) = self.context.set.seat(&head.key) else { return };
        if !self.is_kept(view) {
            return;
        }
        self.count(seat, statement, (statement, head.signature));
        let seen_at = self.now;
        let slot = self.views.slot(view);
        // Not only if it is new: an own proposal of an earlier life may have been counted without its block.
        if slot.proposal.is_none() && slot.tally.holds(seat, &statement) {
            slot.proposal = Some(Proposed { head, block, seen_at });
        }
    }

    pub(crate) fn on_vote(&mut self, signed: SignedStatement, from: PublicKey) {
        let statement = signed.statement;
        let (view, kind) = (statement.view, statement.kind);
        let Some(seat) = self.context.set.seat(&signed.key) else { return };
        if !self.is_here(&statement) || kind == Kind::Propose {
            return;
        }
        if view <= self.final_view() || (view < self.view && kind != Kind::Finalize) {
            self.answer_left(view, from);
        }
        if !self.is_kept(view) {
            return;
        }
        let unseen = self.views.get(view).is_none_or(|slot| slot.proposal.is_none());
        if kind == Kind::Notarize && view == self.view && unseen && self.me.is_some() {
            let allowance = self.allowance_ms();
            if self.allowances.take(&from, Allow::AskProposal, self.now, allowance) {
                self.send(Target::One(from), Message::FetchProposal { epoch: statement.epoch, view });
            }
        }
        if self.count(seat, statement, (statement, signed.signature)) {
            self.certify(signed);
        }
    }

    /// A quorum for this statement is its certificate.
    pub(crate) fn certify(&mut self, signed: SignedStatement) {
        let statement = signed.statement;
        let Some(slot) = self.views.get(statement.view) else { return };
        let had = match statement.kind {
            Kind::Notarize => slot.notarization.is_some(),
            Kind::Nullify => slot.nullification.is_some(),
            Kind::Finalize => false,
            Kind::Propose => true,
        };
        if had {
            return;
        }
        if let Some(certificate) = slot.tally.certify(&self.context.set, statement) {
            self.learn(&certificate);
        }
    }

    pub(crate) fn on_certificate(&mut self, certificate: &Certificate) {
        if self.is_here(&certificate.statement) {
            self.learn(certificate);
        }
    }

    /// Takes in a certificate; who first learns one sends it once to all. A certificate is never answered.
    fn learn(&mut self, certificate: &Certificate) {
        if self.take_certificate(certificate) {
            self.send(Target::Everyone, Message::Certificate(Box::new(certificate.clone())));
        }
    }

    /// Keeps a certificate, and its signatures as votes: they may convict. True if it is new.
    pub(crate) fn take_certificate(&mut self, certificate: &Certificate) -> bool {
        let statement = certificate.statement;
        if statement.view > self.final_view() {
            let known = self.views.get(statement.view).is_some_and(|slot| match statement.kind {
                Kind::Notarize => slot.notarization.is_some(),
                Kind::Nullify => slot.nullification.is_some(),
                Kind::Propose | Kind::Finalize => false,
            });
            if known {
                return false;
            }
            for (seat, signature) in certificate.seats().zip(&certificate.signatures) {
                self.count(seat, statement, (statement, *signature));
            }
        }
        match statement.kind {
            Kind::Finalize => self.take_finality(certificate),
            Kind::Notarize | Kind::Nullify => {
                let open = statement.view > self.final_view();
                let new = self.views.insert(certificate, self.now);
                if new && open {
                    let notarized = statement.kind == Kind::Notarize;
                    let certificate = certificate.clone();
                    self.emit(if notarized { Effect::Notarized(certificate) } else { Effect::Nullified(certificate) });
                }
                // The final view's notarization is news to nobody but who asked for it.
                new && open
            }
            Kind::Propose => false,
        }
    }

    fn take_finality(&mut self, certificate: &Certificate) -> bool {
        let Some(slot) = self.views.finalize(certificate) else { return false };
        if !slot.own(Kind::Nullify).is_said() {
            self.timers.level_down();
        }
        self.emit(Effect::Finalized(certificate.clone()));
        true
    }

    /// Somebody is in a view that this node left: it gets all certificates from there on.
    fn answer_left(&mut self, view: View, from: PublicKey) {
        let certificates = self.views.ladder(view, true);
        self.answer(certificates, from, Allow::AnswerVote);
    }

    pub(crate) fn on_fetch_certificate(&mut self, epoch: Epoch, view: View, from: PublicKey) {
        if epoch == self.context.set.epoch() {
            let certificates = self.views.ladder(view, false);
            self.answer(certificates, from, Allow::AnswerCertificates);
        }
    }

    fn answer(&mut self, certificates: Vec<Certificate>, from: PublicKey, allow: Allow) {
        let allowance = self.allowance_ms();
        if !certificates.is_empty() && self.allowances.take(&from, allow, self.now, allowance) {
            self.send(Target::One(from), Message::Certificates(certificates));
        }
    }

    pub(crate) fn on_fetch_proposal(&mut self, epoch: Epoch, view: View, from: PublicKey) {
        let Some(proposal) = self.views.get(view).and_then(|slot| slot.proposal) else { return };
        let allowance = self.allowance_ms();
        if epoch == self.context.set.epoch() && self.allowances.take(&from, Allow::AnswerProposal, self.now, allowance) {
            let admitting = self.admitting.clone().filter(|_| view == self.view);
            self.emit(Effect::SendProposal { to: Target::One(from), head: proposal.head, admitting });
        }
    }

    /// A connection stands: what was sent before may not have arrived, and the peer may be in a view that this node left.
    pub(crate) fn on_connected(&mut self, peer: PublicKey) {
        self.allowances.connect(peer, self.config.peers_max);
        let certificates = self.views.ladder(View(0), true);
        if !certificates.is_empty() {
            self.send(Target::One(peer), Message::Certificates(certificates));
        }
        self.resend(Target::One(peer));
        self.timers.resend_soon(self.now, &self.config);
    }
}
