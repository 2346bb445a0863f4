//! The start, in this order: storage tip → the signer's cut check → held batches and headers → journal → the view above the
//! highest certificate. Connecting and re-sending follow by themselves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use consensus::{Context, Engine, OwnVote, Recovered};
use mempool::{Mempool, Tip};
use signer::{Record, Signer};
use types::{BatchId, Block, BlockHash, Certificate, ChainId, Epoch, EpochRecord, Height, Kind, Tick, UnixMs};

use crate::boot::{Boot, BootError};
use crate::claims::Claims;
use crate::config::Config;
use crate::data::Storing;
use crate::effect::Event;
use crate::fetch::Fetches;
use crate::judging::meta;
use crate::peers::Peers;
use crate::recent::Recent;
use crate::replica::{EpochState, Replica};
use crate::sync::Sync;
use crate::verify::Verifier;

impl<D: signer::Disk> Replica<D> {
    /// Starts from what storage holds; `signer` is an opened signer with the records of its journal, or none for a node that
    /// follows. Effects are waiting afterwards.
    ///
    /// # Errors
    /// [`BootError`].
    pub fn new(
        config: Config,
        boot: Boot,
        signer: Option<(Signer<D>, Vec<Record>)>,
        now: Tick,
        unix: UnixMs,
    ) -> Result<Replica<D>, BootError> {
        boot.genesis.check().map_err(BootError::Genesis)?;
        let chain = boot.genesis.chain_id();
        let (mut signer, journal) = signer.map_or((None, Vec::new()), |(signer, journal)| (Some(signer), journal));
        let me = signer.as_ref().map(Signer::public);

        check_blocks(&boot)?;
        let tip = tip_of(&boot);
        if boot.ledger.height() > tip.height {
            return Err(BootError::Ledger { ledger: boot.ledger.height(), tip: tip.height });
        }
        let records = records_of(&boot);
        let epoch = epoch_after(&boot, &records, tip.height)?;

        let behind = signer.as_mut().is_some_and(|signer| !signer.storage_at(boot.tip.as_ref()));

        let mempool = restore_mempool(&config, &boot, &epoch, me, tip, &journal);
        let claims = restore_claims(&boot);
        let mut recent = Recent::default();
        boot.blocks.iter().for_each(|block| recent.push(Arc::clone(block)));
        let context = context_of(chain, &epoch, base_of(&boot, &epoch, &tip), boot.tip.as_ref());
        let recovered = recovered_of(&epoch, boot.tip.as_ref(), &journal);
        let engine = Engine::new(config.consensus.clone(), context, me, recovered, now);

        let mut replica = Replica {
            verifier: Verifier::new(chain, config.verified_max),
            chain,
            me,
            engine,
            engine_due: true,
            signer,
            mempool,
            ledger: boot.ledger,
            peers: Peers::default(),
            tip,
            finality: boot.tip,
            goal: None,
            ends: BTreeMap::new(),
            records,
            recent,
            claims,
            judging: BTreeMap::new(),
            judge_due: false,
            proposed: BTreeMap::new(),
            building: None,
            fetches: Fetches::default(),
            fetch_due: false,
            sync: Sync::default(),
            storing: Storing::default(),
            journal,
            work: false,
            announce_at: None,
            forward_at: None,
            forward_turn: 0,
            execute_more: false,
            execution_waits: None,
            pending: BTreeMap::new(),
            next_token: 0,
            verifying: 0,
            loads: 0,
            stores: 0,
            effects: VecDeque::new(),
            dead: false,
            now,
            unix,
            epoch,
            config,
        };
        replica.remember_record(replica.epoch.record.clone());
        replica.drop_old_journal();
        if behind {
            replica.event(Event::StorageBehind);
        }
        replica.advance(now, unix);
        Ok(replica)
    }

    /// Starts the engine of an epoch whose base is the tip.
    pub(crate) fn enter_epoch(&mut self, epoch: EpochState, now: Tick) {
        self.epoch = epoch;
        self.remember_record(self.epoch.record.clone());
        let context = context_of(self.chain, &self.epoch, self.tip.hash, self.finality.as_ref());
        let recovered = recovered_of(&self.epoch, self.finality.as_ref(), &self.journal);
        self.engine = Engine::new(self.config.consensus.clone(), context, self.me, recovered, now);
        self.engine_due = true;
        self.judging.clear();
        self.proposed.clear();
        self.building = None;
        self.work = false;
        for block in journal_blocks(&self.journal, self.epoch.record.epoch) {
            self.mempool.add_block(block);
        }
        self.drop_old_journal();
        let connected: Vec<_> = self.peers.iter().filter_map(|(_, state)| state.validator).collect();
        for key in connected {
            self.tell(consensus::Input::PeerConnected(key), now);
        }
        self.fetch_again();
    }

    /// Records of this epoch are the engine's now; those of older ones are of no use.
    fn drop_old_journal(&mut self) {
        let epoch = self.epoch.record.epoch;
        self.journal.retain(|record| record.signed.statement.epoch > epoch);
    }
}

