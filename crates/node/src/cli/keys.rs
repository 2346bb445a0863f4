//! `ebpf-node keys`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use crate::config::Config;
use crate::home;

#[derive(Subcommand)]
pub enum Command {
    /// The public halves: PeerId and validator key.
    Show {
        /// The node's home.
        #[arg(long)]
        home: PathBuf,
        /// JSON instead of lines.
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    pub fn run(self) -> Result<()> {
        let Command::Show { home, json } = self;
        let config = Config::load(&home)?;
        let peer_id = home::load_network_key(&config.network_key)?.public().to_peer_id().to_string();
        let validator_key = config.validator_key.as_deref().map(home::validator_public).transpose()?;
        if json {
            let keys = serde_json::json!({ "peer_id": peer_id, "validator_key": validator_key });
            println!("{}", serde_json::to_string(&keys)?);
        } else {
            println!("peer id        {peer_id}");
            println!("validator key  {}", validator_key.map_or("none".to_owned(), |key| key.to_string()));
        }
        Ok(())
    }
}
