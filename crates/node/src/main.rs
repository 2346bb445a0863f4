//! `ebpf-node`: the validator node.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    node::cli::Cli::parse().run()
}
