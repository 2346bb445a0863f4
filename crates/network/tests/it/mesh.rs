//! Peers come to stand, on either transport, whoever dials, and come back after a loss.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use network::{Event, Handle, Transport};

use crate::world::{Node, Recipe, batch, flows, number, validator_key, vote};

async fn exchanges_on_both_lanes(transport: Transport) {
    let mut listener = Recipe::new(transport).validator(1).start().await;
    let mut dialer = Recipe::new(transport).peer(&listener.address).start().await;
    let there = dialer.connected().await;
    let here = listener.connected().await;
    assert_eq!((there.peer_id, here.peer_id), (listener.handle.peer_id(), dialer.handle.peer_id()));
    assert_eq!((there.outbound, here.outbound), (true, false));
    assert_eq!((there.validator, here.validator), (Some(validator_key(1)), None));
    assert_eq!(listener.handle.counters().arrivals.load(Ordering::Relaxed), 2, "a connection a lane");
    if transport == Transport::Tcp {
        let [votes, bulk] = flows(&here);
        assert_ne!(votes, bulk);
    }
    let port = there.address().port();
    assert_eq!(here.local_port(), Some(port), "what the guard protects");

    dialer.handle.send(there.peer, &vote(7)).unwrap();
    dialer.handle.send(there.peer, &batch(8, 300_000)).unwrap();
    let mut received = BTreeSet::new();
    for _ in 0..2 {
        let (peer, message) = listener.message().await;
        assert_eq!(peer, here.peer);
        listener.handle.send(peer, &message).unwrap();
        received.insert(number(&message).unwrap());
    }
    assert_eq!(received, BTreeSet::from([7, 8]));
    let echoes = [dialer.message().await.1, dialer.message().await.1];
    assert!(echoes.contains(&vote(7)) && echoes.contains(&batch(8, 300_000)));

    let info = dialer.handle.peer(there.peer).unwrap();
    assert_eq!(info.lanes.map(|lane| (lane.messages_in, lane.messages_out)), [(1, 1), (1, 1)]);
    assert!(info.lanes[1].bytes_out > 300_000 && info.lanes[0].bytes_out < 1000);
    dialer.stop().await;
    assert_eq!(listener.disconnected().await, here.peer);
    assert_eq!(listener.handle.peers(), []);
    listener.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanges_on_both_lanes_tcp() {
    exchanges_on_both_lanes(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanges_on_both_lanes_quic() {
    exchanges_on_both_lanes(Transport::Quic).await;
}

/// Round trips are measured, software names itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_are_measured() {
    let mut listener = Recipe::new(Transport::Tcp).start().await;
    let dialer = Recipe::new(Transport::Tcp).peer(&listener.address).start().await;
    let peer = listener.connected().await.peer;
    let measured = |handle: &Handle| {
        let info = handle.peer(peer)?;
        (info.lanes.iter().all(|lane| lane.rtt.is_some()) && info.agent.is_some()).then_some(info)
    };
    let info = loop {
        match measured(&listener.handle) {
            Some(info) => break info,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert!(info.agent.unwrap().starts_with("ebpf-node/"));
    dialer.stop().await;
    listener.stop().await;
}

/// What a node has been told of its peers.
#[derive(Default)]
struct View {
    standing: BTreeMap<u64, network::PeerId>,
    heard: BTreeSet<network::PeerId>,
}

impl View {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Connected(connected) => {
                let before = self.standing.insert(connected.peer, connected.peer_id);
                assert_eq!(before, None, "a handle is used once");
                let same = self.standing.values().filter(|peer_id| **peer_id == connected.peer_id).count();
                assert_eq!(same, 1, "one entry a peer");
            }
            Event::Disconnected { peer } => {
                assert!(self.standing.remove(&peer).is_some(), "only who stood can fall");
            }
            Event::Message { peer, .. } => {
                self.heard.insert(self.standing[&peer]);
            }
            Event::Offence { offence, detail, .. } => panic!("{offence}: {detail}"),
            Event::Dialing { .. } | Event::Listening(_) | Event::HandshakeFlood { .. } => {}
        }
    }
}

/// Pumps a node's events, greeting whoever stands, until all nodes have heard all others: `waiting` counts those that have not.
async fn until_all_heard(mut node: Node, others: usize, waiting: &AtomicUsize) -> Node {
    let mut view = View::default();
    let mut heard = false;
    let mut greet = tokio::time::interval(Duration::from_millis(20));
    while waiting.load(Ordering::SeqCst) > 0 {
        tokio::select! {
            // A standing may be replaced right after it began, and its greeting be lost: say it to each handle, and often.
            _ = greet.tick() => view.standing.keys().for_each(|peer| _ = node.handle.send(*peer, &vote(1))),
            event = node.events.recv() => view.apply(event.unwrap()),
        }
        if !heard && view.heard.len() == others {
            heard = true;
            waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
    node
}

/// Four nodes that all dial each other at the same moment.
async fn four_nodes_form_a_mesh(transport: Transport) {
    const NODES: usize = 4;
    let recipes: Vec<Recipe> = (0..NODES as u32)
        .map(|index| {
            let mut recipe = Recipe::new(transport).validator(index);
            recipe.config.limits.deference = Duration::ZERO;
            recipe
        })
        .collect();
    let mut nodes = Vec::new();
    for recipe in &recipes {
        nodes.push(recipe.start().await);
    }
    let addresses: Vec<_> = nodes.iter().map(|node| node.address.clone()).collect();
    for node in &nodes {
        for address in addresses.iter().filter(|address| **address != node.address) {
            node.handle.dial(address.clone()).unwrap();
        }
    }
    let waiting = AtomicUsize::new(NODES);
    let nodes = futures::future::join_all(nodes.into_iter().map(|node| until_all_heard(node, NODES - 1, &waiting))).await;
    for node in &nodes {
        let peers = node.handle.peers();
        let ids: BTreeSet<_> = peers.iter().map(|peer| peer.peer_id).collect();
        assert!(ids.len() == peers.len() && peers.len() < NODES, "one entry a peer");
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes_form_a_mesh_tcp() {
    four_nodes_form_a_mesh(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes_form_a_mesh_quic() {
    four_nodes_form_a_mesh(Transport::Quic).await;
}

/// The first life of the peer has a runtime of its own: dropping it closes its sockets without a word, as a kill does.
async fn a_restarted_peer_is_dialled_again(transport: Transport) {
    let mut recipe = Recipe::new(transport);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = {
        let recipe = recipe.clone();
        runtime.spawn(async move { recipe.start().await }).await.unwrap()
    };
    let mut dialer = Recipe::new(transport).peer(&first.address).start().await;
    let before = dialer.connected().await;
    // The same identity at the same address.
    let mut address = first.address.clone();
    address.pop();
    recipe.config.listen = vec![address];
    tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    let second = recipe.start().await;
    assert_eq!(dialer.disconnected().await, before.peer);
    let after = dialer.connected().await;
    assert_eq!(after.peer_id, before.peer_id);
    assert!(after.peer > before.peer, "a standing has a handle of its own");
    assert!(matches!(dialer.handle.send(before.peer, &vote(1)), Err(network::SendError::Gone)));
    dialer.handle.send(after.peer, &vote(1)).unwrap();
    second.stop().await;
    dialer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_dialled_again_tcp() {
    a_restarted_peer_is_dialled_again(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_dialled_again_quic() {
    a_restarted_peer_is_dialled_again(Transport::Quic).await;
}

/// Of two addresses of a peer the second works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_tried_in_turn() {
    let mut listener = Recipe::new(Transport::Quic).start().await;
    let dead = "/ip4/127.0.0.1/tcp/1".parse::<network::Multiaddr>().unwrap().with_p2p(listener.handle.peer_id()).unwrap();
    let mut dialer = Recipe::new(Transport::Tcp).peer(&dead).peer(&listener.address).start().await;
    assert_eq!(dialer.connected().await.transport(), Transport::Quic);
    listener.connected().await;
    // Closed by hand, it comes back as a configured peer does.
    let peer = dialer.handle.peers()[0].peer;
    dialer.handle.disconnect(peer);
    assert_eq!(dialer.disconnected().await, peer);
    assert!(dialer.connected().await.peer > peer);
    dialer.stop().await;
    listener.stop().await;
}

/// After the end: events run dry, sends and dials say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_told() {
    let mut listener = Recipe::new(Transport::Quic).start().await;
    let mut dialer = Recipe::new(Transport::Quic).peer(&listener.address).start().await;
    let there = dialer.connected().await.peer;
    let here = listener.connected().await.peer;
    let address = listener.address.clone();
    dialer.handle.shutdown();
    while dialer.events.recv().await.is_some() {}
    assert_eq!(listener.disconnected().await, here, "at once, though QUIC has no FIN");
    let handle = dialer.handle.clone();
    dialer.stop().await;
    assert!(matches!(handle.send(there, &vote(1)), Err(network::SendError::Gone)));
    assert!(matches!(handle.dial(address.clone()), Err(network::DialError::Ended)));
    assert_eq!(handle.peers(), []);
    let nobody: network::Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    assert!(matches!(listener.handle.dial(nobody), Err(network::DialError::Address(_))));
    listener.stop().await;
}
