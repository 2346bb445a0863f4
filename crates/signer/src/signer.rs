//! What may be signed.

use std::io;

use types::{BatchHeader, Certificate, ChainId, Epoch, PublicKey, Signature, SignedStatement, Statement, View};

use crate::disk::Disk;
use crate::key::{KeyError, ValidatorKey};
use crate::record::{Attach, Record};

/// What is signed without a record: repeating or changing it harms nobody.
#[derive(Clone, Copy, Debug)]
pub enum Plain<'a> {
    /// A batch of one's own.
    Batch(&'a BatchHeader),
    /// A transport identity's proof of validator.
    Handshake {
        /// The chain.
        chain: ChainId,
        /// The bytes of the PeerId.
        peer_id: &'a [u8],
    },
}

/// Why a journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("journal")]
    Disk(#[source] io::Error),
    /// Whole records lie behind a broken one: not a torn tail. Signing on could contradict what is lost.
    #[error("journal is damaged at byte {0}, before its end")]
    Damaged(u64),
    /// It is another key's.
    #[error("journal belongs to key {0}")]
    OtherKey(PublicKey),
    /// Of a version that we don't know.
    #[error("journal version {0}")]
    Version(u32),
    /// The key is in use.
    #[error("validator key")]
    Key(#[source] KeyError),
}

/// Why a statement was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It contradicts what was signed before.
    #[error("contradicts a statement that was signed before")]
    Contradiction,
    /// Its view is not above the highest final one.
    #[error("view {view} of epoch {epoch} is final")]
    Final {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
    },
    /// Its shape is impossible.
    #[error("statement is malformed")]
    Malformed,
    /// [`Signer::storage_at`] was not told yet, or storage is older than the journal's cut: nothing is signed in this life.
    #[error("storage is older than the journal's cut")]
    StorageBehind,
    /// The record is larger than one may be.
    #[error("record of {0} bytes")]
    Oversize(usize),
    /// The disk failed; nothing is signed any more. The process must end.
    #[error("journal")]
    Disk(#[source] io::Error),
    /// The disk failed before.
    #[error("the journal's disk failed before")]
    Poisoned,
}

impl SignError {
    /// Whether the process must end: the disk failed, now or before. All else is a refusal.
    pub fn is_fatal(&self) -> bool {
        matches!(self, SignError::Disk(_) | SignError::Poisoned)
    }
}

/// The only holder of a validator's key.
#[derive(Debug)]
pub struct Signer<D> {
    key: ValidatorKey,
    #[allow(dead_code)]
    disk: D,
}

impl<D: Disk> Signer<D> {
    /// Opens the journal: all its records, in the order of signing. A torn tail is cut off. Nothing is signed before
    /// [`Signer::storage_at`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(key: ValidatorKey, disk: D) -> Result<(Signer<D>, Vec<Record>), OpenError> {
        Ok((Signer { key, disk }, Vec::new()))
    }

    /// Whose signatures.
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Tells, once after [`Signer::open`], the highest finality certificate that storage has synced; none at genesis. False if
    /// the journal was cut above it: then every statement is refused in this life.
    pub fn storage_at(&mut self, _tip: Option<&Certificate>) -> bool {
        true
    }

    /// Signs a statement once its record is durable. The same statement again gives the same signature, without a record.
    ///
    /// # Errors
    /// [`SignError`]; see [`SignError::is_fatal`].
    pub fn sign(&mut self, _statement: Statement, _attach: Attach) -> Result<SignedStatement, SignError> {
        Err(SignError::StorageBehind)
    }

    /// Signs without a record.
    ///
    /// # Errors
    /// [`SignError::Poisoned`].
    pub fn sign_plain(&self, _plain: Plain<'_>) -> Result<Signature, SignError> {
        Err(SignError::Poisoned)
    }

    /// Storage has synced this finality certificate and the blocks up to it: statements at and below it are refused from now
    /// on, records below it may go.
    ///
    /// # Errors
    /// [`SignError`] if records were to go and the disk failed.
    pub fn cut(&mut self, _finality: &Certificate) -> Result<(), SignError> {
        Ok(())
    }
}
