//! What peers say: checked, then passed on to the part that it is for.
//!
//! An honest peer may be late, early, repeat itself, or be of another epoch; that is never an offence.

use std::sync::Arc;

use types::{
    Block, BlockHash, Certificate, Epoch, Kind, Message, Offence, Proposal, PublicKey, SignedStatement, Statement, Status, Tick,
    Vote,
};

use crate::effect::Load;
use crate::input::Peer;
use crate::judging::meta;
use crate::peers::Ask;
use crate::replica::{Pending, Replica};

impl<D: signer::Disk> Replica<D> {
    pub(crate) fn peer_connected(&mut self, peer: Peer, validator: Option<PublicKey>, now: Tick) {
        if !self.peers.connect(peer, validator, self.config.peers_max) {
            return;
        }
        let status = self.own_status();
        self.send(peer, Message::Status(status));
        if let Some(key) = validator {
            self.reannounce(peer);
            self.tell(consensus::Input::PeerConnected(key), now);
        }
        self.fetches.ask_soon(now);
        self.fetch_again();
    }

    pub(crate) fn peer_disconnected(&mut self, peer: Peer, now: Tick) {
        let validator = self.peers.get(peer).and_then(|state| state.validator);
        if !self.peers.disconnect(peer) {
            return;
        }
        if let Some(key) = validator
            && self.peers.of_validator(&key).next().is_none()
        {
            self.tell(consensus::Input::PeerDisconnected(key), now);
        }
        self.fetch_again();
    }

    pub(crate) fn message_received(&mut self, peer: Peer, message: Message, now: Tick) {
        let Some(state) = self.peers.get(peer) else { return };
        let key = state.validator;
        match message {
            Message::Proposal(proposal) => self.proposal_received(peer, *proposal, now),
            Message::Vote(vote) => self.vote_received(peer, *vote, now),
            Message::Certificate(certificate) => drop(self.certificate_received(peer, *certificate, now)),
            Message::Certificates(list) => {
                for certificate in list {
                    if !self.certificate_received(peer, certificate, now) {
                        return;
                    }
                }
            }
            Message::FetchCertificate { epoch, view, kind } => {
                if let Some(from) = self.epoch_asked(peer, epoch, now) {
                    self.tell(consensus::Input::FetchCertificate { epoch, view, kind, from }, now);
                }
            }
            Message::FetchProposal { epoch, view } => {
                if let Some(from) = self.epoch_asked(peer, epoch, now)
                    && self.may_ask(peer, Ask::Proposal, now)
                {
                    self.tell(consensus::Input::FetchProposal { epoch, view, from }, now);
                }
            }
            Message::Status(status) => self.status_received(peer, status, now),
            Message::Announce(ids) => {
                if let Some(key) = key {
                    self.mempool.announced(&key, &ids);
                    self.fetch_again();
                }
            }
            Message::Batch(batch) => self.batch_received(peer, batch, now),
            Message::FetchBatches(ids) => {
                if self.may_ask(peer, Ask::Batches, now) {
                    self.batches_asked(peer, ids);
                }
            }
            Message::FetchBlock(hash) => self.block_asked(peer, hash, now),
            Message::Block(block) => self.block_received(peer, *block),
            Message::Sync(from) => self.sync_asked(peer, from, now),
            Message::SyncBlocks(answer) => self.sync_received(peer, *answer, now),
            Message::Transactions(list) => self.submit(crate::data::Submitter::Peer(peer), list, now),
        }
    }

    /// Whether a statement can be about this epoch at all. False also for other epochs, which have their own answers.
    fn is_of_epoch(&mut self, peer: Peer, statement: &Statement, now: Tick) -> bool {
        if statement.chain != self.chain || !statement.is_well_formed() {
            self.offence(peer, Offence::Malformed, "sent an impossible statement");
            return false;
        }
        let epoch = self.epoch.record.epoch;
        if statement.epoch < epoch {
            self.answer_old_epoch(peer, statement.epoch, now);
        } else if statement.epoch > epoch {
            self.later_epoch_seen(peer, statement, false);
        }
        statement.epoch == epoch
    }

    /// Who is in an epoch that ended here gets the proof that it did.
    fn answer_old_epoch(&mut self, peer: Peer, epoch: Epoch, now: Tick) {
        if !self.may_ask(peer, Ask::OldEpoch, now) {
            return;
        }
        match self.ends.get(&epoch).cloned() {
            Some(certificate) => self.send(peer, Message::Certificates(vec![certificate])),
            None => self.load(Pending::FinalityFor(peer), Load::Finality(epoch)),
        }
    }

    /// The peer is in a later epoch: it has at least the last block of this one, and what a finality certificate is about. Not
    /// verified, so it only sets the goal of a sync, which is retried until it is reached or the peer delivers nothing.
    fn later_epoch_seen(&mut self, peer: Peer, statement: &Statement, certified: bool) {
        let last = self.epoch.record.last_height();
        if let Some(state) = self.peers.get_mut(peer) {
            state.height = state.height.max(last);
            if certified && statement.kind == Kind::Finalize {
                state.shown = state.shown.max((statement.epoch, statement.view));
            }
        }
    }

    /// The key of a peer that asks about an epoch, if it is the present one.
    fn epoch_asked(&mut self, peer: Peer, epoch: Epoch, now: Tick) -> Option<PublicKey> {
        if epoch < self.epoch.record.epoch {
            self.answer_old_epoch(peer, epoch, now);
            return None;
        }
        self.peers.get(peer)?.validator.filter(|_| epoch == self.epoch.record.epoch)
    }

