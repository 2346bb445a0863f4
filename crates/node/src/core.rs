//! The core thread: the replica, with its signer and journal, and nothing that waits for a peer or for the signature pool.
//!
//! It takes one input at a time and carries the effects out in their order. Sending, storing, verifying are hand-overs to
//! others; signing (a sync of the journal) is the only thing that it waits for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::backend::SubmitError;
use api::metrics::Metrics;
use futures::FutureExt;
use parking_lot::RwLock;
use replica::{Effect, Event, Input, Peer, Replica, Summary, Token, Verifiable};
use signer::file::FileDisk;
use tokio::sync::{mpsc, oneshot};
use types::{Epoch, Kind, Message, Offence, PublicKey, SignedTransaction, Tick, TxId, UnixMs};

use crate::dropped::DroppedTable;
use crate::evidence::EvidenceStore;
use crate::guard_link::{Culprit, GuardLink, Order};
use crate::standing::Standings;
use crate::store::{Reply, StoreThread};
use crate::verify::Pool;

/// The replica as the node runs it.
pub type NodeReplica = Replica<FileDisk>;

/// Most questions and submissions waiting.
const COMMANDS_MAX: usize = 1_024;
/// Most verdicts of the signature pool waiting. The replica bounds the jobs under way below it.
pub const VERDICTS_MAX: usize = 8_192;
/// The longest sleep without an input or a timer.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Inputs taken in before the snapshot is renewed.
const ROUND_INPUTS_MAX: usize = 64;

/// The core thread has ended, or has no room for another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the core thread is busy or has ended")]
pub struct Gone;

type Question = Box<dyn FnOnce(&NodeReplica) + Send>;

/// What the API asks.
pub enum Command {
    /// Take transactions in.
    Submit(Vec<SignedTransaction>, oneshot::Sender<Vec<Result<TxId, SubmitError>>>),
    /// Look at the replica.
    Query(Question),
}

/// Where the node stands, renewed after each round of inputs.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// The replica's own words.
    pub summary: Summary,
    /// Peers connected.
    pub peers: u32,
    /// Transactions waiting.
    pub mempool_transactions: u64,
    /// Whether it is the only validator of its chain.
    pub alone: bool,
}

impl Snapshot {
    /// Whether a peer is known to be further than this node.
    pub fn syncing(&self) -> bool {
        self.summary.goal.is_some_and(|goal| goal > self.summary.height.plus(types::SYNC_BLOCKS_MAX as u64))
    }
}

struct Shared {
    snapshot: RwLock<Snapshot>,
    listening: RwLock<Vec<String>>,
    dropped: RwLock<DroppedTable>,
}

/// The core thread's face for the API.
#[derive(Clone)]
pub struct CoreHandle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl CoreHandle {
    /// Where the node stands.
    pub fn snapshot(&self) -> Snapshot {
        *self.shared.snapshot.read()
    }

    /// Addresses that the node listens on.
    pub fn listening(&self) -> Vec<String> {
        self.shared.listening.read().clone()
    }

    /// Why a transaction that was taken here got no receipt, if that was lately.
    pub fn dropped(&self, id: &TxId) -> Option<&'static str> {
        self.shared.dropped.read().reason(id)
    }

    /// Asks the replica something that takes microseconds.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn query<T: Send + 'static>(&self, ask: impl FnOnce(&NodeReplica) -> T + Send + 'static) -> Result<T, Gone> {
        let (answer, receiver) = oneshot::channel();
        let question: Question = Box::new(move |replica| {
            let _ = answer.send(ask(replica));
        });
        self.commands.try_send(Command::Query(question)).map_err(|_| Gone)?;
        receiver.await.map_err(|_| Gone)
    }

    /// Submits transactions; one verdict each.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn submit(&self, transactions: Vec<SignedTransaction>) -> Result<Vec<Result<TxId, SubmitError>>, Gone> {
        let (answer, receiver) = oneshot::channel();
        self.commands.try_send(Command::Submit(transactions, answer)).map_err(|_| Gone)?;
        receiver.await.map_err(|_| Gone)
    }
}

/// Why the core thread ended.
#[derive(Debug)]
pub enum Ended {
    /// It was told to.
    Asked,
    /// It had to: the process must end with an error.
    Fatal(String),
}

