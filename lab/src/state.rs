//! `devnet.json`: what runs where, for programs that want to talk to the devnet. Field names are a contract.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use types::{ChainId, PublicKey};

/// The file's name in the devnet's folder.
pub const FILE: &str = "devnet.json";

/// How far a devnet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Processes are being started.
    Starting,
    /// Every node answers.
    Running,
    /// Load is over, or somebody asked to stop.
    Stopping,
    /// Nothing runs any more.
    Stopped,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `node1` and on.
    pub name: String,
    /// Its network namespace; null on loopback.
    pub namespace: Option<String>,
    /// Where peers reach it.
    pub address: IpAddr,
    /// TCP and UDP.
    pub p2p_port: u16,
    /// Its API on the host's loopback.
    pub api_url: String,
    /// libp2p identity.
    pub peer_id: String,
    /// Its validator key.
    pub validator_key: PublicKey,
    /// 0 while it is dead.
    pub node_pid: u32,
    /// 0 while it is dead; null without a guard.
    pub guard_pid: Option<u32>,
    /// The guard's socket; null without a guard.
    pub guard_socket: Option<PathBuf>,
    /// Its data.
    pub data_dir: PathBuf,
    /// `native`, `generic`, `tcx` or `none`.
    pub xdp_mode: String,
    /// Its interface inside the namespace; null on loopback.
    pub interface: Option<String>,
    /// Its log.
    pub log: PathBuf,
}

/// The bridge that connects the namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FabricState {
    /// The namespace that holds it.
    pub namespace: String,
    /// Its name.
    pub bridge: String,
    /// What all names of this devnet's namespaces begin with.
    pub prefix: String,
}

/// The whole devnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// How far.
    pub state: Phase,
    /// The chain.
    pub chain_id: ChainId,
    /// The runner.
    pub runner_pid: u32,
    /// Funded development accounts: indices 0 to this minus 1.
    pub accounts: u32,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The wires; null on loopback.
    pub fabric: Option<FabricState>,
}

impl State {
    /// Reads the file of a devnet's folder.
    ///
    /// # Errors
    /// If there is none, or it is no such file.
    pub fn read(folder: &Path) -> Result<State> {
        let path = folder.join(FILE);
        let bytes = std::fs::read(&path).with_context(|| format!("no devnet here: can't read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))
    }

    /// Writes it for readers that look at any time.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        crate::files::write_json(&folder.join(FILE), self)
    }
}
