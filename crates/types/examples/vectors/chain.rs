//! A chain of ten blocks over three epochs with real signatures.

use types::{
    AccountKey, Action, Address, Amount, Batch, BatchHeader, Block, BlockHash, Body, Certificate, ChainId, Epoch, EpochRecord,
    FinalityProof, GenesisRecord, Hash, Header, Height, Kind, Nonce, Params, Receipt, Seat, Sequence, SignedTransaction, Stake,
    StateKey, StateProof, Statement, Transaction, TransactionProof, UnixMs, Validator, ValidatorSet, View, receipts_root,
    transactions_root,
};

use types::merkle::MerklePath;

use super::ledger::State;

/// 99 in all, so that two thirds are a whole number: 66 is no quorum.
pub const WEIGHTS: [u64; 4] = [9, 24, 30, 36];
/// Weight 75.
pub const QUORUM: [u16; 3] = [0, 2, 3];
/// Heights of an epoch.
const EPOCH_LENGTH: u64 = 4;
/// Blocks in the chain.
const BLOCKS: u64 = 10;
/// Heights whose block has a finality certificate of its own; the others are proved by a descendant's.
const CERTIFIED: [u64; 5] = [2, 4, 6, 8, 10];
/// The view that notarized each height; views 3 of epoch 0 and 1 of epoch 1 were nullified.
const VIEWS: [u64; 10] = [1, 2, 4, 5, 2, 3, 4, 5, 1, 2];
/// The height up to which each block's proposer had executed.
const EXECUTED: [u64; 10] = [0, 0, 1, 1, 3, 4, 5, 5, 7, 8];
/// When the chain begins.
const TIME: u64 = 1_700_000_000_000;

pub struct Chain {
    pub genesis: GenesisRecord,
    pub id: ChainId,
    pub epochs: Vec<EpochRecord>,
    pub blocks: Vec<Block>,
    /// Of heights 0 to 10.
    pub states: Vec<State>,
    /// Of heights 0 to 10.
    pub receipts: Vec<Vec<Receipt>>,
    pub batches: Vec<Batch>,
    keys: Vec<AccountKey>,
}

/// Validator keys in the order of seats.
pub fn validator_keys() -> Vec<AccountKey> {
    let seed = |i: u32| Hash::tagged("ebpf-blockchain/vectors-validator", &i.to_le_bytes()).0;
    let mut keys: Vec<AccountKey> = (0..4).map(|i| AccountKey::from_seed(seed(i))).collect();
    keys.sort_by_key(AccountKey::public);
    keys
}

fn epoch_record(epoch: u64, keys: &[AccountKey]) -> EpochRecord {
    let validators = keys.iter().zip(WEIGHTS).map(|(key, weight)| Validator { key: key.public(), weight: Stake(weight) });
    EpochRecord {
        epoch: Epoch(epoch),
        first_height: Height(1 + epoch * EPOCH_LENGTH),
        length: EPOCH_LENGTH,
        version: 1,
        params: Params::default(),
        validators: validators.collect(),
    }
}

fn genesis(keys: &[AccountKey]) -> GenesisRecord {
    let balance = |i: u32| if i == 1 { Amount(1_000) } else { Amount(1_000_000) };
    let mut accounts: Vec<(Address, Amount)> =
        (0..4).map(|i| (AccountKey::development(i).public().address(), balance(i))).collect();
    accounts.sort();
    GenesisRecord { time: UnixMs(TIME), accounts, epochs: [epoch_record(0, keys), epoch_record(1, keys)] }
}

impl Chain {
    pub fn build() -> Chain {
        let keys = validator_keys();
        let genesis = genesis(&keys);
        genesis.check().expect("a valid genesis");
        let state = State::genesis(&genesis);
        let mut chain = Chain {
            id: genesis.chain_id(),
            epochs: (0..4).map(|epoch| epoch_record(epoch, &keys)).collect(),
            genesis,
            blocks: Vec::new(),
            states: vec![state],
            receipts: vec![Vec::new()],
            batches: Vec::new(),
            keys,
        };
        for height in 1..=BLOCKS {
            chain.extend(height);
        }
        chain
    }

    fn extend(&mut self, height: u64) {
        let at = height as usize - 1;
        let record = self.record(height).clone();
        let next = self.epochs[record.epoch.0 as usize + 1].clone();
        let batches = self.batches_of(height, record.epoch);
        let body = Body {
            batches: batches.iter().map(Batch::id).collect(),
            parent_notarization: (height != record.first_height.0).then(|| self.certificate(height - 1, Kind::Notarize, &QUORUM)),
        };
        let executed_before = if height == 1 { 0 } else { EXECUTED[at - 1] };
        let covered = (executed_before + 1..=EXECUTED[at]).flat_map(|h| &self.receipts[h as usize]);
        let leader = record.set().leader(&self.id, View(VIEWS[at]));
        let header = Header {
            version: types::BLOCK_VERSION,
            chain: self.id,
            epoch: record.epoch,
            height: Height(height),
            parent: self.hash(height - 1),
            time: UnixMs(TIME + height * 100),
            proposer: self.keys[leader.index()].public(),
            body_root: body.root(),
            executed: Height(EXECUTED[at]),
            state_root: self.states[EXECUTED[at] as usize].root(),
            receipts_root: receipts_root(covered),
            epoch_hash: record.hash(),
            next_epoch_hash: next.hash(),
        };
        self.blocks.push(Block { header, body });
        let mut state = self.states[at].clone();
        let receipts = state.apply(Height(height), &record, &next, &batches.iter().collect::<Vec<_>>());
        self.states.push(state);
        self.receipts.push(receipts);
        self.batches.extend(batches);
    }

