//! Pressures over real connections: they refuse seats, are counted, accuse nobody, and end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use network::{Connected, Event, Refusal, Transport};

use crate::world::{Node, Recipe, validator_key, vote};

async fn stranger(of: &Node) -> Node {
    Recipe::new(Transport::Tcp).peer(&of.address).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sybils_get_no_seat_and_the_first_come_back() {
    let mut recipe = Recipe::new(Transport::Tcp);
    recipe.config.limits.identities_per_prefix_max = 2;
    let mut node = recipe.start().await;
    let known = Recipe::new(Transport::Tcp).peer(&node.address);
    let first = known.start().await;
    node.connected().await;
    let second = stranger(&node).await;
    node.connected().await;
    second.stop().await;
    node.disconnected().await;
    // There are seats enough, but this prefix has brought as many identities as it may.
    let third = stranger(&node).await;
    node.refused_quietly(Refusal::Sybil, 4).await;
    assert!(node.handle.counters().sybil_attempts.load(Ordering::Relaxed) >= 2, "it tries again, and is counted again");
    first.stop().await;
    node.disconnected().await;
    let first = known.start().await;
    assert_eq!(node.connected().await.peer_id, first.handle.peer_id());
    for other in [first, third, node] {
        other.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_prefix_holds_few_seats() {
    let mut recipe = Recipe::new(Transport::Tcp);
    recipe.config.limits.strangers_per_prefix_max = 1;
    recipe.config.validators = vec![validator_key(1)];
    let mut node = recipe.start().await;
    let first = stranger(&node).await;
    node.connected().await;
    let second = stranger(&node).await;
    node.refused_quietly(Refusal::Eclipse, 2).await;
    assert!(node.handle.counters().eclipse_refusals.load(Ordering::Relaxed) >= 1);
    let validator = Recipe::new(Transport::Tcp).validator(1).peer(&node.address).start().await;
    assert_eq!(node.connected().await.validator, Some(validator_key(1)));
    for other in [first, second, validator, node] {
        other.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_handshakes_is_told_and_bans_nobody() {
    let mut recipe = Recipe::new(Transport::Tcp);
    recipe.config.limits.flood_arrivals_per_s = 5;
    let mut node = recipe.start().await;
    let (socket, _) = network::socket_of(&node.address).unwrap();
    let pour = tokio::spawn(async move {
        let mut open = std::collections::VecDeque::new();
        loop {
            open.extend(tokio::net::TcpStream::connect(socket).await);
            if open.len() > 8 {
                open.pop_front();
            }
        }
    });
    loop {
        match node.recv().await {
            Event::HandshakeFlood { begins } => break assert!(begins),
            Event::Offence { .. } => panic!("a flood proves nothing about anybody"),
            _ => {}
        }
    }
    assert_eq!(node.handle.counters().handshake_floods.load(Ordering::Relaxed), 1);
    pour.abort();
    node.stop().await;
}

/// A node with two standing strangers behind one address.
async fn behind_one_address() -> (Node, [(Node, Connected); 2]) {
    let mut recipe = Recipe::new(Transport::Tcp);
    recipe.config.validators = vec![validator_key(1)];
    let mut node = recipe.start().await;
    let guilty = stranger(&node).await;
    let guilty = (guilty, node.connected().await);
    let innocent = stranger(&node).await;
    let innocent = (innocent, node.connected().await);
    (node, [guilty, innocent])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guilty_one_behind_a_shared_address_is_limited_and_the_innocent_stays() {
    let (mut node, [(guilty, at), (mut innocent, _)]) = behind_one_address().await;
    assert!(node.handle.limit(at.peer_id, at.address().ip(), Duration::from_secs(3600)));
    assert_eq!(node.disconnected().await, at.peer);
    // It dials again, and is refused before it has said hello.
    node.refused_quietly(Refusal::Limited, 4).await;
    // Another name does not help it.
    let renamed = stranger(&node).await;
    let before = node.handle.counters().refusals(Refusal::Limited);
    node.refused_quietly(Refusal::Limited, before + 2).await;
    assert_eq!(node.handle.peers().iter().map(|peer| peer.peer_id).collect::<Vec<_>>(), [innocent.handle.peer_id()]);
    let to_node = innocent.connected().await.peer;
    innocent.handle.send(to_node, &vote(7)).unwrap();
    assert_eq!(node.message().await.1, vote(7));
    let validator = Recipe::new(Transport::Tcp).validator(1).peer(&node.address).start().await;
    assert_eq!(node.connected().await.validator, Some(validator_key(1)), "a validator behind the same address");
    for other in [guilty, innocent, renamed, validator, node] {
        other.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_ends() {
    let (mut node, [(guilty, at), (innocent, _)]) = behind_one_address().await;
    assert!(node.handle.limit(at.peer_id, at.address().ip(), Duration::from_millis(200)));
    assert_eq!(node.disconnected().await, at.peer);
    assert_eq!(node.connected().await.peer_id, at.peer_id);
    for other in [guilty, innocent, node] {
        other.stop().await;
    }
}
