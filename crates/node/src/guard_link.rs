//! The thread between the node and its guard: flows of admitted peers, bans for proven offences, budgets in floods, the beat, and what
//! the guard shows in return. A guard that is away is looked for again; the node goes on without it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::metrics::Metrics;
use guard::policy::{Action, Policy, Subject};
use guard::protocol::{BanInfo, FlowKind, Protocol, Request, Response, Stats};
use guard::{Client, ClientError, Maps, Prefix};
use network::PeerId;
use parking_lot::{Mutex, RwLock};
use types::Offence;

use crate::config::{FloodBudget, GuardConfig};

/// Most orders waiting for the thread.
const ORDERS_MAX: usize = 1_024;
/// Between two beats; the guard lets known flows lapse after a multiple of it.
const BEAT: Duration = Duration::from_secs(1);
/// The guard's name for the budget of all strangers' handshakes.
const HANDSHAKES: &str = "handshakes";
/// Notes longer than this are cut; the guard refuses longer ones.
const NOTE_BYTES_MAX: usize = 200;

/// A peer's connection as the guard knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Remote address and port.
    pub address: SocketAddr,
    /// UDP (QUIC) or TCP.
    pub udp: bool,
    /// We opened it, from a port that is not protected: the guard takes no packet for one of it, but tells what the kernel knows of it.
    pub dialed: bool,
    /// Its PeerId: the label of its row.
    pub label: String,
    /// The part of the epoch's stake of the validator that it proved to be, in millionths; none: an ordinary peer.
    pub stake_ppm: Option<u32>,
}

impl Flow {
    /// What the guard knows it by: UDP or not, and its remote end.
    pub(crate) fn key(&self) -> (bool, SocketAddr) {
        (self.udp, self.address)
    }
}

/// Whom an offence is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Its handle in the network, if it stands still.
    pub peer: Option<u64>,
    /// Its transport identity.
    pub peer_id: PeerId,
    /// From where.
    pub address: IpAddr,
    /// Whether it is a validator of this epoch: those are disconnected, never banned.
    pub validator: bool,
    /// Whether other admitted peers share the address (NAT): then it is disconnected and limited, not banned.
    pub shared: bool,
}

/// What the node tells the thread.
pub enum Order {
    /// A handshake is done, or the class of its flow has changed.
    Admitted(Flow),
    /// The connection is gone.
    Gone(Flow),
    /// We are about to dial from a protected port: answers shall get in.
    Dialing(SocketAddr),
    /// A peer did what no honest node does.
    Offence {
        /// Who.
        culprit: Culprit,
        /// What.
        offence: Offence,
        /// A note for people.
        detail: &'static str,
    },
    /// A flood of handshakes goes on: strangers' budget of handshakes shall be smaller for a while.
    Flood,
}

/// What ends a peer's connections: the network.
pub trait Streams: Send {
    /// Closes a peer; it may come again.
    fn disconnect(&self, peer: u64);
    /// Closes a peer, and takes neither it nor anybody new from its address for a while.
    fn limit(&self, peer_id: PeerId, address: IpAddr, period: Duration);
}

impl Streams for network::Handle {
    fn disconnect(&self, peer: u64) {
        network::Handle::disconnect(self, peer);
    }

    fn limit(&self, peer_id: PeerId, address: IpAddr, period: Duration) {
        if !network::Handle::limit(self, peer_id, address, period) {
            tracing::warn!(%peer_id, %address, "the network is busy: a peer was not limited");
        }
    }
}

/// What the guard shows, as of its last answer.
#[derive(Default)]
pub struct View {
    maps: RwLock<Option<Maps>>,
    stats: RwLock<Option<Stats>>,
    bans: RwLock<Vec<BanInfo>>,
    /// Row and generation of each peer, by its label.
    rows: RwLock<BTreeMap<String, (u32, u32)>>,
    reason: RwLock<Option<String>>,
}

impl View {
    /// A view of nothing, for a node without a guard.
    pub fn none(reason: &str) -> View {
        let view = View::default();
        *view.reason.write() = Some(reason.to_owned());
        view
    }

    /// Counters, read from the kernel's memory as they are now.
    pub fn with_maps<T>(&self, read: impl FnOnce(&Maps) -> T) -> Option<T> {
        self.maps.read().as_ref().map(read)
    }

    /// The guard's state, at most a beat old; none while it is away.
    pub fn stats(&self) -> Option<Stats> {
        self.stats.read().clone()
    }

    /// Bans in force, at most a beat old.
    pub fn bans(&self) -> Vec<BanInfo> {
        self.bans.read().clone()
    }

    /// The row of a peer's counters and its generation; none: the guard has not heard of it, or all rows are taken.
    pub fn row(&self, label: &str) -> Option<(u32, u32)> {
        self.rows.read().get(label).copied()
    }

