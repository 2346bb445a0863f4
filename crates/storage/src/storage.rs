//! The storage of one node as a value: open, begin a chain, read entries.

use std::path::Path;

use borsh::BorshDeserialize;
use ledger::{Change, Ledger};
use parking_lot::{Mutex, RwLock};
use rocksdb::{Cache, ColumnFamily, ColumnFamilyDescriptor, DB, IteratorMode, WriteBatch, WriteOptions};
use types::{BlockHash, ChainId, EpochRecord, GenesisRecord, Header, Height, encode};

use crate::columns::{self, Column};
use crate::error::StorageError;
use crate::home::Home;
use crate::keys;
use crate::options::Options;
use crate::pending::Pending;
use crate::plan::Writer;
use crate::state::leaf_bytes;

/// Leaves of a genesis that are written at once.
const GENESIS_LEAVES: usize = 32_768;

/// The last final block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Its height; 0 is genesis.
    pub height: Height,
    /// Its hash; of genesis [`GenesisRecord::block_hash`].
    pub hash: BlockHash,
}

/// How far a storage is: `state ≤ executed ≤ tip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last final block, durable.
    pub tip: Tip,
    /// The last height whose execution was stored since the storage was opened, else `state`.
    pub executed: Height,
    /// The height after which the stored leaves stand. After opening, the heights above it are executed again.
    pub state: Height,
}

/// The storage of one node. Reads take no lock and may come from any thread; commits take turns.
pub struct Storage {
    pub(crate) db: DB,
    pub(crate) options: Options,
    pub(crate) writer: Mutex<Writer>,
    progress: RwLock<Progress>,
    genesis: GenesisRecord,
    chain: ChainId,
    cache: Cache,
    pub(crate) engine: rocksdb::Options,
    // Last: the lock falls when the database is closed.
    _home: Home,
}

impl Storage {
    /// Opens the chain of this genesis in a directory; begins it if the directory holds none.
    ///
    /// # Errors
    /// [`StorageError`]: among others `Locked`, `FormatNewer`, `OtherChain`.
    pub fn open(path: &Path, options: Options, genesis: &GenesisRecord) -> Result<Storage, StorageError> {
        options.check()?;
        let home = Home::enter(path)?;
        let (db, cache, engine) = open_database(&home, &options)?;
        match read_meta::<GenesisRecord>(&db, keys::GENESIS)? {
            Some(stored) if stored == *genesis => {}
            Some(stored) => return Err(StorageError::OtherChain { stored: stored.chain_id(), given: genesis.chain_id() }),
            None => begin(&db, genesis)?,
        }
        Storage::assemble(db, (cache, engine), home, options, genesis.clone())
    }

    /// Opens whatever chain a directory holds, for tools.
    ///
    /// # Errors
    /// [`StorageError`]; `Empty` if it holds none.
    pub fn open_existing(path: &Path, options: Options) -> Result<Storage, StorageError> {
        options.check()?;
        let home = Home::enter(path)?;
        if !home.database().exists() {
            return Err(StorageError::Empty);
        }
        let (db, cache, engine) = open_database(&home, &options)?;
        let genesis = read_meta::<GenesisRecord>(&db, keys::GENESIS)?.ok_or(StorageError::Empty)?;
        Storage::assemble(db, (cache, engine), home, options, genesis)
    }

    fn assemble(
        db: DB,
        (cache, engine): (Cache, rocksdb::Options),
        home: Home,
        options: Options,
        genesis: GenesisRecord,
    ) -> Result<Storage, StorageError> {
        let height = |key| read_meta::<[u8; 8]>(&db, key)?.map(u64::from_be_bytes).ok_or(StorageError::damaged(Column::Meta));
        let (tip, state) = (Height(height(keys::TIP)?), Height(height(keys::STATE)?));
        let start = Tip { height: Height(0), hash: genesis.block_hash() };
        let progress = RwLock::new(Progress { tip: start, executed: state, state });
        let chain = genesis.chain_id();
        let writer = Mutex::new(Writer::default());
        let storage = Storage { db, options, writer, progress, genesis, chain, cache, engine, _home: home };
        if tip > Height(0) {
            let header = storage.header(tip)?.ok_or(StorageError::damaged(Column::Blocks))?;
            storage.progress.write().tip = Tip { height: tip, hash: header.hash() };
        }
        if state > tip {
            return Err(StorageError::damaged(Column::Meta));
        }
        let mut pending = Pending::default();
        storage.scan(Column::Pending, IteratorMode::Start, |key, _| {
            let (expiry, id) = keys::read_batch(key).ok_or(StorageError::damaged(Column::Pending))?;
            pending.insert(expiry, id);
            Ok(true)
        })?;
        let mut recorded = Height(0);
        storage.scan(Column::Executed, IteratorMode::End, |key, _| {
            recorded = Height(keys::read_number(key).ok_or(StorageError::damaged(Column::Executed))?);
            Ok(false)
        })?;
        *storage.writer.lock() = Writer::new(pending, recorded);
        tracing::debug!(%chain, tip = %tip, state = %state, recorded = %recorded, "storage open");
        Ok(storage)
    }

    /// The genesis record.
    pub fn genesis(&self) -> &GenesisRecord {
        &self.genesis
    }

    /// The chain.
    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// How far it is. Never waits for a write.
    pub fn progress(&self) -> Progress {
        *self.progress.read()
    }

