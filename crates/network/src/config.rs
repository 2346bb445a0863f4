//! Addresses and limits. Every limit has a name, a unit and a default.

use std::time::Duration;

use libp2p::Multiaddr;
use types::PublicKey;

use crate::address::{peer_of, socket_of};

/// Most configured peers, dialled ones included.
pub const TARGETS_MAX: usize = 256;
/// Most addresses of one configured peer.
pub const TARGET_ADDRESSES_MAX: usize = 8;
/// Most addresses to listen on.
pub const LISTEN_MAX: usize = 16;

/// Bounds of one lane of one peer, and of the lane's queue of all peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    /// Messages that wait to be sent to one peer. Raise it if honest peers are slow in bursts; a full queue fails the send.
    pub outbox_messages: usize,
    /// Bytes that wait to be sent to one peer.
    pub outbox_bytes: usize,
    /// Messages of all peers that the receiver of events has not taken yet. Full: we stop reading, and TCP or QUIC slows the senders.
    pub inbox_messages: usize,
    /// Bytes of the same; at least one largest message.
    pub inbox_bytes: usize,
    /// Messages a second that a peer may send for ever. Far above an honest rate: who exceeds it commits `Offence::Rate`.
    pub messages_per_s: u64,
    /// Bytes a second that a peer may send for ever.
    pub bytes_per_s: u64,
    /// How many seconds of both rates may come at once.
    pub burst_s: u64,
}

/// All other bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The votes lane.
    pub votes: LaneLimits,
    /// The bulk lane.
    pub bulk: LaneLimits,
    /// Peers in all.
    pub peers_max: usize,
    /// Peers that are neither configured nor proven validators of the current set: all other seats are reserved.
    pub strangers_max: usize,
    /// Strangers from one source (an IPv4 address, an IPv6 /64).
    pub strangers_per_source_max: usize,
    /// Strangers from one prefix (a /24, an IPv6 /48): one network shall not surround us (*eclipse*).
    pub strangers_per_prefix_max: usize,
    /// Different strangers that one prefix may bring within `identities_window`; more are *sybils* and get no seat. Who was among the
    /// first may come back.
    pub identities_per_prefix_max: usize,
    /// See `identities_per_prefix_max`.
    pub identities_window: Duration,
    /// Peers that prove the same validator key (a validator may run a spare or a sentry).
    pub peers_per_validator_max: usize,
    /// Inbound connections that are not part of a standing peer yet, from sources of no configured peer.
    pub pending_max: usize,
    /// The same, from one source.
    pub pending_per_source_max: usize,
    /// Inbound connections from one source, standing or not.
    pub connections_per_source_max: usize,
    /// Inbound connections from one prefix, of sources of no configured peer.
    pub connections_per_prefix_max: usize,
    /// Inbound connections a second, from sources of no configured peer, above which it is a *handshake flood*.
    pub flood_arrivals_per_s: u64,
    /// `pending_max` while a flood lasts.
    pub flood_pending_max: usize,
    /// How long after its last second a flood is still on.
    pub flood_calm: Duration,
    /// From a connection's arrival to its peer's standing; later it is closed.
    pub handshake_timeout: Duration,
    /// For a transport's own handshake when we dial.
    pub dial_timeout: Duration,
    /// From a frame's first byte to its last.
    pub frame_timeout: Duration,
    /// How long a peer may refuse to take a byte that we want to send.
    pub stall_timeout: Duration,
    /// How long a QUIC connection may be silent; keep-alives are sent three times as often. TCP tells of a dead process at once,
    /// QUIC only by this.
    pub quic_idle_timeout: Duration,
    /// Between two pings: they measure the round trip and find dead connections.
    pub ping_interval: Duration,
    /// For an answer to a ping.
    pub ping_timeout: Duration,
    /// How long the one of a pair with the larger PeerId waits before it dials, at the start and after a loss: two nodes that dial
    /// each other at once both do work for nothing. Zero makes that common, never wrong.
    pub deference: Duration,
    /// The first pause before a configured peer is dialled again; doubles from there.
    pub backoff_min: Duration,
    /// The longest such pause.
    pub backoff_max: Duration,
}

