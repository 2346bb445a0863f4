//! From a submitted transaction to a batch that wants a signature.

use ledger::Ledger;
use types::{BatchHeader, Height, NONCE_WINDOW, Sequence, SignedTransaction, Tick, TxId, transactions_root};

use crate::error::{DropReason, Dropped, SubmitError};
use crate::mempool::{Draft, Mempool, Packed};
use crate::pool::{NewPlace, RoomContext, Source};

impl Mempool {
    /// All checks but the signature: ask this first, so that nobody's refused transaction costs a signature check.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn precheck(&self, tx: &SignedTransaction, source: Source, ledger: &Ledger) -> Result<TxId, SubmitError> {
        let params = &self.epoch.record.params;
        tx.check_stateless(&self.chain_id, params).map_err(SubmitError::Invalid)?;
        let id = tx.id();
        let account = ledger.account(&tx.transaction.sender.address()).unwrap_or_default();
        let at = RoomContext { config: &self.config, params, height: self.chain.tip().height };
        let height = self.chain.tip().height.next();
        ledger.admits(tx, height, params).map_err(SubmitError::Skipped)?;
        if tx.transaction.nonce.since(account.nonce_next) >= NONCE_WINDOW {
            return Err(SubmitError::NonceAhead { next: account.nonce_next });
        }
        self.pool.check_room(tx, &id, source, account.balance, &at)?;
        Ok(id)
    }

    /// Takes a transaction whose signature was verified. From now on it ends as a receipt or a [`Dropped`].
    ///
    /// # Errors
    /// [`SubmitError`]: all of [`Mempool::precheck`] again, since others came in meanwhile.
    pub fn insert(&mut self, tx: SignedTransaction, source: Source, ledger: &Ledger, now: Tick) -> Result<TxId, SubmitError> {
        let id = self.precheck(&tx, source, ledger)?;
        self.pool.add(tx, id, source, &self.epoch.record.params, NewPlace::Line(now));
        Ok(id)
    }

    /// When [`Mempool::pack`] has something to do; `None` if only events can change that.
    pub fn pack_at(&self) -> Option<Tick> {
        let since = self.pool.waiting_since()?;
        if !self.may_pack() {
            return None;
        }
        Some(if self.is_batch_full() { since } else { since.plus_ms(self.config.batch_delay_ms) })
    }

    fn may_pack(&self) -> bool {
        let seated = self.me.is_some_and(|me| self.epoch.seat(&me).is_some());
        seated && self.own_open_count() < self.config.own_batches_max
    }

    fn is_batch_full(&self) -> bool {
        let params = &self.epoch.record.params;
        self.pool.waiting_bytes() >= params.batch_bytes_max as usize
            || self.pool.waiting_len() >= params.batch_transactions_max as usize
    }

    /// Packs waiting transactions, first come first, once there are enough for a batch or the first has waited
    /// `batch_delay_ms`. Call again until it gives no draft.
    pub fn pack(&mut self, ledger: &Ledger, now: Tick) -> Packed {
        let mut packed = Packed::default();
        let Some(me) = self.me.filter(|_| self.pack_at().is_some_and(|at| at <= now)) else {
            return packed;
        };
        let transactions = self.draw(ledger, &mut packed.dropped);
        if transactions.is_empty() {
            return packed;
        }
        let header = BatchHeader {
            chain: self.chain_id,
            epoch: self.epoch.record.epoch,
            author: me,
            sequence: Sequence(self.next_sequence),
            expiry: self.chain.tip().height.plus(self.epoch.record.params.batch_life),
            count: transactions.len() as u32,
            bytes: transactions.iter().map(SignedTransaction::size).sum::<usize>() as u32,
            root: transactions_root(transactions.iter().map(SignedTransaction::id)),
        };
        self.next_sequence += 1;
        let batch = header.id();
        self.drafts.insert(batch);
        for tx in &transactions {
            self.pool.pack(&tx.id(), batch);
        }
        packed.draft = Some(Draft { header, transactions });
        packed
    }

    /// As many as fit a batch, from the front of the line; what would be skipped leaves the pool.
    fn draw(&mut self, ledger: &Ledger, dropped: &mut Vec<Dropped>) -> Vec<SignedTransaction> {
        let params = &self.epoch.record.params;
        let height = self.chain.tip().height.next();
        let (mut chosen, mut bytes) = (Vec::new(), 0usize);
        for id in self.pool.line() {
            let Some(entry) = self.pool.get(&id) else { continue };
            match ledger.admits(&entry.tx, height, params) {
                Err(reason) => dropped.push(Dropped { id, reason: DropReason::Skipped(reason) }),
                Ok(()) => {
                    bytes += entry.size;
                    if bytes > params.batch_bytes_max as usize || chosen.len() >= params.batch_transactions_max as usize {
                        break;
                    }
                    chosen.push(entry.tx.clone());
                }
            }
        }
        for gone in dropped {
            self.pool.remove(&gone.id);
        }
        chosen
    }

    /// Transactions for a node that is no validator to send to some that are: at most `max`, first come first. What has no
    /// receipt after `forward_patience` heights is given again.
    pub fn take_forwards(&mut self, max: usize, now: Tick) -> Vec<SignedTransaction> {
        let executed = self.executed.highest();
        let patient = executed.0.checked_sub(self.config.forward_patience).map(Height);
        while let Some(patient) = patient
            && let Some(id) = self.pool.forwarded_before(patient)
        {
            self.pool.requeue(&id, now);
        }
        let ids: Vec<TxId> = self.pool.line().take(max).collect();
        let forwards = ids.iter().filter_map(|id| self.pool.get(id)).map(|entry| entry.tx.clone()).collect();
        for id in &ids {
            self.pool.forward(id, executed);
        }
        forwards
    }
}
