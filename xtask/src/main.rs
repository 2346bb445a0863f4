//! The project's own habits, as subcommands: `cargo xtask --help`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bench;
mod deps;
mod fuzz;
mod kernel;
mod tidy;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};

#[derive(Parser)]
#[command(name = "xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The kernel objects: build them, or verify the committed ones.
    Kernel {
        #[command(subcommand)]
        task: kernel::Task,
    },
    /// The house's rules: module docs, sizes of files and functions, banned text, links, manifests.
    Tidy,
    /// The guard's figures, beside what was promised; into target/bench/guard.json. Needs root.
    BenchGuard(bench::Options),
    /// Fuzz everything that reads bytes of strangers, each target for some seconds.
    Fuzz {
        /// Seconds a target.
        #[arg(default_value_t = 30)]
        seconds: u32,
    },
    /// The dependency table: which package may depend on which, and what it must never contain.
    CheckDeps,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Kernel { task } => kernel::run(task, &root()),
        Task::Tidy => tidy::run(&root()),
        Task::BenchGuard(options) => bench::run(&options, &root()),
        Task::Fuzz { seconds } => fuzz::run(&root(), seconds),
        Task::CheckDeps => deps::run(&root()),
    }
}

/// The root of the tree: where this crate's folder lies. Cargo says so when it runs this program; where it was compiled
/// says nothing, since clones may share a target folder.
fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    own.as_deref().and_then(Path::parent).map(Path::to_path_buf).unwrap_or_default()
}
