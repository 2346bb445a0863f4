//! The API's port, answered from storage, the core thread's snapshot and the guard's maps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use api::backend::{Backend, BackendError, BlockAt, SubmitError};
use api::info::{
    AccountInfo, BanInfo, BatchInfo, BlockInfo, EpochInfo, GenesisInfo, GuardInfo, NodeInfo, PeerInfo, Readiness, TransactionInfo,
    TransactionStatus, ValidatorInfo, ValidatorsInfo,
};
use api::metrics::{self, LATENCY_BUCKETS, Metrics};
use async_trait::async_trait;
use storage::{Storage, StorageError};
use types::{
    Address, Batch, BatchId, Epoch, FinalityProof, Height, PublicKey, Receipt, SignedTransaction, StateKey, StateProof,
    TransactionProof, TxId,
};

use crate::core::{CoreHandle, Gone};
use crate::guard_link::View;
use crate::peer_figures;

/// How many final headers above a receipt's height are looked through for the one that covers it.
const COVER_HEADERS_MAX: usize = 256;
/// How many recent final headers are tried for a state that the ledger still keeps.
const STATE_HEADERS_MAX: u64 = 8;

/// All that the routes need.
pub struct NodeBackend {
    /// The node's name.
    pub name: String,
    /// Its PeerId, base58.
    pub peer_id: String,
    /// Its validator key.
    pub validator_key: Option<PublicKey>,
    /// Its storage.
    pub storage: Arc<Storage>,
    /// Its core thread.
    pub core: CoreHandle,
    /// Its network.
    pub network: network::Handle,
    /// Its guard, as seen from here.
    pub guard: Arc<View>,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// When it started.
    pub started: Instant,
}

impl From<Gone> for BackendError {
    fn from(_: Gone) -> BackendError {
        BackendError::Unavailable("the core thread is busy or stopping")
    }
}

fn internal(error: StorageError) -> BackendError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    BackendError::Internal(text)
}

impl NodeBackend {
    /// Runs a read of storage where it may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Storage) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let storage = Arc::clone(&self.storage);
        let joined = tokio::task::spawn_blocking(move || read(&storage)).await;
        joined.map_err(|_| BackendError::Unavailable("the node is stopping"))?.map_err(internal)
    }

    fn peer_infos(&self) -> Vec<PeerInfo> {
        self.network.peers().iter().map(|peer| peer_figures::peer_info(peer, &self.guard)).collect()
    }

    fn store_network_counters(&self) {
        self.metrics.store_peers(peer_figures::samples(&self.peer_infos()));
        let counters = self.network.counters();
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        metrics::store(&self.metrics.sybil_attempts, load(&counters.sybil_attempts));
        metrics::store(&self.metrics.eclipse_refusals, load(&counters.eclipse_refusals));
        metrics::store(&self.metrics.handshake_floods, load(&counters.handshake_floods));
        for refusal in network::Refusal::ALL {
            self.metrics.store_refusals(refusal.as_str(), counters.refusals(refusal));
        }
    }

    fn store_kernel_counters(&self) {
        self.guard.with_maps(|maps| {
            let passed = maps.passed().values().map(|count| count.packets).sum();
            metrics::store(&self.metrics.xdp_packets_passed, passed);
            for (reason, count) in maps.dropped() {
                self.metrics.xdp_packets_dropped.store(reason, count.packets);
            }
            let mut buckets = [0u64; LATENCY_BUCKETS];
            for histogram in 0..2 {
                let found = maps.latency(histogram, "").buckets;
                buckets.iter_mut().zip(found).for_each(|(sum, count)| *sum += count);
            }
            self.metrics.store_packet_latency(&buckets);
        });
    }
}

fn block_info(storage: &Storage, height: Height) -> Result<Option<BlockInfo>, StorageError> {
    let (Some(block), Some(finality)) = (storage.block(height)?, storage.finality_proof(height)?) else { return Ok(None) };
    let Some(epoch) = storage.epoch(block.header.epoch)? else { return Ok(None) };
    Ok(Some(BlockInfo { height, hash: block.hash(), header: block.header, body: block.body, finality, epoch }))
}

