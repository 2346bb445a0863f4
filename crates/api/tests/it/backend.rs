//! A backend that answers from the frozen chain of `docs/spec/vectors`.

use std::path::PathBuf;
use std::sync::Arc;

use api::backend::{Backend, BackendError, BlockAt, SubmitError};
use api::info::*;
use api::metrics::Metrics;
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::ServiceExt;
use types::merkle::MerklePath;
use types::{
    Address, BatchId, Epoch, EpochRecord, FinalityProof, Header, Height, PublicKey, Receipt, SignedTransaction, StateKey,
    StateLeaf, StateProof, StateValue, TransactionError, TransactionProof, TxId, ValidatorSet, View,
};

/// Transactions with this nonce find no room.
pub const NONCE_FULL: u64 = 4_000_000;

pub fn vectors() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/spec/vectors"))
}

pub fn file(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(vectors().join(name)).unwrap()).unwrap()
}

pub fn get<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// What a dishonest node changes in its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    None,
    Genesis,
    Header,
    Body,
    Certificate,
    Batch,
    Receipt,
    Balance,
    Absence,
    /// The epoch after the next, known from no genesis record.
    Epoch,
}

pub struct Frozen {
    pub chain: Value,
    pub lie: Lie,
    proofs: Vec<TransactionProof>,
}

impl Frozen {
    pub fn new(lie: Lie) -> Arc<Frozen> {
        let proofs = file("proofs.json")["transaction"].as_array().unwrap().iter().map(|entry| get(&entry["proof"])).collect();
        Arc::new(Frozen { chain: file("chain.json"), lie, proofs })
    }

    pub fn list(&self, name: &str) -> &Vec<Value> {
        self.chain[name].as_array().unwrap()
    }

    fn genesis_info(&self) -> GenesisInfo {
        get(&self.chain["genesis"])
    }

    fn set(&self) -> ValidatorSet {
        get::<EpochRecord>(&self.list("epochs")[2]["record"]).set()
    }

    fn last_header(&self) -> Header {
        get(&self.list("blocks").last().unwrap()["header"])
    }

    /// A proof under the last block's state root, made from the leaves in the file.
    fn prove(&self, key: StateKey) -> StateProof {
        let header = self.last_header();
        let state = &self.list("states")[header.executed.0 as usize];
        let entries = state["leaves"].as_array().unwrap();
        let leaves: Vec<StateLeaf> = entries.iter().map(|entry| get(&entry["leaf"])).collect();
        let hashes: Vec<_> = leaves.iter().map(StateLeaf::leaf).collect();
        let present = leaves.iter().position(|leaf| leaf.key == key);
        let at = present.or_else(|| leaves.iter().position(|leaf| leaf.excludes(&key))).unwrap();
        let value = present.map(|at| hex::decode(entries[at]["value_bytes"].as_str().unwrap()).unwrap());
        let finality: FinalityProof = get(&self.list("blocks").last().unwrap()["finality"]);
        StateProof { key, leaf: leaves[at], value, path: MerklePath::build(&hashes, at).unwrap(), finality }
    }
}

#[async_trait]
impl Backend for Frozen {
    async fn readiness(&self) -> Readiness {
        let missing: Vec<String> = if self.lie == Lie::None { vec![] } else { vec!["syncing".into()] };
        Readiness { ready: missing.is_empty(), missing }
    }

    async fn metrics(&self) -> Result<String, BackendError> {
        Ok(Metrics::new().encode())
    }

    async fn node_info(&self) -> Result<NodeInfo, BackendError> {
        let header = self.last_header();
        Ok(NodeInfo {
            name: "frozen".into(),
            version: "0.0.0".into(),
            wire_version: types::WIRE_VERSION,
            chain_id: header.chain,
            peer_id: "12D3KooW".into(),
            validator_key: Some(header.proposer),
            listen: vec!["/ip4/127.0.0.1/tcp/9000".into()],
            epoch: header.epoch,
            view: View(3),
            height: header.height,
            block_hash: header.hash(),
            block_time: header.time,
            executed: header.height,
            peers: 0,
            mempool_transactions: 0,
            uptime_ms: 1,
        })
    }

    async fn block(&self, at: BlockAt) -> Result<Option<BlockInfo>, BackendError> {
        let blocks = self.list("blocks");
        let index = match at {
            BlockAt::Latest => blocks.len() - 1,
            BlockAt::Height(Height(0)) => return Ok(None),
            BlockAt::Height(height) => height.0 as usize - 1,
        };
        let Some(block) = blocks.get(index) else { return Ok(None) };
        let mut block: BlockInfo = get(block);
        match self.lie {
            Lie::Header => block.header.state_root.0[0] ^= 1,
            Lie::Body => block.body.batches.reverse(),
            Lie::Certificate => block.finality.certificate.signatures[0].0[0] ^= 1,
            _ => {}
        }
        if self.lie == Lie::Body && block.body.batches.len() < 2 {
            block.body.parent_notarization = None;
        }
        Ok(Some(block))
    }

    async fn batch(&self, id: BatchId) -> Result<Option<BatchInfo>, BackendError> {
        let batch = self.list("batches").iter().find(|batch| get::<BatchId>(&batch["id"]) == id);
        let mut batch: Option<BatchInfo> = batch.map(get);
        if let (Lie::Batch, Some(batch)) = (self.lie, &mut batch) {
            batch.header.sequence.0 += 1;
        }
        Ok(batch)
    }