/// Everything that the core thread owns.
pub struct Core {
    replica: NodeReplica,
    network: network::Handle,
    store: StoreThread,
    pool: Pool,
    guard: Arc<GuardLink>,
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
    peers: Standings,
    /// Of the epoch whose validators the network and the guard were told.
    told_epoch: Option<Epoch>,
    answers: BTreeMap<Token, oneshot::Sender<Vec<Result<TxId, SubmitError>>>>,
    next_answer: u64,
    verdicts: mpsc::Sender<(Token, Vec<bool>)>,
    evidence: EvidenceStore,
    encoded: Option<(Arc<Message>, network::Frame)>,
    started: Instant,
    alone: bool,
}

/// What the core thread listens to.
pub struct Inputs {
    /// The network.
    pub network: network::Events,
    /// The storage thread.
    pub replies: mpsc::Receiver<Reply>,
    /// The signature pool.
    pub verdicts: mpsc::Receiver<(Token, Vec<bool>)>,
    /// The API.
    pub commands: mpsc::Receiver<Command>,
    /// Told to end.
    pub stop: oneshot::Receiver<()>,
}

/// What [`Core::new`] is made of.
pub struct Parts {
    /// The replica, recovered.
    pub replica: NodeReplica,
    /// The network.
    pub network: network::Handle,
    /// The storage thread.
    pub store: StoreThread,
    /// The signature pool.
    pub pool: Pool,
    /// The guard link.
    pub guard: Arc<GuardLink>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Evidence that is kept.
    pub evidence: EvidenceStore,
    /// Where the pool's verdicts go.
    pub verdicts: mpsc::Sender<(Token, Vec<bool>)>,
    /// When [`Tick`] 0 was.
    pub started: Instant,
    /// Whether the chain has one validator only.
    pub alone: bool,
}

/// The wall clock.
pub fn unix_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(since.as_millis() as u64)
}

/// Microseconds since `started`.
pub fn tick(started: Instant) -> Tick {
    Tick(started.elapsed().as_micros() as u64)
}

enum Woken {
    Network(network::Event),
    Reply(Reply),
    Verdict(Token, Vec<bool>),
    Command(Command),
    Timer,
    Stop,
}

impl Core {
    /// Puts the parts together; commands come in through the handle.
    pub fn new(parts: Parts) -> (Core, CoreHandle, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let Parts { replica, network, store, pool, guard, metrics, evidence, verdicts, started, alone } = parts;
        let snapshot = Snapshot { summary: replica.summary(), peers: 0, mempool_transactions: 0, alone };
        let shared = Arc::new(Shared { snapshot: RwLock::new(snapshot), listening: RwLock::default(), dropped: RwLock::default() });
        let handle = CoreHandle { commands, shared: Arc::clone(&shared) };
        let core = Core {
            replica,
            network,
            store,
            pool,
            guard,
            metrics,
            shared,
            peers: Standings::default(),
            told_epoch: None,
            answers: BTreeMap::new(),
            next_answer: 0,
            verdicts,
            evidence,
            encoded: None,
            started,
            alone,
        };
        (core, handle, receiver)
    }

    /// Runs until told to stop or until something fatal happens; then storage is flushed.
    pub fn run(mut self, runtime: &tokio::runtime::Handle, mut inputs: Inputs) -> Ended {
        let ended = loop {
            if let Some(reason) = self.carry_out() {
                break Ended::Fatal(reason);
            }
            self.tell_validators();
            self.renew_snapshot();
            let mut woken = runtime.block_on(next(&mut inputs, self.sleep()));
            let mut round = 0;
            loop {
                match self.take_in(woken) {
                    Ok(()) => {}
                    Err(ended) => return self.finish(ended),
                }
                round += 1;
                match poll(&mut inputs) {
                    Some(more) if round < ROUND_INPUTS_MAX => {
                        if let Some(reason) = self.carry_out() {
                            return self.finish(Ended::Fatal(reason));
                        }
                        woken = more;
                    }
                    Some(more) => {
                        // Time passes for the replica also while inputs never end.
                        if let Err(ended) = self.take_in(more) {
                            return self.finish(ended);
                        }
                        self.handle(Input::Timeout);
                        break;
                    }
                    None => break,
                }
            }
        };
        self.finish(ended)
    }

