//! Hostile guests on a running devnet: each makes its own namespace on the fabric, so that all it sends meets the guards, and
//! tells step by step what it does and what it sees.

pub mod bad_signature;
pub mod flood;
pub mod guest;
pub mod outside;
pub mod spoof;
pub mod story;

use std::path::PathBuf;

use anyhow::Result;

/// Which attack.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Attack {
    /// Complete the handshake as no validator, send transactions with bad signatures, and watch the own packets die in XDP.
    BadSignature(Options),
    /// Flood nodes with strangers' packets from random sources and from a validator's address, and watch the chain go on.
    Flood(flood::Options),
}

/// Whom, and how long to watch.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The node to attack.
    #[arg(long, default_value = "node1")]
    pub target: String,
    /// The devnet's folder.
    #[arg(long, default_value = "target/devnet")]
    pub dir: PathBuf,
    /// Most seconds to wait for the ban's end; 0 leaves before.
    #[arg(long, default_value_t = 120)]
    pub ttl_wait: u64,
}

/// Runs it. True if the defence did all that it promises.
///
/// # Errors
/// If the attack can't be carried out, which says nothing about the defence.
pub fn run(attack: &Attack) -> Result<bool> {
    crate::signals::install()?;
    match attack {
        Attack::BadSignature(options) => bad_signature::run(options),
        Attack::Flood(options) => flood::run(options),
    }
}
