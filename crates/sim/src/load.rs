//! Clients: signed transfers to any node, and what became of them.

use std::collections::{BTreeMap, BTreeSet};

use replica::{Input, Token};
use types::{AccountKey, Action, Amount, ChainId, Height, Nonce, SignedTransaction, Transaction, TxId};

use crate::keys;
use crate::plan::{ACCOUNTS, Plan};
use crate::world::{Event, World};

/// Heights that a transaction may wait.
const LIFE: u64 = 400;

/// The clients' books.
pub struct Ledgerless {
    chain: ChainId,
    accounts: Vec<AccountKey>,
    nonces: Vec<u64>,
    tokens: u64,
    /// Submissions without an answer: token to account.
    open: BTreeMap<Token, TxId>,
    /// Taken in, by which process of which instance.
    pub(crate) taken: BTreeMap<TxId, (usize, u64)>,
    /// Dropped with a reason, by that process.
    pub(crate) dropped: BTreeSet<(TxId, usize, u64)>,
    /// Which instances executed the probe.
    pub(crate) probe: Option<TxId>,
    pub(crate) probe_refused: bool,
    pub(crate) executed_probe: BTreeSet<usize>,
}

impl Ledgerless {
    /// Books of a world's clients.
    pub fn new(plan: &Plan) -> Ledgerless {
        Ledgerless {
            chain: plan.genesis.chain_id(),
            accounts: (0..ACCOUNTS).map(keys::account).collect(),
            nonces: vec![0; ACCOUNTS as usize],
            tokens: 0,
            open: BTreeMap::new(),
            taken: BTreeMap::new(),
            dropped: BTreeSet::new(),
            probe: None,
            probe_refused: false,
            executed_probe: BTreeSet::new(),
        }
    }
}

impl World {
    /// A client's transaction to any node that runs, now and then with a bad signature.
    pub(crate) fn load(&mut self) {
        if !self.loading {
            return;
        }
        let at = self.dice.below(self.instances.len());
        let mut tx = self.transfer();
        if self.dice.chance(30) {
            tx.signature.0[7] ^= 1;
        }
        self.submit(at, tx);
        let every = self.plan.load_every_ms;
        let pause = self.dice.range(every / 2, every * 2);
        self.after_ms(pause, Event::Load);
    }

    /// A transfer to a known account, or to a new one.
    pub(crate) fn transfer(&mut self) -> SignedTransaction {
        let from = self.dice.below(ACCOUNTS as usize);
        let to = if self.dice.chance(200) { 2_000 + self.dice.below(8) as u32 } else { self.dice.below(ACCOUNTS as usize) as u32 };
        let nonce = self.clients.nonces[from];
        self.clients.nonces[from] += 1;
        let key = self.clients.accounts[from].clone();
        let expiry = Height(self.chain.height().0 + LIFE);
        let action = Action::Transfer {
            to: keys::account(to).public().address(),
            amount: Amount(self.dice.range(0, 5_000)),
            memo: vec![0; self.dice.below(9)],
        };
        Transaction { chain: self.clients.chain, sender: key.public(), nonce: Nonce(nonce), expiry, action }.sign(&key)
    }

    pub(crate) fn submit(&mut self, at: usize, tx: SignedTransaction) {
        if self.instances[at].replica.is_none() {
            return;
        }
        self.clients.tokens += 1;
        let token = Token(self.clients.tokens);
        self.clients.open.insert(token, tx.id());
        self.input(at, Input::Submit { token, transactions: vec![tx] });
    }

    pub(crate) fn submitted(&mut self, at: usize, token: Token, results: &[Result<TxId, replica::SubmitError>]) {
        let Some(id) = self.clients.open.remove(&token) else { return };
        let life = self.instances[at].life;
        match results.first() {
            Some(Ok(taken)) if *taken == id => {
                self.mark("transaction taken");
                self.clients.taken.insert(id, (at, life));
            }
            Some(Err(_)) => {
                self.mark("transaction refused");
                if self.clients.probe == Some(id) {
                    self.clients.probe_refused = true;
                }
            }
            _ => self.fail(format!("{} answers for another transaction", self.instances[at].name)),
        }
    }

    /// Every transaction that a node took, and that it did not lose to a crash, ended as a receipt or was dropped with a reason.
    pub(crate) fn check_taken(&mut self) {
        let lost: Vec<String> = self
            .clients
            .taken
            .iter()
            .filter(|(id, (at, life))| {
                let instance = &self.instances[*at];
                // A follower forwards again after some heights, which an idle chain has not; a muted node packs nothing.
                let packs = instance.node < self.plan.validators && !instance.muted;
                let alive = instance.honest && packs && instance.life == *life;
                let ended = self.chain.receipt(id).is_some() || self.clients.dropped.contains(&(**id, *at, *life));
                alive && !ended
            })
            .map(|(id, (at, _))| format!("{} at {}", id, self.instances[*at].name))
            .collect();
        if !lost.is_empty() {
            let standing = self.standing();
            self.fail(format!("LOST transactions {}: {standing}", lost.join(", ")));
        }
    }
}
