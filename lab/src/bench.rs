//! Figures that need a devnet.

pub mod flood;

use anyhow::Result;

/// Which figures.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Bench {
    /// Finality under a flood by finality in quiet, with guards and without.
    Flood(flood::Options),
}

/// Measures. True if every figure could be.
///
/// # Errors
/// If a devnet can't be run.
pub fn run(bench: &Bench) -> Result<bool> {
    crate::signals::install()?;
    match bench {
        Bench::Flood(options) => flood::run(options),
    }
}