const MIB: usize = 1024 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            votes: LaneLimits {
                outbox_messages: 1024,
                outbox_bytes: 8 * MIB,
                inbox_messages: 2048,
                inbox_bytes: 32 * MIB,
                messages_per_s: 2_000,
                bytes_per_s: 16 * MIB as u64,
                burst_s: 8,
            },
            bulk: LaneLimits {
                outbox_messages: 512,
                outbox_bytes: 32 * MIB,
                inbox_messages: 256,
                inbox_bytes: 64 * MIB,
                messages_per_s: 4_000,
                bytes_per_s: 64 * MIB as u64,
                burst_s: 8,
            },
            peers_max: 192,
            strangers_max: 64,
            strangers_per_source_max: 8,
            strangers_per_prefix_max: 16,
            identities_per_prefix_max: 32,
            identities_window: Duration::from_secs(600),
            peers_per_validator_max: 2,
            pending_max: 128,
            pending_per_source_max: 16,
            connections_per_source_max: 48,
            connections_per_prefix_max: 96,
            flood_arrivals_per_s: 200,
            flood_pending_max: 32,
            flood_calm: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(5),
            frame_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(20),
            quic_idle_timeout: Duration::from_secs(6),
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(15),
            deference: Duration::from_millis(300),
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(15),
        }
    }
}

/// What [`crate::spawn`] needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where to listen; `/tcp/0` and `/udp/0/quic-v1` take a free port, reported by `Event::Listening`.
    pub listen: Vec<Multiaddr>,
    /// Whom to stay connected with for ever, each with `/p2p/…`. Several addresses of one peer are tried in turn, in this order.
    pub peers: Vec<Multiaddr>,
    /// The current validators: a proof of one of these keys takes a reserved seat. `Handle::set_validators` changes it.
    pub validators: Vec<PublicKey>,
    /// Bounds.
    pub limits: Limits,
}

