//! A development chain and one node on it: a mempool with its ledger.

use std::sync::Arc;

use ledger::{Ledger, Outcome};
use mempool::{Boot, BuildContext, Config, Dropped, Execution, JudgeContext, Mempool, Source, SubmitError, Tip, Verdict};
use types::{
    AccountKey, Action, Amount, Batch, Block, BlockHash, Certificate, ChainId, Epoch, EpochRecord, GenesisRecord, Height, Kind,
    Nonce, Params, PublicKey, Seat, Signature, SignedTransaction, Stake, Statement, Tick, Transaction, TxId, UnixMs, Validator,
    View,
};

pub const START: UnixMs = UnixMs(1_000_000);
pub const ACCOUNTS: u32 = 6;

/// Validators' keys, in order of their seats. Test keys sign batches here; no validator's key leaves the signer in the node.
pub fn validators(count: u32) -> Vec<AccountKey> {
    let mut keys: Vec<AccountKey> = (0..count).map(|i| AccountKey::development(1_000 + i)).collect();
    keys.sort_by_key(AccountKey::public);
    keys
}

pub fn params() -> Params {
    Params {
        lag_max: 4,
        batch_life: 8,
        block_batches_max: 8,
        batch_transactions_max: 4,
        transaction_life_max: 12,
        ..Params::default()
    }
}

pub fn genesis(count: u32, length: u64, params: &Params) -> GenesisRecord {
    let validators: Vec<Validator> =
        validators(count).iter().map(|key| Validator { key: key.public(), weight: Stake(1) }).collect();
    let record = |epoch: u64| EpochRecord {
        epoch: Epoch(epoch),
        first_height: Height(1 + epoch * length),
        length,
        version: 1,
        params: params.clone(),
        validators: validators.clone(),
    };
    let mut accounts: Vec<_> = (0..ACCOUNTS).map(|i| (AccountKey::development(i).public().address(), Amount(1_000_000))).collect();
    accounts.sort();
    GenesisRecord { time: START, accounts, epochs: [record(0), record(1)] }
}

/// Signed by nobody: neither mempool nor ledger looks at transactions' signatures.
pub fn transfer(chain: ChainId, from: u32, nonce: u64, expiry: u64) -> SignedTransaction {
    let to = AccountKey::development((from + 1) % ACCOUNTS).public().address();
    let transaction = Transaction {
        chain,
        sender: AccountKey::development(from).public(),
        nonce: Nonce(nonce),
        expiry: Height(expiry),
        action: Action::Transfer { to, amount: Amount(1), memo: Vec::new() },
    };
    SignedTransaction { transaction, signature: Signature([0; 64]) }
}

/// A notarization of the right shape; its signatures are the replica's matter.
pub fn notarization(record: &EpochRecord, chain: ChainId, view: View, digest: BlockHash) -> Certificate {
    let statement =
        Statement { chain, epoch: record.epoch, view, kind: Kind::Notarize, parent_view: View(view.0.saturating_sub(1)), digest };
    let votes: Vec<_> = (0..record.validators.len()).map(|i| (Seat(i as u16), Signature([0; 64]))).collect();
    Certificate::assemble(&record.set(), statement, &votes)
}

#[derive(Clone)]
pub struct Node {
    pub key: AccountKey,
    pub chain: ChainId,
    pub mempool: Mempool,
    pub ledger: Ledger,
    pub record: EpochRecord,
    pub receipts: Vec<TxId>,
    pub dropped: Vec<Dropped>,
    /// Final blocks by height, from 1.
    pub blocks: Vec<Arc<Block>>,
    pub outcomes: Vec<Outcome>,
}

impl Node {
    pub fn new(genesis: &GenesisRecord, seat: u32, config: Config) -> Node {
        let key = validators(genesis.epochs[0].validators.len() as u32)[seat as usize].clone();
        let (ledger, _) = Ledger::genesis(genesis).unwrap();
        let [record, next] = genesis.epochs.clone();
        let boot = Boot {
            chain: genesis.chain_id(),
            me: Some(key.public()),
            epoch: record.clone(),
            next,
            tip: Tip::genesis(genesis, ledger.root()),
            executed: Height(0),
        };
        let mempool = Mempool::new(config, boot);
        let chain = genesis.chain_id();
        let (receipts, dropped) = (Vec::new(), Vec::new());
        Node { key, chain, mempool, ledger, record, receipts, dropped, blocks: Vec::new(), outcomes: Vec::new() }
    }

    pub fn me(&self) -> PublicKey {
        self.key.public()
    }

    pub fn submit(&mut self, tx: SignedTransaction, now: Tick) -> Result<TxId, SubmitError> {
        self.mempool.insert(tx, Source::Local, &self.ledger, now)
    }

    /// Packs one batch, signs it, and holds it as if it were synced.
    pub fn pack(&mut self, now: Tick) -> Option<Arc<Batch>> {
        let packed = self.mempool.pack(&self.ledger, now);
        self.dropped.extend(packed.dropped);
        let draft = packed.draft?;
        let signature = self.key.sign(&draft.header.signing_bytes());
        let batch = Arc::new(draft.sign(signature));
        batch.check(&self.chain, &self.record.params).unwrap();
        assert!(self.mempool.hold(Arc::clone(&batch)));
        Some(batch)
    }

    pub fn announce_all(&mut self, batch: &Batch) {
        for validator in &self.record.validators.clone() {
            assert_eq!(self.mempool.announced(&validator.key, &[batch.id()]), 0);
        }
    }

    pub fn build_on(&self, parent: BlockHash, parent_view: View, unix: UnixMs) -> Result<Block, mempool::BuildError> {
        let notarization = (parent_view > View(0)).then(|| notarization(&self.record, self.chain, parent_view, parent));
        self.mempool.build(&BuildContext { parent, parent_view, notarization, proposer: self.me(), unix })
    }

    pub fn judge(&self, block: &Block, parent_view: View, unix: UnixMs) -> Verdict {
        let context = JudgeContext { leader: block.header.proposer, parent_view, reproposal: false, unix };
        self.mempool.judge(block, &context)
    }

    pub fn finalize(&mut self, block: &Arc<Block>, now: Tick) {
        self.dropped.extend(self.mempool.finalized(block, now).unwrap());
        self.blocks.push(Arc::clone(block));
        if block.header.height == self.record.last_height() {
            // A chain of equal epochs: the ledger's next record is the one that headers name.
            let next = self.ledger.next_epoch(&self.record);
            let after = self.ledger.next_epoch(&next);
            self.dropped.extend(self.mempool.enter_epoch(next.clone(), &after, now));
            self.record = next;
        }
    }

    /// The record of a height at or below the present epoch; all epochs of a test are alike.
    fn record_of(&self, height: Height) -> EpochRecord {
        let mut record = self.record.clone();
        while height < record.first_height {
            record.epoch = record.epoch.prev();
            record.first_height = Height(record.first_height.0 - record.length);
        }
        record
    }

    /// Executes the next final block; false if there is none, or a batch is missing.
    pub fn execute(&mut self) -> bool {
        let Execution::Ready(block, batches) = self.mempool.next_execution() else { return false };
        let height = block.header.height;
        let outcome = self.ledger.apply(height, &self.record_of(height), &batches).unwrap();
        self.dropped.extend(self.mempool.executed(&outcome).unwrap());
        self.receipts.extend(outcome.receipts.iter().map(|receipt| receipt.id));
        self.outcomes.push(outcome);
        true
    }
}
