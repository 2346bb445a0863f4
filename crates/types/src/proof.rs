//! Proofs: what convinces a light client that knows the chain id and an epoch's validator set.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::block::Header;
use crate::epoch::ValidatorSet;
use crate::hash::ChainId;
use crate::merkle::MerklePath;
use crate::receipt::Receipt;
use crate::state::{StateKey, StateLeaf, StateValue, state_root};
use crate::statement::{Certificate, CertificateError, Kind};

/// Most headers in a finality proof.
pub const PROOF_HEADERS_MAX: usize = 1_024;

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// No headers, too many, or of another chain or epoch.
    #[error("headers are missing, too many, or of another chain or epoch")]
    Headers,
    /// A header does not name the one before as its parent.
    #[error("header {0} does not follow its parent")]
    Broken(usize),
    /// The certificate is not a finality certificate of the last header.
    #[error("certificate is not about the last header")]
    Subject,
    /// The certificate does not verify.
    #[error("finality certificate")]
    Certificate(#[source] CertificateError),
    /// A Merkle path leads to another root.
    #[error("Merkle path leads to another root")]
    Path,
    /// The receipt is of a height that the header has not executed.
    #[error("receipt is above the header's executed height")]
    NotCovered,
    /// The leaf neither holds the key nor shows that it is absent, or the value is not the leaf's.
    #[error("leaf does not answer for this key and value")]
    Leaf,
}

/// Proves that the first header's block is final: headers h..=k of one epoch, and a finality certificate of k.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct FinalityProof {
    /// In order of height.
    pub headers: Vec<Header>,
    /// Of the last header.
    pub certificate: Certificate,
}

impl FinalityProof {
    /// Checks the proof and gives the header that it is about.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self, chain: &ChainId, set: &ValidatorSet) -> Result<&Header, ProofError> {
        let (Some(first), Some(last)) = (self.headers.first(), self.headers.last()) else {
            return Err(ProofError::Headers);
        };
        let foreign = |h: &Header| h.chain != *chain || h.epoch != set.epoch();
        if self.headers.len() > PROOF_HEADERS_MAX || self.headers.iter().any(foreign) {
            return Err(ProofError::Headers);
        }
        for (i, pair) in self.headers.windows(2).enumerate() {
            if pair[1].parent != pair[0].hash() || pair[1].height != pair[0].height.next() {
                return Err(ProofError::Broken(i + 1));
            }
        }
        let statement = &self.certificate.statement;
        if statement.kind != Kind::Finalize || statement.digest != last.hash() {
            return Err(ProofError::Subject);
        }
        self.certificate.verify(chain, set).map_err(ProofError::Certificate)?;
        Ok(first)
    }
}

/// Proves how a transaction ended: its receipt under a final header.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct TransactionProof {
    /// The receipt.
    pub receipt: Receipt,
    /// Its path under the header's receipts root.
    pub path: MerklePath,
    /// That the header is final.
    pub finality: FinalityProof,
}

impl TransactionProof {
    /// Checks the proof.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self, chain: &ChainId, set: &ValidatorSet) -> Result<&Receipt, ProofError> {
        let header = self.finality.verify(chain, set)?;
        if self.receipt.height > header.executed {
            return Err(ProofError::NotCovered);
        }
        if self.path.root(self.receipt.leaf()) != Some(header.receipts_root) {
            return Err(ProofError::Path);
        }
        Ok(&self.receipt)
    }
}

/// Proves what stands under a state key after the header's `executed` height, or that nothing does.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct StateProof {
    /// The question.
    pub key: StateKey,
    /// The leaf of the key, or the one that shows its absence.
    pub leaf: StateLeaf,
    /// The value's canonical bytes, if the key is present.
    #[serde(with = "optional_hex")]
    pub value: Option<Vec<u8>>,
    /// The leaf's path; its count is the state's leaf count.
    pub path: MerklePath,
    /// That the header with the state root is final.
    pub finality: FinalityProof,
}

impl StateProof {
    /// Checks the proof and gives the value, `None` if it proves absence.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self, chain: &ChainId, set: &ValidatorSet) -> Result<Option<StateValue>, ProofError> {
        let header = self.finality.verify(chain, set)?;
        let tree_root = self.path.root(self.leaf.leaf()).ok_or(ProofError::Path)?;
        if state_root(self.path.count, &tree_root) != header.state_root {
            return Err(ProofError::Path);
        }
        let Some(bytes) = &self.value else {
            return if self.leaf.excludes(&self.key) { Ok(None) } else { Err(ProofError::Leaf) };
        };
        let value = StateValue::from_bytes(self.key.kind, bytes).ok_or(ProofError::Leaf)?;
        if self.leaf.key != self.key || value.hash() != self.leaf.value {
            return Err(ProofError::Leaf);
        }
        Ok(Some(value))
    }
}

mod optional_hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(bytes) => serializer.serialize_some(&hex::encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(|text| hex::decode(text).map_err(serde::de::Error::custom)).transpose()
    }
}
