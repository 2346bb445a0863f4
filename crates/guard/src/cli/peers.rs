//! `ebpf-guard peers`.

use super::out;
use guard::protocol::RowInfo;
use std::io::Write;

/// A bound of a latency: `16 µs`, `67 ms`; a dash where nothing was measured.
pub fn below(ns: Option<u64>) -> String {
    match ns {
        None => "-".to_string(),
        Some(ns) if ns < 10_000_000 => format!("{} µs", ns.div_ceil(1000)),
        Some(ns) if ns < 10_000_000_000 => format!("{} ms", ns.div_ceil(1_000_000)),
        Some(ns) => format!("{} s", ns.div_ceil(1_000_000_000)),
    }
}

/// Prints the rows: as JSON in one line, or as a table. What is not visible is a dash, never 0.
pub fn show(rows: &[RowInfo], json: bool) -> anyhow::Result<()> {
    let mut out = out::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(rows)?)?;
        return Ok(());
    }
    writeln!(
        out,
        "{:>4} {:<52} {:<8} {:<44} {:>9} {:>9} {:>9} {:>8} {:<12} {:>9} {:>9} {:>12} {:>8}",
        "row", "label", "class", "address", "rtt", "min rtt", "rto", "retrans", "state", "p50", "p99", "packets", "dropped"
    )?;
    for row in rows {
        let label = if row.label.is_empty() { "(not announced again)" } else { &row.label };
        let first = row.endpoints.first();
        let class = first.map_or("-", |endpoint| endpoint.class.as_str());
        let address = first.map_or("-".to_string(), |endpoint| {
            let more = if row.flows > 1 { format!(" +{}", row.flows - 1) } else { String::new() };
            format!("{}/{}{more}", endpoint.protocol.as_str(), std::net::SocketAddr::new(endpoint.address, endpoint.port))
        });
        let time = |us: Option<u64>| us.map_or("-".to_string(), |us| format!("{}.{:03} ms", us / 1000, us % 1000));
        let tcp = row.tcp.as_ref();
        let (rtt, least, timeout) =
            (tcp.and_then(|tcp| tcp.srtt_us), tcp.and_then(|tcp| tcp.min_rtt_us), tcp.and_then(|tcp| tcp.rto_us));
        let retransmits = tcp.map_or("-".to_string(), |tcp| tcp.retransmits.to_string());
        let state = tcp.map_or("-", |tcp| tcp.state.as_str());
        writeln!(
            out,
            "{:>4} {label:<52} {class:<8} {address:<44} {:>9} {:>9} {:>9} {retransmits:>8} {state:<12} {:>9} {:>9} {:>12} {:>8}",
            row.row,
            time(rtt),
            time(least),
            time(timeout),
            below(row.latency_p50_ns),
            below(row.latency_p99_ns),
            row.packets,
            row.dropped
        )?;
    }
    Ok(())
}
