//! What the engine asks for, carried out.

use std::sync::Arc;

use consensus::{Effect as Ask, Target};
use signer::{Attach, SignError};
use types::{Block, Certificate, Evidence, Kind, Message, Proposal, SignedStatement, Statement, Tick, UnixMs};

use crate::effect::{Effect, Event, Fatal};
use crate::input::Peer;
use crate::judging::Judging;
use crate::replica::Replica;

impl<D: signer::Disk> Replica<D> {
    /// Tells the engine; what it asks for is carried out by the next [`Replica::engine_step`].
    pub(crate) fn tell(&mut self, input: consensus::Input, now: Tick) {
        self.engine.handle(input, now);
        self.engine_due = true;
    }

    /// Carries out all that the engine asks for.
    pub(crate) fn engine_step(&mut self, now: Tick, unix: UnixMs) {
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.tell(consensus::Input::Timeout, now);
        }
        if !std::mem::take(&mut self.engine_due) {
            return;
        }
        while let Some(ask) = self.engine.poll_effect() {
            self.carry_out(ask, now, unix);
            if self.dead {
                return;
            }
        }
    }

    fn carry_out(&mut self, ask: Ask, now: Tick, unix: UnixMs) {
        let epoch = self.epoch.record.epoch;
        match ask {
            Ask::Build { view, parent_view, parent, notarization } => {
                self.build(view, parent_view, parent, notarization, now, unix);
            }
            Ask::Judge { view, block, parent_view, leader, reproposal } => {
                let (batches, missing, until) = (Vec::new(), None, None);
                let judging = Judging { block: block.digest, parent_view, leader, reproposal, batches, missing, until };
                self.judging.insert(view, judging);
                self.judge_again();
            }
            Ask::Sign { statement, certificate } => self.sign(statement, certificate, now),
            Ask::Send { to, message } => {
                let to = self.targets(to);
                self.send_all(to, message);
            }
            Ask::SendProposal { to, head, admitting } => self.send_proposal(to, head, admitting),
            Ask::Entered { view, leader } => {
                self.judging = self.judging.split_off(&view);
                self.building = None;
                self.event(Event::Entered { epoch, view, leader });
            }
            Ask::Nullifying { view, reason } => self.event(Event::Nullifying { epoch, view, reason }),
            Ask::Notarized(certificate) => {
                let statement = certificate.statement;
                self.event(Event::Notarized { epoch, view: statement.view, hash: statement.digest });
            }
            Ask::Nullified(certificate) => self.event(Event::Nullified { epoch, view: certificate.statement.view }),
            Ask::Finalized(certificate) => self.finality_learnt(certificate),
            Ask::Evidence(evidence) => self.evidence_found(evidence),
        }
    }

    fn targets(&self, to: Target) -> Vec<Peer> {
        match to {
            Target::Validators => self.peers.validators(&self.epoch.set).collect(),
            Target::Everyone => self.peers.iter().map(|(peer, _)| peer).collect(),
            Target::One(key) => self.peers.of_validator(&key).collect(),
        }
    }

    /// A held block, above the final tip or just below it.
    pub(crate) fn held_block(&self, hash: &types::BlockHash) -> Option<&Arc<Block>> {
        self.mempool.block(hash).or_else(|| self.recent.get(hash))
    }

    fn send_proposal(&mut self, to: Target, head: SignedStatement, admitting: Option<Certificate>) {
        // A leader that lost its block stays silent: another one under the same head would be another block.
        let Some(block) = self.held_block(&head.statement.digest).map(Arc::clone) else { return };
        let block = Arc::unwrap_or_clone(block);
        let to = self.targets(to);
        self.send_all(to, Message::Proposal(Box::new(Proposal { head, block, admitting })));
    }

    fn sign(&mut self, statement: Statement, certificate: Option<Certificate>, now: Tick) {
        let carries = matches!(statement.kind, Kind::Propose | Kind::Notarize);
        let block = if carries { self.held_block(&statement.digest).map(Arc::clone) } else { None };
        if carries && block.is_none() {
            // Judged valid and gone since, by a bound: not held, so not voted for.
            return self.tell(consensus::Input::SignRefused(statement), now);
        }
        let Some(signer) = &mut self.signer else {
            return self.tell(consensus::Input::SignRefused(statement), now);
        };
        match signer.sign(statement, Attach { certificate, block: block.map(Arc::unwrap_or_clone) }) {
            Ok(signed) => self.tell(consensus::Input::Signed(signed), now),
            Err(error) if !error.is_fatal() => {
                self.event(Event::SignRefused(statement));
                self.tell(consensus::Input::SignRefused(statement), now);
            }
            Err(error) => self.sign_failed(error),
        }
    }

    /// The journal's disk failed: what is durable is unknown, so nothing more is said.
    pub(crate) fn sign_failed(&mut self, error: SignError) {
        self.fatal(Fatal::Journal(error.to_string()));
    }

    fn evidence_found(&mut self, evidence: Evidence) {
        self.emit(Effect::CloseStreams { validator: evidence.key });
        self.emit(Effect::Evidence(evidence));
    }
}
