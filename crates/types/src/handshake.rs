//! The first words on a connection: protocol version, chain, and who is a validator.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::hash::ChainId;
use crate::key::{BadSignature, PublicKey, Signature};

const SIGN_TAG: &[u8] = b"ebpf-blockchain/proof-of-validator/1\0";

/// The version of all messages between nodes.
pub const WIRE_VERSION: u32 = 1;

/// Most bytes of a transport identity (libp2p's PeerId multihash).
pub const PEER_ID_BYTES_MAX: usize = 64;

/// A validator key's word that a transport identity is its node on this chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ProofOfValidator {
    /// The validator.
    pub key: PublicKey,
    /// Over [`ProofOfValidator::signing_bytes`], strict rule.
    pub signature: Signature,
}

impl ProofOfValidator {
    /// What is signed: a tag, the chain, and the bytes of the PeerId.
    pub fn signing_bytes(chain: &ChainId, peer_id: &[u8]) -> Vec<u8> {
        [SIGN_TAG, &chain.0.0, peer_id].concat()
    }

    /// Checks it for the peer at the other end.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self, chain: &ChainId, peer_id: &[u8]) -> Result<(), BadSignature> {
        self.key.verify_strict(&Self::signing_bytes(chain, peer_id), &self.signature)
    }
}

/// What each side says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Hello {
    /// [`WIRE_VERSION`]. A newer one is an honest mismatch, no offence.
    pub version: u32,
    /// The chain.
    pub chain: ChainId,
    /// Of a validator.
    pub validator: Option<ProofOfValidator>,
}
