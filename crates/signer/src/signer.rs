//! What may be signed.

use std::collections::BTreeMap;
use std::io;

use types::{
    BatchHeader, Certificate, ChainId, Epoch, Kind, ProofOfValidator, PublicKey, Signature, SignedStatement, Statement, View,
};

use crate::disk::Disk;
use crate::journal::{self, Broken, Position};
use crate::key::{KeyError, ValidatorKey};
use crate::record::{Attach, Record};

/// Limits of a journal. Times and bytes only: nothing here decides what may be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A cut rewrites the journal once it has this many bytes.
    pub rewrite_bytes: usize,
    /// Above this nothing is signed until a cut makes room.
    pub journal_bytes_max: usize,
    /// Rules to break, for controls that a simulator must find.
    #[cfg(feature = "planted-bugs")]
    pub bugs: Bugs,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            rewrite_bytes: 2 << 20,
            journal_bytes_max: 256 << 20,
            #[cfg(feature = "planted-bugs")]
            bugs: Bugs::default(),
        }
    }
}

/// Which rules a signer breaks. Exists in no normal build.
#[cfg(feature = "planted-bugs")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bugs {
    /// Give signatures away before their records are durable.
    pub sign_before_sync: bool,
    /// Sign nullify beside finalize. The engine has a switch of the same name.
    pub nullify_and_finalize: bool,
    /// Forget at a restart that the journal was cut. Shows only if a shell cuts above its synced tip.
    pub ignore_cut: bool,
}

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
    /// The journal is full: nothing was final for very long.
    #[error("journal is full")]
    Full,
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

/// What is known of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storage {
    Unknown,
    /// Older than the cut.
    Behind,
    Reached,
}

/// The only holder of a validator's key.
#[derive(Debug)]
pub struct Signer<D> {
    key: ValidatorKey,
    disk: D,
    config: Config,
    /// Records at and above the final view, by view.
    records: BTreeMap<Position, Vec<Record>>,
    /// Up to here all is final and synced.
    final_at: Option<Position>,
    /// The cut in the journal's header.
    cut: Option<Position>,
    storage: Storage,
    /// Bytes in the journal.
    bytes: usize,
    poisoned: bool,
}

#[cfg(not(feature = "planted-bugs"))]
fn ignores_cut(_: &Config) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
fn ignores_cut(config: &Config) -> bool {
    config.bugs.ignore_cut
}

fn position(statement: &Statement) -> Position {
    (statement.epoch, statement.view)
}

