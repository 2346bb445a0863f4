//! Agreement and validity: one block per height at all honest nodes for ever, each of them by the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use replica::FinalBlock;
use types::{
    Batch, BatchId, Block, BlockHash, Certificate, ChainId, EpochRecord, GenesisRecord, Hash, Height, Kind, PublicKey, Receipt,
    Statement, TxId, receipts_root,
};

use super::model::Model;

/// A violation: what is broken, in one line.
pub type Broken = String;

/// One final height as the judge knows it.
#[derive(Clone, Debug)]
struct Judged {
    hash: BlockHash,
    block: Arc<Block>,
    state_root: Hash,
    receipts: Vec<Receipt>,
}

/// The judge of final chains. It sees final blocks, their certificates and stored batches, and nothing else.
#[derive(Debug)]
pub struct Chain {
    chain: ChainId,
    genesis: GenesisRecord,
    model: Model,
    root0: Hash,
    heights: Vec<Judged>,
    batches: BTreeMap<BatchId, Arc<Batch>>,
    cited: BTreeSet<BatchId>,
    receipts: BTreeMap<TxId, Receipt>,
    certified: BTreeSet<(Statement, Vec<u8>)>,
    /// Whether two blocks of one height were final somewhere.
    pub forked: bool,
}

impl Chain {
    /// The judge of a chain.
    pub fn new(genesis: &GenesisRecord) -> Chain {
        let model = Model::new(genesis);
        Chain {
            chain: genesis.chain_id(),
            genesis: genesis.clone(),
            root0: model.root(),
            model,
            heights: Vec::new(),
            batches: BTreeMap::new(),
            cited: BTreeSet::new(),
            receipts: BTreeMap::new(),
            certified: BTreeSet::new(),
            forked: false,
        }
    }

    /// Remembers a stored batch, so that it can be executed.
    pub fn batch(&mut self, batch: &Arc<Batch>) {
        self.batches.entry(batch.id()).or_insert_with(|| Arc::clone(batch));
    }

    /// The highest final height anywhere.
    pub fn height(&self) -> Height {
        Height(self.heights.len() as u64)
    }

    /// The highest height of a block that cites batches, 0 if there is none.
    pub fn last_nonempty(&self) -> Height {
        let last = self.heights.iter().rposition(|judged| !judged.block.body.batches.is_empty());
        Height(last.map_or(0, |i| i as u64 + 1))
    }

    /// What the highest final header names as executed.
    pub fn executed(&self) -> Height {
        self.heights.last().map(|judged| judged.block.header.executed).unwrap_or_default()
    }

    /// How a transaction ended.
    pub fn receipt(&self, id: &TxId) -> Option<&Receipt> {
        self.receipts.get(id)
    }

    /// The hash of a final height.
    pub fn hash(&self, height: Height) -> Option<BlockHash> {
        if height == Height(0) {
            return Some(self.genesis.block_hash());
        }
        self.heights.get(height.0 as usize - 1).map(|judged| judged.hash)
    }

    /// The record of the epoch with this number: nothing changes it yet but its place.
    fn record(&self, epoch: u64) -> EpochRecord {
        let first = &self.genesis.epochs[0];
        let mut record = first.clone();
        record.epoch.0 = epoch;
        record.first_height = Height(1 + epoch * first.length);
        record
    }

    /// An honest node calls blocks final; the last has a certificate.
    ///
    /// # Errors
    /// What is broken.
    pub fn finalized(&mut self, node: &str, blocks: &[FinalBlock]) -> Result<(), Broken> {
        for FinalBlock { block, certificate } in blocks {
            let (hash, height) = (block.hash(), block.header.height);
            if let Some(certificate) = certificate {
                self.check_certificate(certificate, &hash, block).map_err(|e| format!("{node} height {height}: {e}"))?;
            }
            match self.hash(height) {
                Some(known) if known == hash => continue,
                Some(known) => {
                    self.forked = true;
                    return Err(format!("FORK {node} height {height}: {hash} and {known}"));
                }
                None => {}
            }
            self.extend(block, hash).map_err(|e| format!("VALIDITY {node} height {height}: {e}"))?;
        }
        match blocks.last() {
            Some(last) if last.certificate.is_none() => Err(format!("{node}: final blocks without a certificate")),
            _ => Ok(()),
        }
    }

