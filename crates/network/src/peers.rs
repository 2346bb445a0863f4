//! The standing peers, shared by the handle, the connections and the swarm's task.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use parking_lot::{Mutex, RwLock};
use types::{Lane, PublicKey};

use crate::config::Limits;
use crate::event::{Connected, LaneInfo, Link, PeerInfo};
use crate::outbox::Outbox;

/// Most bytes kept of what a peer calls its software.
const AGENT_BYTES_MAX: usize = 64;

/// One lane of a standing peer.
pub(crate) struct PeerLane {
    pub link: Link,
    pub outbox: Outbox,
    pub messages_in: AtomicU64,
    pub bytes_in: AtomicU64,
    /// In µs; 0 before the first measure.
    rtt_us: AtomicU64,
}

/// A standing peer.
pub(crate) struct Peer {
    pub peer: u64,
    pub peer_id: PeerId,
    pub validator: Option<PublicKey>,
    pub outbound: bool,
    since: Instant,
    agent: Mutex<Option<String>>,
    pub lanes: [PeerLane; 2],
}

impl Peer {
    pub(crate) fn new(connected: &Connected, limits: &Limits) -> Peer {
        let lane = |link: Link| PeerLane {
            link,
            outbox: Outbox::new(limits.lane(link.lane)),
            messages_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            rtt_us: AtomicU64::new(0),
        };
        Peer {
            peer: connected.peer,
            peer_id: connected.peer_id,
            validator: connected.validator,
            outbound: connected.outbound,
            since: Instant::now(),
            agent: Mutex::new(None),
            lanes: connected.links.map(lane),
        }
    }

    pub(crate) fn lane(&self, lane: Lane) -> &PeerLane {
        &self.lanes[lane as usize]
    }

    /// Ends both writers, and so the peer.
    pub(crate) fn close(&self) {
        self.lanes.iter().for_each(|lane| lane.outbox.close());
    }

    pub(crate) fn set_rtt(&self, lane: Lane, rtt: Duration) {
        let micros = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).max(1);
        self.lane(lane).rtt_us.store(micros, Ordering::Relaxed);
    }

    pub(crate) fn set_agent(&self, agent: &str) {
        *self.agent.lock() = Some(printable(agent));
    }

    pub(crate) fn info(&self) -> PeerInfo {
        let lane = |lane: &PeerLane| {
            let out = lane.outbox.info();
            let rtt_us = lane.rtt_us.load(Ordering::Relaxed);
            LaneInfo {
                link: lane.link,
                messages_in: lane.messages_in.load(Ordering::Relaxed),
                messages_out: out.messages_out,
                bytes_in: lane.bytes_in.load(Ordering::Relaxed),
                bytes_out: out.bytes_out,
                queued_messages: out.queued_messages,
                queued_bytes: out.queued_bytes,
                full: out.full,
                rtt: (rtt_us > 0).then(|| Duration::from_micros(rtt_us)),
            }
        };
        PeerInfo {
            peer: self.peer,
            peer_id: self.peer_id,
            validator: self.validator,
            outbound: self.outbound,
            age: self.since.elapsed(),
            agent: self.agent.lock().clone(),
            lanes: [lane(&self.lanes[0]), lane(&self.lanes[1])],
        }
    }
}

/// What a peer calls its software, fit for a terminal.
pub(crate) fn printable(agent: &str) -> String {
    let printable = |c: &char| c.is_ascii_graphic() || *c == ' ';
    agent.chars().filter(printable).take(AGENT_BYTES_MAX).collect()
}

/// By handle.
#[derive(Default)]
pub(crate) struct Peers(RwLock<HashMap<u64, Arc<Peer>>>);

impl Peers {
    pub(crate) fn insert(&self, peer: Arc<Peer>) {
        self.0.write().insert(peer.peer, peer);
    }

    pub(crate) fn remove(&self, peer: u64) -> Option<Arc<Peer>> {
        self.0.write().remove(&peer)
    }

    /// The network has ended.
    pub(crate) fn clear(&self) {
        self.0.write().drain().for_each(|(_, peer)| peer.close());
    }

    pub(crate) fn get(&self, peer: u64) -> Option<Arc<Peer>> {
        self.0.read().get(&peer).cloned()
    }

    /// In the order of their handles.
    pub(crate) fn infos(&self) -> Vec<PeerInfo> {
        let mut infos: Vec<PeerInfo> = self.0.read().values().map(|peer| peer.info()).collect();
        infos.sort_by_key(|info| info.peer);
        infos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_harmless() {
        assert_eq!(printable("ebpf-node/0.1\x1b[2J\n\u{202e}"), "ebpf-node/0.1[2J");
        assert_eq!(printable(&"x".repeat(1000)).len(), AGENT_BYTES_MAX);
    }
}