    pub fn record(&self, height: u64) -> &EpochRecord {
        &self.epochs[((height - 1) / EPOCH_LENGTH) as usize]
    }

    pub fn set(&self, height: u64) -> ValidatorSet {
        self.record(height).set()
    }

    pub fn hash(&self, height: u64) -> BlockHash {
        if height == 0 { self.genesis.block_hash() } else { self.blocks[height as usize - 1].hash() }
    }

    pub fn statement(&self, height: u64, kind: Kind) -> Statement {
        let at = height as usize - 1;
        let record = self.record(height);
        let parent_view = if record.first_height.0 == height { View(0) } else { View(VIEWS[at - 1]) };
        Statement { chain: self.id, epoch: record.epoch, view: View(VIEWS[at]), kind, parent_view, digest: self.hash(height) }
    }

    pub fn sign(&self, statement: &Statement, seats: &[u16]) -> Certificate {
        let votes: Vec<_> = seats.iter().map(|s| (Seat(*s), self.keys[*s as usize].sign(&statement.signing_bytes()))).collect();
        Certificate::assemble(&self.epochs[statement.epoch.0 as usize].set(), *statement, &votes)
    }

    pub fn certificate(&self, height: u64, kind: Kind, seats: &[u16]) -> Certificate {
        self.sign(&self.statement(height, kind), seats)
    }

    pub fn key(&self, seat: Seat) -> &AccountKey {
        &self.keys[seat.index()]
    }

    pub fn finality(&self, height: u64) -> FinalityProof {
        let last = CERTIFIED.into_iter().find(|h| *h >= height).expect("a certified descendant");
        let headers = (height..=last).map(|h| self.blocks[h as usize - 1].header.clone()).collect();
        FinalityProof { headers, certificate: self.certificate(last, Kind::Finalize, &QUORUM) }
    }

    /// One for each receipt that a header covers.
    pub fn transaction_proofs(&self) -> Vec<TransactionProof> {
        let mut proofs = Vec::new();
        for at in 0..self.blocks.len() {
            let before = if at == 0 { 0 } else { EXECUTED[at - 1] };
            let covered: Vec<Receipt> =
                (before + 1..=EXECUTED[at]).flat_map(|h| self.receipts[h as usize].iter().copied()).collect();
            let leaves: Vec<Hash> = covered.iter().map(Receipt::leaf).collect();
            for (i, receipt) in covered.iter().enumerate() {
                let path = MerklePath::build(&leaves, i).expect("a receipt's path");
                proofs.push(TransactionProof { receipt: *receipt, path, finality: self.finality(at as u64 + 1) });
            }
        }
        proofs
    }

    pub fn state_proof(&self, key: StateKey, height: u64) -> StateProof {
        self.states[EXECUTED[height as usize - 1] as usize].prove(key, self.finality(height))
    }

    fn batches_of(&self, height: u64, epoch: Epoch) -> Vec<Batch> {
        let far = 1 << 40;
        let transfer = |from, to, nonce, amount, memo| self.transfer(from, to, nonce, amount, memo);
        match height {
            1 => vec![self.batch(0, epoch, 0, vec![transfer(0, 1, 0, 5_000, ""), transfer(0, 9, 1, 7, "first light")])],
            2 => vec![self.batch(1, epoch, 0, vec![transfer(1, 2, 0, far, "more than I have")])],
            // Nonces in any order within the window; the second batch repeats a transaction, which then has no second receipt.
            3 => vec![
                self.batch(2, epoch, 0, vec![transfer(2, 0, 5, 1, ""), transfer(2, 0, 3, 2, "")]),
                self.batch(3, epoch, 0, vec![transfer(2, 0, 5, 1, ""), transfer(3, 3, 0, 3, "to myself")]),
            ],
            4 => vec![self.batch(0, epoch, 1, vec![transfer(3, 8, 1, 4, "")])],
            5 => vec![self.batch(1, epoch, 1, vec![transfer(0, 1, 2, 6, "")])],
            // Its receipts are under a header of the next epoch.
            7 => vec![self.batch(2, epoch, 1, vec![transfer(2, 3, 4, 8, ""), transfer(8, 0, 0, 1, "too poor for a receipt")])],
            // Final, and not yet covered by a header.
            9 => vec![self.batch(3, epoch, 1, vec![transfer(1, 0, 1, 9, "")])],
            _ => Vec::new(),
        }
    }

    fn transfer(&self, from: u32, to: u32, nonce: u64, amount: u64, memo: &str) -> SignedTransaction {
        let key = AccountKey::development(from);
        let to = AccountKey::development(to).public().address();
        let action = Action::Transfer { to, amount: Amount(amount), memo: memo.as_bytes().to_vec() };
        Transaction { chain: self.id, sender: key.public(), nonce: Nonce(nonce), expiry: Height(100), action }.sign(&key)
    }

    fn batch(&self, author: u16, epoch: Epoch, sequence: u64, transactions: Vec<SignedTransaction>) -> Batch {
        let key = &self.keys[author as usize];
        let header = BatchHeader {
            chain: self.id,
            epoch,
            author: key.public(),
            sequence: Sequence(sequence),
            expiry: Height(64),
            count: transactions.len() as u32,
            bytes: transactions.iter().map(|tx| tx.size() as u32).sum(),
            root: transactions_root(transactions.iter().map(SignedTransaction::id)),
        };
        let signature = key.sign(&header.signing_bytes());
        Batch { header, signature, transactions }
    }
}
