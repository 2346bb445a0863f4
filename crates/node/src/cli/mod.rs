//! The command line of `ebpf-node`.

mod client;
mod keys;
mod peers;
mod status;
mod tx;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{config, doctor, home};

/// A validator node that defends and explains itself in the Linux kernel.
#[derive(Parser)]
#[command(name = "ebpf-node", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create a node's home: node.toml, network.key, validator.key.
    Init {
        /// The directory; created if missing, nothing in it is overwritten.
        #[arg(long)]
        home: PathBuf,
        /// A genesis file to copy into it.
        #[arg(long)]
        genesis: Option<PathBuf>,
        /// The node's name in logs and tables.
        #[arg(long, default_value = "node")]
        name: String,
        /// Make no validator key: a full node without a vote.
        #[arg(long)]
        no_validator: bool,
    },
    /// Run the node.
    Start {
        /// The node's home.
        #[arg(long)]
        home: PathBuf,
    },
    /// The node's keys.
    Keys {
        #[command(subcommand)]
        command: keys::Command,
    },
    /// Transactions.
    Tx {
        #[command(subcommand)]
        command: tx::Command,
    },
    /// Where a running node stands.
    Status {
        /// The node's API.
        #[arg(long, default_value = "http://127.0.0.1:8545")]
        api: String,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// The peers of a running node: who, over what, how far, and what the guard counted.
    Peers {
        /// The node's API.
        #[arg(long, default_value = "http://127.0.0.1:8545")]
        api: String,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// What this machine lets the node do and see, and how to mend what is missing.
    Doctor {
        /// The data directory whose disk is measured.
        #[arg(long, default_value = ".")]
        data_dir: PathBuf,
        /// The guard's socket, as `[guard] socket` in node.toml.
        #[arg(long, default_value = "/run/ebpf-guard/guard.sock")]
        guard_socket: PathBuf,
        /// JSON instead of lines.
        #[arg(long)]
        json: bool,
    },
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// With a text for the person who asked.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Init { home, genesis, name, no_validator } => {
                let made = home::init(&home, &name, genesis.as_deref(), !no_validator)?;
                for path in made {
                    println!("created {}", path.display());
                }
                Ok(())
            }
            Command::Start { home } => crate::start(config::Config::load(&home)?),
            Command::Keys { command } => command.run(),
            Command::Tx { command } => command.run(),
            Command::Status { api, json } => status::run(&api, json),
            Command::Peers { api, json } => peers::run(&api, json),
            Command::Doctor { data_dir, guard_socket, json } => {
                let findings = doctor::examine(&data_dir, &guard_socket);
                if json {
                    println!("{}", serde_json::to_string_pretty(&findings)?);
                } else {
                    print!("{}", doctor::render(&findings));
                }
                Ok(())
            }
        }
    }
}