    /// Why there is no guard to see.
    pub fn reason(&self) -> Option<String> {
        self.reason.read().clone()
    }

    fn lost(&self, why: String) {
        *self.stats.write() = None;
        self.bans.write().clear();
        *self.reason.write() = Some(why);
    }
}

/// The thread's mailbox.
pub struct GuardLink {
    orders: Mutex<Option<SyncSender<Order>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    view: Arc<View>,
}

impl GuardLink {
    /// Starts the thread. Without a socket, offences still disconnect, and nobody is banned.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(config: &GuardConfig, streams: Box<dyn Streams>, metrics: Arc<Metrics>) -> std::io::Result<GuardLink> {
        let socket = config.socket.clone();
        let (orders, receiver) = sync_channel(ORDERS_MAX);
        let why = if socket.is_some() { "not connected yet" } else { "no guard is configured" };
        let view = Arc::new(View::none(why));
        let worker = Worker {
            socket,
            streams,
            metrics,
            view: Arc::clone(&view),
            policy: Policy::new(config.policy.clone()),
            flood: config.flood,
            client: None,
            flows: BTreeMap::new(),
            told: BTreeSet::new(),
            started: Instant::now(),
            cleared: false,
        };
        let thread = std::thread::Builder::new().name("guard-link".into()).spawn(move || worker.run(&receiver))?;
        Ok(GuardLink { orders: Mutex::new(Some(orders)), thread: Mutex::new(Some(thread)), view })
    }

    /// Hands an order over. A full mailbox loses it and says so: the guard is slow, the node is not made so.
    pub fn order(&self, order: Order) {
        if let Some(orders) = self.orders.lock().as_ref()
            && orders.try_send(order).is_err()
        {
            tracing::warn!("the guard link's mailbox is full: an order was lost");
        }
    }

    /// What the guard shows.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Ends the thread after the orders that wait.
    pub fn stop(&self) {
        self.orders.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    socket: Option<PathBuf>,
    streams: Box<dyn Streams>,
    metrics: Arc<Metrics>,
    view: Arc<View>,
    policy: Policy,
    flood: FloodBudget,
    client: Option<Client>,
    /// Of peers that are connected.
    flows: BTreeMap<(bool, SocketAddr), Flow>,
    /// What the guard was told of and may hold still. Beyond `flows`: of peers that left while it was away.
    told: BTreeSet<(bool, SocketAddr)>,
    started: Instant,
    cleared: bool,
}

