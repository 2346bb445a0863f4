//! Joins what the network, the guard and the kernel know about a peer: row → PeerId → validator.

use api::info::{PeerInfo, PeerPackets};
use api::peer_series::PeerSample;

use crate::guard_link::View;

/// A peer with all its figures; what is not visible is null, never 0.
pub fn peer_info(peer: &network::PeerInfo, guard: &View) -> PeerInfo {
    let peer_id = peer.peer_id.to_string();
    let votes = &peer.lanes[0];
    let ping_us = votes.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
    let packets = guard.row(&peer_id).and_then(|(row, generation)| guard.with_maps(|maps| maps.row(row, generation)));
    PeerInfo {
        peer_id,
        address: votes.link.address.to_string(),
        transport: votes.link.transport.as_str().to_owned(),
        outbound: peer.outbound,
        validator: peer.validator,
        rtt_us: ping_us,
        rtt_source: ping_us.map(|_| "ping".to_owned()),
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

/// The figures for metrics: validators first, then those whom we dialled, so that strangers push nobody out of the bounded list.
pub fn samples(peers: &[PeerInfo]) -> Vec<PeerSample> {
    let mut peers: Vec<&PeerInfo> = peers.iter().collect();
    peers.sort_by_key(|peer| (peer.validator.is_none(), !peer.outbound));
    let sample = |peer: &PeerInfo| PeerSample {
        peer: peer.peer_id.clone(),
        validator: peer.validator.map(|key| key.to_string()).unwrap_or_default(),
        rtt_seconds: peer.rtt_us.map(|us| us as f64 / 1e6),
        retransmits: None,
    };
    peers.into_iter().map(sample).collect()
}