impl<D: Disk> Signer<D> {
    /// Opens the journal: all its records, in the order of signing. A torn tail is cut off. Nothing is signed before
    /// [`Signer::storage_at`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(key: ValidatorKey, disk: D) -> Result<(Signer<D>, Vec<Record>), OpenError> {
        Signer::open_with(key, disk, Config::default())
    }

    /// [`Signer::open`] with other limits.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_with(key: ValidatorKey, mut disk: D, config: Config) -> Result<(Signer<D>, Vec<Record>), OpenError> {
        key.lock().map_err(OpenError::Key)?;
        let bytes = disk.read_all().map_err(OpenError::Disk)?;
        let public = key.public();
        let found = journal::read(&bytes).map_err(|broken| match broken {
            Broken::Damaged(at) => OpenError::Damaged(at),
            Broken::Version(version) => OpenError::Version(version),
        })?;
        let (cut, list, len) = match found {
            Some(found) if found.key != public => return Err(OpenError::OtherKey(found.key)),
            Some(found) => {
                // Also if nothing is torn: the disk learns where its end is.
                disk.truncate(found.len as u64).map_err(OpenError::Disk)?;
                (found.cut, found.records, found.len)
            }
            None => {
                disk.replace(&journal::header(&public, None)).map_err(OpenError::Disk)?;
                (None, Vec::new(), journal::HEADER_BYTES)
            }
        };
        let mut records: BTreeMap<Position, Vec<Record>> = BTreeMap::new();
        for record in &list {
            records.entry(position(&record.signed.statement)).or_default().push(record.clone());
        }
        let storage = Storage::Unknown;
        let final_at = if ignores_cut(&config) { None } else { cut };
        let signer = Signer { key, disk, config, records, final_at, cut, storage, bytes: len, poisoned: false };
        Ok((signer, list))
    }

    /// Whose signatures.
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Tells, once after [`Signer::open`], the highest finality certificate that storage has synced; none at genesis. False if
    /// the journal was cut above it: then every statement is refused in this life.
    pub fn storage_at(&mut self, tip: Option<&Certificate>) -> bool {
        let tip = tip.map(|certificate| position(&certificate.statement));
        if tip < self.cut && !ignores_cut(&self.config) {
            self.storage = Storage::Behind;
            return false;
        }
        self.final_at = self.final_at.max(tip);
        if let Some(at) = self.final_at {
            self.records = self.records.split_off(&at);
        }
        if self.storage == Storage::Unknown {
            self.storage = Storage::Reached;
        }
        self.storage == Storage::Reached
    }

    /// Signs a statement once its record is durable. The same statement again gives the same signature, without a record.
    ///
    /// # Errors
    /// [`SignError`]; see [`SignError::is_fatal`].
    pub fn sign(&mut self, statement: Statement, attach: Attach) -> Result<SignedStatement, SignError> {
        if self.poisoned {
            return Err(SignError::Poisoned);
        }
        if self.storage != Storage::Reached {
            return Err(SignError::StorageBehind);
        }
        if !statement.is_well_formed() {
            return Err(SignError::Malformed);
        }
        let at = position(&statement);
        if self.final_at.is_some_and(|last| at <= last) {
            return Err(SignError::Final { epoch: statement.epoch, view: statement.view });
        }
        for Record { signed, .. } in self.records.get(&at).into_iter().flatten() {
            if signed.statement == statement {
                return Ok(*signed);
            }
            if signed.statement.contradicts(&statement) && !self.overlooks(signed.statement.kind, statement.kind) {
                return Err(SignError::Contradiction);
            }
        }
        let signature = self.key.sign(&statement.signing_bytes());
        let signed = SignedStatement { statement, key: self.key.public(), signature };
        let record = Record { signed, certificate: attach.certificate, block: attach.block };
        self.append(&record)?;
        self.records.entry(at).or_default().push(record);
        Ok(signed)
    }

    fn append(&mut self, record: &Record) -> Result<(), SignError> {
        let bytes = journal::record(self.bytes, record).map_err(SignError::Oversize)?;
        if self.bytes + bytes.len() > self.config.journal_bytes_max {
            return Err(SignError::Full);
        }
        let synced = self.syncs();
        let written = self.disk.append(&bytes).and_then(|()| if synced { self.disk.sync() } else { Ok(()) });
        self.bytes += bytes.len();
        self.or_poison(written)
    }

    /// After a failed write or sync nobody knows what is on the disk; a second sync may report success for what is lost.
    fn or_poison(&mut self, result: io::Result<()>) -> Result<(), SignError> {
        result.map_err(|error| {
            self.poisoned = true;
            SignError::Disk(error)
        })
    }

    /// Signs without a record.
    ///
    /// # Errors
    /// [`SignError::Poisoned`].
    pub fn sign_plain(&self, plain: Plain<'_>) -> Result<Signature, SignError> {
        if self.poisoned {
            return Err(SignError::Poisoned);
        }
        let message = match plain {
            Plain::Batch(header) => header.signing_bytes(),
            Plain::Handshake { chain, peer_id } => ProofOfValidator::signing_bytes(&chain, peer_id),
        };
        Ok(self.key.sign(&message))
    }

    /// Storage has synced this finality certificate and the blocks up to it: statements at and below it are refused from now
    /// on, records below it go at the next rewrite. Those of its own view stay: their notarization is what the next block names.
    ///
    /// # Errors
    /// [`SignError`] if the journal was to be rewritten and the disk failed.
    pub fn cut(&mut self, finality: &Certificate) -> Result<(), SignError> {
        if self.poisoned {
            return Err(SignError::Poisoned);
        }
        let at = position(&finality.statement);
        if finality.statement.kind != Kind::Finalize || self.final_at.is_some_and(|last| at <= last) {
            return Ok(());
        }
        self.final_at = Some(at);
        // A bug that forgets the cut forgets the final view's own records too: their certificates alone would lead a restarted
        // engine past every view in which it could contradict itself.
        let kept = if ignores_cut(&self.config) { (at.0, at.1.next()) } else { at };
        self.records = self.records.split_off(&kept);
        if self.storage == Storage::Reached && self.bytes >= self.config.rewrite_bytes {
            self.rewrite(at)?;
        }
        Ok(())
    }

    fn rewrite(&mut self, cut: Position) -> Result<(), SignError> {
        let mut bytes = journal::header(&self.key.public(), Some(cut));
        for record in self.records.values().flatten() {
            let record = journal::record(bytes.len(), record).map_err(SignError::Oversize)?;
            bytes.extend_from_slice(&record);
        }
        let replaced = self.disk.replace(&bytes);
        self.or_poison(replaced)?;
        self.cut = Some(cut);
        self.bytes = bytes.len();
        Ok(())
    }

    #[cfg(not(feature = "planted-bugs"))]
    fn syncs(&self) -> bool {
        true
    }

    #[cfg(not(feature = "planted-bugs"))]
    fn overlooks(&self, _: Kind, _: Kind) -> bool {
        false
    }
}

#[cfg(feature = "planted-bugs")]
impl<D> Signer<D> {
    fn syncs(&self) -> bool {
        !self.config.bugs.sign_before_sync
    }

    fn overlooks(&self, one: Kind, other: Kind) -> bool {
        self.config.bugs.nullify_and_finalize && one != other
    }
}