    /// Counts a certificate in other arithmetic: two thirds as 2 × those who are missing < those who signed.
    fn check_certificate(&mut self, certificate: &Certificate, hash: &BlockHash, block: &Block) -> Result<(), Broken> {
        let statement = &certificate.statement;
        if statement.kind != Kind::Finalize || statement.digest != *hash || statement.epoch != block.header.epoch {
            return Err("certificate is about something else".to_owned());
        }
        if !self.certified.insert((*statement, certificate.bitmap.clone())) {
            return Ok(());
        }
        let record = self.record(statement.epoch.0);
        let message = statement.signing_bytes();
        let (mut signed, mut missing, mut signatures) = (0u128, 0u128, certificate.signatures.iter());
        for (seat, validator) in record.validators.iter().enumerate() {
            let byte = certificate.bitmap.get(seat / 8).copied().unwrap_or(0);
            if byte >> (seat % 8) & 1 == 0 {
                missing += u128::from(validator.weight.0);
                continue;
            }
            let signature = signatures.next().ok_or("a signature is missing")?;
            validator.key.verify_strict(&message, signature).map_err(|_| "a signature does not verify".to_owned())?;
            signed += u128::from(validator.weight.0);
        }
        if signed > 2 * missing { Ok(()) } else { Err(format!("QUORUM {signed} signed, {missing} did not")) }
    }

    /// Re-executes a block of the next height.
    fn extend(&mut self, block: &Arc<Block>, hash: BlockHash) -> Result<(), Broken> {
        let header = &block.header;
        let height = self.height().next();
        if header.height != height {
            return Err(format!("follows height {}", self.height()));
        }
        let parent = self.heights.last();
        let (parent_hash, parent_time, parent_executed) = match parent {
            Some(parent) => (parent.hash, parent.block.header.time, parent.block.header.executed),
            None => (self.genesis.block_hash(), self.genesis.time, Height(0)),
        };
        let epoch = (height.0 - 1) / self.genesis.epochs[0].length;
        let (record, next) = (self.record(epoch), self.record(epoch + 1));
        let facts = [
            (header.version == 1, "version"),
            (header.chain == self.chain, "chain"),
            (header.parent == parent_hash, "parent"),
            (header.time > parent_time, "time"),
            (header.epoch.0 == epoch, "epoch"),
            (header.epoch_hash == record.hash(), "epoch hash"),
            (header.next_epoch_hash == next.hash(), "next epoch hash"),
            (block.body.root() == header.body_root, "body root"),
            (record.validators.iter().any(|v| v.key == header.proposer), "proposer"),
            (header.executed >= parent_executed && header.executed < height, "executed height"),
            (block.body.parent_notarization.is_some() == (height != record.first_height), "parent notarization"),
        ];
        if let Some((_, what)) = facts.iter().find(|(holds, _)| !holds) {
            return Err((*what).to_owned());
        }
        self.check_roots(block, parent_executed)?;
        let batches = self.check_batches(block, &record)?;
        let later = (epoch > 0 && height == record.first_height).then_some(&next);
        let (receipts, state_root) = self.model.run(height, &record.params, &batches, later);
        if self.model.supply_error() != 0 {
            return Err(format!("SUPPLY is off by {}", self.model.supply_error()));
        }
        for receipt in &receipts {
            if self.receipts.insert(receipt.id, *receipt).is_some() {
                return Err(format!("transaction {} has two receipts", receipt.id));
            }
        }
        self.cited.extend(block.body.batches.iter().copied());
        self.heights.push(Judged { hash, block: Arc::clone(block), state_root, receipts });
        Ok(())
    }

    fn check_roots(&self, block: &Block, parent_executed: Height) -> Result<(), Broken> {
        let header = &block.header;
        let at = header.executed.0 as usize;
        let state_root = if at == 0 { self.root0 } else { self.heights[at - 1].state_root };
        if header.state_root != state_root {
            return Err(format!("state root after height {at}"));
        }
        let newly = &self.heights[parent_executed.0 as usize..at];
        if header.receipts_root != receipts_root(newly.iter().flat_map(|judged| &judged.receipts)) {
            return Err(format!("receipts root up to height {at}"));
        }
        Ok(())
    }

