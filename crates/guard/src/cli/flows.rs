//! `ebpf-guard flows`.

use super::out;
use guard::Client;
use std::{io::Write, net::SocketAddr};

/// Prints the flows: as JSON in one line, or as a table.
pub fn show(client: &mut Client, json: bool) -> anyhow::Result<()> {
    let flows = client.flows()?;
    let mut out = out::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(&flows)?)?;
        return Ok(());
    }
    writeln!(
        out,
        "{:<52} {:<8} {:<28} {:>9} {:>10} {:>10} {:>10}",
        "label", "class", "address", "stake %", "share/s", "packets/s", "at once"
    )?;
    for flow in flows {
        let label = if flow.label.is_empty() { "(not announced again)" } else { &flow.label };
        let address = format!("{}/{}", flow.protocol.as_str(), SocketAddr::new(flow.address, flow.port));
        let stake = flow.stake_ppm.map_or("-".to_string(), |parts| format!("{}.{:04}", parts / 10_000, parts % 10_000));
        let number = |value: Option<u32>| value.map_or("-".to_string(), |value| value.to_string());
        writeln!(
            out,
            "{label:<52} {:<8} {address:<28} {stake:>9} {:>10} {:>10} {:>10}",
            flow.class.as_str(),
            number(flow.share),
            number(flow.rate),
            number(flow.burst)
        )?;
    }
    Ok(())
}
