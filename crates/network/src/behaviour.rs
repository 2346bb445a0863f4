//! Admits, pairs, dials and closes connections, in the swarm's task. Decisions are made by the pure tables (`seats`, `sessions`,
//! `targets`); this file keeps them in step with what libp2p reports.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt;
use libp2p::core::Endpoint;
use libp2p::core::transport::{ListenerId, PortUse};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, DialFailure, FromSwarm, ListenError, ListenFailure, NetworkBehaviour,
    NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_util::sync::PollSender;
use types::{Lane, PublicKey};

use crate::address::{Transport, peer_of, socket_of, source_of};
use crate::event::{Connected, Counters, Event, Link, Refusal, add};
use crate::handler::{Handler, Open, Report};
use crate::inbox::CONTROL_MAX;
use crate::lane::{Ended, Shared};
use crate::peers::{Peer, Peers, printable};
use crate::pressure::Tide;
use crate::seats::{Applicant, Arrivals, Seats};
use crate::sessions::{Greeted, Sessions, Side, Step};
use crate::targets::{Attempt, Targets};

/// Connections of one PeerId: two sessions of a simultaneous dial, and two more that are being replaced.
const CONNECTIONS_PER_PEER_MAX: usize = 8;
/// Sends and closes that wait for the receiver of events. Above it nobody new is admitted and offences are counted only.
const ACTIONS_MAX: usize = CONTROL_MAX;

/// How long dials wait for the listeners' addresses (a wildcard on a machine without an address never gets one).
const LISTEN_PATIENCE: Duration = Duration::from_secs(1);

/// A refusal, as libp2p wants it.
#[derive(Debug, thiserror::Error)]
#[error("refused: {}", .0.as_str())]
pub(crate) struct Denied(pub Refusal);

/// What a connection is, from its establishment to its end.
struct Connection {
    peer_id: PeerId,
    address: SocketAddr,
    transport: Transport,
    local_port: Option<u16>,
    /// Of ours: the lane and the number of the attempt.
    dialed: Option<(Lane, u64)>,
    /// The key that its hello has proven, and the lane that it named.
    greeted: Option<(Lane, Option<PublicKey>)>,
    /// Its standing peer.
    peer: Option<u64>,
    rtt: Option<Duration>,
    agent: Option<String>,
    closing: bool,
}

impl Connection {
    fn link(&self, lane: Lane) -> Link {
        Link { lane, transport: self.transport, address: self.address, local_port: self.local_port }
    }
}

/// A dial that libp2p has not finished.
struct Dial {
    peer_id: PeerId,
    lane: Lane,
    attempt: u64,
}

enum Action {
    Emit(Box<Event>),
    Swarm(ToSwarm<std::convert::Infallible, Open>),
}

/// See the module.
pub(crate) struct Behaviour {
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    validators: Arc<RwLock<HashSet<PublicKey>>>,
    counters: Arc<Counters>,
    arrivals: Arrivals,
    seats: Seats,
    sessions: Sessions,
    targets: Targets,
    /// Sources of the targets' addresses.
    known_sources: HashSet<IpAddr>,
    connections: HashMap<ConnectionId, Connection>,
    dials: HashMap<ConnectionId, Dial>,
    /// UDP ports that we listen on, by family: what a QUIC dial leaves from.
    quic_ports: HashMap<bool, u16>,
    /// Listeners that have no address yet: before that, a QUIC dial would leave from another port.
    listeners: HashSet<ListenerId>,
    /// Dial from then on, whatever the listeners do.
    dial_at: Instant,
    /// In order: an event is queued before what it makes possible happens.
    actions: VecDeque<Action>,
    control: PollSender<Event>,
    timer: Pin<Box<Sleep>>,
}

