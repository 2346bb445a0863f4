//! A whole node and a peer that misbehaves: each offence that messages can commit is counted under its name; no honest mistake is
//! counted as one. What a lane's bytes can commit (oversize, garbage, too many messages) is tested where they are read, in `network`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::info::BlockInfo;
use guard::protocol::{FlowKind, Request};
use network::{Event, Keypair, Multiaddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use types::{
    AccountKey, Action, Amount, Block, BlockHash, ChainId, Epoch, Hash, Height, Hello, Kind, Message, Nonce, Offence,
    ProofOfValidator, Proposal, SignedStatement, SignedTransaction, Stake, Statement, Status, Transaction, View, Vote,
    WIRE_VERSION,
};

use crate::fake_guard::FakeGuard;
use crate::process::{Node, await_that, cli, edit, genesis, home, keys};

const PATIENCE: Duration = Duration::from_secs(60);

/// A validator that the test holds the key of, with too little stake to matter.
fn weak() -> AccountKey {
    AccountKey::development(40)
}

struct World {
    node: Node,
    chain: ChainId,
    address: Multiaddr,
}

/// A node that finalizes alone, with one block. Its configuration is changed first.
fn world(folder: &Path, changes: &[(&str, &str)]) -> World {
    let alpha = home(folder, "alpha", true);
    edit(&alpha, changes);
    let strong = keys(&alpha)["validator_key"].as_str().unwrap().parse().unwrap();
    let mut record = genesis(&[strong, weak().public()], 8);
    for validator in record.epochs.iter_mut().flat_map(|epoch| &mut epoch.validators) {
        validator.weight = Stake(if validator.key == strong { 100 } else { 1 });
    }
    std::fs::write(format!("{alpha}/genesis.json"), serde_json::to_vec(&record).unwrap()).unwrap();
    let node = Node::start(&alpha);
    let sent = cli(&["tx", "send", "--api", &node.api, "--from", "dev:0", "--to", "dev:1", "--amount", "5", "--wait", "60"]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let info = node.get("/api/v1/node/info");
    let listen = info["listen"].as_array().unwrap().iter().find_map(|a| a.as_str().filter(|a| a.contains("/tcp/"))).unwrap();
    let address = format!("{listen}/p2p/{}", info["peer_id"].as_str().unwrap()).parse().unwrap();
    World { node, chain: record.chain_id(), address }
}

impl World {
    fn metric(&self, series: &str) -> u64 {
        let text = ureq::get(format!("{}/metrics", self.node.api)).call().unwrap().body_mut().read_to_string().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} in\n{text}")).parse().unwrap()
    }

    fn count(&self, offence: Offence) -> u64 {
        self.metric(&format!("ebpf_node_offences_total{{offence=\"{offence}\"}}"))
    }

    fn all(&self) -> Vec<(Offence, u64)> {
        Offence::ALL.into_iter().map(|offence| (offence, self.count(offence))).filter(|(_, count)| *count > 0).collect()
    }

    /// A peer of the node, under a new name; with a key it proves that.
    async fn peer(&self, key: Option<AccountKey>) -> Peer {
        self.peer_at(self.address.clone(), key).await
    }

    /// The same, by another way to the node.
    async fn peer_at(&self, address: Multiaddr, key: Option<AccountKey>) -> Peer {
        let keypair = Keypair::generate_ed25519();
        let proof = key.map(|key| {
            let bytes = ProofOfValidator::signing_bytes(&self.chain, &keypair.public().to_peer_id().to_bytes());
            ProofOfValidator { key: key.public(), signature: key.sign(&bytes) }
        });
        let hello = Hello { version: WIRE_VERSION, chain: self.chain, validator: proof };
        let config = network::Config { peers: vec![address], ..network::Config::default() };
        let (handle, mut events, task) = network::spawn(config, keypair, &hello).unwrap();
        let connected = async {
            loop {
                if let Event::Connected(connected) = events.recv().await.unwrap() {
                    break connected.peer;
                }
            }
        };
        let peer = tokio::time::timeout(PATIENCE, connected).await.expect("a connection in time");
        Peer { handle, events, task, peer }
    }

    /// What a peer commits with these messages: this offence and no other. Afterwards nobody is connected.
    async fn commits(&self, key: Option<AccountKey>, offence: Offence, act: impl AsyncFnOnce(&mut Peer)) {
        let before = self.all();
        let count = self.count(offence);
        let mut peer = self.peer(key).await;
        act(&mut peer).await;
        await_that(offence.as_str(), || self.count(offence) > count);
        peer.stop().await;
        await_that("it is gone", || self.metric("ebpf_node_peers_connected") == 0);
        let other = |list: Vec<(Offence, u64)>| list.into_iter().filter(|(found, _)| *found != offence).collect::<Vec<_>>();
        assert_eq!(other(self.all()), other(before), "beside {offence}");
    }

    fn transfer(&self, from: u32, nonce: u64) -> SignedTransaction {
        let sender = AccountKey::development(from);
        let action = Action::Transfer { to: AccountKey::development(0).public().address(), amount: Amount(1), memo: Vec::new() };
        let (chain, expiry) = (self.chain, Height(100));
        Transaction { chain, sender: sender.public(), nonce: Nonce(nonce), expiry, action }.sign(&sender)
    }

    fn vote(&self, key: &AccountKey, view: u64, digest: u8) -> Message {
        let digest = BlockHash(Hash([digest; 32]));
        let statement =
            Statement { chain: self.chain, epoch: Epoch(0), view: View(view), kind: Kind::Notarize, parent_view: View(0), digest };
        let signed = SignedStatement { statement, key: key.public(), signature: key.sign(&statement.signing_bytes()) };
        Message::Vote(Box::new(Vote { signed, certificate: None }))
    }

    /// A view that the node has not left, and won't as long as nobody sends anything.
    fn view(&self) -> u64 {
        self.node.number("view") + 10
    }
}

struct Peer {
    handle: network::Handle,
    events: network::Events,
    task: tokio::task::JoinHandle<()>,
    peer: u64,
}

impl Peer {
    /// Sends, and waits for room.
    async fn send(&self, message: Message) {
        let sent = async {
            while let Err(network::SendError::Full) = self.handle.send(self.peer, &message) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, sent).await.expect("room in time");
    }

    /// Waits for a message.
    async fn hear(&mut self, pick: impl Fn(&Message) -> bool) {
        let heard = async {
            loop {
                if let Event::Message { message, .. } = self.events.recv().await.unwrap()
                    && pick(&message)
                {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("an answer in time");
    }

    /// Waits until the node has closed it.
    async fn falls(&mut self) {
        let fell = async { while !matches!(self.events.recv().await.unwrap(), Event::Disconnected { .. }) {} };
        tokio::time::timeout(PATIENCE, fell).await.expect("its end in time");
    }

    async fn stop(self) {
        self.handle.shutdown();
        self.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_offence_is_told_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path(), &[]);
    let impossible = world.vote(&weak(), 0, 1);
    world.commits(None, Offence::Malformed, async |peer| peer.send(impossible).await).await;
    world.commits(None, Offence::BadSignature, async |peer| peer.send(forged(&world)).await).await;
    let again = Message::Transactions(vec![world.transfer(3, 0)]);
    world
        .commits(None, Offence::Replay, async |peer| {
            for _ in 0..40 {
                peer.send(again.clone()).await;
            }
        })
        .await;
    world
        .commits(None, Offence::Rate, async |peer| {
            for _ in 0..1_200 {
                peer.send(Message::FetchBlock(BlockHash::default())).await;
            }
        })
        .await;
    world.commits(None, Offence::InvalidBlock, async |peer| peer.send(usurped(&world)).await).await;
    let view = world.view();
    world
        .commits(Some(weak()), Offence::Equivocation, async |peer| {
            peer.send(world.vote(&weak(), view, 1)).await;
            peer.send(world.vote(&weak(), view, 2)).await;
        })
        .await;
    // Told by the network, of a peer that never stands: a proof of a validator key that is another's.
    let (other, count) = (Keypair::generate_ed25519(), world.count(Offence::BadSignature));
    let bytes = ProofOfValidator::signing_bytes(&world.chain, &other.public().to_peer_id().to_bytes());
    let proof = ProofOfValidator { key: weak().public(), signature: weak().sign(&bytes) };
    let hello = Hello { version: WIRE_VERSION, chain: world.chain, validator: Some(proof) };
    let (liar, task) = start(&world, &hello);
    await_that("the lie is told", || world.count(Offence::BadSignature) > count);
    liar.shutdown();
    task.await.unwrap();
    assert_eq!([world.count(Offence::Manual), world.count(Offence::List)], [0, 0], "an operator's, never the node's");
}

/// A node that dials with this hello for as long as it runs.
fn start(world: &World, hello: &Hello) -> (network::Handle, tokio::task::JoinHandle<()>) {
    let config = network::Config { peers: vec![world.address.clone()], ..network::Config::default() };
    let (handle, mut events, task) = network::spawn(config, Keypair::generate_ed25519(), hello).unwrap();
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    (handle, task)
}

/// A proposal of somebody who does not lead.
fn usurped(world: &World) -> Message {
    let info: BlockInfo = serde_json::from_value(world.node.get("/api/v1/blocks/1")).unwrap();
    let block = Block { header: info.header, body: info.body };
    let key = AccountKey::development(5);
    let statement = Statement {
        chain: world.chain,
        epoch: Epoch(0),
        view: View(world.view()),
        kind: Kind::Propose,
        parent_view: View(0),
        digest: block.hash(),
    };
    let head = SignedStatement { statement, key: key.public(), signature: key.sign(&statement.signing_bytes()) };
    Message::Proposal(Box::new(Proposal { head, block, admitting: None }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_mistakes_are_no_offence() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path(), &[]);
    let mut peer = world.peer(Some(weak())).await;
    let is_status = |message: &Message| matches!(message, Message::Status(_));
    // On connect it says where it stands.
    peer.hear(is_status).await;
    let view = world.view();
    // Late, duplicate, far ahead, of another epoch, unknown.
    for _ in 0..10 {
        peer.send(world.vote(&weak(), view, 1)).await;
        peer.send(world.vote(&weak(), 1, 1)).await;
        peer.send(Message::Transactions(vec![world.transfer(2, 0), world.transfer(2, 0)])).await;
        peer.send(Message::Transactions(vec![world.transfer(0, 0)])).await;
        peer.send(Message::FetchBatches(vec![types::BatchId::default()])).await;
        peer.send(Message::FetchCertificate { epoch: Epoch(9), view: View(9), kind: Kind::Finalize }).await;
        peer.send(Message::Announce(vec![types::BatchId::default()])).await;
        peer.send(Message::Sync(Height(1_000_000))).await;
    }
    peer.send(world.vote(&weak(), 60_000, 1)).await;
    // The last of each lane is answered, so all before it were judged.
    let known: BlockInfo = serde_json::from_value(world.node.get("/api/v1/blocks/1")).unwrap();
    peer.send(Message::FetchBlock(known.hash)).await;
    peer.hear(|message| matches!(message, Message::Block(_))).await;
    peer.send(Message::Status(Status { epoch: Epoch(0), final_view: View(0), height: Height(0) })).await;
    peer.hear(is_status).await;
    assert_eq!(world.all(), []);
    assert_eq!(world.metric("ebpf_node_peers_connected"), 1, "nobody was closed");
    peer.stop().await;
    // A node of a later release, and one of another chain, are refused and not accused.
    for hello in [
        Hello { version: WIRE_VERSION + 1, chain: world.chain, validator: None },
        Hello { version: WIRE_VERSION, chain: ChainId(Hash([9; 32])), validator: None },
    ] {
        let (handle, task) = start(&world, &hello);
        let reason = if hello.version == WIRE_VERSION { "chain" } else { "version" };
        await_that(reason, || world.metric(&format!("ebpf_node_refusals_total{{reason=\"{reason}\"}}")) > 0);
        handle.shutdown();
        task.await.unwrap();
    }
    assert_eq!(world.all(), []);
}

/// A way to a node's TCP port that spoils one byte of what is sent to it, once it is told to.
async fn spoiler(node: SocketAddr) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (port, spoil) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&spoil);
    tokio::spawn(async move {
        while let Ok((peer, _)) = listener.accept().await {
            let (mut from, mut back) = peer.into_split();
            let (mut answers, mut to) = TcpStream::connect(node).await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                let mut buffer = vec![0; 4096];
                while let Ok(length @ 1..) = from.read(&mut buffer).await {
                    // The last byte of a packet of noise is its seal's.
                    buffer[length - 1] ^= u8::from(told.swap(false, Ordering::SeqCst));
                    if to.write_all(&buffer[..length]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (port, spoil)
}

/// What can't be decrypted, or is no handshake, can be anybody's on the way: the connection ends, and nobody is accused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decrypted_accuses_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (world, guard) = guarded(folder.path(), &[]);
    let (node, _) = network::socket_of(&world.address).unwrap();
    let (port, spoil) = spoiler(node).await;
    let address = world.address.to_string().replace(&format!("/tcp/{}/", node.port()), &format!("/tcp/{port}/"));
    let mut peer = world.peer_at(address.parse().unwrap(), None).await;
    spoil.store(true, Ordering::SeqCst);
    peer.send(Message::FetchBlock(BlockHash::default())).await;
    peer.falls().await;
    assert!(!spoil.load(Ordering::SeqCst), "a byte was spoiled");
    peer.stop().await;
    let mut stream = TcpStream::connect(node).await.unwrap();
    stream.write_all(&[0xff; 256]).await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the node ends what is no handshake");
    // Who came after them is told to the guard, and no ban before.
    let innocent = world.peer(None).await;
    let name = innocent.handle.peer_id().to_string();
    guard.until(|request| match request {
        Request::FlowAdd { label, .. } if label == name => Some(()),
        Request::Ban { .. } => panic!("{request:?}"),
        _ => None,
    });
    assert_eq!(world.all(), []);
    innocent.stop().await;
}

/// A node with a guard that remembers.
fn guarded(folder: &Path, changes: &[(&str, &str)]) -> (World, FakeGuard) {
    let guard = FakeGuard::start(folder);
    let socket = format!("socket = {:?}", guard.socket.display().to_string());
    let changes: Vec<_> = changes.iter().copied().chain([("# socket = \"/run/ebpf-guard/guard.sock\"", &socket[..])]).collect();
    (world(folder, &changes), guard)
}

fn forged(world: &World) -> Message {
    let mut forged = world.transfer(2, 0);
    forged.signature.0[9] ^= 1;
    Message::Transactions(vec![forged])
}

/// Alone behind its address, the guilty one is banned; beside an innocent one it is limited, and the innocent one stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_address_is_limited_and_a_lone_one_banned() {
    let folder = tempfile::tempdir().unwrap();
    let (world, guard) = guarded(folder.path(), &[]);
    let innocent = world.peer(None).await;
    let mut guilty = world.peer(None).await;
    guilty.send(forged(&world)).await;
    guilty.falls().await;
    assert_eq!(world.metric("ebpf_node_peers_limited_total"), 1);
    let limited = "ebpf_node_refusals_total{reason=\"limited\"}";
    await_that("it dials again and is refused", || world.metric(limited) > 2);
    assert_eq!(world.metric("ebpf_node_peers_connected"), 1, "the innocent one stays");
    guilty.stop().await;
    // Now it is alone behind its address.
    innocent.send(forged(&world)).await;
    let ban = guard.until(|request| match request {
        Request::Ban { address, offence, .. } => Some((address.to_string(), offence)),
        _ => None,
    });
    assert_eq!(ban, ("127.0.0.1/32".to_owned(), Offence::BadSignature));
    innocent.stop().await;
}

/// A flood of connections makes the node ask for a smaller budget, and accuses nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_squeezes_the_budget_of_handshakes() {
    let folder = tempfile::tempdir().unwrap();
    let (world, guard) = guarded(folder.path(), &[("flood_arrivals_per_s = 200", "flood_arrivals_per_s = 5")]);
    let (socket, _) = network::socket_of(&world.address).unwrap();
    let pour = tokio::spawn(async move {
        loop {
            drop(tokio::net::TcpStream::connect(socket).await);
        }
    });
    let squeeze = tokio::task::spawn_blocking(move || {
        guard.until(|request| if let Request::Budget { name, for_ms, .. } = request { Some((name, for_ms)) } else { None })
    });
    assert_eq!(squeeze.await.unwrap(), ("handshakes".to_owned(), Some(30_000)));
    pour.abort();
    await_that("the flood is counted", || world.metric("ebpf_node_handshake_floods_total") >= 1);
    await_that("the squeeze is counted", || world.metric("ebpf_node_handshake_budget_squeezes_total") >= 1);
    assert_eq!(world.all(), []);
}

/// Anybody can prove some key: the floor is for keys of the present epoch's record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_present_validators_have_the_floor() {
    let folder = tempfile::tempdir().unwrap();
    let (world, guard) = guarded(folder.path(), &[]);
    // One part of 101 is the weak validator's.
    for (key, expect) in [
        (Some(weak()), (FlowKind::Floor, Some(9_900))),
        (Some(AccountKey::development(41)), (FlowKind::Known, None)),
        (None, (FlowKind::Known, None)),
    ] {
        let peer = world.peer(key).await;
        let name = peer.handle.peer_id().to_string();
        let told = guard.until(|request| match request {
            Request::FlowAdd { class, label, stake_ppm, .. } if label == name => Some((class, stake_ppm)),
            _ => None,
        });
        assert_eq!(told, expect);
        peer.stop().await;
    }
}
