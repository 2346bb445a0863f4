//! `cargo xtask bench-guard`: the guard's figures, measured on this machine, into `target/bench/guard.json`.
//!
//! What is measured is in `crates/guard/examples/bench_guard.rs`; it needs root and loads programs, so it is not linked into this tool.

use anyhow::{Context, ensure};
use std::{path::Path, process::Command};

const OUTPUT: &str = "target/bench/guard.json";

/// Builds and runs the benchmark.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(root)
        .args(["run", "--quiet", "--package", "guard", "--example", "bench_guard", "--"])
        .arg(root.join(OUTPUT));
    let status = command.status().context("running the benchmark")?;
    ensure!(status.success(), "the benchmark failed: it needs root, and a kernel that loads XDP programs");
    println!("{OUTPUT} written");
    Ok(())
}
