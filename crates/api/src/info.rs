//! The plain data of the answers. Field names are a contract; numbers are JSON integers up to 2⁶⁴ − 1, hashes, keys,
//! signatures and byte strings lower-case hex.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{
    Account, Address, BatchHeader, BatchId, BlockHash, Body, ChainId, Epoch, EpochRecord, FinalityProof, GenesisRecord, Hash,
    Header, Height, Offence, PublicKey, Receipt, Seat, Signature, SignedTransaction, Stake, StateProof, TransactionProof, TxId,
    UnixMs, View,
};

/// Answer of `/ready`: 200 if `ready`, else 503.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether the node does its work.
    pub ready: bool,
    /// What it lacks, one `snake_case` word each: `starting`, `syncing`, `no_peers`, `storage`. Empty if ready.
    pub missing: Vec<String>,
}

/// Answer of `/api/v1/node/info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The name in its config.
    pub name: String,
    /// Version of the software.
    pub version: String,
    /// Version of the messages between nodes.
    pub wire_version: u32,
    /// The chain.
    pub chain_id: ChainId,
    /// libp2p identity, base58.
    pub peer_id: String,
    /// Its validator key, if it has one.
    pub validator_key: Option<PublicKey>,
    /// Multiaddrs that it listens on.
    pub listen: Vec<String>,
    /// The current epoch.
    pub epoch: Epoch,
    /// The view that it is in.
    pub view: View,
    /// Highest final height; 0 is genesis.
    pub height: Height,
    /// The block there, or the genesis hash.
    pub block_hash: BlockHash,
    /// The time in its header, or the genesis time.
    pub block_time: UnixMs,
    /// Highest height executed; at most `height`.
    pub executed: Height,
    /// Peers connected.
    pub peers: u32,
    /// Transactions waiting.
    pub mempool_transactions: u64,
    /// Milliseconds since start.
    pub uptime_ms: u64,
}

/// Answer of `/api/v1/blocks/…`: all that a foreign verifier needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// The height.
    pub height: Height,
    /// The block's hash: recompute it from `header`.
    pub hash: BlockHash,
    /// The header.
    pub header: Header,
    /// Batch ids and the parent's notarization: its root is in the header.
    pub body: Body,
    /// That the block is final: this header and those up to one with a finality certificate.
    pub finality: FinalityProof,
    /// The epoch's record: its hash is in the header, its validators sign the certificate.
    pub epoch: EpochRecord,
}

/// A transaction with its id, as listed in a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedTransaction {
    /// Its id: recompute it from the rest.
    pub id: TxId,
    /// `transaction` and `signature`.
    #[serde(flatten)]
    pub signed: SignedTransaction,
}

/// Answer of `/api/v1/batches/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchInfo {
    /// The batch's id: recompute it from `header`.
    pub id: BatchId,
    /// What the author signed.
    pub header: BatchHeader,
    /// By the author.
    pub signature: Signature,
    /// In order.
    pub transactions: Vec<ListedTransaction>,
}

impl From<&types::Batch> for BatchInfo {
    fn from(batch: &types::Batch) -> BatchInfo {
        let list = |signed: &SignedTransaction| ListedTransaction { id: signed.id(), signed: signed.clone() };
        BatchInfo {
            id: batch.id(),
            header: batch.header.clone(),
            signature: batch.signature,
            transactions: batch.transactions.iter().map(list).collect(),
        }
    }
}

/// How far a transaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionStatus {
    /// Waiting, or in a block that is not executed yet.
    Pending,
    /// Has its one receipt.
    Final,
    /// Was taken here and will have no receipt from here: `dropped` says why. One of the last drops only.
    Dropped,
    /// Not known here: never seen, or dropped long ago.
    Unknown,
}

/// Answer of `/api/v1/transactions/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionInfo {
    /// The id asked for.
    pub id: TxId,
    /// How far it has come.
    pub status: TransactionStatus,
    /// Why it was dropped, one `snake_case` word: `expired`, or why a block skipped it (`nonce_used`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
    /// How it ended, if final.
    pub receipt: Option<Receipt>,
    /// That it ended so; appears once a final header covers the receipt, usually a few blocks later.
    pub proof: Option<TransactionProof>,
}

