//! Transactions: what an account signs, and the checks that need no state.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::epoch::Params;
use crate::hash::{Address, ChainId, DecodeError, Hash, TxId, decode, encode};
use crate::ids::{Amount, Height, Nonce};
use crate::key::{AccountKey, BatchItem, PublicKey, Signature};

const SIGN_TAG: &[u8] = b"ebpf-blockchain/transaction/1\0";
const ID_TAG: &str = "ebpf-blockchain/transaction-id/1";

/// What a transaction does. Tags 1–5 are reserved for stake, unstake, register, retire and evidence.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Moves money.
    Transfer {
        /// Who gets it; created if absent.
        to: Address,
        /// How much.
        amount: Amount,
        /// Free bytes, at most [`Params::memo_bytes_max`].
        #[serde(with = "hex::serde")]
        memo: Vec<u8>,
    },
}

/// The part of a transaction that is signed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Transaction {
    /// The chain it is for.
    pub chain: ChainId,
    /// Who pays and signs.
    pub sender: PublicKey,
    /// Its place in the sender's nonce window.
    pub nonce: Nonce,
    /// The last height whose block may contain it.
    pub expiry: Height,
    /// What it does.
    pub action: Action,
}

impl Transaction {
    /// The bytes that are signed: a tag and the borsh bytes.
    pub fn signing_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(SIGN_TAG);
        out.extend_from_slice(&encode(self));
        out
    }

    /// Signs with the sender's key.
    pub fn sign(self, key: &AccountKey) -> SignedTransaction {
        let signature = key.sign(&self.signing_bytes());
        SignedTransaction { transaction: self, signature }
    }
}

/// A transaction with its signature (ZIP-215 rule).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct SignedTransaction {
    /// What was signed.
    pub transaction: Transaction,
    /// By `transaction.sender`.
    pub signature: Signature,
}

/// Why a transaction can never be valid, whatever the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// For another chain.
    #[error("transaction is for another chain")]
    WrongChain,
    /// Above the size limit.
    #[error("transaction has {actual} bytes, at most {max} allowed")]
    Oversize {
        /// Bytes it has.
        actual: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Memo above its limit.
    #[error("memo has {actual} bytes, at most {max} allowed")]
    MemoOversize {
        /// Bytes it has.
        actual: usize,
        /// Bytes allowed.
        max: usize,
    },
}

impl SignedTransaction {
    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8], params: &Params) -> Result<SignedTransaction, DecodeError> {
        decode(bytes, params.transaction_bytes_max as usize)
    }

    /// The id: a hash of all bytes, signature included.
    pub fn id(&self) -> TxId {
        TxId(Hash::tagged(ID_TAG, &self.to_bytes()))
    }

    /// Size of the canonical bytes.
    pub fn size(&self) -> usize {
        let Action::Transfer { memo, .. } = &self.transaction.action;
        // chain, sender, nonce, expiry, tag, to, amount, memo length, memo, signature
        32 + 32 + 8 + 8 + 1 + 32 + 8 + 4 + memo.len() + 64
    }

    /// The checks that need neither state nor curve: chain and sizes.
    ///
    /// # Errors
    /// [`TransactionError`].
    pub fn check_stateless(&self, chain: &ChainId, params: &Params) -> Result<(), TransactionError> {
        if self.transaction.chain != *chain {
            return Err(TransactionError::WrongChain);
        }
        let Action::Transfer { memo, .. } = &self.transaction.action;
        if memo.len() > params.memo_bytes_max as usize {
            return Err(TransactionError::MemoOversize { actual: memo.len(), max: params.memo_bytes_max as usize });
        }
        if self.size() > params.transaction_bytes_max as usize {
            return Err(TransactionError::Oversize { actual: self.size(), max: params.transaction_bytes_max as usize });
        }
        Ok(())
    }

    /// Its signature as an item for [`crate::verify_batch`].
    pub fn batch_item(&self) -> BatchItem {
        BatchItem::new(&self.transaction.sender, &self.transaction.signing_bytes(), &self.signature)
    }

    /// Whether its signature verifies; for many, use [`crate::verify_batch`].
    pub fn verify_signature(&self) -> bool {
        self.transaction.sender.verify_zip215(&self.transaction.signing_bytes(), &self.signature).is_ok()
    }

    /// The fee without the charge for a new account: `fee_base + fee_per_byte × size`.
    pub fn fee(&self, params: &Params) -> Amount {
        Amount(params.fee_base.0.saturating_add(params.fee_per_byte.0.saturating_mul(self.size() as u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_the_length_of_the_bytes() {
        for memo in [0, 1, 77] {
            let key = AccountKey::development(0);
            let signed = Transaction {
                chain: ChainId::default(),
                sender: key.public(),
                nonce: Nonce(1),
                expiry: Height(9),
                action: Action::Transfer { to: Address::default(), amount: Amount(5), memo: vec![1; memo] },
            }
            .sign(&key);
            assert_eq!(signed.size(), signed.to_bytes().len());
            assert!(signed.verify_signature());
            assert_eq!(SignedTransaction::from_bytes(&signed.to_bytes(), &Params::default()).unwrap(), signed);
        }
    }
}