    async fn submit(&self, transactions: Vec<SignedTransaction>) -> Result<Vec<Result<TxId, SubmitError>>, BackendError> {
        let genesis = self.genesis_info();
        let params = &genesis.record.epochs[0].params;
        let refused = |code: &'static str| Err(SubmitError::Refused { code, message: code.to_owned() });
        let judge = |signed: &SignedTransaction| match signed.check_stateless(&genesis.chain_id, params) {
            Err(TransactionError::WrongChain) => refused("wrong_chain"),
            Err(_) => refused("oversize"),
            Ok(()) if !signed.verify_signature() => refused("signature"),
            Ok(()) if self.proofs.iter().any(|proof| proof.receipt.id == signed.id()) => Err(SubmitError::Duplicate(signed.id())),
            Ok(()) if signed.transaction.nonce.0 == NONCE_FULL => Err(SubmitError::Full { code: "full", retry_after_ms: 1_500 }),
            Ok(()) => Ok(signed.id()),
        };
        Ok(transactions.iter().map(judge).collect())
    }

    async fn transaction(&self, id: TxId) -> Result<TransactionInfo, BackendError> {
        let receipts = self.list("receipts").iter().map(|entry| get::<Receipt>(&entry["receipt"]));
        let receipt = receipts.into_iter().find(|receipt| receipt.id == id);
        let mut proof = self.proofs.iter().find(|proof| proof.receipt.id == id).cloned();
        if let (Lie::Receipt, Some(proof)) = (self.lie, &mut proof) {
            proof.receipt.fee.0 += 1;
        }
        let status = if receipt.is_some() { TransactionStatus::Final } else { TransactionStatus::Unknown };
        Ok(TransactionInfo { id, status, dropped: None, receipt: proof.as_ref().map(|proof| proof.receipt).or(receipt), proof })
    }

    async fn account(&self, address: Address) -> Result<AccountInfo, BackendError> {
        let mut proof = self.prove(StateKey::account(address));
        match (self.lie, &mut proof.value) {
            (Lie::Balance, Some(bytes)) => bytes[0] ^= 1,
            (Lie::Absence, value @ Some(_)) => *value = None,
            _ => {}
        }
        let value = proof.value.as_ref().and_then(|bytes| StateValue::from_bytes(proof.key.kind, bytes));
        let account = match value {
            Some(StateValue::Account(account)) => Some(account),
            _ => None,
        };
        Ok(AccountInfo { address, height: self.last_header().executed, account, proof: Some(proof) })
    }

    async fn peers(&self) -> Result<Vec<PeerInfo>, BackendError> {
        Ok(vec![])
    }

    async fn validators(&self) -> Result<ValidatorsInfo, BackendError> {
        let set = self.set();
        let info = |(seat, validator): (u16, &types::Validator)| ValidatorInfo {
            seat: types::Seat(seat),
            key: validator.key,
            weight: validator.weight,
            peer_id: None,
            local: validator.key == PublicKey([0; 32]),
        };
        let validators = (0..).zip(set.validators()).map(info).collect();
        Ok(ValidatorsInfo { epoch: set.epoch(), total_weight: set.total(), validators })
    }

    async fn guard(&self) -> Result<GuardInfo, BackendError> {
        Ok(GuardInfo { reason: Some("no guard configured".into()), ..GuardInfo::default() })
    }

    async fn epoch(&self, epoch: Epoch) -> Result<Option<EpochInfo>, BackendError> {
        if epoch == Epoch(77) {
            return Err(BackendError::Internal("the disk said EIO at /secret/path".into()));
        }
        if epoch == Epoch(78) {
            return Err(BackendError::Unavailable("stopping"));
        }
        let mut epoch: Option<EpochInfo> = self.list("epochs").get(epoch.0 as usize).map(get);
        if let (Lie::Epoch, Some(epoch)) = (self.lie, &mut epoch) {
            epoch.record.validators[0].weight.0 += 1;
        }
        Ok(epoch)
    }

    async fn genesis(&self) -> Result<GenesisInfo, BackendError> {
        let mut info = self.genesis_info();
        if self.lie == Lie::Genesis {
            info.record.accounts[0].1.0 += 1;
        }
        Ok(info)
    }
}

/// A router over the honest chain.
pub fn router() -> Router {
    api::router(Frozen::new(Lie::None), &api::Config::default())
}

pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
    pub content_type: String,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The stable code of a refusal.
    pub fn code(&self) -> String {
        let json = self.json();
        assert!(json["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{json}");
        json["error"]["code"].as_str().unwrap().to_owned()
    }
}

pub async fn read(response: Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, retry_after, content_type) = (parts.status.as_u16(), header("retry-after"), header("content-type"));
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Answer { status, retry_after, content_type: content_type.unwrap_or_default(), text: String::from_utf8(body.to_vec()).unwrap() }
}

pub async fn send(router: &Router, method: &str, path: &str, content_type: &str, body: impl Into<Body>) -> Answer {
    let request = Request::builder().method(method).uri(path).header("content-type", content_type).body(body.into()).unwrap();
    read(router.clone().oneshot(request).await.unwrap()).await
}

pub async fn ask(router: &Router, path: &str) -> Answer {
    send(router, "GET", path, "application/json", Body::empty()).await
}