    fn check_batches(&self, block: &Block, record: &EpochRecord) -> Result<Vec<Arc<Batch>>, Broken> {
        let (height, params) = (block.header.height.0, &record.params);
        if !block.body.batches.is_empty() && height - block.header.executed.0 > params.lag_max {
            return Err("batches, though execution lags".to_owned());
        }
        let total: u128 = record.validators.iter().map(|v| u128::from(v.weight.0)).sum();
        let mut cited: BTreeMap<PublicKey, u128> = BTreeMap::new();
        let mut batches = Vec::new();
        for id in &block.body.batches {
            let batch = self.batches.get(id).ok_or_else(|| format!("batch {id} is held by nobody honest"))?;
            let header = &batch.header;
            let weight = record.validators.iter().find(|v| v.key == header.author).map(|v| u128::from(v.weight.0));
            let weight = weight.ok_or("a batch of no validator")?;
            let most = (u128::from(params.block_batches_max) * weight).div_ceil(total).max(1);
            let count = cited.entry(header.author).or_default();
            *count += 1;
            let epoch = block.header.epoch.0;
            if *count > most || header.expiry.0 < height || header.expiry.0 > height + params.batch_life {
                return Err(format!("batch {id}: share or life"));
            }
            if header.epoch.0 > epoch || header.epoch.0 + 1 < epoch || self.cited.contains(id) {
                return Err(format!("batch {id}: epoch, or cited before"));
            }
            if batch.transactions.iter().any(|tx| !tx.verify_signature()) {
                return Err(format!("batch {id}: a transaction's signature"));
            }
            batches.push(Arc::clone(batch));
        }
        let distinct: BTreeSet<&BatchId> = block.body.batches.iter().collect();
        if distinct.len() == batches.len() { Ok(batches) } else { Err("a batch twice".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    //! The judge itself is judged: hand-made forks and thin quorums must be called.

    use super::*;
    use crate::dice::Dice;
    use crate::keys;
    use crate::plan::{Options, Plan};
    use types::{Body, Epoch, Header, Seat, UnixMs, View, merkle};

    fn plan() -> Plan {
        let options = Options { nodes: Some(4), ..Options::default() };
        Plan::draw(&mut Dice::new(1), &options)
    }

    fn block(genesis: &GenesisRecord, root: Hash, time: u64) -> Arc<Block> {
        let body = Body::default();
        let header = Header {
            version: 1,
            chain: genesis.chain_id(),
            epoch: Epoch(0),
            height: Height(1),
            parent: genesis.block_hash(),
            time: UnixMs(genesis.time.0 + time),
            proposer: genesis.epochs[0].validators[0].key,
            body_root: body.root(),
            executed: Height(0),
            state_root: root,
            receipts_root: merkle::empty_root(),
            epoch_hash: genesis.epochs[0].hash(),
            next_epoch_hash: genesis.epochs[1].hash(),
        };
        Arc::new(Block { header, body })
    }

    fn finality(genesis: &GenesisRecord, block: &Block, seats: usize) -> Certificate {
        let set = genesis.epochs[0].set();
        let (chain, digest) = (genesis.chain_id(), block.hash());
        let statement = Statement { chain, epoch: Epoch(0), view: View(1), kind: Kind::Finalize, parent_view: View(0), digest };
        let key = |seat: usize| {
            let public = genesis.epochs[0].validators[seat].key;
            (0..4).map(keys::validator).find(|key| key.public() == public).unwrap()
        };
        let votes: Vec<_> = (0..seats).map(|s| (Seat(s as u16), key(s).sign(&statement.signing_bytes()))).collect();
        Certificate::assemble(&set, statement, &votes)
    }

    fn check(expect: Option<&str>, calls: impl Fn(&GenesisRecord, Hash) -> Vec<FinalBlock>) {
        let genesis = plan().genesis;
        let root = Model::new(&genesis).root();
        let mut judge = Chain::new(&genesis);
        let mut result = Ok(());
        for call in calls(&genesis, root) {
            result = result.and(judge.finalized("node", &[call]));
        }
        match (expect, result) {
            (None, Ok(())) => {}
            (Some(part), Err(broken)) => assert!(broken.contains(part), "{broken}"),
            (expect, result) => panic!("{expect:?} expected, {result:?}"),
        }
    }

    fn call(genesis: &GenesisRecord, block: Arc<Block>, seats: usize) -> FinalBlock {
        let certificate = Some(finality(genesis, &block, seats));
        FinalBlock { block, certificate }
    }

    #[test]
    fn a_good_block_passes_twice() {
        check(None, |g, root| vec![call(g, block(g, root, 5), 4), call(g, block(g, root, 5), 4)]);
    }

    #[test]
    fn a_fork_is_called() {
        check(Some("FORK"), |g, root| vec![call(g, block(g, root, 5), 4), call(g, block(g, root, 6), 4)]);
    }

    #[test]
    fn a_thin_quorum_is_called() {
        check(Some("QUORUM"), |g, root| vec![call(g, block(g, root, 5), 1)]);
    }

    #[test]
    fn a_wrong_root_and_a_wrong_time_are_called() {
        check(Some("state root"), |g, _| vec![call(g, block(g, Hash([1; 32]), 5), 4)]);
        check(Some("time"), |g, root| vec![call(g, block(g, root, 0), 4)]);
    }

    #[test]
    fn a_missing_or_forged_certificate_is_called() {
        check(Some("without a certificate"), |g, root| vec![FinalBlock { block: block(g, root, 5), certificate: None }]);
        check(Some("does not verify"), |g, root| {
            let mut forged = call(g, block(g, root, 5), 4);
            forged.certificate.as_mut().unwrap().signatures.swap(0, 1);
            vec![forged]
        });
    }
}
