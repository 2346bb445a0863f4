//! Transactions and batches on their way in and out.

use std::collections::BTreeSet;
use std::sync::Arc;

use mempool::{BatchRefusal, Source, SubmitError};
use types::{Batch, BatchError, BatchId, FORWARD_MAX, IDS_MAX, Message, Offence, SignedTransaction, Tick, TxId};

use crate::effect::{Effect, Event, StoreOp, Verifiable};
use crate::input::{Peer, Token};
use crate::replica::{Pending, Replica};

/// Most bytes of batches sent for one request; the rest is asked for again.
const FETCH_ANSWER_BYTES_MAX: usize = 8 << 20;

/// Who waits for the verdict on a list of transactions.
#[derive(Clone, Debug)]
pub(crate) enum Submitter {
    /// The node's API, under its own token.
    Local(Token),
    /// A forwarding peer.
    Peer(Peer),
}

/// A list of transactions whose signatures are being checked.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    submitter: Submitter,
    /// A result for each that was submitted; those with `Ok` are being checked, in this order.
    results: Vec<Result<TxId, SubmitError>>,
    checked: Arc<Vec<SignedTransaction>>,
}

/// Batches between verification and disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Storing {
    /// Being verified or synced: not asked for or checked again meanwhile.
    pub(crate) under_way: BTreeSet<BatchId>,
    /// Verified, waiting for the sync before.
    queue: Vec<Arc<Batch>>,
    /// Whether a sync is under way: one at a time, so that each takes all that came meanwhile.
    busy: bool,
}

/// Whether a transaction is refused because it, or its like, was there before.
fn is_known(error: &SubmitError) -> bool {
    matches!(error, SubmitError::Duplicate(_) | SubmitError::NonceTaken(_) | SubmitError::Skipped(_))
}

fn known_id(result: &Result<TxId, SubmitError>) -> Option<TxId> {
    match result {
        Err(SubmitError::Duplicate(id)) => Some(*id),
        _ => None,
    }
}

