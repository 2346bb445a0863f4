//! `ebpf-guard flows`.

use super::out;
use guard::{Client, Request, Response, protocol::FlowInfo};
use std::{io::Write, net::SocketAddr};

/// All flows, page by page. Flows that come and go meanwhile may be missing; none is listed twice.
fn fetch(client: &mut Client) -> anyhow::Result<Vec<FlowInfo>> {
    let mut all: Vec<FlowInfo> = Vec::new();
    loop {
        let skip = u32::try_from(all.len())?;
        let Response::Flows { flows, total } = client.ask(&Request::Flows { skip })? else {
            anyhow::bail!("no flows in the answer")
        };
        let known = |flow: &FlowInfo| {
            all.iter().rev().any(|old| (old.protocol, old.address, old.port) == (flow.protocol, flow.address, flow.port))
        };
        let new: Vec<FlowInfo> = flows.into_iter().filter(|flow| !known(flow)).collect();
        if new.is_empty() {
            return Ok(all);
        }
        all.extend(new);
        if all.len() as u64 >= total {
            return Ok(all);
        }
    }
}

/// Prints the flows: as JSON in one line, or as a table.
pub fn show(client: &mut Client, json: bool) -> anyhow::Result<()> {
    let flows = fetch(client)?;
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