impl Behaviour {
    /// Must be called within a Tokio runtime.
    pub(crate) fn new(
        me: PeerId,
        shared: Arc<Shared>,
        peers: Arc<Peers>,
        validators: Arc<RwLock<HashSet<PublicKey>>>,
        counters: Arc<Counters>,
        control: mpsc::Sender<Event>,
    ) -> Behaviour {
        let limits = &shared.limits;
        let window = limits.dial_timeout + limits.handshake_timeout;
        Behaviour {
            sessions: Sessions::new(me, window),
            targets: Targets::new(me, limits),
            shared,
            peers,
            validators,
            counters,
            arrivals: Arrivals::default(),
            seats: Seats::default(),
            known_sources: HashSet::new(),
            connections: HashMap::new(),
            dials: HashMap::new(),
            quic_ports: HashMap::new(),
            listeners: HashSet::new(),
            dial_at: Instant::now() + LISTEN_PATIENCE,
            actions: VecDeque::new(),
            control: PollSender::new(control),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// Keeps this peer connected from now on. False if the bounds are reached or the address names nobody.
    pub(crate) fn add_target(&mut self, address: Multiaddr) -> bool {
        let (Some(peer_id), Some((socket, _))) = (peer_of(&address), socket_of(&address)) else { return false };
        let added = self.targets.add(peer_id, address, self.sessions.stands(&peer_id), Instant::now());
        if added {
            self.known_sources = self.targets.addresses().filter_map(socket_of).map(|(socket, _)| source_of(socket.ip())).collect();
            tracing::debug!(%peer_id, %socket, "keeping connected");
        }
        added
    }

    /// Dials wait for this listener's address.
    pub(crate) fn await_listener(&mut self, listener: ListenerId) {
        self.listeners.insert(listener);
    }

    /// Tells an event, after all that were told before.
    pub(crate) fn emit(&mut self, event: Event) {
        self.actions.push_back(Action::Emit(Box::new(event)));
    }

    /// Closes a connection once.
    pub(crate) fn close(&mut self, connection: ConnectionId, refusal: Option<Refusal>) {
        let Some(entry) = self.connections.get_mut(&connection) else { return };
        if std::mem::replace(&mut entry.closing, true) {
            return;
        }
        let peer_id = entry.peer_id;
        if let Some(refusal) = refusal {
            self.refused(connection, refusal);
        }
        let connection = CloseConnection::One(connection);
        self.actions.push_back(Action::Swarm(ToSwarm::CloseConnection { peer_id, connection }));
    }

    /// Counts a refusal and logs it.
    fn refused(&self, connection: ConnectionId, refusal: Refusal) {
        self.counters.refuse(refusal);
        let Some(Connection { peer_id, address, dialed, .. }) = self.connections.get(&connection) else { return };
        let reason = refusal.as_str();
        // Whom we were told to dial, and can't talk with, is the operator's business; strangers may not fill his log.
        match refusal {
            Refusal::Chain | Refusal::Version if dialed.is_some() => {
                tracing::warn!(%peer_id, %address, reason, "configured peer is of another network");
            }
            _ => tracing::debug!(%peer_id, %address, %connection, reason, "refused"),
        }
    }

    /// A round trip was measured.
    pub(crate) fn measured(&mut self, connection: ConnectionId, rtt: Duration) {
        let Some(entry) = self.connections.get_mut(&connection) else { return };
        entry.rtt = Some(rtt);
        if let (Some(peer), Some((lane, _))) = (entry.peer.and_then(|peer| self.peers.get(peer)), entry.greeted) {
            peer.set_rtt(lane, rtt);
        }
    }

    /// The other end says what it runs. Mostly it does so before its peer stands.
    pub(crate) fn named(&mut self, connection: ConnectionId, agent: &str) {
        let Some(entry) = self.connections.get_mut(&connection) else { return };
        let agent = printable(agent);
        if let Some(peer) = entry.peer.and_then(|peer| self.peers.get(peer)) {
            peer.set_agent(&agent);
        }
        entry.agent = Some(agent);
    }

    /// Limits a peer and its source for a while, and closes what the peer has. Whom we keep connected with is closed only: dialling
    /// it again is the operator's wish.
    pub(crate) fn limit(&mut self, peer_id: PeerId, address: IpAddr, period: Duration) {
        let now = Instant::now();
        if !self.targets.contains(&peer_id) {
            self.seats.limit(peer_id, source_of(address), now + period, now);
        }
        let of_peer = self.connections.iter().filter(|(_, entry)| entry.peer_id == peer_id).map(|(id, _)| *id);
        for connection in of_peer.collect::<Vec<_>>() {
            self.close(connection, Some(Refusal::Limited));
        }
    }

    fn count_arrival(&mut self, now: Instant) {
        let begins = match self.arrivals.tide(&self.shared.limits, now) {
            Tide::Calm => return,
            Tide::Rises => true,
            Tide::Stays => false,
        };
        if begins {
            add(&self.counters.handshake_floods, 1);
            tracing::warn!("a flood of handshakes: strangers' pending connections are fewer for a while");
        }
        if !self.crowded() {
            self.emit(Event::HandshakeFlood { begins });
        }
    }

    fn crowded(&self) -> bool {
        self.actions.len() >= ACTIONS_MAX
    }

    fn admit(&self, connection: ConnectionId, peer_id: PeerId) -> Result<(), ConnectionDenied> {
        let same = |entry: &&Connection| entry.peer_id == peer_id;
        if self.connections.values().filter(same).count() >= CONNECTIONS_PER_PEER_MAX {
            tracing::debug!(%peer_id, %connection, "too many connections of one peer");
            return Err(ConnectionDenied::new(Denied(Refusal::Duplicate)));
        }
        Ok(())
    }

    fn insert(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        remote: &Multiaddr,
        dialed: Option<(Lane, u64)>,
        port: Option<u16>,
    ) -> Result<(), ConnectionDenied> {
        let (address, transport) = socket_of(remote).ok_or_else(|| ConnectionDenied::new(Denied(Refusal::Transport)))?;
        let local_port = match (dialed, transport) {
            (None, _) => port,
            (Some(_), Transport::Quic) => self.quic_ports.get(&address.is_ipv4()).copied(),
            (Some(_), Transport::Tcp) => None,
        };
        let connection = Connection {
            peer_id,
            address,
            transport,
            local_port,
            dialed,
            greeted: None,
            peer: None,
            rtt: None,
            agent: None,
            closing: false,
        };
        self.connections.insert(id, connection);
        Ok(())
    }

    fn run(&mut self, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            match step {
                Step::Close(connection, refusal) => self.close(connection, Some(refusal)),
                Step::Fall { peer, peer_id, connections } => self.fall(peer, peer_id, connections),
                Step::Stand { peer, peer_id, side, connections, validator } => {
                    self.stand(peer, peer_id, side, connections, validator);
                }
            }
        }
    }

    fn fall(&mut self, peer: u64, peer_id: PeerId, connections: [ConnectionId; 2]) {
        self.seats.free(&peer_id);
        self.targets.fell(&peer_id, Instant::now());
        if let Some(entry) = self.peers.remove(peer) {
            entry.close();
            self.emit(Event::Disconnected { peer });
        }
        connections.into_iter().for_each(|connection| self.close(connection, None));
    }

    fn stand(&mut self, peer: u64, peer_id: PeerId, side: Side, connections: [ConnectionId; 2], validator: Option<PublicKey>) {
        let [Some(votes), Some(bulk)] = connections.map(|connection| self.connections.get(&connection)) else { return };
        let applicant =
            Applicant { peer_id, validator, source: source_of(votes.address.ip()), configured: self.targets.contains(&peer_id) };
        let links = [votes.link(Lane::Votes), bulk.link(Lane::Bulk)];
        let seat = self.seats.take(applicant, &self.validators.read(), &self.shared.limits, Instant::now());
        if let Err(refusal) = seat {
            match refusal {
                Refusal::Sybil => add(&self.counters.sybil_attempts, 1),
                Refusal::Eclipse => add(&self.counters.eclipse_refusals, 1),
                _ => {}
            }
            for connection in connections {
                self.sessions.closed(peer_id, connection);
                self.close(connection, Some(refusal));
            }
            return;
        }
        self.targets.stands(&peer_id);
        let connected = Connected { peer, peer_id, validator, outbound: side == Side::We, links };
        let entry = Arc::new(Peer::new(&connected, &self.shared.limits));
        self.peers.insert(entry.clone());
        self.emit(Event::Connected(connected));
        for connection in connections {
            self.arrivals.settle(connection);
            if let Some(state) = self.connections.get_mut(&connection) {
                state.peer = Some(peer);
                if let (Some((lane, _)), Some(rtt)) = (state.greeted, state.rtt) {
                    entry.set_rtt(lane, rtt);
                }
                if let Some(agent) = &state.agent {
                    entry.set_agent(agent);
                }
            }
            let handler = NotifyHandler::One(connection);
            let event = Open(entry.clone());
            self.actions.push_back(Action::Swarm(ToSwarm::NotifyHandler { peer_id, handler, event }));
        }
    }

    fn ended(&mut self, connection: ConnectionId, ended: Ended) {
        match ended {
            Ended::Lost | Ended::Local => self.close(connection, None),
            Ended::Refused(refusal) => self.close(connection, Some(refusal)),
            Ended::Offence(offence, detail) => {
                let Some(entry) = self.connections.get(&connection) else { return };
                let (lane, validator) = entry.greeted.unwrap_or((Lane::Votes, None));
                let (peer_id, link) = (entry.peer_id, entry.link(lane));
                // The end of the peer's other connection may have been reported first.
                let peer = entry.peer.filter(|peer| self.peers.get(*peer).is_some());
                tracing::info!(%peer_id, address = %link.address, %offence, detail, "offence");
                if self.crowded() {
                    add(&self.counters.offences_lost, 1);
                } else {
                    self.emit(Event::Offence { peer, peer_id, validator, link, offence, detail });
                }
                self.close(connection, None);
            }
        }
        self.gone(connection);
    }

    /// The connection carries nothing any more: its session and its attempt end.
    fn gone(&mut self, connection: ConnectionId) {
        let Some(entry) = self.connections.get(&connection) else { return };
        let (peer_id, dialed) = (entry.peer_id, entry.dialed);
        let fall = self.sessions.closed(peer_id, connection);
        self.run(fall);
        if let Some((_, attempt)) = dialed {
            self.attempt_failed(peer_id, attempt);
        }
    }

    /// One lane of an attempt failed: the other is of no use. Nothing happens if the attempt led to a standing peer.
    fn attempt_failed(&mut self, peer_id: PeerId, attempt: u64) {
        if !self.targets.is_current(&peer_id, attempt) {
            return;
        }
        self.targets.failed(&peer_id, attempt, Instant::now());
        let of_attempt = |entry: &Connection| entry.peer_id == peer_id && entry.dialed.is_some_and(|(_, number)| number == attempt);
        let rest: Vec<ConnectionId> = self.connections.iter().filter(|(_, entry)| of_attempt(entry)).map(|(id, _)| *id).collect();
        for connection in rest {
            self.sessions.closed(peer_id, connection);
            self.close(connection, None);
        }
    }

    fn dial(&mut self, Attempt { peer_id, address, number }: Attempt) {
        let Some((socket, transport)) = socket_of(&address) else { return };
        self.emit(Event::Dialing { peer_id, address: socket, transport });
        for lane in Lane::ALL {
            // The swarm would refuse a second connection under the default condition.
            let opts = DialOpts::peer_id(peer_id).condition(PeerCondition::Always).addresses(vec![address.clone()]);
            let opts = opts.override_dial_concurrency_factor(NonZeroU8::MIN);
            let opts = match transport {
                // QUIC leaves from the port that we listen on, which the guard protects. Two TCP connections between the same
                // two sockets can't exist, and two nodes that dial at once would meet in a simultaneous open.
                Transport::Quic => opts.build(),
                Transport::Tcp => opts.allocate_new_port().build(),
            };
            self.dials.insert(opts.connection_id(), Dial { peer_id, lane, attempt: number });
            add(&self.counters.dials, 1);
            self.actions.push_back(Action::Swarm(ToSwarm::Dial { opts }));
        }
    }

    fn dial_failed(&mut self, failure: &DialFailure<'_>) {
        let Some(dial) = self.dials.remove(&failure.connection_id) else { return };
        add(&self.counters.dial_failures, 1);
        tracing::debug!(peer_id = %dial.peer_id, lane = dial.lane.as_str(), error = %failure.error, "dial failed");
        self.attempt_failed(dial.peer_id, dial.attempt);
    }

    fn listen_failed(&mut self, failure: &ListenFailure<'_>) {
        self.arrivals.leave(failure.connection_id);
        let refusal = match failure.error {
            ListenError::Denied { cause } => cause.downcast_ref::<Denied>().map_or(Refusal::Transport, |denied| denied.0),
            _ => Refusal::Transport,
        };
        self.counters.refuse(refusal);
        tracing::debug!(from = %failure.send_back_addr, error = %failure.error, "inbound connection failed");
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        add(&self.counters.arrivals, 1);
        let deny = |refusal| ConnectionDenied::new(Denied(refusal));
        let (socket, _) = socket_of(remote).ok_or_else(|| deny(Refusal::Transport))?;
        if self.crowded() {
            return Err(deny(Refusal::Seats));
        }
        let source = source_of(socket.ip());
        let known = self.known_sources.contains(&source);
        let now = Instant::now();
        if !known {
            self.count_arrival(now);
        }
        self.arrivals.arrive(id, source, known, &self.shared.limits, now).map_err(deny)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(id, peer_id)?;
        if self.seats.is_limited(&peer_id, Instant::now()) {
            return Err(ConnectionDenied::new(Denied(Refusal::Limited)));
        }
        let port = socket_of(local).map(|(socket, _)| socket.port());
        self.insert(id, peer_id, remote, None, port)?;
        Ok(Handler::new(peer_id, None, self.shared.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(id, peer_id)?;
        let current = |dial: &&Dial| self.targets.is_current(&dial.peer_id, dial.attempt);
        let Some(dial) = self.dials.get(&id).filter(current) else {
            return Err(ConnectionDenied::new(Denied(Refusal::Duplicate)));
        };
        let dialed = (dial.lane, dial.attempt);
        self.insert(id, peer_id, address, Some(dialed), None)?;
        self.dials.remove(&id);
        Ok(Handler::new(peer_id, Some(dialed.0), self.shared.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => {
                self.gone(closed.connection_id);
                self.connections.remove(&closed.connection_id);
                self.arrivals.leave(closed.connection_id);
            }
            FromSwarm::DialFailure(failure) => {
                // Denied after we had taken it, by another behaviour.
                self.gone(failure.connection_id);
                self.connections.remove(&failure.connection_id);
                self.dial_failed(&failure);
            }
            FromSwarm::ListenFailure(failure) => {
                self.connections.remove(&failure.connection_id);
                self.listen_failed(&failure);
            }
            FromSwarm::ListenerClosed(closed) => _ = self.listeners.remove(&closed.listener_id),
            FromSwarm::NewListenAddr(listen) => {
                self.listeners.remove(&listen.listener_id);
                if let Some((socket, Transport::Quic)) = socket_of(listen.addr) {
                    self.quic_ports.insert(socket.is_ipv4(), socket.port());
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer_id: PeerId, connection: ConnectionId, report: THandlerOutEvent<Self>) {
        match report {
            Report::Ended(ended) => self.ended(connection, ended),
            Report::Refused(refusal) => self.refused(connection, refusal),
            Report::Greeted { lane, validator } => {
                let Some(entry) = self.connections.get_mut(&connection) else { return };
                if entry.closing {
                    return;
                }
                entry.greeted = Some((lane, validator));
                let side = if entry.dialed.is_some() { Side::We } else { Side::They };
                let steps = self.sessions.greeted(Greeted { peer_id, connection, side, lane, validator }, Instant::now());
                self.run(steps);
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            while let Some(action) = self.actions.pop_front() {
                match action {
                    Action::Swarm(command) => return Poll::Ready(command),
                    Action::Emit(event) => match self.control.poll_reserve(cx) {
                        // A closed channel ends the network's task, which watches it too.
                        Poll::Ready(Ok(())) => _ = self.control.send_item(*event),
                        Poll::Ready(Err(_)) => {}
                        Poll::Pending => {
                            self.actions.push_front(Action::Emit(event));
                            return Poll::Pending;
                        }
                    },
                }
            }
            let now = Instant::now();
            let may_dial = self.listeners.is_empty() || now >= self.dial_at;
            if may_dial && let Some(attempt) = self.targets.next_due(now) {
                self.dial(attempt);
                continue;
            }
            let Some(deadline) = self.targets.next_deadline() else { return Poll::Pending };
            let deadline = if may_dial { deadline } else { deadline.max(self.dial_at) };
            self.timer.as_mut().reset(deadline.into());
            if self.timer.poll_unpin(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
