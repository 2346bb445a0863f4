//! Statements, votes, certificates, evidence: what validator keys sign for consensus.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::epoch::{Seat, ValidatorSet};
use crate::hash::{BlockHash, ChainId, encode};
use crate::ids::{Epoch, View};
use crate::key::{BadSignature, PublicKey, SCHEME_ED25519, Signature};

const SIGN_TAG: &[u8] = b"ebpf-blockchain/statement/1\0";

/// What is said about a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = true)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Kind {
    /// The leader proposes this block.
    Propose = 0,
    /// The block is held and valid.
    Notarize = 1,
    /// This view shall end without a final block.
    Nullify = 2,
    /// The block was notarized and I did not nullify.
    Finalize = 3,
}

impl Kind {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Propose => "propose",
            Kind::Notarize => "notarize",
            Kind::Nullify => "nullify",
            Kind::Finalize => "finalize",
        }
    }
}

/// What a validator key signs for consensus. Nullify carries parent view 0 and a zero digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Statement {
    /// The chain.
    pub chain: ChainId,
    /// The epoch; views restart in each.
    pub epoch: Epoch,
    /// The view.
    pub view: View,
    /// What is said.
    pub kind: Kind,
    /// The view that notarized the block's parent; 0 is the epoch's base.
    pub parent_view: View,
    /// The block.
    pub digest: BlockHash,
}

impl Statement {
    /// A nullify statement.
    pub fn nullify(chain: ChainId, epoch: Epoch, view: View) -> Statement {
        Statement { chain, epoch, view, kind: Kind::Nullify, parent_view: View(0), digest: BlockHash::default() }
    }

    /// The same about the same block and view, with another kind.
    #[must_use]
    pub fn with_kind(self, kind: Kind) -> Statement {
        Statement { kind, ..self }
    }

    /// Whether its shape is possible: a view ≥ 1, a parent view below it, and nothing beside the view in a nullify.
    pub fn is_well_formed(&self) -> bool {
        let about_nothing = self.parent_view == View(0) && self.digest == BlockHash::default();
        self.view >= View(1) && self.parent_view < self.view && (self.kind != Kind::Nullify || about_nothing)
    }

    /// The bytes that are signed: a tag and the borsh bytes.
    pub fn signing_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIGN_TAG.len() + 96);
        out.extend_from_slice(SIGN_TAG);
        out.extend_from_slice(&encode(self));
        out
    }

    /// Whether one honest key never signs both: two different proposals, two different notarize, two different finalize, or
    /// nullify and finalize, in one (chain, epoch, view). Notarize A with finalize B is honest under an equivocating leader.
    pub fn contradicts(&self, other: &Statement) -> bool {
        if (self.chain, self.epoch, self.view) != (other.chain, other.epoch, other.view) || self == other {
            return false;
        }
        match (self.kind, other.kind) {
            (a, b) if a == b => true,
            (Kind::Nullify, Kind::Finalize) | (Kind::Finalize, Kind::Nullify) => true,
            _ => false,
        }
    }
}

/// A statement with one validator's signature: a proposal's head, or a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct SignedStatement {
    /// What is said.
    pub statement: Statement,
    /// Who says it.
    pub key: PublicKey,
    /// Strict rule.
    pub signature: Signature,
}

impl SignedStatement {
    /// Checks the signature.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self) -> Result<(), BadSignature> {
        self.key.verify_strict(&self.statement.signing_bytes(), &self.signature)
    }
}

/// A quorum's signatures under one statement: a notarization, nullification or finality certificate.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Certificate {
    /// How the signatures are kept: 0 = a list of Ed25519 signatures.
    pub scheme: u8,
    /// What they all signed.
    pub statement: Statement,
    /// Who: bit `i mod 8` (least significant first) of byte `i / 8` is seat `i`; exactly `ceil(n / 8)` bytes, no other bit set.
    #[serde(with = "hex::serde")]
    pub bitmap: Vec<u8>,
    /// In order of seats, one for each bit.
    pub signatures: Vec<Signature>,
}

