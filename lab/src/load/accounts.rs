//! Who sends what. The model of balances and nonces here is the lab's own: it knows the rules of the chain from its
//! description, not from the ledger's code, so that it can judge the ledger.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use types::{AccountKey, Action, Address, Amount, ChainId, Height, Nonce, Params, SignedTransaction, Transaction};

use crate::chain::{ACCOUNTS_RESERVED, OPENING_BALANCE};
use crate::load::Plan;

/// Heights that a transaction stays valid: long enough for any outage that a devnet survives.
const LIFE: u64 = 2_000;
const AMOUNT_MAX: u64 = 1_000;

/// A transfer with what the model needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// What is sent.
    pub signed: SignedTransaction,
    /// Who pays, by index.
    pub from: u32,
    /// Who gets it, by index.
    pub to: u32,
    /// How much, without the fee.
    pub amount: u64,
    /// The fee.
    pub fee: u64,
}

/// What an account must hold when everything that the model counted is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its money.
    pub balance: u64,
    /// One above the highest nonce used.
    pub nonce_next: u64,
}

struct Account {
    key: AccountKey,
    address: Address,
    nonce_signed: u64,
    touched: bool,
    expected: Expected,
}

/// The development accounts.
pub struct Accounts {
    chain: ChainId,
    params: Params,
    list: Vec<Account>,
    rng: ChaCha8Rng,
    next: usize,
}

impl Accounts {
    /// Keys of all funded accounts (about 20 µs each).
    pub fn new(plan: &Plan) -> Accounts {
        let account = |index: u32| {
            let key = AccountKey::development(index);
            let expected = Expected { balance: OPENING_BALANCE.0, nonce_next: 0 };
            Account { address: key.public().address(), key, nonce_signed: 0, touched: false, expected }
        };
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        let list: Vec<Account> = (0..plan.accounts).map(|index| account(ACCOUNTS_RESERVED.saturating_add(index))).collect();
        let next = if list.is_empty() { 0 } else { rng.random_range(0..list.len()) };
        Accounts { chain: plan.chain, params: plan.params.clone(), list, rng, next }
    }

    /// Signs the next transfer. Senders take turns, so that each one's nonces in flight stay far inside the window of 64;
    /// recipients and amounts are random.
    pub fn sign_next(&mut self, height: Height) -> Transfer {
        let from = self.next;
        self.next = (self.next + 1) % self.list.len();
        // Not oneself: distance 1 to n − 1.
        let distance = if self.list.len() > 1 { self.rng.random_range(1..self.list.len()) } else { 0 };
        let to = (from + distance) % self.list.len();
        let amount = self.rng.random_range(1..=AMOUNT_MAX);
        let recipient = self.list[to].address;
        let sender = &mut self.list[from];
        let transaction = Transaction {
            chain: self.chain,
            sender: sender.key.public(),
            nonce: Nonce(sender.nonce_signed),
            expiry: height.plus(LIFE.min(self.params.transaction_life_max / 2)),
            action: Action::Transfer { to: recipient, amount: Amount(amount), memo: Vec::new() },
        };
        sender.nonce_signed += 1;
        let signed = transaction.sign(&sender.key);
        let fee = signed.fee(&self.params).0;
        Transfer { signed, from: from as u32, to: to as u32, amount, fee }
    }

    /// Counts a transfer that succeeded.
    pub fn succeeded(&mut self, transfer: &Transfer) {
        let cost = transfer.amount + transfer.fee;
        self.touch(transfer.from, |expected| expected.balance -= cost);
        self.touch(transfer.to, |expected| expected.balance += transfer.amount);
        self.nonce_used(transfer);
    }

    /// Counts a transfer that is final without success: fee and nonce are consumed.
    pub fn failed(&mut self, transfer: &Transfer) {
        self.touch(transfer.from, |expected| expected.balance -= transfer.fee);
        self.nonce_used(transfer);
    }

    fn nonce_used(&mut self, transfer: &Transfer) {
        let next = transfer.signed.transaction.nonce.0 + 1;
        self.touch(transfer.from, |expected| expected.nonce_next = expected.nonce_next.max(next));
    }

    fn touch(&mut self, index: u32, change: impl FnOnce(&mut Expected)) {
        if let Some(account) = self.list.get_mut(index as usize) {
            account.touched = true;
            change(&mut account.expected);
        }
    }

    /// Every account that a counted transfer touched, with what it must hold.
    pub fn expected(&self) -> Vec<(Address, Expected)> {
        self.list.iter().filter(|account| account.touched).map(|account| (account.address, account.expected)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Plan {
        Plan { chain: ChainId::default(), params: Params::default(), nodes: Vec::new(), accounts: 8, tps: 1, seed, duration: None }
    }

    #[test]
    fn transfers_are_valid_distinct_and_seeded() {
        let mut accounts = Accounts::new(&plan(7));
        let list: Vec<Transfer> = (0..32).map(|_| accounts.sign_next(Height(3))).collect();
        let ids: std::collections::BTreeSet<_> = list.iter().map(|t| t.signed.id()).collect();
        assert_eq!(ids.len(), list.len());
        for transfer in &list {
            assert!(transfer.signed.verify_signature());
            assert_ne!(transfer.from, transfer.to);
            transfer.signed.check_stateless(&ChainId::default(), &Params::default()).unwrap();
        }
        assert_eq!(Accounts::new(&plan(7)).sign_next(Height(3)), list[0]);
        assert_ne!(Accounts::new(&plan(8)).sign_next(Height(3)), list[0]);
    }

    #[test]
    fn the_model_conserves_money_but_for_fees() {
        let mut accounts = Accounts::new(&plan(1));
        let list: Vec<Transfer> = (0..40).map(|_| accounts.sign_next(Height(3))).collect();
        let (good, bad) = list.split_at(30);
        good.iter().for_each(|transfer| accounts.succeeded(transfer));
        bad.iter().for_each(|transfer| accounts.failed(transfer));
        let expected = accounts.expected();
        let fees: u64 = list.iter().map(|transfer| transfer.fee).sum();
        let total: u64 = expected.iter().map(|(_, expected)| expected.balance).sum();
        assert_eq!(expected.len(), 8);
        assert_eq!(total + fees, 8 * OPENING_BALANCE.0);
        assert!(expected.iter().all(|(_, expected)| expected.nonce_next == 5));
    }
}
