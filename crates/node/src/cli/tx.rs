//! `ebpf-node tx`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::{AccountInfo, EpochInfo, NodeInfo, TransactionInfo, TransactionStatus};
use clap::Subcommand;
use types::{AccountKey, Action, Address, Amount, Transaction};

use super::client::Client;

/// How many heights a transaction stays valid, if the chain allows as many.
const LIFE_HEIGHTS: u64 = 1_000;
const POLL: Duration = Duration::from_millis(50);

#[derive(Subcommand)]
pub enum Command {
    /// Sign a transfer, send it, and wait until it is final.
    Send {
        /// The node's API.
        #[arg(long, default_value = "http://127.0.0.1:8545")]
        api: String,
        /// Who pays: `dev:N`, a test account of a development chain, or a file with 64 hex digits.
        #[arg(long)]
        from: String,
        /// Who gets it: an address (64 hex digits) or `dev:N`.
        #[arg(long)]
        to: String,
        /// How much.
        #[arg(long)]
        amount: u64,
        /// Free text.
        #[arg(long, default_value = "")]
        memo: String,
        /// Give up waiting after this many seconds.
        #[arg(long, default_value_t = 30)]
        wait: u64,
        /// JSON instead of lines.
        #[arg(long)]
        json: bool,
    },
}

fn development(text: &str) -> Result<Option<AccountKey>> {
    let Some(number) = text.strip_prefix("dev:") else { return Ok(None) };
    let index = number.parse().with_context(|| format!("{text}: dev: is followed by a number"))?;
    Ok(Some(AccountKey::development(index)))
}

fn account_key(text: &str) -> Result<AccountKey> {
    if let Some(key) = development(text)? {
        return Ok(key);
    }
    let path = PathBuf::from(text);
    let hex = std::fs::read_to_string(&path).with_context(|| format!("can't read the key file {text}"))?;
    let mut seed = [0u8; 32];
    hex::decode_to_slice(hex.trim(), &mut seed).with_context(|| format!("{text} does not hold 64 hex digits"))?;
    Ok(AccountKey::from_seed(seed))
}

fn address(text: &str) -> Result<Address> {
    match development(text)? {
        Some(key) => Ok(key.public().address()),
        None => text.parse().with_context(|| format!("{text} is not an address")),
    }
}

impl Command {
    pub fn run(self) -> Result<()> {
        let Command::Send { api, from, to, amount, memo, wait, json } = self;
        let client = Client::new(&api);
        let key = account_key(&from)?;
        let info: NodeInfo = client.get("/api/v1/node/info")?;
        let sender: AccountInfo = client.get(&format!("/api/v1/accounts/{}", key.public().address()))?;
        let account = sender.account.with_context(|| format!("the chain has no account {}", key.public().address()))?;
        let epoch: EpochInfo = client.get(&format!("/api/v1/epochs/{}", info.epoch))?;
        let life = LIFE_HEIGHTS.min(epoch.record.params.transaction_life_max / 2);
        let transaction = Transaction {
            chain: info.chain_id,
            sender: key.public(),
            nonce: account.nonce_next,
            expiry: info.height.plus(life),
            action: Action::Transfer { to: address(&to)?, amount: Amount(amount), memo: memo.into_bytes() },
        };
        let signed = transaction.sign(&key);
        let _: serde_json::Value = client.post("/api/v1/transactions", &types::encode(&vec![&signed]))?;
        let found = wait_final(&client, &signed.id().to_string(), Duration::from_secs(wait))?;
        if json {
            println!("{}", serde_json::to_string_pretty(&found)?);
        } else if let Some(receipt) = found.receipt {
            println!("{} {} at height {}, fee {}", signed.id(), receipt.result.as_str(), receipt.height, receipt.fee);
        }
        Ok(())
    }
}

fn wait_final(client: &Client, id: &str, wait: Duration) -> Result<TransactionInfo> {
    let start = Instant::now();
    loop {
        let info: TransactionInfo = client.get(&format!("/api/v1/transactions/{id}"))?;
        if info.status == TransactionStatus::Final {
            return Ok(info);
        }
        if let Some(reason) = info.dropped {
            bail!("{id} was dropped: {reason}");
        }
        if start.elapsed() > wait {
            bail!("{id} is not final after {} s (status {:?})", wait.as_secs(), info.status);
        }
        std::thread::sleep(POLL);
    }
}
