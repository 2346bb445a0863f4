//! A chain for tests: one validator, a few accounts, everything a function of a seed.

use std::sync::Arc;

use ledger::Ledger;
use storage::{Executed, FinalBlock};
use types::{
    AccountKey, Action, Amount, BLOCK_VERSION, Batch, BatchHeader, BatchId, Block, Body, Certificate, Epoch, EpochRecord,
    GenesisRecord, Hash, Header, Height, Kind, Nonce, Params, Seat, Sequence, SignedTransaction, Stake, Statement, Transaction,
    UnixMs, Validator, View, receipts_root, transactions_root,
};

pub const ACCOUNTS: u32 = 4;

pub fn validator() -> AccountKey {
    AccountKey::development(100)
}

pub fn genesis() -> GenesisRecord {
    genesis_with(Amount(1_000_000_000))
}

pub fn genesis_with(balance: Amount) -> GenesisRecord {
    let mut accounts: Vec<_> = (0..ACCOUNTS).map(|i| (AccountKey::development(i).public().address(), balance)).collect();
    accounts.sort();
    let record = |epoch: u64| EpochRecord {
        epoch: Epoch(epoch),
        first_height: Height(1 + epoch * 100_000),
        length: 100_000,
        version: 1,
        params: Params::default(),
        validators: vec![Validator { key: validator().public(), weight: Stake(5) }],
    };
    GenesisRecord { time: UnixMs(1), accounts, epochs: [record(0), record(1)] }
}

/// Builds blocks and executes them.
pub struct Chain {
    pub genesis: GenesisRecord,
    pub ledger: Ledger,
    pub tip: Header,
    sequence: u64,
    nonces: [u64; ACCOUNTS as usize],
}

impl Chain {
    pub fn new() -> Chain {
        let genesis = genesis();
        let (ledger, _) = Ledger::genesis(&genesis).unwrap();
        let tip = Header {
            version: BLOCK_VERSION,
            chain: genesis.chain_id(),
            epoch: Epoch(0),
            height: Height(0),
            parent: genesis.block_hash(),
            time: genesis.time,
            proposer: validator().public(),
            body_root: Hash::ZERO,
            executed: Height(0),
            state_root: ledger.root(),
            receipts_root: receipts_root([]),
            epoch_hash: genesis.epochs[0].hash(),
            next_epoch_hash: genesis.epochs[1].hash(),
        };
        Chain { genesis, ledger, tip, sequence: 0, nonces: [0; ACCOUNTS as usize] }
    }

    fn transfer(&mut self, from: u32, memo: usize) -> SignedTransaction {
        let key = AccountKey::development(from);
        let nonce = &mut self.nonces[from as usize];
        let action = Action::Transfer {
            // New accounts now and then, so that the state grows.
            to: AccountKey::development((from + *nonce as u32) % 16).public().address(),
            amount: Amount(1 + *nonce),
            memo: vec![from as u8; memo],
        };
        let transaction = Transaction {
            chain: self.genesis.chain_id(),
            sender: key.public(),
            nonce: Nonce(*nonce),
            expiry: Height(4_000),
            action,
        };
        *nonce += 1;
        transaction.sign(&key)
    }

    /// A batch that blocks up to `expiry` may cite.
    pub fn batch(&mut self, count: u32, expiry: Height) -> Arc<Batch> {
        let transactions: Vec<_> = (0..count).map(|i| self.transfer(i % ACCOUNTS, 64)).collect();
        self.sequence += 1;
        let header = BatchHeader {
            chain: self.genesis.chain_id(),
            epoch: Epoch(0),
            author: validator().public(),
            sequence: Sequence(self.sequence),
            expiry,
            count,
            bytes: transactions.iter().map(SignedTransaction::size).sum::<usize>() as u32,
            root: transactions_root(transactions.iter().map(SignedTransaction::id)),
        };
        let signature = validator().sign(&header.signing_bytes());
        Arc::new(Batch { header, signature, transactions })
    }

    /// The next block, final.
    pub fn block(&mut self, batches: Vec<BatchId>, certified: bool) -> FinalBlock {
        let body = Body { batches, parent_notarization: None };
        let parent = if self.tip.height == Height(0) { self.genesis.block_hash() } else { self.tip.hash() };
        let height = self.tip.height.next();
        let header = Header {
            height,
            parent,
            time: self.tip.time.next(),
            body_root: body.root(),
            executed: self.ledger.height(),
            state_root: self.ledger.root(),
            ..self.tip.clone()
        };
        self.tip = header.clone();
        let certificate = certified.then(|| certificate(&self.genesis, &header));
        FinalBlock { block: Arc::new(Block { header, body }), certificate }
    }

    /// Executes a block.
    pub fn execute(&mut self, block: &Block, batches: &[Arc<Batch>]) -> Executed {
        assert_eq!(block.body.batches, batches.iter().map(|batch| batch.id()).collect::<Vec<_>>());
        let outcome = self.ledger.apply(block.header.height, &self.genesis.epochs[0], batches).unwrap();
        Executed { height: outcome.height, state_root: outcome.state_root, receipts: outcome.receipts, changes: outcome.changes }
    }
}

pub fn certificate(genesis: &GenesisRecord, header: &Header) -> Certificate {
    let statement = Statement {
        chain: genesis.chain_id(),
        epoch: header.epoch,
        view: View(header.height.0),
        kind: Kind::Finalize,
        parent_view: View(header.height.0 - 1),
        digest: header.hash(),
    };
    let signature = validator().sign(&statement.signing_bytes());
    Certificate::assemble(&genesis.epochs[0].set(), statement, &[(Seat(0), signature)])
}