/// The receipt's path under the first final header that covers its height, if there is one yet.
fn transaction_proof(storage: &Storage, receipt: &Receipt) -> Result<Option<TransactionProof>, StorageError> {
    let headers = storage.headers(receipt.height.next(), COVER_HEADERS_MAX)?;
    let Some(covering) = headers.iter().find(|header| header.executed >= receipt.height) else { return Ok(None) };
    let below = match covering.height.prev() {
        Height(0) => Height(0),
        parent => storage.header(parent)?.map(|header| header.executed).unwrap_or_default(),
    };
    let (mut leaves, mut index, mut height) = (Vec::new(), None, below.next());
    while height <= covering.executed {
        let Some(record) = storage.executed(height)? else { return Ok(None) };
        for other in &record.receipts {
            if other == receipt {
                index = Some(leaves.len());
            }
            leaves.push(other.leaf());
        }
        height = height.next();
    }
    let Some(path) = index.and_then(|index| types::merkle::MerklePath::build(&leaves, index)) else { return Ok(None) };
    let finality = storage.finality_proof(covering.height)?;
    Ok(finality.map(|finality| TransactionProof { receipt: *receipt, path, finality }))
}

/// Finality proofs of the newest final headers, newest first: one of them names a state that the ledger still keeps.
fn recent_finality(storage: &Storage) -> Result<Vec<FinalityProof>, StorageError> {
    let tip = storage.progress().tip.height.0;
    let mut found = Vec::new();
    for height in (tip.saturating_sub(STATE_HEADERS_MAX - 1).max(1)..=tip).rev() {
        found.extend(storage.finality_proof(Height(height))?);
    }
    Ok(found)
}

#[async_trait]
impl Backend for NodeBackend {
    async fn readiness(&self) -> Readiness {
        let snapshot = self.core.snapshot();
        let mut missing = Vec::new();
        if snapshot.syncing() {
            missing.push("syncing".to_owned());
        }
        if snapshot.peers == 0 && !snapshot.alone {
            missing.push("no_peers".to_owned());
        }
        Readiness { ready: missing.is_empty(), missing }
    }

    async fn metrics(&self) -> Result<String, BackendError> {
        self.store_kernel_counters();
        self.store_network_counters();
        Ok(self.metrics.encode())
    }

    async fn node_info(&self) -> Result<NodeInfo, BackendError> {
        let (snapshot, tip) = (self.core.snapshot(), self.storage.progress().tip);
        let block_time = match tip.height {
            Height(0) => self.storage.genesis().time,
            height => self.read(move |storage| storage.header(height)).await?.map(|header| header.time).unwrap_or_default(),
        };
        Ok(NodeInfo {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wire_version: types::WIRE_VERSION,
            chain_id: self.storage.chain(),
            peer_id: self.peer_id.clone(),
            validator_key: self.validator_key,
            listen: self.core.listening(),
            epoch: snapshot.summary.epoch,
            view: snapshot.summary.view,
            height: tip.height,
            block_hash: tip.hash,
            block_time,
            executed: snapshot.summary.executed,
            peers: snapshot.peers,
            mempool_transactions: snapshot.mempool_transactions,
            uptime_ms: self.started.elapsed().as_millis() as u64,
        })
    }

    async fn block(&self, at: BlockAt) -> Result<Option<BlockInfo>, BackendError> {
        self.read(move |storage| {
            let height = match at {
                BlockAt::Latest => storage.progress().tip.height,
                BlockAt::Height(height) => height,
            };
            block_info(storage, height)
        })
        .await
    }

    async fn batch(&self, id: BatchId) -> Result<Option<BatchInfo>, BackendError> {
        let found: Option<Batch> = self.read(move |storage| storage.batch(&id)).await?;
        Ok(found.as_ref().map(BatchInfo::from))
    }

    async fn submit(&self, transactions: Vec<SignedTransaction>) -> Result<Vec<Result<TxId, SubmitError>>, BackendError> {
        Ok(self.core.submit(transactions).await?)
    }

