//! The node's configuration: raw TOML, then a validated value. What decides validity is in the epoch records, never here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

mod duration;
mod guard;
mod network;

pub use guard::{FloodBudget, GuardConfig};

/// The commented template that `ebpf-node init` writes.
pub const TEMPLATE: &str = include_str!("node.toml");

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, or a key that doesn't exist.
    #[error("{path} is not a valid configuration")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value that can't be.
    #[error("{key}: {problem}")]
    Value {
        /// Its name, with the section.
        key: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    node: RawNode,
    validator: Option<RawValidator>,
    network: RawNetwork,
    #[serde(default)]
    api: RawApi,
    #[serde(default)]
    guard: guard::RawGuard,
    #[serde(default)]
    consensus: RawConsensus,
    #[serde(default)]
    mempool: RawMempool,
    #[serde(default)]
    log: RawLog,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    name: String,
    genesis: PathBuf,
    data_dir: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawValidator {
    key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    key: PathBuf,
    listen: Vec<String>,
    #[serde(default)]
    peers: Vec<String>,
    #[serde(default = "peers_max")]
    peers_max: usize,
    #[serde(default)]
    limits: network::RawLimits,
}

fn peers_max() -> usize {
    64
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawApi {
    listen: String,
}

impl Default for RawApi {
    fn default() -> Self {
        RawApi { listen: "127.0.0.1:8545".into() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConsensus {
    leader_timeout_ms: u64,
    view_timeout_ms: u64,
    idle_interval_ms: u64,
    resend_ms: u64,
    block_interval_min_ms: u64,
}

impl Default for RawConsensus {
    fn default() -> Self {
        RawConsensus {
            leader_timeout_ms: 400,
            view_timeout_ms: 800,
            idle_interval_ms: 2_000,
            resend_ms: 200,
            block_interval_min_ms: 25,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMempool {
    transactions_max: usize,
    bytes_max: usize,
    batch_delay_ms: u64,
}

impl Default for RawMempool {
    fn default() -> Self {
        RawMempool { transactions_max: 50_000, bytes_max: 32 * 1024 * 1024, batch_delay_ms: 10 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLog {
    level: String,
    format: LogFormat,
}

impl Default for RawLog {
    fn default() -> Self {
        RawLog { level: "info".into(), format: LogFormat::Text }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Consensus timing, in ms; see the template for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ConsensusTiming {
    pub leader_timeout_ms: u64,
    pub view_timeout_ms: u64,
    pub idle_interval_ms: u64,
    pub resend_ms: u64,
    pub block_interval_min_ms: u64,
}

/// The pool's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolBounds {
    /// Most waiting transactions.
    pub transactions_max: usize,
    /// Most waiting bytes.
    pub bytes_max: usize,
    /// How long a transaction waits for its batch to fill, in ms.
    pub batch_delay_ms: u64,
}

/// A usable configuration: paths are absolute or relative to the working directory, numbers are in range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name in logs and tables.
    pub name: String,
    /// The genesis record, as JSON.
    pub genesis: PathBuf,
    /// The data directory: database and journal.
    pub data_dir: PathBuf,
    /// The validator's key file; none: a full node without a vote.
    pub validator_key: Option<PathBuf>,
    /// The key of the node's PeerId.
    pub network_key: PathBuf,
    /// Multiaddresses to listen on.
    pub listen: Vec<String>,
    /// Multiaddresses (with PeerId) to keep connected to.
    pub peers: Vec<String>,
    /// Seats, and what else bounds the network.
    pub limits: ::network::Limits,
    /// Where the API listens, unless a socket is passed in.
    pub api_listen: SocketAddr,
    /// The guard, offences, floods.
    pub guard: GuardConfig,
    /// Consensus timing.
    pub consensus: ConsensusTiming,
    /// The pool's bounds.
    pub mempool: MempoolBounds,
    /// Log filter (`info`, `debug`, `network=debug,info`, …).
    pub log_level: String,
    /// Log format.
    pub log_format: LogFormat,
}

fn value(key: impl Into<String>, problem: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.into(), problem: problem.into() }
}

impl Config {
    /// Reads `home/node.toml`; relative paths in it are relative to `home`.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key.
    pub fn load(home: &Path) -> Result<Config, ConfigError> {
        let path = home.join("node.toml");
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        Config::parse(&text, home, &path)
    }

    fn parse(text: &str, home: &Path, path: &Path) -> Result<Config, ConfigError> {
        let parsed = toml::from_str(text);
        let raw: RawConfig = parsed.map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        raw.validate(home)
    }
}

impl RawConfig {
    fn validate(self, home: &Path) -> Result<Config, ConfigError> {
        if self.node.name.is_empty() || self.node.name.len() > 64 {
            return Err(value("node.name", "1 to 64 characters"));
        }
        if self.network.listen.is_empty() {
            return Err(value("network.listen", "at least one address, such as /ip4/0.0.0.0/tcp/9000"));
        }
        if self.network.peers_max == 0 {
            return Err(value("network.peers_max", "at least 1"));
        }
        let api_listen =
            self.api.listen.parse().map_err(|e| value("api.listen", format!("{e}; an address like 127.0.0.1:8545")))?;
        let timing = ConsensusTiming {
            leader_timeout_ms: self.consensus.leader_timeout_ms,
            view_timeout_ms: self.consensus.view_timeout_ms,
            idle_interval_ms: self.consensus.idle_interval_ms,
            resend_ms: self.consensus.resend_ms,
            block_interval_min_ms: self.consensus.block_interval_min_ms,
        };
        timing.check()?;
        if self.mempool.transactions_max == 0 || self.mempool.bytes_max < 64 * 1024 {
            return Err(value("mempool", "transactions_max at least 1 and bytes_max at least 65536"));
        }
        Ok(Config {
            name: self.node.name,
            genesis: home.join(self.node.genesis),
            data_dir: home.join(self.node.data_dir),
            validator_key: self.validator.map(|v| home.join(v.key)),
            network_key: home.join(self.network.key),
            listen: self.network.listen,
            peers: self.network.peers,
            limits: self.network.limits.validate(self.network.peers_max)?,
            api_listen,
            guard: self.guard.validate(home)?,
            consensus: timing,
            mempool: MempoolBounds {
                transactions_max: self.mempool.transactions_max,
                bytes_max: self.mempool.bytes_max,
                batch_delay_ms: self.mempool.batch_delay_ms,
            },
            log_level: self.log.level,
            log_format: self.log.format,
        })
    }
}

impl ConsensusTiming {
    fn check(&self) -> Result<(), ConfigError> {
        if self.leader_timeout_ms == 0 || self.resend_ms == 0 {
            return Err(value("consensus", "leader_timeout_ms and resend_ms at least 1"));
        }
        if self.view_timeout_ms < self.leader_timeout_ms {
            return Err(value("consensus.view_timeout_ms", "not below leader_timeout_ms"));
        }
        if self.idle_interval_ms < self.resend_ms {
            return Err(value("consensus.idle_interval_ms", "not below resend_ms"));
        }
        if self.block_interval_min_ms >= self.leader_timeout_ms {
            return Err(value("consensus.block_interval_min_ms", "below leader_timeout_ms, or no leader is ever in time"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/home"), Path::new("node.toml"))
    }

    #[test]
    fn the_template_holds_the_defaults() {
        let full = parse(TEMPLATE).unwrap();
        let minimal = parse(
            "[node]\nname='node'\ngenesis='genesis.json'\ndata_dir='data'\n[validator]\nkey='validator.key'\n\
             [network]\nkey='network.key'\nlisten=['/ip4/0.0.0.0/tcp/9000','/ip4/0.0.0.0/udp/9000/quic-v1']",
        )
        .unwrap();
        assert_eq!(full, minimal);
        assert_eq!(full.data_dir, Path::new("/home/data"));
    }

    #[test]
    fn bad_values_name_their_key() {
        let cases = [
            ("name = \"node\"", "name = \"\"", "node.name"),
            ("listen = \"127.0.0.1:8545\"", "listen = \"nowhere\"", "api.listen"),
            ("view_timeout_ms = 800", "view_timeout_ms = 8", "consensus.view_timeout_ms"),
            ("block_interval_min_ms = 25", "block_interval_min_ms = 400", "consensus.block_interval_min_ms"),
            ("peers_max = 64", "peers_max = 0", "network.peers_max"),
            ("strangers_max = 32", "strangers_max = 64", "network.limits.strangers_max"),
            ("flood_pending_max = 32", "flood_pending_max = 3", "network.limits.flood_pending_max"),
            ("escalation = 2", "escalation = 0", "guard.policy.escalation"),
            ("handshakes_per_s = 500", "handshakes_per_s = 1", "guard.flood.handshakes_per_s"),
            ("for = \"30s\"", "for = \"11m\"", "guard.flood.for"),
            (
                "[guard.offences.replay]\npoints = 10\nhalf_life = \"60s\"\nthreshold = 100",
                "[guard.offences.replay]\nthreshold = 0",
                "guard.offences.replay.threshold",
            ),
            ("[guard.offences.replay]", "[guard.offences.manual]", "guard.offences.manual"),
        ];
        for (from, to, key) in cases {
            assert!(TEMPLATE.contains(from), "{from}");
            let error = parse(&TEMPLATE.replace(from, to)).unwrap_err();
            assert!(error.to_string().starts_with(key), "{error}");
        }
    }

    #[test]
    fn every_number_of_an_offence_can_be_changed() {
        let rule = "[guard.offences.rate]\npoints = 10";
        assert!(TEMPLATE.contains(rule));
        let changed = "[guard.offences.rate]\nhalf_life = \"5m\"\nttl = \"1h\"\nthreshold = 7\npoints = 3";
        let text = TEMPLATE.replace(&format!("{rule}\nhalf_life = \"60s\"\nthreshold = 100\nttl = \"60s\""), changed);
        let config = parse(&text).unwrap();
        let expect = ::guard::policy::OffenceRule { points: 3, half_life_ms: 300_000, threshold: 7, ttl_ms: 3_600_000 };
        assert_eq!(*config.guard.policy.rule(types::Offence::Rate), expect);
        for (from, to, message) in
            [("ttl = \"1h\"", "ttl = \"60\"", "is no duration"), ("[guard.offences.rate]", "[guard.offences.late]", "late")]
        {
            let ConfigError::Parse { source, .. } = parse(&text.replacen(from, to, 1)).unwrap_err() else { panic!("{to}") };
            assert!(source.to_string().contains(message), "{source}");
        }
    }

    #[test]
    fn unknown_keys_are_errors() {
        let error = parse(&TEMPLATE.replace("resend_ms", "resent_ms")).unwrap_err();
        let ConfigError::Parse { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains("resent_ms"));
    }
}
