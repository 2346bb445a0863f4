//! The project's own habits, as subcommands: `cargo xtask --help`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod kernel;

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
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Kernel { task } => kernel::run(task, &root()),
    }
}

/// The root of the tree: where this crate's folder lies.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}
