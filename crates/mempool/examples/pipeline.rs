//! Measures what a transaction costs a validator's mempool and ledger, signatures aside:
//! `cargo run --release -p mempool --example pipeline [blocks] [transactions a block]`.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger::Ledger;
use mempool::{Boot, BuildContext, Config, Execution, JudgeContext, Mempool, Source, Tip, Verdict};
use types::{
    AccountKey, Action, Amount, Certificate, Epoch, EpochRecord, GenesisRecord, Hash, Height, Kind, Nonce, Params, PublicKey, Seat,
    Signature, SignedTransaction, Stake, Statement, Tick, Transaction, UnixMs, Validator, View,
};

const SENDERS: u64 = 100_000;

fn sender(index: u64) -> PublicKey {
    PublicKey(Hash::tagged("pipeline", &(index % SENDERS).to_le_bytes()).0)
}

fn genesis(me: PublicKey) -> GenesisRecord {
    let mut accounts: Vec<_> = (0..SENDERS).map(|i| (sender(i).address(), Amount(1_000_000))).collect();
    accounts.sort();
    let record = |epoch: u64| EpochRecord {
        epoch: Epoch(epoch),
        first_height: Height(1 + epoch * 10_000),
        length: 10_000,
        version: 1,
        params: Params::default(),
        validators: vec![Validator { key: me, weight: Stake(1) }],
    };
    GenesisRecord { time: UnixMs(1), accounts, epochs: [record(0), record(1)] }
}

/// Wall time by stage.
#[derive(Default)]
struct Stages(Vec<(&'static str, Duration)>);

impl Stages {
    fn run<T>(&mut self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = work();
        let spent = start.elapsed();
        match self.0.iter_mut().find(|(stage, _)| *stage == name) {
            Some((_, sum)) => *sum += spent,
            None => self.0.push((name, spent)),
        }
        value
    }
}

fn main() {
    let mut args = std::env::args().skip(1).map(|text| text.parse::<u64>().unwrap());
    let (blocks, each) = (args.next().unwrap_or(50), args.next().unwrap_or(2_000));
    let key = AccountKey::development(0);
    let genesis = genesis(key.public());
    let (mut ledger, _) = Ledger::genesis(&genesis).unwrap();
    let [epoch, next] = genesis.epochs.clone();
    let (chain, record, tip) = (genesis.chain_id(), epoch.clone(), Tip::genesis(&genesis, ledger.root()));
    let boot = Boot { chain, me: Some(key.public()), epoch, next, tip, executed: Height(0) };
    let mut pool = Mempool::new(Config::default(), boot);
    let (mut stages, mut receipts) = (Stages::default(), 0);
    for height in 1..=blocks {
        let transfer = |n: u64| {
            let action = Action::Transfer { to: sender(n * 7 + 1).address(), amount: Amount(1), memo: Vec::new() };
            let (nonce, expiry) = (Nonce((height * each + n) / SENDERS), Height(height + 100));
            let transaction = Transaction { chain, sender: sender(height * each + n), nonce, expiry, action };
            SignedTransaction { transaction, signature: Signature([0; 64]) }
        };
        let transactions: Vec<_> = (0..each).map(transfer).collect();
        let now = Tick(height * 1_000_000);
        stages.run("admit (twice: before and after the signature)", || {
            for tx in transactions {
                pool.precheck(&tx, Source::Local, &ledger).unwrap();
                pool.insert(tx, Source::Local, &ledger, now).unwrap();
            }
        });
        let later = now.plus_ms(20);
        while let Some(draft) = stages.run("pack", || pool.pack(&ledger, later).draft) {
            let signature = key.sign(&draft.header.signing_bytes());
            let batch = Arc::new(draft.sign(signature));
            stages.run("check a batch, its author's signature among it", || batch.check(&chain, &record.params).unwrap());
            stages.run("hold", || pool.hold(batch));
        }
        let tip = *pool.tip();
        let parent_view = View(tip.height.0);
        let statement =
            Statement { chain, epoch: Epoch(0), view: parent_view, kind: Kind::Notarize, parent_view: View(0), digest: tip.hash };
        let notarization =
            (tip.height > Height(0)).then(|| Certificate::assemble(&record.set(), statement, &[(Seat(0), Signature([0; 64]))]));
        let unix = UnixMs(1_000 + height);
        let context = BuildContext { parent: tip.hash, parent_view, notarization, proposer: key.public(), unix };
        let block = stages.run("build", || pool.build(&context).unwrap());
        let context = JudgeContext { leader: key.public(), parent_view, reproposal: false, unix };
        assert_eq!(stages.run("judge", || pool.judge(&block, &context)), Verdict::Valid);
        stages.run("finalize", || pool.finalized(&Arc::new(block), later).unwrap());
        let Execution::Ready(_, batches) = pool.next_execution() else { panic!("a final block with its batches is ready") };
        let outcome = stages.run("apply", || ledger.apply(Height(height), &record, &batches).unwrap());
        receipts += outcome.receipts.len();
        stages.run("executed", || pool.executed(&outcome).unwrap());
    }
    println!("{receipts} receipts in {blocks} blocks, {SENDERS} accounts; left in the pool: {}", pool.status().transactions);
    let mut all = Duration::ZERO;
    for (name, spent) in &stages.0 {
        println!("{:>8.2} µs a transaction  {name}", spent.as_secs_f64() * 1e6 / receipts as f64);
        all += *spent;
    }
    println!("{:>8.2} µs a transaction in all", all.as_secs_f64() * 1e6 / receipts as f64);
}
