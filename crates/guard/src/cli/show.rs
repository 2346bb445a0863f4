//! What people and machines read.

use super::{config::Settings, out};
use guard::{
    Response,
    kernel::ports,
    protocol::{EventInfo, LatencyInfo, ListInfo, SharesInfo, Stats},
};
use kernel_shared::control::Mode;
use std::{
    io::{self, Write},
    path::PathBuf,
};

/// Prints an answer.
pub fn response(response: &Response, json: bool) -> anyhow::Result<()> {
    let mut out = out::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(response)?)?;
        return Ok(());
    }
    match response {
        Response::Banned { address, until_unix_ms, flows_deleted } => {
            let seconds = until_unix_ms.saturating_sub(guard::kernel::clock::unix_ms()).div_ceil(1000);
            writeln!(out, "banned {address} for {seconds} s ({flows_deleted} flows closed)")?;
        }
        Response::Bans { bans, .. } => {
            writeln!(out, "{:<44} {:<14} {:>8} {:>10}  note", "address", "offence", "ends in", "hits")?;
            for ban in bans {
                let seconds = ban.until_unix_ms.saturating_sub(guard::kernel::clock::unix_ms()).div_ceil(1000);
                let address = ban.address.to_string();
                writeln!(out, "{address:<44} {:<14} {seconds:>6} s {:>10}  {}", ban.offence.as_str(), ban.hits, ban.note)?;
            }
        }
        Response::Listed { list } => {
            let seconds = list.until_unix_ms.saturating_sub(guard::kernel::clock::unix_ms()).div_ceil(1000);
            writeln!(out, "{}: {} prefixes for {seconds} s", list.name, list.prefixes)?;
            left_out(&mut out, list)?;
        }
        Response::Lists { lists } => {
            writeln!(out, "{:<32} {:>9} {:>10} {:>12}", "list", "prefixes", "ends in", "hits")?;
            for list in lists {
                let seconds = list.until_unix_ms.saturating_sub(guard::kernel::clock::unix_ms()).div_ceil(1000);
                writeln!(out, "{:<32} {:>9} {seconds:>8} s {:>12}", list.name, list.prefixes, list.hits)?;
                left_out(&mut out, list)?;
            }
        }
        Response::Budgets { budgets } => {
            writeln!(out, "{:<22} {:>12} {:>10}", "budget", "packets/s", "at once")?;
            for budget in budgets {
                let burst = if budget.burst == 0 { "no limit".to_string() } else { budget.burst.to_string() };
                writeln!(out, "{:<22} {:>12} {burst:>10}", budget.name, budget.rate)?;
            }
        }
        Response::Verdict { action, mode, reason, class, steps, .. } => {
            writeln!(out, "{action} ({mode}): {reason}, class {class}")?;
            for step in steps {
                writeln!(out, "  {} {:<10} {}", step.step, step.name, step.outcome)?;
            }
        }
        Response::Reloaded { changes } if changes.is_empty() => writeln!(out, "nothing changed")?,
        Response::Reloaded { changes } => changes.iter().try_for_each(|change| writeln!(out, "{change}"))?,
        _ => writeln!(out, "done")?,
    }
    Ok(())
}

/// Prints what a configuration comes to.
pub fn settings(settings: &Settings) -> anyhow::Result<()> {
    let mut out = out::stdout();
    let Settings { options, socket, access, netns, metrics, ban_files } = settings;
    let path = |path: &Option<PathBuf>| path.as_ref().map_or("none".to_string(), |path| path.display().to_string());
    let list = |texts: Vec<String>| if texts.is_empty() { "none".to_string() } else { texts.join(" ") };
    writeln!(out, "interface  {}", options.interface)?;
    writeln!(out, "protects   {}", ports::summary(&options.protect).join(" "))?;
    writeln!(out, "quic       {}", list(options.quic.iter().map(u16::to_string).collect()))?;
    writeln!(out, "mode       {}", options.mode.map_or("as it was, else shadow", Mode::as_str))?;
    writeln!(out, "instance   {}, pins in {}, XDP {:?}", options.instance, options.bpffs.display(), options.xdp)?;
    writeln!(out, "netns      {}", path(netns))?;
    writeln!(out, "floor      {}", list(options.floor.iter().map(ToString::to_string).collect()))?;
    writeln!(
        out,
        "heartbeat  {} ms; an event for 1 of {} drops",
        options.heartbeat_timeout.as_millis(),
        1u64 << options.event_shift
    )?;
    for (budget, value) in &options.strangers {
        writeln!(out, "budget     {} {}/{}", budget.as_str(), value.rate, value.burst)?;
    }
    writeln!(out, "socket     {}; uids {:?} and gids {:?} may write", socket.display(), access.uids, access.gids)?;
    writeln!(out, "metrics    {}", metrics.map_or("none".to_string(), |address| format!("http://{address}/metrics")))?;
    for file in ban_files {
        let missing = if file.path.exists() { "" } else { " (not there yet)" };
        let taken_as = file.list.as_ref().map_or("manual".to_string(), |name| format!("list {name}"));
        writeln!(out, "ban file   {} as {taken_as}, {} s{missing}", file.path.display(), file.ttl.as_secs())?;
    }
    Ok(())
}