    fn verified_by_seat(&mut self, peer: Peer, signed: &SignedStatement) -> bool {
        if self.epoch.set.seat(&signed.key).is_none() {
            self.offence(peer, Offence::Malformed, "sent a statement of a key without a seat");
            return false;
        }
        if self.verifier.statement(signed).is_err() {
            self.offence(peer, Offence::BadSignature, "sent a statement with a bad signature");
            return false;
        }
        true
    }

    fn proposal_received(&mut self, peer: Peer, proposal: Proposal, now: Tick) {
        let Proposal { head, block, admitting } = proposal;
        let statement = head.statement;
        if !self.is_of_epoch(peer, &statement, now) {
            return;
        }
        if statement.kind != Kind::Propose || block.hash() != statement.digest || !block.body_matches() {
            return self.offence(peer, Offence::Malformed, "sent a proposal whose parts do not fit");
        }
        if head.key != self.engine.leader(statement.view) {
            return self.offence(peer, Offence::InvalidBlock, "sent a proposal of another than the leader");
        }
        if !self.verified_by_seat(peer, &head) {
            return;
        }
        if let Some(certificate) = admitting
            && !self.certificate_received(peer, certificate, now)
        {
            return;
        }
        let Some(from) = self.peers.get(peer).and_then(|state| state.validator) else { return };
        let block_meta = meta(&block);
        let ahead = statement.view.since(self.engine.view());
        let near = statement.view > self.engine.final_view() && ahead <= self.config.consensus.future_views_max;
        // One block a view, and those that were asked for: an equivocating leader fills no memory.
        let first = !self.proposed.contains_key(&statement.view);
        let wanted = self.fetches.is_asked_block(&block_meta.digest) || self.is_judged(&block_meta.digest);
        if near && (first || wanted) {
            self.proposed.insert(statement.view, block_meta.digest);
            if self.mempool.add_block(Arc::new(block)) {
                self.judge_again();
            }
        }
        self.tell(consensus::Input::Proposal { head, block: block_meta, from }, now);
    }

    fn is_judged(&self, hash: &BlockHash) -> bool {
        self.judging.values().any(|judging| judging.block == *hash)
    }

    fn vote_received(&mut self, peer: Peer, vote: Vote, now: Tick) {
        let Vote { signed, certificate } = vote;
        if !self.is_of_epoch(peer, &signed.statement, now) {
            return;
        }
        if signed.statement.kind == Kind::Propose {
            return self.offence(peer, Offence::Malformed, "sent a proposal as a vote");
        }
        if let Some(certificate) = certificate
            && !self.certificate_received(peer, certificate, now)
        {
            return;
        }
        // The certificate may have ended the epoch.
        if signed.statement.epoch != self.epoch.record.epoch || !self.verified_by_seat(peer, &signed) {
            return;
        }
        if let Some(from) = self.peers.get(peer).and_then(|state| state.validator) {
            self.tell(consensus::Input::Vote { signed, from }, now);
        }
    }

    /// A certificate, alone or with something else. False if it is bad: then what came with it is not looked at.
    fn certificate_received(&mut self, peer: Peer, certificate: Certificate, now: Tick) -> bool {
        let statement = certificate.statement;
        if statement.chain != self.chain || !statement.is_well_formed() {
            self.offence(peer, Offence::Malformed, "sent an impossible certificate");
            return false;
        }
        if statement.epoch != self.epoch.record.epoch {
            if statement.epoch > self.epoch.record.epoch {
                self.later_epoch_seen(peer, &statement, true);
            }
            return true;
        }
        if self.verifier.certificate(&certificate, &self.epoch.set).is_err() {
            self.offence(peer, Offence::BadSignature, "sent a certificate that does not verify");
            return false;
        }
        self.tell(consensus::Input::Certificate(certificate), now);
        true
    }

    pub(crate) fn own_status(&self) -> Status {
        Status { epoch: self.epoch.record.epoch, final_view: self.final_view(), height: self.tip.height }
    }

    fn status_received(&mut self, peer: Peer, status: Status, now: Tick) {
        if let Some(state) = self.peers.get_mut(peer) {
            state.height = state.height.max(status.height);
        }
        let own = self.own_status();
        let older = status.height < own.height || (status.height == own.height && status.final_view < own.final_view);
        if older && self.may_ask(peer, Ask::Status, now) {
            self.send(peer, Message::Status(own));
        }
    }

    fn block_asked(&mut self, peer: Peer, hash: BlockHash, now: Tick) {
        if !self.may_ask(peer, Ask::Block, now) {
            return;
        }
        match self.held_block(&hash).map(Arc::clone) {
            Some(block) => self.send(peer, Message::Block(Box::new(Arc::unwrap_or_clone(block)))),
            None => self.load(Pending::BlockFor(peer), Load::Block(hash)),
        }
    }

    /// A block that was asked for by its hash, which vouches for every byte.
    fn block_received(&mut self, peer: Peer, block: Block) {
        if !block.body_matches() {
            return self.offence(peer, Offence::Malformed, "sent a block whose body is another's");
        }
        if self.fetches.is_asked_block(&block.hash()) && self.mempool.add_block(Arc::new(block)) {
            self.judge_again();
            self.fetch_again();
        }
    }
}
