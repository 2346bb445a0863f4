//! Joins what the network, the guard and the kernel know about a peer: row → PeerId → validator.

use api::info::{PeerInfo, PeerPackets, TcpInfo};
use api::peer_series::PeerSample;
use network::Transport;

use crate::guard_link::View;

/// A peer with all its figures; what is not visible is null, never 0.
pub fn peer_info(peer: &network::PeerInfo, guard: &View) -> PeerInfo {
    let peer_id = peer.peer_id.to_string();
    let votes = &peer.lanes[0];
    let ping_us = votes.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
    let row = guard.row(&peer_id);
    // The guard counts what arrives at protected ports: nothing of a peer whom we dialled over TCP.
    let counted = peer.lanes.iter().any(|lane| lane.link.local_port.is_some());
    let packets = row.filter(|_| counted).and_then(|(row, generation)| guard.with_maps(|maps| maps.row(row, generation)));
    let tcp = row.filter(|_| votes.link.transport == Transport::Tcp).and_then(|(row, generation)| tcp(guard, row, generation));
    let kernel_us = tcp.as_ref().and_then(|tcp| tcp.rtt_us);
    let source = kernel_us.map(|_| "kernel").or(ping_us.map(|_| "ping"));
    PeerInfo {
        peer_id,
        address: votes.link.address.to_string(),
        transport: votes.link.transport.as_str().to_owned(),
        outbound: peer.outbound,
        validator: peer.validator,
        rtt_us: kernel_us.or(ping_us),
        rtt_source: source.map(str::to_owned),
        tcp,
        guard: packets.map(|row| PeerPackets {
            packets: row.packets,
            bytes: row.bytes,
            dropped: row.dropped,
            would_drop: row.would_drop,
        }),
        bytes_in: peer.lanes.iter().map(|lane| lane.bytes_in).sum(),
        bytes_out: peer.lanes.iter().map(|lane| lane.bytes_out).sum(),
    }
}

/// What the kernel's TCP knows of the connection behind a row.
pub fn tcp(guard: &View, row: u32, generation: u32) -> Option<TcpInfo> {
    let truth = guard.with_maps(|maps| maps.truth(row, generation))??;
    Some(TcpInfo {
        rtt_us: truth.srtt_us,
        min_rtt_us: truth.min_rtt_us,
        rto_us: truth.rto_us,
        retransmits: truth.retransmits,
        state: truth.state.as_str().to_owned(),
    })
}

/// The figures for metrics: validators first, then those whom we dialled, so that strangers push nobody out of the bounded list.
pub fn samples(peers: &[PeerInfo]) -> Vec<PeerSample> {
    let mut peers: Vec<&PeerInfo> = peers.iter().collect();
    peers.sort_by_key(|peer| (peer.validator.is_none(), !peer.outbound));
    let sample = |peer: &PeerInfo| PeerSample {
        peer: peer.peer_id.clone(),
        validator: peer.validator.map(|key| key.to_string()).unwrap_or_default(),
        rtt_seconds: peer.rtt_us.map(|us| us as f64 / 1e6),
        retransmits: peer.tcp.as_ref().map(|tcp| tcp.retransmits),
    };
    peers.into_iter().map(sample).collect()
}
