//! A shell for tests: storage that is a list, a signature pool that answers at once, a journal in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use ledger::Ledger;
use replica::{Boot, Config, Effect, Event, FinalBlock, Input, Load, Loaded, Peer, Replica, StoreOp};
use signer::{Disk, Signer, ValidatorKey};
use types::{
    AccountKey, Action, Amount, Batch, BatchId, Epoch, EpochRecord, GenesisRecord, Height, Message, Nonce, Offence, Params,
    SignedTransaction, Stake, Tick, Transaction, UnixMs, Validator,
};

/// A journal in memory.
#[derive(Debug, Default)]
pub struct Memory(Vec<u8>);

impl Disk for Memory {
    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.0.clone())
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len as usize);
        Ok(())
    }
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

/// The seed of a validator's key.
pub fn seed(index: u8) -> [u8; 32] {
    [index + 1; 32]
}

/// A validator's key as an attacker would hold it.
pub fn key(index: u8) -> AccountKey {
    AccountKey::from_seed(seed(index))
}

/// A chain of some validators and eight funded accounts.
pub fn genesis(validators: u8) -> GenesisRecord {
    let mut list: Vec<Validator> = (0..validators).map(|index| Validator { key: key(index).public(), weight: Stake(1) }).collect();
    list.sort_by_key(|validator| validator.key);
    let record = |epoch: u64| EpochRecord {
        epoch: Epoch(epoch),
        first_height: Height(1 + 4 * epoch),
        length: 4,
        version: 1,
        params: Params::default(),
        validators: list.clone(),
    };
    let mut accounts: Vec<_> = (0..8).map(|index| (AccountKey::development(index).public().address(), Amount(1_000_000))).collect();
    accounts.sort();
    GenesisRecord { time: UnixMs(1_000_000), accounts, epochs: [record(0), record(1)] }
}

/// A transfer between development accounts.
pub fn transfer(genesis: &GenesisRecord, from: u32, nonce: u64) -> SignedTransaction {
    let sender = AccountKey::development(from);
    let to = AccountKey::development((from + 1) % 8).public().address();
    let action = Action::Transfer { to, amount: Amount(5), memo: Vec::new() };
    let (chain, expiry) = (genesis.chain_id(), Height(100));
    Transaction { chain, sender: sender.public(), nonce: Nonce(nonce), expiry, action }.sign(&sender)
}

/// A replica in its shell.
pub struct Node {
    pub replica: Replica<Memory>,
    pub now: Tick,
    pub finals: BTreeMap<Height, FinalBlock>,
    pub batches: BTreeMap<BatchId, Arc<Batch>>,
    pub sent: Vec<(Peer, Arc<Message>)>,
    pub offences: Vec<(Peer, Offence)>,
    pub events: Vec<Event>,
    pub answers: Vec<Result<types::TxId, replica::SubmitError>>,
}

impl Node {
    /// A node with an empty disk; with a key it is a validator.
    pub fn start(genesis: &GenesisRecord, index: Option<u8>, config: Config) -> Node {
        let (ledger, _) = Ledger::genesis(genesis).unwrap();
        let (epochs, executed, blocks, batches) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let boot = Boot { genesis: genesis.clone(), epochs, tip: None, ledger, executed, blocks, batches };
        let signer = index.map(|index| Signer::open(ValidatorKey::from_seed(seed(index)), Memory::default()).unwrap());
        let replica = Replica::new(config, boot, signer, Tick(1), UnixMs(2_000_000)).unwrap();
        let mut node = Node {
            replica,
            now: Tick(1),
            finals: BTreeMap::new(),
            batches: BTreeMap::new(),
            sent: Vec::new(),
            offences: Vec::new(),
            events: Vec::new(),
            answers: Vec::new(),
        };
        node.carry_out();
        node
    }

    /// One input, and all that follows from it.
    pub fn tell(&mut self, input: Input) {
        let unix = UnixMs(2_000_000 + self.now.0 / 1_000);
        self.replica.handle(input, self.now, unix);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.replica.poll_effect() {
            let answer = match effect {
                Effect::Send { peer, message } => {
                    self.sent.push((peer, message));
                    continue;
                }
                Effect::Verify { token, transactions } => {
                    let good = transactions.transactions().iter().map(SignedTransaction::verify_signature).collect();
                    Input::Verified { token, good }
                }
                Effect::Store { token, op } => {
                    self.store(op);
                    Input::Stored { token }
                }
                Effect::Load { token, load } => Input::Loaded { token, loaded: self.load(&load) },
                Effect::Offence { peer, offence, .. } => {
                    self.offences.push((peer, offence));
                    continue;
                }
                Effect::Answer { results, .. } => {
                    self.answers.extend(results);
                    continue;
                }
                Effect::Event(event) => {
                    self.events.push(event);
                    continue;
                }
                Effect::CloseStreams { .. } | Effect::Evidence(_) => continue,
                Effect::Fatal(fatal) => panic!("{fatal}"),
            };
            self.tell(answer);
        }
    }

    fn store(&mut self, op: StoreOp) {
        match op {
            StoreOp::Batches(batches) => self.batches.extend(batches.into_iter().map(|batch| (batch.id(), batch))),
            StoreOp::Final(blocks) => self.finals.extend(blocks.into_iter().map(|b| (b.block.header.height, b))),
            StoreOp::Executed(_) | StoreOp::Epoch(_) => {}
        }
    }

    fn load(&self, load: &Load) -> Loaded {
        match load {
            Load::FinalBlocks { from, max } => {
                let Some(first) = self.finals.get(from) else {
                    return Loaded::FinalBlocks { blocks: Vec::new(), certificate: None };
                };
                let epoch = first.block.header.epoch;
                let blocks: Vec<&FinalBlock> =
                    self.finals.range(*from..).map(|(_, b)| b).take(*max).take_while(|b| b.block.header.epoch == epoch).collect();
                let certificate = blocks.last().and_then(|block| block.certificate.clone());
                Loaded::FinalBlocks { blocks: blocks.into_iter().map(|b| Arc::clone(&b.block)).collect(), certificate }
            }
            Load::Block(hash) => {
                Loaded::Block(self.finals.values().find(|b| b.block.hash() == *hash).map(|b| Arc::clone(&b.block)))
            }
            Load::Batches(ids) => Loaded::Batches(ids.iter().filter_map(|id| self.batches.get(id)).map(Arc::clone).collect()),
            Load::Finality(_) => Loaded::Certificate(None),
        }
    }

    /// Lets time pass, from timer to timer.
    pub fn pass_ms(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        while let Some(due) = self.replica.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due).next();
            self.tell(Input::Timeout);
        }
        self.now = self.now.max(end);
    }
}