    fn finish(self, ended: Ended) -> Ended {
        drop(self.pool);
        self.store.stop();
        self.guard.stop();
        ended
    }

    fn sleep(&self) -> Duration {
        let now = tick(self.started);
        let until = self.replica.poll_timeout().map(|due| Duration::from_micros(due.since(now)));
        until.unwrap_or(SLEEP_MAX).min(SLEEP_MAX)
    }

    fn handle(&mut self, input: Input) {
        self.replica.handle(input, tick(self.started), unix_ms());
    }

    fn take_in(&mut self, woken: Woken) -> Result<(), Ended> {
        match woken {
            Woken::Network(event) => self.network_event(event),
            Woken::Reply(Reply::Stored(token)) => self.handle(Input::Stored { token }),
            Woken::Reply(Reply::Loaded(token, loaded)) => self.handle(Input::Loaded { token, loaded }),
            Woken::Reply(Reply::Failed(error)) => {
                let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
                return Err(Ended::Fatal(format!("storage: {error}{source}")));
            }
            Woken::Verdict(token, good) => self.handle(Input::Verified { token, good }),
            Woken::Command(Command::Query(question)) => question(&self.replica),
            Woken::Command(Command::Submit(transactions, answer)) => {
                self.next_answer += 1;
                let token = Token(self.next_answer);
                self.answers.insert(token, answer);
                self.handle(Input::Submit { token, transactions });
            }
            Woken::Timer => self.handle(Input::Timeout),
            Woken::Stop => return Err(Ended::Asked),
        }
        Ok(())
    }

    fn network_event(&mut self, event: network::Event) {
        match event {
            network::Event::Connected(connected) => self.connected(&connected),
            network::Event::Disconnected { peer } => {
                if let Some(standing) = self.peers.remove(peer) {
                    for flow in standing.flows {
                        self.guard.order(Order::Gone(flow));
                    }
                    self.metrics.peers_connected.set(self.peers.len() as i64);
                    self.handle(Input::PeerDisconnected(Peer(peer)));
                }
            }
            network::Event::Message { peer, message, .. } => {
                self.metrics.message_received(&message);
                self.handle(Input::Message { peer: Peer(peer), message });
            }
            network::Event::Offence { peer, peer_id, validator, link, offence, detail } => {
                let culprit = self.peers.accuse(peer, peer_id, validator, link.address.ip());
                self.offence(culprit, offence, detail);
            }
            network::Event::HandshakeFlood { .. } => self.guard.order(Order::Flood),
            network::Event::Dialing { address, transport, .. } => {
                if transport == network::Transport::Quic {
                    self.guard.order(Order::Dialing(address));
                }
            }
            network::Event::Listening(address) => {
                tracing::info!(%address, "listening");
                self.shared.listening.write().push(address.to_string());
            }
        }
    }

    fn connected(&mut self, connected: &network::Connected) {
        if let Some(key) = connected.validator.filter(|key| self.evidence.is_guilty(key)) {
            // A present validator keeps its floor until a final block jails it: no stream, no ban. Any other is a proven equivocator.
            if !self.peers.is_validator(Some(key)) {
                let culprit = self.peers.accuse(Some(connected.peer), connected.peer_id, None, connected.address().ip());
                self.offence(culprit, Offence::Equivocation, "proved a key that equivocated");
            }
            self.network.disconnect(connected.peer);
            return;
        }
        for flow in self.peers.insert(connected) {
            self.guard.order(Order::Admitted(flow));
        }
        let (peer, validator, address) = (connected.peer, connected.validator, connected.address().ip());
        let known = self.peers.is_validator(validator);
        tracing::info!(peer, peer_id = %connected.peer_id, %address, validator = known, "peer connected");
        self.metrics.peers_connected.set(self.peers.len() as i64);
        self.handle(Input::PeerConnected { peer: Peer(peer), validator });
    }

    /// Tells network and guard who the validators are, when that changes. The next epoch's may have a seat already, but no floor.
    fn tell_validators(&mut self) {
        let [record, next] = self.replica.epochs();
        if self.told_epoch == Some(record.epoch) {
            return;
        }
        self.told_epoch = Some(record.epoch);
        self.network.set_validators(record.validators.iter().chain(&next.validators).map(|validator| validator.key));
        for flow in self.peers.enter(record) {
            self.guard.order(Order::Admitted(flow));
        }
    }

