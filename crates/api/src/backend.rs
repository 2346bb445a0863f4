//! The port: what the node must be able to answer.

use async_trait::async_trait;
use types::{Address, BatchId, Epoch, Height, SignedTransaction, TxId};

use crate::info::{
    AccountInfo, BatchInfo, BlockInfo, EpochInfo, GenesisInfo, GuardInfo, NodeInfo, PeerInfo, Readiness, TransactionInfo,
    ValidatorsInfo,
};

/// Which block is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockAt {
    /// The highest final one.
    Latest,
    /// The final one at this height; genesis (0) is no block.
    Height(Height),
}

/// Why the node can't answer now. The text goes to the log, never to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Starting, stopping, or its queue of questions is full: 503, ask again.
    #[error("node is not available: {0}")]
    Unavailable(&'static str),
    /// A fault of ours: 500.
    #[error("internal fault: {0}")]
    Internal(String),
}

/// Why a transaction is not taken. Codes come from the labels of the crates that decide, so that API, metrics and log agree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// No room for it now, by count, bytes or somebody's quota; waiting helps.
    #[error("no room for it now, try again later")]
    Full {
        /// `full`, `sender_full`, …
        code: &'static str,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// Known already: pending or final under this id. No failure for whoever sends again.
    #[error("known already")]
    Duplicate(TxId),
    /// Waiting does not help.
    #[error("{message}")]
    Refused {
        /// `wrong_chain`, `oversize`, `signature`, `expired`, `nonce_used`, …: `snake_case`, stable.
        code: &'static str,
        /// For people.
        message: String,
    },
}

impl SubmitError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            SubmitError::Full { code, .. } | SubmitError::Refused { code, .. } => code,
            SubmitError::Duplicate(_) => "duplicate",
        }
    }
}

/// What the routes ask of a node. Object-safe: the router holds `Arc<dyn Backend>`.
///
/// Every method may be called at any time by up to [`crate::Config::requests_max`] requests at once and is cut off after
/// [`crate::Config::request_timeout`]; none may block the thread that polls it.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Whether the node does its work: it has peers, is not syncing, its disk is sound.
    async fn readiness(&self) -> Readiness;

    /// All metrics as OpenMetrics text; see [`crate::metrics::Metrics::encode`].
    async fn metrics(&self) -> Result<String, BackendError>;

    /// Who and where the node is.
    async fn node_info(&self) -> Result<NodeInfo, BackendError>;

    /// A final block with its finality proof; `None` if there is none (yet) at that height.
    async fn block(&self, at: BlockAt) -> Result<Option<BlockInfo>, BackendError>;

    /// A batch that the node holds; `None` if it doesn't.
    async fn batch(&self, id: BatchId) -> Result<Option<BatchInfo>, BackendError>;

    /// Takes 1 to [`types::FORWARD_MAX`] transactions, whose signatures nobody has checked yet; one verdict each, in order.
    /// A taken transaction is pending when this returns.
    async fn submit(&self, transactions: Vec<SignedTransaction>) -> Result<Vec<Result<TxId, SubmitError>>, BackendError>;

    /// What became of a transaction; an id that nobody knows has status `unknown`.
    async fn transaction(&self, id: TxId) -> Result<TransactionInfo, BackendError>;

    /// An account, or the proof that there is none.
    async fn account(&self, address: Address) -> Result<AccountInfo, BackendError>;

    /// Connected peers.
    async fn peers(&self) -> Result<Vec<PeerInfo>, BackendError>;

    /// The current epoch's validators.
    async fn validators(&self) -> Result<ValidatorsInfo, BackendError>;

    /// The kernel guard as this node sees it; without one, `available` is false and `reason` says why.
    async fn guard(&self) -> Result<GuardInfo, BackendError>;

    /// An epoch's record; `None` if the node does not know it yet.
    async fn epoch(&self, epoch: Epoch) -> Result<Option<EpochInfo>, BackendError>;

    /// The genesis record.
    async fn genesis(&self) -> Result<GenesisInfo, BackendError>;
}
