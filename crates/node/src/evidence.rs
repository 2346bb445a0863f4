//! Evidence that is kept: one file for each proof against a validator key, under the data directory. Whoever is proven guilty gets
//! no stream from this node, also after a restart, until a final block jails it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use types::{Evidence, PublicKey};

/// Most files; an attacker with one key can make one an epoch, and the first is enough.
const FILES_MAX: usize = 1_024;

/// The kept evidence.
#[derive(Debug)]
pub struct EvidenceStore {
    directory: PathBuf,
    guilty: BTreeSet<PublicKey>,
    files: usize,
}

impl EvidenceStore {
    /// Reads what was kept; a file that proves nothing is named in the log and passed over.
    ///
    /// # Errors
    /// If the directory can't be made or read.
    pub fn open(directory: &Path) -> Result<EvidenceStore> {
        fs::create_dir_all(directory).with_context(|| format!("evidence directory {}", directory.display()))?;
        let mut store = EvidenceStore { directory: directory.to_owned(), guilty: BTreeSet::new(), files: 0 };
        for entry in fs::read_dir(directory)?.take(FILES_MAX) {
            let path = entry?.path();
            store.files += 1;
            let evidence = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Evidence>(&bytes).ok());
            match evidence.filter(Evidence::verify) {
                Some(evidence) => _ = store.guilty.insert(evidence.key),
                None => tracing::warn!(path = %path.display(), "this file is no evidence"),
            }
        }
        Ok(store)
    }

    /// Keeps a proof, durably. What is kept already, or is above the bound, changes only what is remembered.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn keep(&mut self, evidence: &Evidence) -> Result<()> {
        self.guilty.insert(evidence.key);
        let statement = &evidence.first.0;
        let name = format!("{}-{}-{}.json", evidence.key, statement.epoch, statement.view);
        let path = self.directory.join(&name);
        if self.files >= FILES_MAX || path.exists() {
            return Ok(());
        }
        let bytes = serde_json::to_vec_pretty(evidence)?;
        let temporary = self.directory.join(format!(".{name}"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.directory)?.sync_all()?;
        self.files += 1;
        Ok(())
    }

    /// Whether a key is proven guilty.
    pub fn is_guilty(&self, key: &PublicKey) -> bool {
        self.guilty.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{AccountKey, BlockHash, ChainId, Epoch, Hash, Kind, Statement, View};

    fn evidence(guilty: bool) -> Evidence {
        let key = AccountKey::development(3);
        let statement = |digest: u8| Statement {
            chain: ChainId::default(),
            epoch: Epoch(0),
            view: View(5),
            kind: Kind::Notarize,
            parent_view: View(4),
            digest: BlockHash(Hash([digest; 32])),
        };
        let signed = |statement: Statement| (statement, key.sign(&statement.signing_bytes()));
        Evidence { key: key.public(), first: signed(statement(1)), second: signed(statement(if guilty { 2 } else { 1 })) }
    }

    #[test]
    fn what_is_kept_is_known_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let proof = evidence(true);
        let mut store = EvidenceStore::open(home.path()).unwrap();
        assert!(!store.is_guilty(&proof.key));
        store.keep(&proof).unwrap();
        store.keep(&proof).unwrap();
        assert!(store.is_guilty(&proof.key));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        assert!(EvidenceStore::open(home.path()).unwrap().is_guilty(&proof.key));
    }

    #[test]
    fn a_file_that_proves_nothing_convicts_nobody() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("a.json"), "{}").unwrap();
        fs::write(home.path().join("b.json"), serde_json::to_vec(&evidence(false)).unwrap()).unwrap();
        assert!(!EvidenceStore::open(home.path()).unwrap().is_guilty(&evidence(true).key));
    }
}