    fn close_streams(&self, validator: &PublicKey) {
        tracing::warn!(%validator, "a validator is proven guilty: its streams are closed");
        for peer in self.peers.of_key(validator) {
            self.network.disconnect(peer);
        }
    }

    fn offence(&self, culprit: Culprit, offence: Offence, detail: &'static str) {
        self.metrics.offence(offence);
        if offence == Offence::Replay {
            self.metrics.replay_rejected.inc();
        }
        let Culprit { peer_id, address, validator, shared, .. } = culprit;
        tracing::warn!(%peer_id, %address, %offence, detail, validator, shared, "offence");
        self.guard.order(Order::Offence { culprit, offence, detail });
    }

    /// Carries out what the replica asks; a reason if the process must end.
    fn carry_out(&mut self) -> Option<String> {
        while let Some(effect) = self.replica.poll_effect() {
            match effect {
                Effect::Send { peer, message } => {
                    if self.send(peer.0, &message) {
                        self.metrics.message_sent(&message);
                    }
                }
                Effect::Verify { token, transactions } => self.verify(token, transactions),
                Effect::Store { token, op } => self.store.store(token, op),
                Effect::Load { token, load } => self.store.load(token, load),
                Effect::Offence { peer, offence, detail } => {
                    if let Some(culprit) = self.peers.culprit(peer.0) {
                        self.offence(culprit, offence, detail);
                    }
                }
                Effect::CloseStreams { validator } => self.close_streams(&validator),
                Effect::Evidence(evidence) => {
                    tracing::warn!(key = %evidence.key, statement = ?evidence.first.0, "evidence of equivocation");
                    self.equivocated(&evidence.key);
                    if let Err(error) = self.evidence.keep(&evidence) {
                        return Some(format!("evidence can't be kept: {error:#}"));
                    }
                }
                Effect::Answer { token, results } => self.answer(token, results),
                Effect::Event(event) => self.event(event),
                Effect::Fatal(reason) => return Some(reason.to_string()),
            }
        }
        None
    }

    /// A key is proven guilty: whoever proved to hold it committed the offence, over whichever connection the proof came.
    fn equivocated(&self, key: &PublicKey) {
        let culprits: Vec<Culprit> = self.peers.of_key(key).into_iter().filter_map(|peer| self.peers.culprit(peer)).collect();
        if culprits.is_empty() {
            self.metrics.offence(Offence::Equivocation);
        }
        for culprit in culprits {
            self.offence(culprit, Offence::Equivocation, "two statements under one key in one view");
        }
    }

    /// Queues a message. One that goes to many is encoded once: such effects come out one after the other.
    fn send(&mut self, peer: u64, message: &Arc<Message>) -> bool {
        let encoded = match &self.encoded {
            Some((last, frame)) if Arc::ptr_eq(last, message) => Ok(frame.clone()),
            _ => network::Frame::new(message).inspect(|frame| self.encoded = Some((Arc::clone(message), frame.clone()))),
        };
        match encoded {
            Ok(frame) => self.network.send_frame(peer, frame).is_ok(),
            Err(error) => {
                tracing::error!(kind = message.as_str(), %error, "a message of ours does not fit its lane");
                false
            }
        }
    }

    fn verify(&mut self, token: Token, transactions: Verifiable) {
        let verdicts = self.verdicts.clone();
        let done = Box::new(move |good| {
            // Fails only when the core thread has ended.
            let _ = verdicts.blocking_send((token, good));
        });
        if self.pool.submit(transactions, done).is_err() {
            // Not a verdict about the sender: the replica's own bounds keep the queue below this.
            tracing::error!("the signature queue is full");
        }
    }

    fn answer(&mut self, token: Token, results: Vec<Result<TxId, replica::SubmitError>>) {
        let Some(answer) = self.answers.remove(&token) else { return };
        let duplicates = results.iter().filter(|result| matches!(result, Err(replica::SubmitError::Duplicate(_)))).count();
        self.metrics.replay_rejected.inc_by(duplicates as u64);
        let _ = answer.send(results.into_iter().map(|result| result.map_err(submit_error)).collect());
    }

