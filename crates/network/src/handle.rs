//! What the rest of the node holds of the network.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use types::{Message, PublicKey, VALIDATORS_MAX};

use crate::address::{peer_of, socket_of};
use crate::config::ConfigError;
use crate::event::{Counters, PeerInfo};
use crate::frame::{Frame, FrameError};
use crate::outbox::SendError;
use crate::peers::Peers;

/// Commands that the network's task has not taken yet.
pub(crate) const COMMANDS_MAX: usize = 64;

/// What the network's task is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Stay connected with this peer.
    Dial(Multiaddr),
    /// Limit a peer and its source.
    Limit { peer_id: PeerId, address: IpAddr, period: Duration },
}

/// A dial by hand that can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is of no use.
    #[error("address")]
    Address(#[source] ConfigError),
    /// Too many at once; ask again.
    #[error("too many dials at once")]
    Full,
    /// The network has ended.
    #[error("network has ended")]
    Ended,
}

/// Sends, closes, asks. Cheap to clone; every call is brief and none waits for the network.
#[derive(Clone)]
pub struct Handle {
    pub(crate) me: PeerId,
    pub(crate) peers: Arc<Peers>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) validators: Arc<RwLock<HashSet<PublicKey>>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) shutdown: CancellationToken,
}

impl Handle {
    /// Our own identity.
    pub fn peer_id(&self) -> PeerId {
        self.me
    }

    /// Queues a message on its lane. To send one to many, encode a [`Frame`] once and use [`Handle::send_frame`].
    ///
    /// # Errors
    /// [`SendError`]; the message is not queued then.
    pub fn send(&self, peer: u64, message: &Message) -> Result<(), SendError> {
        let frame = Frame::new(message).map_err(|error| match error {
            FrameError::Oversize { .. } | FrameError::Empty | FrameError::End | FrameError::Io(_) => SendError::Oversize,
        })?;
        self.send_frame(peer, frame)
    }

    /// Queues an encoded message on its lane.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send_frame(&self, peer: u64, frame: Frame) -> Result<(), SendError> {
        let peer = self.peers.get(peer).ok_or(SendError::Gone)?;
        peer.lane(frame.lane()).outbox.push(frame)
    }

    /// Queues bytes as they are on a lane, with no prefix and no check: what an attacker sends.
    ///
    /// # Errors
    /// [`SendError`].
    #[cfg(feature = "attack")]
    pub fn send_raw(&self, peer: u64, lane: types::Lane, bytes: Vec<u8>) -> Result<(), SendError> {
        self.send_frame(peer, Frame::raw(lane, bytes))
    }

    /// Closes a peer; `Event::Disconnected` follows. What waits to be sent to it is dropped. If it is a configured peer, it is
    /// dialled again: refuse it again on `Event::Connected` as long as there is a reason.
    pub fn disconnect(&self, peer: u64) {
        if let Some(peer) = self.peers.get(peer) {
            peer.close();
        }
    }

    /// The standing peers, in the order of their handles.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.peers.infos()
    }

    /// One standing peer.
    pub fn peer(&self, peer: u64) -> Option<PeerInfo> {
        self.peers.get(peer).map(|peer| peer.info())
    }

    /// Stays connected with this peer from now on, as with a configured one. Up to the bound on their number; above it the
    /// address is dropped with a log line.
    ///
    /// # Errors
    /// [`DialError`].
    pub fn dial(&self, address: Multiaddr) -> Result<(), DialError> {
        if socket_of(&address).is_none() {
            return Err(DialError::Address(ConfigError::Address(address)));
        }
        if peer_of(&address).is_none() {
            return Err(DialError::Address(ConfigError::NoPeerId(address)));
        }
        self.commands.try_send(Command::Dial(address)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => DialError::Full,
            mpsc::error::TrySendError::Closed(_) => DialError::Ended,
        })
    }

    /// Closes a peer, and for a while refuses it and whoever is new from its address; who stands from there stays, validators of the
    /// set and configured peers may come. For a guilty peer behind an address that others share. False if too many commands wait;
    /// then nothing is done.
    pub fn limit(&self, peer_id: PeerId, address: IpAddr, period: Duration) -> bool {
        self.commands.try_send(Command::Limit { peer_id, address, period }).is_ok()
    }

    /// The keys whose proof takes a reserved seat, from now on; the first [`VALIDATORS_MAX`] of them. Who stands keeps his seat.
    pub fn set_validators(&self, keys: impl IntoIterator<Item = PublicKey>) {
        *self.validators.write() = keys.into_iter().take(VALIDATORS_MAX).collect();
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Ends the network: closes all connections and listeners. The task that `spawn` returned ends soon after.
    pub fn shutdown(&self) {
        self.shutdown.cancel();
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("me", &self.me).finish_non_exhaustive()
    }
}