impl Worker {
    fn run(mut self, orders: &Receiver<Order>) {
        self.beat();
        let mut next_beat = Instant::now() + BEAT;
        loop {
            match orders.recv_timeout(next_beat.saturating_duration_since(Instant::now())) {
                Ok(order) => self.carry_out(order),
                Err(RecvTimeoutError::Timeout) => {
                    self.beat();
                    next_beat = Instant::now() + BEAT;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Admitted(flow) => {
                self.announce(&flow);
                self.flows.insert(flow.key(), flow);
            }
            Order::Gone(flow) => {
                if self.flows.remove(&flow.key()).is_some() {
                    self.withdraw(flow.key());
                    if !self.flows.values().any(|other| other.label == flow.label) {
                        self.view.rows.write().remove(&flow.label);
                    }
                }
            }
            Order::Dialing(address) => {
                let (class, label) = (FlowKind::Dialing, String::new());
                self.ask(&Request::FlowAdd {
                    protocol: Protocol::Udp,
                    address: address.ip(),
                    port: address.port(),
                    class,
                    label,
                    stake_ppm: None,
                });
            }
            Order::Offence { culprit, offence, detail } => self.judge(&culprit, offence, detail),
            Order::Flood => self.squeeze(),
        }
    }

    fn judge(&mut self, culprit: &Culprit, offence: Offence, detail: &str) {
        let now_ms = self.started.elapsed().as_millis() as u64;
        let Culprit { peer, peer_id, address, validator, shared } = *culprit;
        let subject = Subject { address, validator, shared_by_others: shared };
        let action = self.policy.report(now_ms, subject, offence, 1);
        match action {
            Action::Nothing => {}
            Action::Disconnect => peer.into_iter().for_each(|peer| self.streams.disconnect(peer)),
            Action::Limit { ttl_ms, offence } => {
                tracing::info!(%address, %peer_id, %offence, ttl_ms, detail, "limited: others share the address");
                self.metrics.peers_limited.inc();
                self.streams.limit(peer_id, address, Duration::from_millis(ttl_ms));
            }
            Action::Ban { address, ttl_ms, offence } => {
                tracing::info!(%address, %offence, ttl_ms, detail, "ban");
                let note: String = detail.chars().take(NOTE_BYTES_MAX / 4).collect();
                self.ask(&Request::Ban { address: Prefix::host(address), ttl_ms, offence, note, escalate: false });
                peer.into_iter().for_each(|peer| self.streams.disconnect(peer));
            }
        }
    }

    /// Asks for a smaller budget of strangers' handshakes. The guard gives it back by itself, also if this node dies meanwhile.
    fn squeeze(&mut self) {
        let FloodBudget { rate, burst, for_ms } = self.flood;
        let request = Request::Budget { name: HANDSHAKES.to_owned(), rate, burst, for_ms: Some(for_ms) };
        if self.ask(&request).is_some() {
            self.metrics.handshake_budget_squeezes.inc();
            tracing::info!(rate, burst, for_ms, "strangers' handshakes have a smaller budget");
        }
    }

    /// Takes a flow from the guard; while that is away it stays among the `told`, and is taken when they meet again.
    fn withdraw(&mut self, key: (bool, SocketAddr)) {
        let (udp, address) = key;
        self.ask(&Request::FlowDel { protocol: protocol(udp), address: address.ip(), port: address.port() });
        if self.client.is_some() {
            self.told.remove(&key);
        }
    }

    fn announce(&mut self, flow: &Flow) {
        if self.client.is_some() {
            self.told.insert(flow.key()); // also if its answer is lost
        }
        let class = match flow.stake_ppm {
            _ if flow.dialed => FlowKind::Dialed,
            Some(_) => FlowKind::Floor,
            None => FlowKind::Known,
        };
        let (address, port) = (flow.address.ip(), flow.address.port());
        let answer = self.ask(&Request::FlowAdd {
            protocol: protocol(flow.udp),
            address,
            port,
            class,
            label: flow.label.clone(),
            stake_ppm: flow.stake_ppm,
        });
        if let Some(Response::Flow { row, generation }) = answer {
            let mut rows = self.view.rows.write();
            match row {
                Some(row) => rows.insert(flow.label.clone(), (row, generation)),
                None => rows.remove(&flow.label),
            };
        }
    }

    fn ask(&mut self, request: &Request) -> Option<Response> {
        let client = self.client.as_mut()?;
        match client.ask(request) {
            Ok(response) => Some(response),
            Err(ClientError::Refused { code, message }) => {
                tracing::debug!(?code, message, "the guard refused");
                None
            }
            Err(error @ ClientError::TooLong) => {
                tracing::warn!(%error, "an answer is lost, not the guard");
                None
            }
            Err(error) => {
                self.lose(&error);
                None
            }
        }
    }

    fn lose(&mut self, error: &ClientError) {
        if self.client.take().is_some() {
            tracing::warn!(%error, "the guard is away; its filter stays in the kernel");
        }
        self.view.lost(error.to_string());
    }

    fn beat(&mut self) {
        if self.client.is_none() {
            self.connect();
        }
        if self.ask(&Request::Heartbeat {}).is_none() {
            return;
        }
        if let Some(Response::Stats(stats)) = self.ask(&Request::Status {}) {
            *self.view.stats.write() = Some(*stats);
            *self.view.reason.write() = None;
        }
        // The first page is what the API shows.
        if let Some(Response::Bans { bans, .. }) = self.ask(&Request::Bans { skip: 0 }) {
            *self.view.bans.write() = bans;
        }
    }

    fn connect(&mut self) {
        let Some(socket) = &self.socket else { return };
        let connected = Client::connect(socket).and_then(|mut client| client.maps().map(|maps| (client, maps)));
        match connected {
            Ok((client, maps)) => {
                *self.view.maps.write() = Some(maps);
                self.client = Some(client);
                // Flows of a node's earlier life lead nowhere; those of this life outlive a guard's restart.
                if !self.cleared && self.ask(&Request::FlowsClear {}).is_some() {
                    self.cleared = true;
                }
                let left = self.told.iter().filter(|key| !self.flows.contains_key(*key));
                for key in left.copied().collect::<Vec<_>>() {
                    self.withdraw(key);
                }
                for flow in self.flows.values().cloned().collect::<Vec<_>>() {
                    self.announce(&flow);
                }
                tracing::info!(socket = %socket_name(&self.socket), "connected to the guard");
            }
            Err(error) => {
                let why = error.to_string();
                // Once for each reason, not once a beat: a guard of another release refuses for ever.
                if self.view.reason().as_ref() != Some(&why) {
                    tracing::warn!(reason = why, "no guard: nobody is banned and no kernel figures are seen");
                }
                self.view.lost(why);
            }
        }
    }
}

fn socket_name(socket: &Option<PathBuf>) -> String {
    socket.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

const fn protocol(udp: bool) -> Protocol {
    if udp { Protocol::Udp } else { Protocol::Tcp }
}