    fn event(&mut self, event: Event) {
        let metrics = &self.metrics;
        match event {
            Event::Proposed { view, height, .. } => {
                metrics.blocks_proposed.inc();
                tracing::debug!(%view, %height, "proposed");
            }
            Event::Validated { .. } => _ = metrics.blocks_validated.inc(),
            Event::Notarized { .. } => metrics.quorum_reached(Kind::Notarize),
            Event::Nullified { view, .. } => {
                metrics.quorum_reached(Kind::Nullify);
                tracing::debug!(%view, "nullified");
            }
            Event::Entered { epoch, view, .. } => {
                metrics.epoch.set(epoch.0 as i64);
                metrics.view.set(view.0 as i64);
            }
            Event::Finalized(done) => {
                metrics.quorum_reached(Kind::Finalize);
                metrics.height.set(done.block.header.height.0 as i64);
                let since = done.at.since(done.block.header.time);
                metrics.finality_seconds.observe(since as f64 / 1_000.0);
                tracing::debug!(height = %done.block.header.height, hash = %done.hash, since_ms = since, "final");
            }
            Event::Executed(executed) => {
                metrics.executed_height.set(executed.height.0 as i64);
                metrics.transactions_confirmed.inc_by(executed.receipts.len() as u64);
            }
            Event::BatchMade { id, transactions } => tracing::debug!(%id, transactions, "batch made"),
            Event::TransactionRefused(why) => {
                if matches!(why, replica::SubmitError::Duplicate(_)) {
                    metrics.replay_rejected.inc();
                }
            }
            Event::TransactionDropped(dropped) => {
                let reason = dropped.reason.as_str();
                tracing::info!(id = %dropped.id, reason, "transaction dropped");
                self.shared.dropped.write().note(dropped.id, reason);
            }
            Event::SignRefused(statement) => tracing::warn!(?statement, "the signer refuses a statement"),
            Event::StorageBehind => tracing::error!("storage is older than the journal's cut: this node signs nothing"),
            Event::Nullifying { view, reason, .. } => tracing::info!(%view, reason = reason.as_str(), "giving a view up"),
            Event::Syncing { from, to } => tracing::info!(%from, %to, "syncing"),
        }
    }

    fn renew_snapshot(&self) {
        let summary = self.replica.summary();
        let mempool_transactions = self.replica.pool().transactions as u64;
        self.metrics.mempool_transactions.set(mempool_transactions as i64);
        let peers = self.peers.len() as u32;
        *self.shared.snapshot.write() = Snapshot { summary, peers, mempool_transactions, alone: self.alone };
    }
}

fn submit_error(error: replica::SubmitError) -> SubmitError {
    let code = error.as_str();
    match (&error, error.retry_after_ms()) {
        (replica::SubmitError::Duplicate(id), _) => SubmitError::Duplicate(*id),
        (_, Some(retry_after_ms)) => SubmitError::Full { code, retry_after_ms },
        (_, None) => SubmitError::Refused { code, message: error.to_string() },
    }
}

/// The next input, or the timer. Votes come through the network, so it is asked first.
async fn next(inputs: &mut Inputs, sleep: Duration) -> Woken {
    tokio::select! {
        biased;
        _ = &mut inputs.stop => Woken::Stop,
        Some(event) = inputs.network.recv() => Woken::Network(event),
        Some(reply) = inputs.replies.recv() => Woken::Reply(reply),
        Some((token, good)) = inputs.verdicts.recv() => Woken::Verdict(token, good),
        Some(command) = inputs.commands.recv() => Woken::Command(command),
        () = tokio::time::sleep(sleep) => Woken::Timer,
    }
}

/// An input that is there already. Answers to our own requests come first: they are bounded by what was asked.
fn poll(inputs: &mut Inputs) -> Option<Woken> {
    if let Ok(reply) = inputs.replies.try_recv() {
        return Some(Woken::Reply(reply));
    }
    if let Ok((token, good)) = inputs.verdicts.try_recv() {
        return Some(Woken::Verdict(token, good));
    }
    if let Some(Some(event)) = inputs.network.recv().now_or_never() {
        return Some(Woken::Network(event));
    }
    inputs.commands.try_recv().ok().map(Woken::Command)
}