fn left_out(out: &mut impl Write, list: &ListInfo) -> io::Result<()> {
    if list.skipped > 0 {
        let lines: Vec<String> = list.skipped_lines.iter().map(u64::to_string).collect();
        writeln!(out, "  {} lines left out, the first: {}", list.skipped, lines.join(", "))?;
    }
    if list.floor_cut > 0 {
        writeln!(out, "  {} prefixes touch the floor, which was cut out of them", list.floor_cut)?;
    }
    Ok(())
}

/// Prints the counters.
pub fn status(stats: &Stats, json: bool) -> anyhow::Result<()> {
    let mut out = out::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(&Response::Stats(Box::new(stats.clone())))?)?;
        return Ok(());
    }
    let adopted = if stats.adopted { ", adopted" } else { "" };
    writeln!(out, "{}: {} on {} ({}{adopted})", stats.instance, stats.mode, stats.interface, stats.xdp_mode)?;
    writeln!(out, "protects   {}", stats.protect.join(" "))?;
    let beat = stats.heartbeat_age_ms.map_or("none".to_string(), |age| format!("{age} ms ago"));
    if stats.syn_proxy != "off" || stats.syn_cookies_sent > 0 {
        let (sent, valid, invalid) = (stats.syn_cookies_sent, stats.syn_cookies_valid, stats.syn_cookies_invalid);
        writeln!(out, "syn proxy  {}: {sent} cookies sent, {valid} valid, {invalid} invalid", stats.syn_proxy)?;
    }
    writeln!(out, "heartbeat  {beat}; {} bans, {} flows", stats.bans, stats.flows)?;
    shares(&mut out, &stats.shares)?;
    for (class, packets) in &stats.passed {
        writeln!(out, "passed     {class:<22} {packets:>14}")?;
    }
    writeln!(out, "passed     {:<22} {:>14}", "out_of_scope", stats.out_of_scope)?;
    for (what, counts) in [("dropped", &stats.dropped), ("would_drop", &stats.would_drop)] {
        for (reason, packets) in counts.iter().filter(|(_, packets)| **packets > 0) {
            writeln!(out, "{what:<10} {reason:<22} {packets:>14}")?;
        }
    }
    for (range, count) in
        stats.egress.iter().flat_map(|egress| &egress.ranges).filter(|(_, count)| count.denied + count.would_deny > 0)
    {
        writeln!(out, "egress     {range:<22} {:>14} denied {:>14} would be", count.denied, count.would_deny)?;
    }
    for (reason, packets) in &stats.kernel_drops {
        writeln!(out, "kernel drop {reason:<21} {packets:>14}")?;
    }
    for (probe, line) in &stats.probes {
        writeln!(out, "probe      {probe}: {line}")?;
    }
    latency(&mut out, "tcp", &stats.latency_tcp)?;
    latency(&mut out, "udp", &stats.latency_udp)?;
    for row in &stats.rows {
        let name = if row.label.is_empty() { "(not announced again)" } else { &row.label };
        writeln!(
            out,
            "row {:>4}   {name:<52} {:>12} packets {:>14} bytes {:>8} dropped",
            row.row, row.packets, row.bytes, row.dropped
        )?;
    }
    Ok(())
}

fn shares(out: &mut impl Write, shares: &SharesInfo) -> io::Result<()> {
    let SharesInfo { validators, rate, least } = shares;
    match (rate, least) {
        _ if *validators == 0 => Ok(()),
        (Some(rate), Some(least)) => {
            writeln!(out, "shares     {validators} validators are guaranteed {rate} packets/s, the least of them {least}")
        }
        _ => writeln!(out, "shares     {validators} validators, without limit"),
    }
}

fn latency(out: &mut impl Write, protocol: &str, info: &LatencyInfo) -> io::Result<()> {
    writeln!(out, "latency {protocol} {} samples, {}", info.count, info.source)?;
    let shares = info.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
    for (bucket, count) in shares {
        writeln!(out, "           < {:>13} ns {count:>12}", 2u128 << bucket)?;
    }
    Ok(())
}

/// Prints one event.
pub fn event(event: &EventInfo, json: bool) -> anyhow::Result<()> {
    let mut out = out::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(event)?)?;
    } else {
        let verb = if event.dropped { "dropped" } else { "would drop" };
        let EventInfo { unix_ms, address, port, local_port, protocol, reason, length, stands_for, .. } = event;
        writeln!(
            out,
            "{unix_ms} {verb} {protocol} {address} port {port} to {local_port}: {reason}, {length} bytes, 1 of {stands_for}"
        )?;
    }
    out.flush()?;
    Ok(())
}
