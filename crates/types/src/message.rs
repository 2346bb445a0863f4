//! Messages between nodes, and the lane that each takes.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::batch::Batch;
use crate::block::Block;
use crate::epoch::EpochRecord;
use crate::hash::{BatchId, BlockHash, DecodeError, decode, encode};
use crate::ids::{Epoch, Height, View};
use crate::statement::{Certificate, Kind, SignedStatement};
use crate::transaction::SignedTransaction;

/// Most bytes of a message on the vote lane.
pub const VOTE_LANE_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of a message on the bulk lane.
pub const BULK_LANE_BYTES_MAX: usize = 1024 * 1024;
/// Most ids in one announcement or fetch.
pub const IDS_MAX: usize = 512;
/// Most blocks in one answer of a sync.
pub const SYNC_BLOCKS_MAX: usize = 32;
/// Most certificates in one answer.
pub const CERTIFICATES_MAX: usize = 64;
/// Most transactions in one forward.
pub const FORWARD_MAX: usize = 512;

/// Which connection a message takes: between validators each lane has one of its own, so a batch never delays a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Small and urgent.
    Votes,
    /// Large.
    Bulk,
}

impl Lane {
    /// Both.
    pub const ALL: [Lane; 2] = [Lane::Votes, Lane::Bulk];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Lane::Votes => "votes",
            Lane::Bulk => "bulk",
        }
    }

    /// Most bytes of one message.
    pub const fn bytes_max(self) -> usize {
        match self {
            Lane::Votes => VOTE_LANE_BYTES_MAX,
            Lane::Bulk => BULK_LANE_BYTES_MAX,
        }
    }
}

/// A leader's proposal.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    /// Kind [`Kind::Propose`], signed by the view's leader; its digest is the block's hash.
    pub head: SignedStatement,
    /// The block.
    pub block: Block,
    /// The certificate that let the leader enter the view; none in view 1.
    pub admitting: Option<Certificate>,
}

/// A vote, with the certificate that allows it: of a finalize its notarization, of a view's first vote the admitting one.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// Notarize, nullify or finalize.
    pub signed: SignedStatement,
    /// What allows it.
    pub certificate: Option<Certificate>,
}

/// Where a node stands; exchanged on connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Status {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its highest final view there.
    pub final_view: View,
    /// Its final height.
    pub height: Height,
}

/// An answer of a sync: final blocks in order from the height asked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SyncBlocks {
    /// At most [`SYNC_BLOCKS_MAX`], all of one epoch.
    pub blocks: Vec<Block>,
    /// A finality certificate of the last block, if the sender has one; else more blocks must be asked for first.
    pub certificate: Option<Certificate>,
    /// If the last block ends its epoch, the record after the next: the receiver knows its hash from the next headers only.
    pub next_record: Option<EpochRecord>,
}

/// All that nodes say to each other after the handshake. The borsh tag is the wire's; it is never reused.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// A leader proposes.
    Proposal(Box<Proposal>),
    /// A validator votes.
    Vote(Box<Vote>),
    /// A certificate, sent on once by whoever first learns it.
    Certificate(Box<Certificate>),
    /// An answer to a vote of a view that was left, or to a fetch; never answered.
    Certificates(Vec<Certificate>),
    /// Asks for a view's certificate by kind.
    FetchCertificate {
        /// Of which epoch.
        epoch: Epoch,
        /// Of which view.
        view: View,
        /// Notarize, nullify or finalize.
        kind: Kind,
    },
    /// Asks a voter for the signed proposal that it voted for.
    FetchProposal {
        /// Of which epoch.
        epoch: Epoch,
        /// Of which view.
        view: View,
    },
    /// On connect, and when an older one is heard.
    Status(Status),
    /// Batches that the sender holds, verified and synced.
    Announce(Vec<BatchId>),
    /// A batch, pushed by its author or sent on request.
    Batch(Arc<Batch>),
    /// Asks for batches.
    FetchBatches(Vec<BatchId>),
    /// Asks for a block by hash (an ancestor that one never held).
    FetchBlock(BlockHash),
    /// Answers [`Message::FetchBlock`].
    Block(Box<Block>),
    /// Asks for final blocks from a height on.
    Sync(Height),
    /// Answers [`Message::Sync`].
    SyncBlocks(Box<SyncBlocks>),
    /// Transactions on their way to a validator.
    Transactions(Vec<SignedTransaction>),
}

impl Message {
    /// The label of its kind.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Message::Proposal(_) => "proposal",
            Message::Vote(_) => "vote",
            Message::Certificate(_) => "certificate",
            Message::Certificates(_) => "certificates",
            Message::FetchCertificate { .. } => "fetch_certificate",
            Message::FetchProposal { .. } => "fetch_proposal",
            Message::Status(_) => "status",
            Message::Announce(_) => "announce",
            Message::Batch(_) => "batch",
            Message::FetchBatches(_) => "fetch_batches",
            Message::FetchBlock(_) => "fetch_block",
            Message::Block(_) => "block",
            Message::Sync(_) => "sync",
            Message::SyncBlocks(_) => "sync_blocks",
            Message::Transactions(_) => "transactions",
        }
    }

    /// The lane that it takes, and the only one on which it may arrive.
    pub const fn lane(&self) -> Lane {
        match self {
            Message::Proposal(_)
            | Message::Vote(_)
            | Message::Certificate(_)
            | Message::Certificates(_)
            | Message::FetchCertificate { .. }
            | Message::FetchProposal { .. }
            | Message::Status(_)
            | Message::Announce(_) => Lane::Votes,
            Message::Batch(_)
            | Message::FetchBatches(_)
            | Message::FetchBlock(_)
            | Message::Block(_)
            | Message::Sync(_)
            | Message::SyncBlocks(_)
            | Message::Transactions(_) => Lane::Bulk,
        }
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a message that arrived on a lane and checks the bounds of its lists.
    ///
    /// # Errors
    /// [`DecodeError`]: also for a list above its bound, or a kind on the wrong lane.
    pub fn from_bytes(bytes: &[u8], lane: Lane) -> Result<Message, DecodeError> {
        let message: Message = decode(bytes, lane.bytes_max())?;
        let bounded = match &message {
            Message::Certificates(list) => list.len() <= CERTIFICATES_MAX,
            Message::Announce(ids) | Message::FetchBatches(ids) => ids.len() <= IDS_MAX,
            Message::SyncBlocks(sync) => sync.blocks.len() <= SYNC_BLOCKS_MAX,
            Message::Transactions(list) => list.len() <= FORWARD_MAX,
            _ => true,
        };
        if !bounded || message.lane() != lane {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidData, "list above its bound or wrong lane");
            return Err(DecodeError::Malformed(error));
        }
        Ok(message)
    }
}