    pub(crate) fn set_progress(&self, progress: Progress) {
        *self.progress.write() = progress;
    }

    /// Bytes in the read cache.
    pub fn cache_usage(&self) -> usize {
        self.cache.get_usage()
    }

    /// The record of an epoch, if it is known.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn epoch(&self, epoch: types::Epoch) -> Result<Option<EpochRecord>, StorageError> {
        self.read(Column::Meta, &keys::epoch(epoch.0))
    }

    pub(crate) fn family(&self, column: Column) -> &ColumnFamily {
        family(&self.db, column)
    }

    /// Reads and decodes one value.
    pub(crate) fn read<T: BorshDeserialize>(&self, column: Column, key: &[u8]) -> Result<Option<T>, StorageError> {
        let Some(bytes) = self.db.get_pinned_cf(self.family(column), key).map_err(StorageError::engine("read"))? else {
            return Ok(None);
        };
        decode(column, &bytes).map(Some)
    }

    /// Reads a value of [`keys::pair`].
    pub(crate) fn read_pair(&self, column: Column, key: &[u8]) -> Result<Option<(u64, u32)>, StorageError> {
        let found = self.db.get_pinned_cf(self.family(column), key).map_err(StorageError::engine("read"))?;
        found.map(|bytes| keys::read_pair(&bytes).ok_or(StorageError::damaged(column))).transpose()
    }

    /// Gives entries to `visit` from a start on, until it answers false.
    pub(crate) fn scan(
        &self,
        column: Column,
        from: IteratorMode,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, StorageError>,
    ) -> Result<(), StorageError> {
        for entry in self.db.iterator_cf(self.family(column), from) {
            let (key, value) = entry.map_err(StorageError::engine("scan"))?;
            if !visit(&key, &value)? {
                break;
            }
        }
        Ok(())
    }

    /// The header of a final block; the rest of the block isn't decoded.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn header(&self, height: Height) -> Result<Option<Header>, StorageError> {
        let column = self.family(Column::Blocks);
        let found = self.db.get_pinned_cf(column, keys::number(height.0)).map_err(StorageError::engine("read"))?;
        found.map(|bytes| decode_header(&bytes)).transpose()
    }
}

/// A block's bytes begin with its header's.
pub(crate) fn decode_header(mut block: &[u8]) -> Result<Header, StorageError> {
    let malformed = |error| StorageError::Damaged { column: Column::Blocks, source: Some(types::DecodeError::Malformed(error)) };
    Header::deserialize(&mut block).map_err(malformed)
}

pub(crate) fn decode<T: BorshDeserialize>(column: Column, bytes: &[u8]) -> Result<T, StorageError> {
    types::decode(bytes, bytes.len()).map_err(|error| StorageError::Damaged { column, source: Some(error) })
}

fn family(db: &DB, column: Column) -> &ColumnFamily {
    db.cf_handle(column.as_str()).expect("every column was opened")
}

fn read_meta<T: BorshDeserialize>(db: &DB, key: &[u8]) -> Result<Option<T>, StorageError> {
    let found = db.get_pinned_cf(family(db, Column::Meta), key).map_err(StorageError::engine("read"))?;
    found.map(|bytes| decode(Column::Meta, &bytes)).transpose()
}

fn open_database(home: &Home, options: &Options) -> Result<(DB, Cache, rocksdb::Options), StorageError> {
    let cache = Cache::new_lru_cache(options.cache_bytes);
    let engine = columns::tuned(options);
    let columns = Column::ALL.map(|column| ColumnFamilyDescriptor::new(column.as_str(), column.tuned(options, &cache)));
    let db = DB::open_cf_descriptors(&engine, home.database(), columns).map_err(StorageError::engine("open"))?;
    Ok((db, cache, engine))
}

/// Writes a chain's beginning. The genesis record comes last and is synced: without it the whole is done again.
fn begin(db: &DB, genesis: &GenesisRecord) -> Result<(), StorageError> {
    let (_, changes) = Ledger::genesis(genesis).map_err(StorageError::Genesis)?;
    let (meta, state) = (family(db, Column::Meta), family(db, Column::State));
    let write = |batch, options: &WriteOptions| db.write_opt(batch, options).map_err(StorageError::engine("write genesis"));
    // Leaves of an attempt that ended halfway, perhaps of another genesis.
    let mut batch = WriteBatch::default();
    batch.delete_range_cf(state, keys::number(0), keys::number(u64::MAX));
    write(batch, &WriteOptions::default())?;
    for part in changes.chunks(GENESIS_LEAVES) {
        let mut batch = WriteBatch::default();
        for Change { index, key, value, .. } in part {
            batch.put_cf(state, keys::number(*index), leaf_bytes(key, value));
        }
        write(batch, &WriteOptions::default())?;
    }
    let mut batch = WriteBatch::default();
    for record in &genesis.epochs {
        batch.put_cf(meta, keys::epoch(record.epoch.0), encode(record));
    }
    batch.put_cf(meta, keys::TIP, keys::number(0));
    batch.put_cf(meta, keys::STATE, keys::number(0));
    batch.put_cf(meta, keys::GENESIS, encode(genesis));
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    write(batch, &synced)
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("chain", &self.chain).field("progress", &self.progress()).finish_non_exhaustive()
    }
}
