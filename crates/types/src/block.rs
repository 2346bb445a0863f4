//! Blocks: a header, and a body that is a list of typed items.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::hash::{BatchId, BlockHash, ChainId, Hash, encode};
use crate::ids::{Epoch, Height, UnixMs};
use crate::key::PublicKey;
use crate::merkle;
use crate::statement::Certificate;

const BLOCK_TAG: &str = "ebpf-blockchain/block/1";
const CERTIFICATE_TAG: &str = "ebpf-blockchain/certificate/1";

/// The version of header and body, 1.
pub const BLOCK_VERSION: u32 = 1;

/// What a block's hash is made of. The view is not in it: an epoch's last block is proposed again under its own hash.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Header {
    /// [`BLOCK_VERSION`].
    pub version: u32,
    /// The chain.
    pub chain: ChainId,
    /// The epoch that holds the height.
    pub epoch: Epoch,
    /// The parent's plus 1.
    pub height: Height,
    /// The parent; at height 1 the genesis hash.
    pub parent: BlockHash,
    /// Later than the parent's.
    pub time: UnixMs,
    /// Who made it.
    pub proposer: PublicKey,
    /// Merkle root over the body's items.
    pub body_root: Hash,
    /// A final ancestor (or genesis, 0) up to which the proposer has executed; never below the parent's.
    pub executed: Height,
    /// The state root after `executed`.
    pub state_root: Hash,
    /// Merkle root over the receipts of the heights above the parent's `executed`, up to this one's.
    pub receipts_root: Hash,
    /// Hash of this epoch's record.
    pub epoch_hash: Hash,
    /// Hash of the next epoch's record.
    pub next_epoch_hash: Hash,
}

impl Header {
    /// The block's hash.
    pub fn hash(&self) -> BlockHash {
        BlockHash(Hash::of(BLOCK_TAG, self))
    }
}

/// One item of a body, as it is hashed: its kind and a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct BodyItem {
    /// 0 = a batch id, 1 = the hash of the parent's notarization. Others are reserved.
    pub kind: u8,
    /// What is named.
    pub hash: Hash,
}

/// What a block orders: batches, and who notarized its parent.
#[derive(Clone, Debug, PartialEq, Eq, Default, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Body {
    /// Cited batches, executed in this order.
    pub batches: Vec<BatchId>,
    /// The parent's notarization; none on an epoch's base.
    pub parent_notarization: Option<Certificate>,
}

impl Body {
    /// The items: batches in order, then the notarization.
    pub fn items(&self) -> Vec<BodyItem> {
        let batches = self.batches.iter().map(|id| BodyItem { kind: 0, hash: id.0 });
        let notarization = self.parent_notarization.iter().map(|c| BodyItem { kind: 1, hash: Hash::of(CERTIFICATE_TAG, c) });
        batches.chain(notarization).collect()
    }

    /// Merkle root over the items; leaf data are an item's 33 borsh bytes.
    pub fn root(&self) -> Hash {
        merkle::root(self.items().iter().map(|item| merkle::leaf_hash(&encode(item))).collect())
    }
}

/// A header with its body.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Block {
    /// The header.
    pub header: Header,
    /// The body.
    pub body: Body,
}

impl Block {
    /// The block's hash.
    pub fn hash(&self) -> BlockHash {
        self.header.hash()
    }

    /// Whether the body is the one that the header names.
    pub fn body_matches(&self) -> bool {
        self.body.root() == self.header.body_root
    }
}