impl<D: signer::Disk> Replica<D> {
    /// Transactions from the API or a peer: cheap checks, then the signature pool.
    pub(crate) fn submit(&mut self, submitter: Submitter, transactions: Vec<SignedTransaction>, now: Tick) {
        let source = match submitter {
            Submitter::Local(_) => Source::Local,
            Submitter::Peer(peer) => Source::Peer(peer.0),
        };
        let full = self.verifying >= self.config.verifying_max;
        let mut checked = Vec::new();
        let mut results = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            let result = if full {
                Err(SubmitError::Full { retry_after_ms: self.config.resend_ms })
            } else {
                self.mempool.precheck(&transaction, source, &self.ledger)
            };
            match (&result, &submitter) {
                (Ok(_), _) => checked.push(transaction),
                (Err(error), Submitter::Peer(peer)) if is_known(error) => self.came_again(*peer, transaction.id().0, now),
                (Err(_), _) => {}
            }
            results.push(result);
        }
        if checked.is_empty() {
            return self.answer(submitter, results);
        }
        let checked = Arc::new(checked);
        let submission = Submission { submitter, results, checked: Arc::clone(&checked) };
        self.verify(Pending::Submission(submission), Verifiable::List(checked));
    }

    fn verify(&mut self, pending: Pending, transactions: Verifiable) {
        self.verifying += 1;
        let token = self.expect(pending);
        self.emit(Effect::Verify { token, transactions });
    }

    fn answer(&mut self, submitter: Submitter, results: Vec<Result<TxId, SubmitError>>) {
        match submitter {
            Submitter::Local(token) => self.emit(Effect::Answer { token, results }),
            Submitter::Peer(_) => {
                for error in results.into_iter().filter_map(Result::err) {
                    self.event(Event::TransactionRefused(error));
                }
            }
        }
    }

    /// The verdicts on a submission: the good ones go into the pool.
    pub(crate) fn submission_verified(&mut self, submission: Submission, good: &[bool], now: Tick) {
        let Submission { submitter, mut results, checked } = submission;
        let source = match submitter {
            Submitter::Local(_) => Source::Local,
            Submitter::Peer(peer) => Source::Peer(peer.0),
        };
        let mut verdicts = good.iter().copied();
        let mut transactions = Arc::unwrap_or_clone(checked).into_iter();
        let mut bad = false;
        for result in results.iter_mut().filter(|result| result.is_ok()) {
            let Some(transaction) = transactions.next() else { break };
            *result = if verdicts.next() == Some(true) {
                self.mempool.insert(transaction, source, &self.ledger, now)
            } else {
                bad = true;
                Err(SubmitError::Signature)
            };
        }
        if let Submitter::Peer(peer) = submitter {
            // Sent again before its first copy was checked.
            let again: Vec<TxId> = results.iter().filter_map(known_id).collect();
            again.into_iter().for_each(|id| self.came_again(peer, id.0, now));
        }
        if let Submitter::Peer(peer) = submitter
            && bad
        {
            self.offence(peer, Offence::BadSignature, "forwarded a transaction with a bad signature");
        }
        self.answer(submitter, results);
    }

    /// A batch from a peer: pushed by its author, or asked for.
    pub(crate) fn batch_received(&mut self, peer: Peer, batch: Arc<Batch>, now: Tick) {
        let id = batch.id();
        let pushed = self.peers.get(peer).and_then(|state| state.validator) == Some(batch.header.author);
        let asked = self.fetches.is_asked(&id);
        if !asked && (!pushed || self.storing.under_way.contains(&id) || self.mempool.batch(&id).is_some()) {
            return self.came_again(peer, id.0, now);
        }
        if self.storing.under_way.contains(&id) || self.verifying >= self.config.verifying_max {
            return;
        }
        match self.mempool.check_batch(&batch) {
            Ok(id) => {
                self.storing.under_way.insert(id);
                self.verify(Pending::Batch(peer, Arc::clone(&batch)), Verifiable::Batch(batch));
            }
            Err(BatchRefusal::Invalid(error)) => {
                let offence = match error {
                    BatchError::Signature(_) => Offence::BadSignature,
                    _ => Offence::InvalidBlock,
                };
                self.offence(peer, offence, "sent an invalid batch");
            }
            // There may be room for it later.
            Err(BatchRefusal::Full) => {}
            Err(_) => {
                self.fetches.useless(id);
                self.came_again(peer, id.0, now);
            }
        }
    }

    /// The verdicts on a batch: if all are good it goes to disk; else its sender is no honest node, who would have checked it.
    pub(crate) fn batch_verified(&mut self, peer: Peer, batch: Arc<Batch>, good: &[bool]) {
        if good.len() == batch.transactions.len() && good.iter().all(|good| *good) {
            return self.store_batch(batch);
        }
        self.storing.under_way.remove(&batch.id());
        self.offence(peer, Offence::BadSignature, "sent a batch with a bad transaction signature");
    }

    /// Makes a verified batch durable: *held* means synced.
    pub(crate) fn store_batch(&mut self, batch: Arc<Batch>) {
        self.storing.under_way.insert(batch.id());
        self.storing.queue.push(batch);
        self.store_queued();
    }

    fn store_queued(&mut self) {
        if self.storing.busy || self.storing.queue.is_empty() {
            return;
        }
        self.storing.busy = true;
        let batches = std::mem::take(&mut self.storing.queue);
        self.store(Pending::Batches(batches.clone()), StoreOp::Batches(batches));
    }

    /// Batches are durable: they count as held, own ones are pushed, all are announced soon.
    pub(crate) fn batches_stored(&mut self, batches: Vec<Arc<Batch>>, now: Tick) {
        self.storing.busy = false;
        for batch in batches {
            let id = batch.id();
            self.storing.under_way.remove(&id);
            let own = self.me == Some(batch.header.author);
            let held = self.mempool.hold(Arc::clone(&batch));
            if held {
                self.judge_again();
            } else {
                for dropped in self.mempool.give_back(&batch, now) {
                    self.event(Event::TransactionDropped(dropped));
                }
            }
            if own && held {
                self.event(Event::BatchMade { id, transactions: batch.transactions.len() });
                let to: Vec<Peer> = self.peers.validators(&self.epoch.set).collect();
                self.send_all(to, Message::Batch(batch));
            }
        }
        self.announce_at.get_or_insert(now.plus_ms(self.config.announce_delay_ms));
        self.store_queued();
    }

    /// Packs waiting transactions into own batches; a node that is no validator forwards them.
    pub(crate) fn pack_step(&mut self, now: Tick) {
        if self.is_validator() {
            loop {
                let packed = self.mempool.pack(&self.ledger, now);
                for dropped in packed.dropped {
                    self.event(Event::TransactionDropped(dropped));
                }
                let Some(draft) = packed.draft else { break };
                let Some(signer) = &mut self.signer else { break };
                match signer.sign_plain(signer::Plain::Batch(&draft.header)) {
                    Ok(signature) => self.store_batch(Arc::new(draft.sign(signature))),
                    Err(error) => return self.sign_failed(error),
                }
            }
        } else if self.forward_at.is_none_or(|at| at <= now) {
            self.forward(now);
        }
    }

    /// Gives waiting transactions to some validators, by turns.
    fn forward(&mut self, now: Tick) {
        self.forward_at = None;
        let validators: Vec<Peer> = self.peers.validators(&self.epoch.set).collect();
        if validators.is_empty() {
            return;
        }
        let transactions = self.mempool.take_forwards(FORWARD_MAX, now);
        if transactions.is_empty() {
            return;
        }
        self.forward_turn = self.forward_turn.wrapping_add(1);
        let start = self.forward_turn % validators.len();
        let to = (0..self.config.forward_peers.min(validators.len())).map(|i| validators[(start + i) % validators.len()]);
        self.send_all(to.collect(), Message::Transactions(transactions));
        self.forward_at = Some(now.plus_ms(self.config.announce_delay_ms));
    }

    /// Tells the validators what is newly held.
    pub(crate) fn announce_step(&mut self, now: Tick) {
        if self.announce_at.is_none_or(|at| at > now) {
            return;
        }
        self.announce_at = None;
        loop {
            let ids = self.mempool.take_announcements();
            if ids.is_empty() {
                return;
            }
            let to: Vec<Peer> = self.peers.validators(&self.epoch.set).collect();
            self.send_all(to, Message::Announce(ids));
        }
    }

    /// On a connect: own open batches again, and what is held is announced again.
    pub(crate) fn reannounce(&mut self, peer: Peer) {
        if !self.is_validator() {
            return;
        }
        for batch in self.mempool.own_batches() {
            self.send(peer, Message::Batch(batch));
        }
        for ids in self.mempool.open_batches().chunks(IDS_MAX) {
            self.send(peer, Message::Announce(ids.to_vec()));
        }
    }

    /// A peer asks for batches: those in memory at once, the others from storage.
    pub(crate) fn batches_asked(&mut self, peer: Peer, ids: Vec<BatchId>) {
        let (mut bytes, mut stored) = (0usize, Vec::new());
        for id in ids {
            match self.mempool.batch(&id).map(Arc::clone) {
                Some(batch) if bytes < FETCH_ANSWER_BYTES_MAX => {
                    bytes += batch.header.bytes as usize;
                    self.send(peer, Message::Batch(batch));
                }
                Some(_) => {}
                None => stored.push(id),
            }
        }
        if !stored.is_empty() {
            self.load(Pending::BatchesFor(peer), crate::effect::Load::Batches(stored));
        }
    }

    /// Storage found batches that a peer asked for.
    pub(crate) fn batches_loaded(&mut self, peer: Peer, batches: Vec<Arc<Batch>>) {
        let mut bytes = 0usize;
        for batch in batches {
            if bytes >= FETCH_ANSWER_BYTES_MAX {
                break;
            }
            bytes += batch.header.bytes as usize;
            self.send(peer, Message::Batch(batch));
        }
    }
}
