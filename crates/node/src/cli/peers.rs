//! `ebpf-node peers`.

use anyhow::Result;
use api::PeerInfo;

use super::client::Client;

/// What stands where nothing is visible: a figure that is not there is not 0.
const NOT_VISIBLE: &str = "-";

pub fn run(base: &str, json: bool) -> Result<()> {
    let client = Client::new(base);
    if json {
        let peers: serde_json::Value = client.get("/api/v1/network/peers")?;
        println!("{}", serde_json::to_string_pretty(&peers)?);
        return Ok(());
    }
    let peers: Vec<PeerInfo> = client.get("/api/v1/network/peers")?;
    print!("{}", table(&peers));
    Ok(())
}

fn table(peers: &[PeerInfo]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(peers.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

const HEAD: [&str; 13] = [
    "peer",
    "validator",
    "address",
    "over",
    "dialled",
    "rtt ms",
    "min ms",
    "rto ms",
    "sent again",
    "state",
    "packets",
    "dropped",
    "bytes in/out",
];

fn row(peer: &PeerInfo) -> [String; HEAD.len()] {
    let tcp = peer.tcp.as_ref();
    let count = |figure: Option<u64>| figure.map_or(NOT_VISIBLE.to_owned(), |figure| figure.to_string());
    let tail: String = peer.peer_id.chars().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect();
    [
        format!("…{tail}"),
        peer.validator.map_or(NOT_VISIBLE.to_owned(), |key| key.to_string().chars().take(8).collect()),
        peer.address.clone(),
        peer.transport.clone(),
        if peer.outbound { "by us" } else { "by it" }.to_owned(),
        ms(peer.rtt_us),
        ms(tcp.and_then(|tcp| tcp.min_rtt_us)),
        ms(tcp.and_then(|tcp| tcp.rto_us)),
        count(tcp.map(|tcp| tcp.retransmits)),
        tcp.map_or(NOT_VISIBLE, |tcp| &tcp.state).to_owned(),
        count(peer.guard.as_ref().map(|guard| guard.packets)),
        count(peer.guard.as_ref().map(|guard| guard.dropped)),
        format!("{}/{}", peer.bytes_in, peer.bytes_out),
    ]
}

fn ms(us: Option<u64>) -> String {
    us.map_or(NOT_VISIBLE.to_owned(), |us| format!("{}.{:03}", us / 1000, us % 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_visible_is_not_0() {
        let peer = PeerInfo {
            peer_id: "12D3KooWabcdefgh".into(),
            address: "10.0.0.1:9000".into(),
            transport: "quic".into(),
            outbound: true,
            validator: None,
            rtt_us: Some(1_007),
            rtt_source: Some("ping".into()),
            tcp: None,
            guard: None,
            bytes_in: 5,
            bytes_out: 6,
        };
        let tcp =
            api::TcpInfo { rtt_us: Some(900), min_rtt_us: Some(25), rto_us: None, retransmits: 0, state: "established".into() };
        let seen = PeerInfo { transport: "tcp".into(), tcp: Some(tcp), ..peer.clone() };
        let lines: Vec<String> =
            table(&[peer, seen]).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[1], "…abcdefgh - 10.0.0.1:9000 quic by us 1.007 - - - - - - 5/6");
        assert_eq!(lines[2], "…abcdefgh - 10.0.0.1:9000 tcp by us 1.007 0.025 - 0 established - - 5/6");
    }
}