/// Why a certificate convinces nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A scheme that we don't know.
    #[error("unknown signature scheme {0}")]
    Scheme(u8),
    /// Not of the set's epoch, a proposal, or an impossible statement.
    #[error("statement can't be certified by this set")]
    Statement,
    /// The bitmap or the number of signatures doesn't fit the set.
    #[error("bitmap does not fit the validator set")]
    Bitmap,
    /// Not strictly more than two thirds of the weight.
    #[error("signers have {weight} of {total}, no quorum")]
    NoQuorum {
        /// Their weight.
        weight: u128,
        /// Of this.
        total: u128,
    },
    /// A signature does not verify.
    #[error("signature of seat {0}")]
    Signature(u16, #[source] BadSignature),
}

impl Certificate {
    /// Puts signatures together; `votes` in order of seats, each seat once.
    pub fn assemble(set: &ValidatorSet, statement: Statement, votes: &[(Seat, Signature)]) -> Certificate {
        debug_assert!(votes.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let mut bitmap = vec![0u8; set.len().div_ceil(8)];
        for (seat, _) in votes {
            bitmap[seat.index() / 8] |= 1 << (seat.index() % 8);
        }
        let signatures = votes.iter().map(|(_, signature)| *signature).collect();
        Certificate { scheme: SCHEME_ED25519, statement, bitmap, signatures }
    }

    /// Seats whose bit is set.
    pub fn seats(&self) -> impl Iterator<Item = Seat> + '_ {
        let bits = self.bitmap.len().min(1 << 13) * 8;
        (0..bits).filter(|i| self.bitmap[i / 8] & (1 << (i % 8)) != 0).map(|i| Seat(i as u16))
    }

    /// Checks all but the signatures: cheap, and enough to know what a verified copy would say.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn check_shape(&self, set: &ValidatorSet) -> Result<(), CertificateError> {
        if self.scheme != SCHEME_ED25519 {
            return Err(CertificateError::Scheme(self.scheme));
        }
        if self.statement.epoch != set.epoch() || self.statement.kind == Kind::Propose || !self.statement.is_well_formed() {
            return Err(CertificateError::Statement);
        }
        if self.bitmap.len() != set.len().div_ceil(8) || self.seats().any(|seat| seat.index() >= set.len()) {
            return Err(CertificateError::Bitmap);
        }
        if self.seats().count() != self.signatures.len() {
            return Err(CertificateError::Bitmap);
        }
        let weight = self.seats().map(|seat| set.weight(seat)).sum();
        if !set.is_quorum(weight) {
            return Err(CertificateError::NoQuorum { weight, total: set.total() });
        }
        Ok(())
    }

    /// Checks everything: with the epoch's set, a certificate alone convinces.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn verify(&self, chain: &ChainId, set: &ValidatorSet) -> Result<(), CertificateError> {
        if self.statement.chain != *chain {
            return Err(CertificateError::Statement);
        }
        self.check_shape(set)?;
        let message = self.statement.signing_bytes();
        for (seat, signature) in self.seats().zip(&self.signatures) {
            let key = set.get(seat).ok_or(CertificateError::Bitmap)?.key;
            key.verify_strict(&message, signature).map_err(|error| CertificateError::Signature(seat.0, error))?;
        }
        Ok(())
    }
}

/// Proof that a key signed what no honest key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Evidence {
    /// Whose.
    pub key: PublicKey,
    /// One statement.
    pub first: (Statement, Signature),
    /// Another that contradicts it.
    pub second: (Statement, Signature),
}

impl Evidence {
    /// Whether it convicts.
    pub fn verify(&self) -> bool {
        self.first.0.contradicts(&self.second.0)
            && [&self.first, &self.second]
                .iter()
                .all(|(statement, signature)| self.key.verify_strict(&statement.signing_bytes(), signature).is_ok())
    }
}