    async fn transaction(&self, id: TxId) -> Result<TransactionInfo, BackendError> {
        let found = self.read(move |storage| match storage.receipt(&id)? {
            Some(receipt) => Ok(Some((receipt, transaction_proof(storage, &receipt)?))),
            None => Ok(None),
        });
        if let Some((receipt, proof)) = found.await? {
            return Ok(TransactionInfo { id, status: TransactionStatus::Final, dropped: None, receipt: Some(receipt), proof });
        }
        let pending = self.core.query(move |replica| replica.is_pending(&id)).await?;
        let dropped = self.core.dropped(&id).filter(|_| !pending).map(str::to_owned);
        let status = match (pending, &dropped) {
            (true, _) => TransactionStatus::Pending,
            (false, Some(_)) => TransactionStatus::Dropped,
            (false, None) => TransactionStatus::Unknown,
        };
        Ok(TransactionInfo { id, status, dropped, receipt: None, proof: None })
    }

    async fn account(&self, address: Address) -> Result<AccountInfo, BackendError> {
        let finality = self.read(recent_finality).await?;
        let key = StateKey::account(address);
        let answer = self.core.query(move |replica| {
            let ledger = replica.ledger();
            let proof = finality.into_iter().find_map(|finality| {
                let executed = finality.headers.first()?.executed;
                let found = ledger.prove_at(executed, &key)?;
                Some(StateProof { key, leaf: found.leaf, value: found.value, path: found.path, finality })
            });
            (ledger.height(), ledger.account(&address), proof)
        });
        let (height, account, proof) = answer.await?;
        Ok(AccountInfo { address, height, account, proof })
    }

    async fn peers(&self) -> Result<Vec<PeerInfo>, BackendError> {
        Ok(self.peer_infos())
    }

    async fn validators(&self) -> Result<ValidatorsInfo, BackendError> {
        let epoch = self.core.snapshot().summary.epoch;
        let record = self.read(move |storage| storage.epoch(epoch)).await?;
        let record = record.ok_or(BackendError::Unavailable("the epoch's record is not stored yet"))?;
        let set = record.set();
        let peers: BTreeMap<PublicKey, String> =
            self.network.peers().into_iter().filter_map(|peer| Some((peer.validator?, peer.peer_id.to_string()))).collect();
        let validators = record.validators.iter().enumerate().map(|(seat, validator)| {
            let local = self.validator_key == Some(validator.key);
            let peer_id = if local { Some(self.peer_id.clone()) } else { peers.get(&validator.key).cloned() };
            ValidatorInfo { seat: types::Seat(seat as u16), key: validator.key, weight: validator.weight, peer_id, local }
        });
        Ok(ValidatorsInfo { epoch, total_weight: set.total(), validators: validators.collect() })
    }

    async fn guard(&self) -> Result<GuardInfo, BackendError> {
        let Some(stats) = self.guard.stats() else {
            return Ok(GuardInfo { available: false, reason: self.guard.reason(), ..GuardInfo::default() });
        };
        let now_ms = crate::core::unix_ms().0;
        let bans = self.guard.bans().into_iter().map(|ban| BanInfo {
            target: ban.address.to_string(),
            offence: ban.offence,
            note: ban.note,
            ttl_ms: ban.until_unix_ms.saturating_sub(now_ms),
        });
        Ok(GuardInfo {
            available: true,
            reason: None,
            interface: Some(stats.interface),
            attach: Some(stats.xdp_mode),
            mode: Some(stats.mode),
            passed: stats.passed,
            dropped: stats.dropped,
            would_drop: stats.would_drop,
            bans: bans.collect(),
        })
    }

    async fn epoch(&self, epoch: Epoch) -> Result<Option<EpochInfo>, BackendError> {
        let record = self.read(move |storage| storage.epoch(epoch)).await?;
        Ok(record.map(|record| EpochInfo { hash: record.hash(), record }))
    }

    async fn genesis(&self) -> Result<GenesisInfo, BackendError> {
        Ok(GenesisInfo { chain_id: self.storage.chain(), record: self.storage.genesis().clone() })
    }
}
