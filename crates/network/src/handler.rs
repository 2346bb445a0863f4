//! One connection, as libp2p's swarm drives it: negotiates the one substream of its lane, says hello, waits until its peer
//! stands, then reads and writes. All of it runs in the connection's own task.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::AsyncReadExt;
use futures::future::{BoxFuture, FutureExt, Ready, ready};
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, SubstreamProtocol};
use libp2p::{PeerId, swarm::handler::DialUpgradeError};
use tokio::time::Sleep;
use types::{Lane, PublicKey};

use crate::event::Refusal;
use crate::lane::{Ended, Greeting, Shared, greet, linger, read_lane, write_lane};
use crate::peers::Peer;

fn protocol(lane: Lane) -> StreamProtocol {
    match lane {
        Lane::Votes => StreamProtocol::new("/ebpf-blockchain/votes/1"),
        Lane::Bulk => StreamProtocol::new("/ebpf-blockchain/bulk/1"),
    }
}

/// Agrees on a lane's name and yields the bare substream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneUpgrade(Option<Lane>);

impl LaneUpgrade {
    /// Accepts either lane: the dialer says which.
    const ANY: LaneUpgrade = LaneUpgrade(None);
}

impl UpgradeInfo for LaneUpgrade {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        let lanes = self.0.map_or(Lane::ALL.to_vec(), |lane| vec![lane]);
        lanes.into_iter().map(protocol).collect::<Vec<_>>().into_iter()
    }
}

impl InboundUpgrade<Stream> for LaneUpgrade {
    type Output = (Stream, Lane);
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        let lane = if name == protocol(Lane::Votes) { Lane::Votes } else { Lane::Bulk };
        ready(Ok((stream, lane)))
    }
}

impl OutboundUpgrade<Stream> for LaneUpgrade {
    type Output = (Stream, Lane);
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        self.upgrade_inbound(stream, name)
    }
}

/// The peer of this connection stands: carry its messages.
#[derive(Clone)]
pub(crate) struct Open(pub Arc<Peer>);

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Open({})", self.0.peer)
    }
}

/// What a connection tells the behaviour; after `Ended` nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Report {
    Greeted { lane: Lane, validator: Option<PublicKey> },
    Refused(Refusal),
    Ended(Ended),
}

enum State {
    /// We dialled for this lane; the substream is not asked for yet.
    Ask(Lane),
    /// Until the substream is negotiated.
    Wait,
    Greet(Lane, BoxFuture<'static, Greeting<Stream>>),
    /// Refused, and closing.
    Linger(BoxFuture<'static, Ended>),
    /// Until the other lane is as far and the peer has a seat. The substream is there, unless it is being taken.
    Stand(Lane, Option<Stream>),
    Open {
        reader: BoxFuture<'static, Ended>,
        writer: BoxFuture<'static, Ended>,
    },
    Ended,
}

/// See the module.
pub(crate) struct Handler {
    remote: PeerId,
    shared: Arc<Shared>,
    state: State,
    deadline: Pin<Box<Sleep>>,
}

impl Handler {
    /// `lane` if we dialled. Must be called within a Tokio runtime.
    pub(crate) fn new(remote: PeerId, lane: Option<Lane>, shared: Arc<Shared>) -> Handler {
        let deadline = Box::pin(tokio::time::sleep(shared.limits.handshake_timeout));
        Handler { remote, shared, state: lane.map_or(State::Wait, State::Ask), deadline }
    }

    /// The first substream is the lane's. Any other is dropped, which resets it: no peer of ours opens one.
    fn negotiated(&mut self, stream: Stream, lane: Lane) {
        if !matches!(self.state, State::Wait) {
            return;
        }
        let (shared, remote) = (self.shared.clone(), self.remote);
        let greeting = async move { greet(stream, &shared, &remote).await };
        self.state = State::Greet(lane, greeting.boxed());
    }

    fn poll_state(&mut self, cx: &mut Context<'_>) -> Poll<Report> {
        match &mut self.state {
            State::Greet(lane, greeting) => {
                let lane = *lane;
                match greeting.poll_unpin(cx) {
                    Poll::Ready(Greeting::Good(stream, validator)) => {
                        self.state = State::Stand(lane, Some(stream));
                        Poll::Ready(Report::Greeted { lane, validator })
                    }
                    Poll::Ready(Greeting::Refused(stream, refusal)) => {
                        self.state = State::Linger(linger(stream).boxed());
                        Poll::Ready(Report::Refused(refusal))
                    }
                    Poll::Ready(Greeting::Ended(ended)) => Poll::Ready(self.end(ended)),
                    Poll::Pending => Poll::Pending,
                }
            }
            State::Linger(lingering) => match lingering.poll_unpin(cx) {
                Poll::Ready(ended) => Poll::Ready(self.end(ended)),
                Poll::Pending => Poll::Pending,
            },
            State::Open { reader, writer } => match (writer.poll_unpin(cx), reader.poll_unpin(cx)) {
                // An offence is what is worth telling if both ended at once.
                (_, Poll::Ready(ended)) | (Poll::Ready(ended), Poll::Pending) => Poll::Ready(self.end(ended)),
                (Poll::Pending, Poll::Pending) => Poll::Pending,
            },
            State::Ask(_) | State::Wait | State::Stand(..) | State::Ended => Poll::Pending,
        }
    }

    fn end(&mut self, ended: Ended) -> Report {
        self.state = State::Ended;
        Report::Ended(ended)
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Report;
    type InboundProtocol = LaneUpgrade;
    type OutboundProtocol = LaneUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<LaneUpgrade> {
        SubstreamProtocol::new(LaneUpgrade::ANY, ()).with_timeout(self.shared.limits.handshake_timeout)
    }

    fn connection_keep_alive(&self) -> bool {
        // The deadline closes what does not come to stand.
        !matches!(self.state, State::Ended)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<LaneUpgrade, (), Report>> {
        if let State::Ask(lane) = self.state {
            self.state = State::Wait;
            let upgrade = SubstreamProtocol::new(LaneUpgrade(Some(lane)), ());
            let protocol = upgrade.with_timeout(self.shared.limits.handshake_timeout);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        if let Poll::Ready(report) = self.poll_state(cx) {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
        }
        if matches!(self.state, State::Wait | State::Greet(..) | State::Stand(..)) && self.deadline.poll_unpin(cx).is_ready() {
            let report = self.end(Ended::Refused(Refusal::Timeout));
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, Open(peer): Open) {
        let State::Stand(lane, stream) = &mut self.state else { return };
        let lane = *lane;
        let Some(stream) = stream.take() else { return };
        let (reader, writer) = stream.split();
        let stall = self.shared.limits.stall_timeout;
        self.state = State::Open {
            reader: read_lane(reader, lane, peer.clone(), self.shared.clone()).boxed(),
            writer: write_lane(writer, lane, peer, stall).boxed(),
        };
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<LaneUpgrade, LaneUpgrade>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, lane), .. })
            | ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (stream, lane), .. }) => {
                self.negotiated(stream, lane);
            }
            // The other end speaks another protocol, or is too slow: there is nothing left to wait for.
            ConnectionEvent::DialUpgradeError(DialUpgradeError { .. }) if matches!(self.state, State::Wait) => {
                self.deadline.as_mut().reset(tokio::time::Instant::now());
            }
            _ => {}
        }
    }
}