/// Blocks follow each other and end at the tip.
fn check_blocks(boot: &Boot) -> Result<(), BootError> {
    let broken =
        |pair: &[Arc<Block>]| pair[1].header.parent != pair[0].hash() || pair[1].header.height != pair[0].header.height.next();
    if boot.blocks.windows(2).any(broken) {
        return Err(BootError::Blocks("they do not follow each other"));
    }
    match (&boot.tip, boot.blocks.last()) {
        (None, None) => Ok(()),
        (Some(tip), Some(last)) if tip.statement.kind == Kind::Finalize && tip.statement.digest == last.hash() => {
            let first = boot.blocks.first().map(|block| block.header.height).unwrap_or_default();
            let enough = first <= boot.ledger.height().max(Height(1)).min(last.header.height);
            if enough { Ok(()) } else { Err(BootError::Blocks("those above the ledger's height are missing")) }
        }
        _ => Err(BootError::Blocks("the last one is not the tip")),
    }
}

fn tip_of(boot: &Boot) -> Tip {
    match boot.blocks.last() {
        Some(last) => Tip::of(&last.header),
        None => Tip::genesis(&boot.genesis, boot.ledger.root()),
    }
}

fn records_of(boot: &Boot) -> BTreeMap<Epoch, EpochRecord> {
    let all = boot.genesis.epochs.iter().chain(&boot.epochs);
    all.map(|record| (record.epoch, record.clone())).collect()
}

/// The epoch of the height after the tip. The record of the one after may not have reached the disk: it follows from the state.
fn epoch_after(boot: &Boot, records: &BTreeMap<Epoch, EpochRecord>, tip: Height) -> Result<EpochState, BootError> {
    let record = records.values().find(|record| record.contains(tip.next()));
    let record = record.ok_or_else(|| BootError::Epoch(records.last_key_value().map_or(Epoch(0), |(epoch, _)| epoch.next())))?;
    let next = records.get(&record.epoch.next()).cloned().unwrap_or_else(|| boot.ledger.next_epoch(record));
    Ok(EpochState::new(record.clone(), next))
}

fn restore_mempool(
    config: &Config,
    boot: &Boot,
    epoch: &EpochState,
    me: Option<types::PublicKey>,
    tip: Tip,
    journal: &[Record],
) -> Mempool {
    let at = mempool::Boot {
        chain: boot.genesis.chain_id(),
        me,
        epoch: epoch.record.clone(),
        next: epoch.next.clone(),
        tip,
        executed: boot.ledger.height(),
    };
    let mut mempool = Mempool::new(config.mempool.clone(), at);
    for block in &boot.blocks {
        mempool.restore_final(block);
    }
    for executed in &boot.executed {
        let block = boot.blocks.iter().find(|block| block.header.height == executed.height);
        let nonempty = block.map_or(!executed.receipts.is_empty(), |block| !block.body.batches.is_empty());
        mempool.restore_executed(executed.height, Some(executed.state_root), &executed.receipts, nonempty);
    }
    let unexecuted = boot.blocks.iter().filter(|block| block.header.height > boot.ledger.height());
    let needed: BTreeSet<BatchId> = unexecuted.flat_map(|block| block.body.batches.iter().copied()).collect();
    for batch in &boot.batches {
        // Batches of epochs before the last can't be cited any more, and nobody would take them from this node.
        if needed.contains(&batch.id()) || batch.header.epoch.next() >= epoch.record.epoch {
            mempool.hold(Arc::clone(batch));
        }
    }
    for block in journal_blocks(journal, epoch.record.epoch) {
        mempool.add_block(block);
    }
    mempool
}

/// Blocks that were proposed or voted for in an epoch: they are durable, so they are held.
fn journal_blocks(journal: &[Record], epoch: Epoch) -> impl Iterator<Item = Arc<Block>> {
    let of_epoch = journal.iter().filter(move |record| record.signed.statement.epoch == epoch);
    of_epoch.filter_map(|record| record.block.clone()).map(Arc::new)
}

fn restore_claims(boot: &Boot) -> Claims {
    let executed = boot.ledger.height();
    let mut claims = Claims::new(executed);
    for own in &boot.executed {
        claims.restore(own.height, own.state_root, &own.receipts);
    }
    for pair in boot.blocks.windows(2) {
        if pair[1].header.executed > executed.max(pair[0].header.executed) {
            claims.restore_claim(&pair[1].header, pair[0].header.executed);
        }
    }
    claims
}

/// The block before an epoch's first: its base. With a final block above it nothing is built on it any more, so that a block
/// which storage did not hand over is not missed.
fn base_of(boot: &Boot, epoch: &EpochState, tip: &Tip) -> BlockHash {
    if tip.height < epoch.record.first_height {
        return tip.hash;
    }
    let first = boot.blocks.iter().find(|block| block.header.height == epoch.record.first_height);
    first.map(|block| block.header.parent).unwrap_or_default()
}

fn context_of(chain: ChainId, epoch: &EpochState, base: BlockHash, finality: Option<&Certificate>) -> Context {
    Context {
        chain,
        set: epoch.set.clone(),
        base,
        base_height: epoch.record.first_height.prev(),
        last_height: epoch.record.last_height(),
        admitting: finality.filter(|certificate| certificate.statement.epoch < epoch.record.epoch).cloned(),
    }
}

/// What storage and journal know of an epoch.
fn recovered_of(epoch: &EpochState, finality: Option<&Certificate>, journal: &[Record]) -> Recovered {
    let number = epoch.record.epoch;
    let records = journal.iter().filter(|record| record.signed.statement.epoch == number);
    let vote = |record: &Record| OwnVote { signed: record.signed, block: record.block.as_ref().map(meta) };
    Recovered {
        finality: finality.filter(|certificate| certificate.statement.epoch == number).cloned(),
        certificates: records.clone().filter_map(|record| record.certificate.clone()).collect(),
        votes: records.map(vote).collect(),
    }
}
