//! Nodes of a test: each ends with its value.

use std::net::SocketAddr;
use std::time::Duration;

use network::{Config, Connected, Event, Events, Handle, Keypair, Limits, Multiaddr, Refusal, Transport, spawn};
use tokio::task::JoinHandle;
use types::{AccountKey, Batch, BatchHeader, ChainId, Hash, Hello, Message, ProofOfValidator, PublicKey, Signature, WIRE_VERSION};

pub const CHAIN: ChainId = ChainId(Hash([7; 32]));

/// No test waits longer for anything; it is no figure of the network's.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Node {
    pub handle: Handle,
    pub events: Events,
    pub address: Multiaddr,
    task: JoinHandle<()>,
}

/// Everything that makes a node.
#[derive(Clone)]
pub struct Recipe {
    pub keypair: Keypair,
    pub hello: Hello,
    pub config: Config,
}

/// Limits at which a lost peer is noticed and dialled again quickly.
pub fn limits() -> Limits {
    Limits {
        ping_interval: Duration::from_millis(200),
        quic_idle_timeout: Duration::from_secs(2),
        deference: Duration::from_millis(30),
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(200),
        ..Limits::default()
    }
}

pub fn listen(transport: Transport) -> Multiaddr {
    match transport {
        Transport::Tcp => "/ip4/127.0.0.1/tcp/0",
        Transport::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
    }
    .parse()
    .unwrap()
}

/// The validator key `index` and its word for an identity.
pub fn proof(index: u32, keypair: &Keypair) -> ProofOfValidator {
    let key = AccountKey::development(index);
    let signature = key.sign(&ProofOfValidator::signing_bytes(&CHAIN, &keypair.public().to_peer_id().to_bytes()));
    ProofOfValidator { key: key.public(), signature }
}

pub fn validator_key(index: u32) -> PublicKey {
    AccountKey::development(index).public()
}

impl Recipe {
    pub fn new(transport: Transport) -> Recipe {
        let config = Config { listen: vec![listen(transport)], limits: limits(), ..Config::default() };
        let hello = Hello { version: WIRE_VERSION, chain: CHAIN, validator: None };
        Recipe { keypair: Keypair::generate_ed25519(), hello, config }
    }

    pub fn validator(mut self, index: u32) -> Recipe {
        self.hello.validator = Some(proof(index, &self.keypair));
        self
    }

    pub fn peer(mut self, address: &Multiaddr) -> Recipe {
        self.config.peers.push(address.clone());
        self
    }

    pub async fn start(&self) -> Node {
        let (handle, mut events, task) = spawn(self.config.clone(), self.keypair.clone(), &self.hello).unwrap();
        let mut address = Multiaddr::empty();
        if !self.config.listen.is_empty() {
            let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
            let Event::Listening(listening) = event else { panic!("first event: {event:?}") };
            let me = handle.peer_id();
            address = listening.with_p2p(me).unwrap();
        }
        Node { handle, events, address, task }
    }
}

impl Node {
    pub async fn recv(&mut self) -> Event {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("the network runs")
    }

    /// Skips events until `pick` takes one.
    pub async fn wait<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.recv().await) {
                return found;
            }
        }
    }

    pub async fn connected(&mut self) -> Connected {
        self.wait(|event| if let Event::Connected(connected) = event { Some(connected) } else { None }).await
    }

    pub async fn disconnected(&mut self) -> u64 {
        self.wait(|event| if let Event::Disconnected { peer } = event { Some(peer) } else { None }).await
    }

    pub async fn message(&mut self) -> (u64, Message) {
        self.wait(|event| if let Event::Message { peer, message, .. } = event { Some((peer, message)) } else { None }).await
    }

    /// Waits for the counter of a refusal, with this node's events flowing.
    pub async fn refused(&mut self, refusal: Refusal, count: u64) {
        self.until_refused(refusal, count, |_| ()).await;
    }

    /// The same, if nobody comes to stand and nobody is accused meanwhile.
    pub async fn refused_quietly(&mut self, refusal: Refusal, count: u64) {
        let check = |event| assert!(!matches!(event, Event::Offence { .. } | Event::Connected(_)), "{event:?}");
        self.until_refused(refusal, count, check).await;
    }

    async fn until_refused(&mut self, refusal: Refusal, count: u64, mut check: impl FnMut(Event)) {
        let handle = self.handle.clone();
        let reached = async move {
            while handle.counters().refusals(refusal) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let mut reached = std::pin::pin!(tokio::time::timeout(PATIENCE, reached));
        loop {
            tokio::select! {
                reached = &mut reached => return reached.expect("a refusal in time"),
                event = self.events.recv() => check(event.expect("the network runs")),
            }
        }
    }

    /// Ends the node; its sockets are closed when this returns.
    pub async fn stop(self) {
        self.handle.shutdown();
        self.task.await.unwrap();
    }
}

/// A batch of about so many bytes: nothing here looks at its content.
pub fn batch(sequence: u64, bytes: usize) -> Message {
    let sender = AccountKey::development(1);
    let memo = vec![5; bytes];
    let transaction = types::Transaction {
        chain: CHAIN,
        sender: sender.public(),
        nonce: types::Nonce(sequence),
        expiry: types::Height(1),
        action: types::Action::Transfer { to: sender.public().address(), amount: types::Amount(1), memo },
    };
    let transactions = vec![types::SignedTransaction { transaction, signature: Signature([0; 64]) }];
    let header = BatchHeader {
        chain: CHAIN,
        epoch: types::Epoch(0),
        author: sender.public(),
        sequence: types::Sequence(sequence),
        expiry: types::Height(1),
        count: 1,
        bytes: bytes as u32,
        root: Hash([0; 32]),
    };
    Message::Batch(std::sync::Arc::new(Batch { header, signature: Signature([0; 64]), transactions }))
}

/// A small message of the votes lane that carries a number.
pub fn vote(number: u64) -> Message {
    Message::Status(types::Status { epoch: types::Epoch(0), final_view: types::View(number), height: types::Height(0) })
}

pub fn number(message: &Message) -> Option<u64> {
    match message {
        Message::Status(status) => Some(status.final_view.0),
        Message::Batch(batch) => Some(batch.header.sequence.0),
        _ => None,
    }
}

/// A flow as the kernel would see it.
pub fn flows(connected: &Connected) -> [(Transport, SocketAddr); 2] {
    connected.links.map(|link| (link.transport, link.address))
}