/// A configuration that can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not one of the two forms that we speak.
    #[error("{0}: neither /ip4|ip6/…/tcp/… nor /ip4|ip6/…/udp/…/quic-v1")]
    Address(Multiaddr),
    /// A peer's address must end with its identity, or anybody could answer there.
    #[error("{0}: a peer's address ends with /p2p/<its PeerId>")]
    NoPeerId(Multiaddr),
    /// Above a bound of this crate.
    #[error("more than {1} {0}")]
    TooMany(&'static str, usize),
    /// A bound that lets nothing through, or less than the protocol needs.
    #[error("limit {0} is too small")]
    Limit(&'static str),
}

impl LaneLimits {
    fn check(&self, lane: types::Lane) -> Result<(), ConfigError> {
        let frame = crate::frame::PREFIX_BYTES + lane.bytes_max();
        let rules = [
            ("outbox_messages", self.outbox_messages >= 1),
            ("outbox_bytes", self.outbox_bytes >= frame),
            ("inbox_messages", self.inbox_messages >= 1),
            ("inbox_bytes", self.inbox_bytes >= frame && self.inbox_bytes <= INBOX_BYTES_MAX),
            ("messages_per_s", self.messages_per_s >= 1),
            ("bytes_per_s", self.bytes_per_s >= 1),
            ("burst_s", self.burst_s >= 1 && self.bytes_per_s.saturating_mul(self.burst_s) >= frame as u64),
        ];
        rules.iter().find(|(_, good)| !good).map_or(Ok(()), |(name, _)| Err(ConfigError::Limit(name)))
    }
}

/// Permits of the inbox are counted in `u32`.
const INBOX_BYTES_MAX: usize = 1 << 30;

impl Limits {
    /// The bounds of a lane.
    pub const fn lane(&self, lane: types::Lane) -> &LaneLimits {
        match lane {
            types::Lane::Votes => &self.votes,
            types::Lane::Bulk => &self.bulk,
        }
    }

    /// Checks that the bounds let something through and fit each other.
    ///
    /// # Errors
    /// [`ConfigError::Limit`], naming the first that can't work.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.votes.check(types::Lane::Votes)?;
        self.bulk.check(types::Lane::Bulk)?;
        let rules = [
            ("peers_max", self.peers_max >= 1),
            ("strangers_max", self.strangers_max <= self.peers_max),
            // A peer needs two connections; two nodes that dial each other at once have four.
            ("pending_per_source_max", self.pending_per_source_max >= 4),
            ("pending_max", self.pending_max >= self.pending_per_source_max),
            ("connections_per_source_max", self.connections_per_source_max >= self.pending_per_source_max),
            ("strangers_per_source_max", self.strangers_per_source_max >= 1),
            ("strangers_per_prefix_max", self.strangers_per_prefix_max >= 1),
            ("identities_per_prefix_max", self.identities_per_prefix_max >= 1),
            ("identities_window", !self.identities_window.is_zero()),
            ("connections_per_prefix_max", self.connections_per_prefix_max >= self.pending_per_source_max),
            ("flood_arrivals_per_s", self.flood_arrivals_per_s >= 1),
            ("flood_pending_max", (4..=self.pending_max).contains(&self.flood_pending_max)),
            ("flood_calm", self.flood_calm.as_millis() >= 1),
            ("peers_per_validator_max", self.peers_per_validator_max >= 1),
            ("handshake_timeout", !self.handshake_timeout.is_zero()),
            ("dial_timeout", !self.dial_timeout.is_zero()),
            ("frame_timeout", !self.frame_timeout.is_zero()),
            ("stall_timeout", !self.stall_timeout.is_zero()),
            ("quic_idle_timeout", self.quic_idle_timeout.as_millis() >= 3 && self.quic_idle_timeout.as_secs() < 3600),
            ("ping_interval", !self.ping_interval.is_zero()),
            ("ping_timeout", !self.ping_timeout.is_zero()),
            ("backoff_min", !self.backoff_min.is_zero()),
            ("backoff_max", self.backoff_max >= self.backoff_min),
        ];
        rules.iter().find(|(_, good)| !good).map_or(Ok(()), |(name, _)| Err(ConfigError::Limit(name)))
    }
}

impl Config {
    /// Checks addresses and bounds.
    ///
    /// # Errors
    /// [`ConfigError`], naming the first that can't work.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.listen.len() > LISTEN_MAX {
            return Err(ConfigError::TooMany("addresses to listen on", LISTEN_MAX));
        }
        if self.peers.len() > TARGETS_MAX {
            return Err(ConfigError::TooMany("peers", TARGETS_MAX));
        }
        for address in self.listen.iter().chain(&self.peers) {
            socket_of(address).ok_or_else(|| ConfigError::Address(address.clone()))?;
        }
        for address in &self.peers {
            peer_of(address).ok_or_else(|| ConfigError::NoPeerId(address.clone()))?;
        }
        self.limits.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str, peer: &str) -> Config {
        Config { listen: vec![listen.parse().unwrap()], peers: vec![peer.parse().unwrap()], ..Config::default() }
    }

    #[test]
    fn defaults_hold_and_mistakes_are_named() {
        let peer = format!("/ip4/10.0.0.1/tcp/1/p2p/{}", libp2p::PeerId::random());
        assert_eq!(config("/ip4/0.0.0.0/tcp/0", &peer).check(), Ok(()));
        assert!(matches!(config("/ip4/0.0.0.0/tcp/0", "/ip4/10.0.0.1/tcp/1").check(), Err(ConfigError::NoPeerId(_))));
        assert!(matches!(config("/memory/1", &peer).check(), Err(ConfigError::Address(_))));
        let mut bad = config("/ip4/0.0.0.0/tcp/0", &peer);
        bad.limits.bulk.inbox_bytes = 10;
        assert_eq!(bad.check(), Err(ConfigError::Limit("inbox_bytes")));
        bad = config("/ip4/0.0.0.0/tcp/0", &peer);
        bad.limits.strangers_max = bad.limits.peers_max + 1;
        assert_eq!(bad.check(), Err(ConfigError::Limit("strangers_max")));
    }
}
