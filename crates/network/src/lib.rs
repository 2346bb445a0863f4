//! libp2p: bytes in, typed messages out, limits on everything. It reports offences; it bans nobody.
//!
//! A *peer* is one remote transport identity (PeerId) with two connections, one a lane: votes and bulk (`types::Lane`). They
//! share no congestion window, no multiplexer and no queue, so a batch never delays a vote. Each lane is one long-lived
//! substream that carries frames (`u32` length, little endian, then a message's canonical bytes); the first frame each way is
//! `types::Hello`. A peer *stands* when both lanes have said it, and falls when either ends.
//!
//! ```text
//!   Handle::send ─► Outbox (a lane of a peer, bounded) ─► writer ─┐                       one Tokio task a connection
//!                                                                 ├─ substream ─ noise/yamux over TCP, or QUIC
//!   Events::recv ◄─ Inbox (a lane, bounded, fair) ◄─ reader ──────┘
//!        ▲
//!        └───────── control ◄─ Behaviour (seats, sessions, targets) ◄─ one Tokio task for the swarm
//! ```
//!
//! Messages never pass through the swarm's task: it only admits, pairs, dials and closes. Pure, and tested as such:
//! `sessions` (which connections make a peer, and who wins a simultaneous dial), `seats`, `pressure` (sybils, floods, limits),
//! `targets` (whom to dial, when),
//! `rate`, `hello`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod behaviour;
mod config;
mod event;
mod frame;
mod handle;
mod handler;
mod hello;
mod inbox;
mod lane;
mod network;
mod outbox;
mod peers;
mod pressure;
mod rate;
mod seats;
mod sessions;
mod targets;

pub use address::{Transport, peer_of, socket_of};
pub use config::{Config, ConfigError, LISTEN_MAX, LaneLimits, Limits, TARGET_ADDRESSES_MAX, TARGETS_MAX};
pub use event::{Connected, Counters, Event, LaneInfo, Link, PeerInfo, Refusal};
pub use frame::{Frame, FrameError};
pub use handle::{DialError, Handle};
pub use inbox::Events;
pub use libp2p::identity::Keypair;
pub use libp2p::{Multiaddr, PeerId};
pub use network::{SpawnError, spawn};
pub use outbox::SendError;
