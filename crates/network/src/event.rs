//! What the network tells: peers that come and go, their messages, their offences.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use types::{Lane, Message, Offence, PublicKey};

use crate::address::Transport;

/// One lane's connection, as the kernel sees it: what the guard's flows are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Which lane.
    pub lane: Lane,
    /// What carries it.
    pub transport: Transport,
    /// The remote end.
    pub address: SocketAddr,
    /// The local port; none for TCP that we dialled (an ephemeral port, never a protected one).
    pub local_port: Option<u16>,
}

/// A peer that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The handle of this standing; never used again, also not for the same PeerId.
    pub peer: u64,
    /// The transport identity, authenticated by noise or TLS.
    pub peer_id: PeerId,
    /// The validator key that it has proven; whether that key is in the set is the receiver's to judge.
    pub validator: Option<PublicKey>,
    /// Whether we dialled.
    pub outbound: bool,
    /// Its connections, in the order of [`Lane::ALL`].
    pub links: [Link; 2],
}

impl Connected {
    /// The remote end of the votes lane.
    pub fn address(&self) -> SocketAddr {
        self.links[0].address
    }

    /// What carries it; both lanes take the same.
    pub fn transport(&self) -> Transport {
        self.links[0].transport
    }

    /// The local port of the votes lane; see [`Link::local_port`].
    pub fn local_port(&self) -> Option<u16> {
        self.links[0].local_port
    }
}

/// Why a connection was closed without anybody's guilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Refusal {
    /// It speaks of another chain.
    Chain,
    /// It speaks another version of the protocol.
    Version,
    /// No seat for it.
    Seats,
    /// Too many connections from its source, or from its prefix.
    Source,
    /// Its peer has a connection already, and that one stays.
    Duplicate,
    /// Its two lanes name different validators.
    Proof,
    /// The handshake, or an answer to a ping, took too long.
    Timeout,
    /// The connection failed on the way.
    Transport,
    /// Too many identities of its prefix within a window.
    Sybil,
    /// Its prefix holds enough of our seats.
    Eclipse,
    /// It, or somebody behind its address, was guilty of an offence not long ago.
    Limited,
}

impl Refusal {
    /// All, in the order of their counters.
    pub const ALL: [Refusal; 11] = [
        Refusal::Chain,
        Refusal::Version,
        Refusal::Seats,
        Refusal::Source,
        Refusal::Duplicate,
        Refusal::Proof,
        Refusal::Timeout,
        Refusal::Transport,
        Refusal::Sybil,
        Refusal::Eclipse,
        Refusal::Limited,
    ];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Refusal::Chain => "chain",
            Refusal::Version => "version",
            Refusal::Seats => "seats",
            Refusal::Source => "source",
            Refusal::Duplicate => "duplicate",
            Refusal::Proof => "proof",
            Refusal::Timeout => "timeout",
            Refusal::Transport => "transport",
            Refusal::Sybil => "sybil",
            Refusal::Eclipse => "eclipse",
            Refusal::Limited => "limited",
        }
    }
}

/// What happens. Of one peer: `Connected`, then its messages, then `Disconnected`; nothing after it.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer stands: both lanes are up and have said a good hello.
    Connected(Connected),
    /// It is gone, with what it had queued. A configured peer is dialled again for ever.
    Disconnected {
        /// Which.
        peer: u64,
    },
    /// A message, decoded, within its bounds, on the lane that it belongs to.
    Message {
        /// From whom.
        peer: u64,
        /// The message; nothing about it is verified but its form.
        message: Message,
        /// Its size on the wire, without the prefix.
        bytes: usize,
    },
    /// An authenticated peer misbehaved; its connection is being closed.
    Offence {
        /// Its handle, if it stands still.
        peer: Option<u64>,
        /// Who.
        peer_id: PeerId,
        /// The validator key that it has proven, if it came that far.
        validator: Option<PublicKey>,
        /// The flow on which it happened.
        link: Link,
        /// What.
        offence: Offence,
        /// A note for people.
        detail: &'static str,
    },
    /// We are about to dial: the guard lets the answers in (`udp` from our protected port; TCP leaves from another).
    Dialing {
        /// Whom.
        peer_id: PeerId,
        /// Where.
        address: SocketAddr,
        /// How.
        transport: Transport,
    },
    /// An address that we listen on, with the port that it got.
    Listening(Multiaddr),
    /// More connections arrive a second than may, from sources of no configured peer. Told when it begins, and again each half
    /// `flood_calm` while it lasts. It proves nothing about anybody: ask the guard for a smaller budget of handshakes, for a while.
    HandshakeFlood {
        /// Whether it is told for the first time.
        begins: bool,
    },
}

/// Figures of one lane of a standing peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneInfo {
    /// The connection.
    pub link: Link,
    /// Messages received.
    pub messages_in: u64,
    /// Messages handed to the connection.
    pub messages_out: u64,
    /// Bytes received, prefixes included.
    pub bytes_in: u64,
    /// Bytes handed to the connection, prefixes included.
    pub bytes_out: u64,
    /// Messages that wait to be sent.
    pub queued_messages: usize,
    /// Bytes that wait to be sent.
    pub queued_bytes: usize,
    /// Sends that failed because the queue was full.
    pub full: u64,
    /// The last round trip on this connection, once measured.
    pub rtt: Option<Duration>,
}

/// A standing peer, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its handle.
    pub peer: u64,
    /// Its transport identity.
    pub peer_id: PeerId,
    /// The validator key that it has proven.
    pub validator: Option<PublicKey>,
    /// Whether we dialled.
    pub outbound: bool,
    /// Since when it stands, as an age.
    pub age: Duration,
    /// Its software as it calls itself: printable ASCII, at most 64 bytes, not to be trusted.
    pub agent: Option<String>,
    /// Its lanes, in the order of [`Lane::ALL`].
    pub lanes: [LaneInfo; 2],
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    refusals: [AtomicU64; Refusal::ALL.len()],
    /// Dials that were started, one a lane.
    pub dials: AtomicU64,
    /// Of those, how many failed.
    pub dial_failures: AtomicU64,
    /// Inbound connections that arrived.
    pub arrivals: AtomicU64,
    /// Peers that got no seat because their prefix brought too many identities: once each time that one came.
    pub sybil_attempts: AtomicU64,
    /// Peers that got no seat because their prefix holds enough of them.
    pub eclipse_refusals: AtomicU64,
    /// Floods of handshakes that began.
    pub handshake_floods: AtomicU64,
    /// Offences that were not reported because the queue of reports was full.
    pub offences_lost: AtomicU64,
}

impl Counters {
    /// Connections that were closed for this reason.
    pub fn refusals(&self, refusal: Refusal) -> u64 {
        self.refusals[refusal as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn refuse(&self, refusal: Refusal) {
        add(&self.refusals[refusal as usize], 1);
    }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
