//! Batches: transactions packed and signed by one validator. Blocks cite them by id.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::epoch::Params;
use crate::hash::{BatchId, ChainId, Hash, TxId, encode};
use crate::ids::{Epoch, Height, Sequence};
use crate::key::{BadSignature, PublicKey, Signature};
use crate::merkle;
use crate::transaction::{SignedTransaction, TransactionError};

const ID_TAG: &str = "ebpf-blockchain/batch/1";
const SIGN_TAG: &[u8] = b"ebpf-blockchain/batch-signature/1\0";

/// What the author signs; its hash is the batch's id.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct BatchHeader {
    /// The chain.
    pub chain: ChainId,
    /// The author's epoch: the citing block's or the one before.
    pub epoch: Epoch,
    /// Who packed it.
    pub author: PublicKey,
    /// The author's counter; a repeat after a crash is no offence.
    pub sequence: Sequence,
    /// Last height that may cite it.
    pub expiry: Height,
    /// Transactions in it, at least 1.
    pub count: u32,
    /// Sum of their canonical bytes.
    pub bytes: u32,
    /// Merkle root (RFC 6962) over the transaction ids; leaf data are the 32 bytes of the id.
    pub root: Hash,
}

impl BatchHeader {
    /// The batch's id.
    pub fn id(&self) -> BatchId {
        BatchId(Hash::of(ID_TAG, self))
    }

    /// The bytes that the author signs: a tag and the id.
    pub fn signing_bytes(&self) -> Vec<u8> {
        [SIGN_TAG, &self.id().0.0].concat()
    }

    /// The author's share rule aside: whether a block of this height may cite it.
    pub fn citable_at(&self, height: Height, params: &Params) -> bool {
        height <= self.expiry && self.expiry.0 <= height.0.saturating_add(params.batch_life)
    }
}

/// A batch as it travels and is stored.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Batch {
    /// What is signed.
    pub header: BatchHeader,
    /// By the author (strict rule).
    pub signature: Signature,
    /// What it holds.
    pub transactions: Vec<SignedTransaction>,
}

/// Why a batch is not valid, whatever the chain's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// For another chain.
    #[error("batch is for another chain")]
    WrongChain,
    /// No transactions, or more or larger than allowed.
    #[error("batch size is out of bounds")]
    Size,
    /// Count, bytes or root differ from the transactions.
    #[error("batch header does not describe its transactions")]
    HeaderMismatch,
    /// The author did not sign it.
    #[error("batch author's signature")]
    Signature(#[source] BadSignature),
    /// The author signed for a transaction that fails the stateless checks. This is evidence.
    #[error("transaction {index} in batch")]
    Transaction {
        /// Its place.
        index: usize,
        /// What is wrong.
        #[source]
        error: TransactionError,
    },
}

/// The Merkle root over transaction ids.
pub fn transactions_root(ids: impl IntoIterator<Item = TxId>) -> Hash {
    merkle::root(ids.into_iter().map(|id| merkle::leaf_hash(&id.0.0)).collect())
}

impl Batch {
    /// The batch's id.
    pub fn id(&self) -> BatchId {
        self.header.id()
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Most canonical bytes a batch may have.
    pub fn bytes_max(params: &Params) -> usize {
        params.batch_bytes_max as usize + 512
    }

    /// All but the transactions' signatures: sizes, header, author's signature, stateless checks. Cheap checks come first.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn check(&self, chain: &ChainId, params: &Params) -> Result<(), BatchError> {
        if self.header.chain != *chain {
            return Err(BatchError::WrongChain);
        }
        let bytes: usize = self.transactions.iter().map(SignedTransaction::size).sum();
        if self.transactions.is_empty()
            || self.transactions.len() > params.batch_transactions_max as usize
            || bytes > params.batch_bytes_max as usize
        {
            return Err(BatchError::Size);
        }
        let described = self.header.count as usize == self.transactions.len()
            && self.header.bytes as usize == bytes
            && self.header.root == transactions_root(self.transactions.iter().map(SignedTransaction::id));
        if !described {
            return Err(BatchError::HeaderMismatch);
        }
        let message = self.header.signing_bytes();
        self.header.author.verify_strict(&message, &self.signature).map_err(BatchError::Signature)?;
        for (index, transaction) in self.transactions.iter().enumerate() {
            transaction.check_stateless(chain, params).map_err(|error| BatchError::Transaction { index, error })?;
        }
        Ok(())
    }
}
