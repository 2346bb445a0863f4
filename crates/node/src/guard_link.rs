//! The thread between the node and its guard: flows of admitted peers, bans for proven offences, the liveness beat, and what
//! the guard shows in return. A guard that is away is looked for again; the node goes on without it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use guard::policy::{Action, Policy, PolicyConfig, Subject};
use guard::protocol::{BanInfo, FlowKind, Protocol, Request, Response, Stats};
use guard::{Client, ClientError, Maps, Prefix};
use parking_lot::{Mutex, RwLock};
use types::{Offence, PublicKey};

/// Most orders waiting for the thread.
const ORDERS_MAX: usize = 1_024;
/// Between two beats; the guard lets known flows lapse after a multiple of it.
const BEAT: Duration = Duration::from_secs(1);
/// Notes longer than this are cut; the guard refuses longer ones.
const NOTE_BYTES_MAX: usize = 200;

/// A peer as the guard knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its handle in the network.
    pub peer: u64,
    /// Remote address and port.
    pub address: SocketAddr,
    /// UDP (QUIC) or TCP.
    pub udp: bool,
    /// Its PeerId: the label of its row.
    pub label: String,
    /// Whether it proved a validator key.
    pub validator: Option<PublicKey>,
}

impl Flow {
    fn key(&self) -> (bool, SocketAddr) {
        (self.udp, self.address)
    }
}

/// What the node tells the thread.
pub enum Order {
    /// A handshake is done.
    Admitted(Flow),
    /// The connection is gone.
    Gone(Flow),
    /// We are about to dial from a protected port: answers shall get in.
    Dialing(SocketAddr),
    /// A peer did what no honest node does.
    Offence {
        /// Its handle.
        peer: u64,
        /// From where.
        address: IpAddr,
        /// Whether it is a validator: those are disconnected, never banned.
        validator: bool,
        /// Whether other admitted peers share the address (NAT): then it is disconnected only.
        shared: bool,
        /// What.
        offence: Offence,
        /// A note for people.
        detail: String,
    },
}

/// What the guard shows, as of its last answer.
#[derive(Default)]
pub struct View {
    maps: RwLock<Option<Maps>>,
    stats: RwLock<Option<Stats>>,
    bans: RwLock<Vec<BanInfo>>,
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

/// What disconnects a peer.
pub type Disconnect = Box<dyn Fn(u64) + Send>;

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
    pub fn start(socket: Option<PathBuf>, disconnect: Disconnect) -> std::io::Result<GuardLink> {
        let (orders, receiver) = sync_channel(ORDERS_MAX);
        let why = if socket.is_some() { "not connected yet" } else { "no guard is configured" };
        let view = Arc::new(View::none(why));
        let worker = Worker {
            socket,
            disconnect,
            view: Arc::clone(&view),
            policy: Policy::new(PolicyConfig::default()),
            client: None,
            flows: BTreeMap::new(),
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
    disconnect: Disconnect,
    view: Arc<View>,
    policy: Policy,
    client: Option<Client>,
    flows: BTreeMap<(bool, SocketAddr), Flow>,
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
                    let (address, port) = (flow.address.ip(), flow.address.port());
                    self.ask(&Request::FlowDel { protocol: protocol(flow.udp), address, port });
                }
            }
            Order::Dialing(address) => {
                let (class, label) = (FlowKind::Dialing, String::new());
                self.ask(&Request::FlowAdd { protocol: Protocol::Udp, address: address.ip(), port: address.port(), class, label });
            }
            Order::Offence { peer, address, validator, shared, offence, detail } => {
                let now_ms = self.started.elapsed().as_millis() as u64;
                let subject = Subject { address, validator, shared_by_others: shared };
                match self.policy.report(now_ms, subject, offence, 1) {
                    Action::Nothing => {}
                    Action::Disconnect => (self.disconnect)(peer),
                    Action::Ban { address, ttl_ms, offence } => {
                        tracing::info!(%address, %offence, ttl_ms, detail, "ban");
                        let note: String = detail.chars().take(NOTE_BYTES_MAX / 4).collect();
                        self.ask(&Request::Ban { address: Prefix::host(address), ttl_ms, offence, note });
                        (self.disconnect)(peer);
                    }
                }
            }
        }
    }

    fn announce(&mut self, flow: &Flow) {
        let class = if flow.validator.is_some() { FlowKind::Floor } else { FlowKind::Known };
        let (address, port) = (flow.address.ip(), flow.address.port());
        self.ask(&Request::FlowAdd { protocol: protocol(flow.udp), address, port, class, label: flow.label.clone() });
    }

    fn ask(&mut self, request: &Request) -> Option<Response> {
        let client = self.client.as_mut()?;
        match client.ask(request) {
            Ok(response) => Some(response),
            Err(ClientError::Refused { code, message }) => {
                tracing::debug!(?code, message, "the guard refused");
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
        if let Some(Response::Bans { bans }) = self.ask(&Request::Bans {}) {
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