/// Answer of `/api/v1/accounts/{address}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountInfo {
    /// The address asked for.
    pub address: Address,
    /// Height after whose execution `account` is read.
    pub height: Height,
    /// The account, or null.
    pub account: Option<Account>,
    /// What a final header proves about it; may be a few heights older than `account` (`executed` of its first header).
    /// Null until a final header names a state that the node still keeps.
    pub proof: Option<StateProof>,
}

/// One entry of `/api/v1/network/peers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// libp2p identity, base58.
    pub peer_id: String,
    /// Remote socket address.
    pub address: String,
    /// `tcp` or `quic`.
    pub transport: String,
    /// Whether we dialed.
    pub outbound: bool,
    /// Whose node it has proved to be.
    pub validator: Option<PublicKey>,
    /// Round trip, µs, if measured.
    pub rtt_us: Option<u64>,
    /// Who measured `rtt_us`: `kernel` (TCP's smoothed one) or `ping` (libp2p's last, of the votes lane).
    #[serde(default)]
    pub rtt_source: Option<String>,
    /// What the kernel's TCP knows of its connection (of its two, the one that was heard of last); null = not visible: over QUIC, without a
    /// guard that watches this node's control group, or if this node dialled.
    #[serde(default)]
    pub tcp: Option<TcpInfo>,
    /// What the guard counted of it; null = not visible: no guard, or no connection to a protected port.
    #[serde(default)]
    pub guard: Option<PeerPackets>,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

/// A TCP connection as the kernel sees it. What it has not measured is null, never 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpInfo {
    /// Smoothed round trip, µs.
    pub rtt_us: Option<u64>,
    /// Smallest round trip of the last minutes, µs.
    pub min_rtt_us: Option<u64>,
    /// Retransmission timeout, µs.
    pub rto_us: Option<u64>,
    /// Segments sent again since the connection began.
    pub retransmits: u64,
    /// State, as in RFC 9293: `established`, `close_wait`, …
    pub state: String,
}

/// A peer's row of the guard's counters, since it got the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPackets {
    /// Packets passed.
    pub packets: u64,
    /// Bytes passed.
    pub bytes: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets that `enforce` would have dropped.
    pub would_drop: u64,
}

/// One validator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorInfo {
    /// Its place in the epoch's record.
    pub seat: Seat,
    /// Its key.
    pub key: PublicKey,
    /// Its weight.
    pub weight: Stake,
    /// Its node's libp2p identity, if connected (or this node).
    pub peer_id: Option<String>,
    /// Whether it is this node.
    pub local: bool,
}

/// Answer of `/api/v1/validators`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorsInfo {
    /// The epoch.
    pub epoch: Epoch,
    /// Sum of all weights; a quorum is strictly more than two thirds of it.
    pub total_weight: u128,
    /// By seat.
    pub validators: Vec<ValidatorInfo>,
}

/// A ban in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanInfo {
    /// Address or range.
    pub target: String,
    /// Why.
    pub offence: Offence,
    /// Free text.
    pub note: String,
    /// Milliseconds until it ends.
    pub ttl_ms: u64,
}

/// Answer of `/api/v1/guard`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardInfo {
    /// Whether a guard answers.
    pub available: bool,
    /// Why not, in a few words; null if it does.
    pub reason: Option<String>,
    /// The network interface.
    pub interface: Option<String>,
    /// How XDP is attached: `native`, `generic`, `tcx` or `none`.
    pub attach: Option<String>,
    /// `off`, `shadow` or `enforce`.
    pub mode: Option<String>,
    /// Packets passed, by verdict.
    pub passed: BTreeMap<String, u64>,
    /// Packets dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Packets that `shadow` would have dropped, by reason.
    pub would_drop: BTreeMap<String, u64>,
    /// Bans in force, at most a page of them.
    pub bans: Vec<BanInfo>,
}

/// Answer of `/api/v1/epochs/{n}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochInfo {
    /// The record's hash: recompute it.
    pub hash: Hash,
    /// The record.
    pub record: EpochRecord,
}

/// Answer of `/api/v1/genesis`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenesisInfo {
    /// The record's hash: recompute it.
    pub chain_id: ChainId,
    /// The record.
    pub record: GenesisRecord,
}
