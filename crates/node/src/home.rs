//! A node's home: its configuration and its keys.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use libp2p::identity::Keypair;
use types::{GenesisRecord, PublicKey};

use crate::config;

/// Creates what is missing in a home and names it: `node.toml`, `network.key`, `validator.key`, and a copy of the genesis file.
///
/// # Errors
/// If something can't be written, or the genesis file is no genesis record. Nothing that exists is overwritten.
pub fn init(home: &Path, name: &str, genesis: Option<&Path>, validator: bool) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(home).with_context(|| format!("can't create {}", home.display()))?;
    let mut made = Vec::new();
    let mut create = |file: &str, mode: u32, bytes: &[u8]| -> Result<()> {
        let path = home.join(file);
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        match opened {
            Ok(mut file) => file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| path.display().to_string())?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("can't create {}", path.display())),
        }
        made.push(path);
        Ok(())
    };
    let mut template = config::TEMPLATE.replace("name = \"node\"", &format!("name = {name:?}"));
    if !validator {
        template =
            template.replace("[validator]\n", "# [validator]\n").replace("key = \"validator.key\"", "# key = \"validator.key\"");
    }
    create("node.toml", 0o644, template.as_bytes())?;
    let network_key = Keypair::generate_ed25519().to_protobuf_encoding().context("encoding the network key")?;
    create("network.key", 0o600, &network_key)?;
    if let Some(genesis) = genesis {
        read_genesis(genesis)?;
        create("genesis.json", 0o644, &std::fs::read(genesis)?)?;
    }
    let key = home.join("validator.key");
    if validator && !key.exists() {
        signer::key::create(&key).with_context(|| format!("can't create {}", key.display()))?;
        made.push(key);
    }
    Ok(made)
}

/// The key behind the PeerId.
///
/// # Errors
/// If the file can't be read or is no key.
pub fn load_network_key(path: &Path) -> Result<Keypair> {
    let bytes = std::fs::read(path).with_context(|| format!("can't read {}; `ebpf-node init` makes it", path.display()))?;
    Keypair::from_protobuf_encoding(&bytes).with_context(|| format!("{} is not a network key", path.display()))
}

/// The public half of a validator's key file.
///
/// # Errors
/// If the file can't be read or is no key.
pub fn validator_public(path: &Path) -> Result<PublicKey> {
    Ok(signer::key::load(path).with_context(|| format!("can't read {}; `ebpf-node init` makes it", path.display()))?.public())
}

/// A genesis file: the record as JSON, checked.
///
/// # Errors
/// If the file can't be read or its record breaks a rule.
pub fn read_genesis(path: &Path) -> Result<GenesisRecord> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read the genesis file {}", path.display()))?;
    let record: GenesisRecord = serde_json::from_str(&text).with_context(|| format!("{} is no genesis record", path.display()))?;
    if let Err(error) = record.check() {
        bail!("{}: {error}", path.display());
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_makes_what_is_missing_and_keeps_what_is_there() {
        let home = tempfile::tempdir().unwrap();
        let made = init(home.path(), "alpha", None, true).unwrap();
        assert_eq!(made.len(), 3);
        let config = config::Config::load(home.path()).unwrap();
        assert_eq!(config.name, "alpha");
        let first = load_network_key(&config.network_key).unwrap().public();
        assert!(init(home.path(), "beta", None, true).unwrap().is_empty());
        assert_eq!(load_network_key(&config.network_key).unwrap().public(), first);
        let mode =
            |file: &str| std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(home.path().join(file)).unwrap().permissions());
        assert_eq!(mode("network.key") & 0o777, 0o600);
        assert_eq!(mode("validator.key") & 0o777, 0o600);
    }

    #[test]
    fn a_follower_has_no_validator_key() {
        let home = tempfile::tempdir().unwrap();
        init(home.path(), "watcher", None, false).unwrap();
        assert_eq!(config::Config::load(home.path()).unwrap().validator_key, None);
        assert!(!home.path().join("validator.key").exists());
    }

    #[test]
    fn a_broken_genesis_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("g.json");
        std::fs::write(&path, "{}").unwrap();
        assert!(init(home.path(), "x", Some(&path), true).is_err());
    }
}
