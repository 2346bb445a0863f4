//! `ebpf-node status`.

use anyhow::Result;
use api::NodeInfo;

use super::client::Client;

pub fn run(base: &str, json: bool) -> Result<()> {
    let client = Client::new(base);
    if json {
        let info: serde_json::Value = client.get("/api/v1/node/info")?;
        println!("{}", serde_json::to_string_pretty(&info)?);
        return Ok(());
    }
    let info: NodeInfo = client.get("/api/v1/node/info")?;
    let guard: serde_json::Value = client.get("/api/v1/guard")?;
    println!("{} {} on chain {}", info.name, info.version, info.chain_id);
    println!("peer id    {}", info.peer_id);
    println!("validator  {}", info.validator_key.map_or("none: follows the chain".to_owned(), |key| key.to_string()));
    println!("height     {} (executed {}), epoch {}, view {}", info.height, info.executed, info.epoch, info.view);
    println!("block      {}", info.block_hash);
    println!("peers      {}", info.peers);
    println!("mempool    {} transactions", info.mempool_transactions);
    println!("up         {}.{:03} s", info.uptime_ms / 1000, info.uptime_ms % 1000);
    if guard["available"].as_bool() == Some(true) {
        let word = |key: &str| guard[key].as_str().unwrap_or("?").to_owned();
        println!("guard      {} on {}, XDP {}", word("mode"), word("interface"), word("attach"));
    } else {
        println!("guard      none: {}", guard["reason"].as_str().unwrap_or("no guard configured"));
    }
    Ok(())
}
