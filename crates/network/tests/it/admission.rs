//! Who gets a seat when there are few.

use std::time::Duration;

use network::{Refusal, Transport};

use crate::world::{Node, Recipe, validator_key};

/// A node with so many seats for strangers, in which validator 1 has a part.
async fn crowded(strangers: usize) -> Node {
    let mut recipe = Recipe::new(Transport::Tcp);
    recipe.config.limits.strangers_max = strangers;
    recipe.config.validators = vec![validator_key(1)];
    recipe.start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_leave_room_for_validators_and_configured_peers() {
    let mut node = crowded(1).await;
    let stranger = Recipe::new(Transport::Tcp).peer(&node.address).start().await;
    let first = node.connected().await;
    assert_eq!(first.peer_id, stranger.handle.peer_id());
    let second = Recipe::new(Transport::Tcp).validator(9).peer(&node.address).start().await;
    node.refused(Refusal::Seats, 2).await;
    assert_eq!(node.handle.peers().len(), 1, "a key of nobody in the set is a stranger's");
    second.stop().await;

    let validator = Recipe::new(Transport::Tcp).validator(1).peer(&node.address).start().await;
    assert_eq!(node.connected().await.validator, Some(validator_key(1)));
    let mut friend = Recipe::new(Transport::Tcp).start().await;
    node.handle.dial(friend.address.clone()).unwrap();
    friend.connected().await;
    assert_eq!(node.connected().await.peer_id, friend.handle.peer_id());
    assert_eq!(node.handle.peers().len(), 3);

    // A key that joins the set takes a reserved seat from then on.
    node.handle.set_validators([validator_key(1), validator_key(9)]);
    let late = Recipe::new(Transport::Tcp).validator(9).peer(&node.address).start().await;
    assert_eq!(node.connected().await.validator, Some(validator_key(9)));
    for other in [stranger, validator, friend, late, node] {
        other.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_source_has_few_seats() {
    let mut recipe = Recipe::new(Transport::Tcp);
    recipe.config.limits.strangers_per_source_max = 2;
    let mut node = recipe.start().await;
    let mut others = Vec::new();
    for _ in 0..2 {
        others.push(Recipe::new(Transport::Tcp).peer(&node.address).start().await);
        node.connected().await;
    }
    others.push(Recipe::new(Transport::Tcp).peer(&node.address).start().await);
    node.refused(Refusal::Source, 2).await;
    assert_eq!(node.handle.peers().len(), 2);
    // A seat that is left is free again: the third keeps dialling and gets it.
    others.swap_remove(0).stop().await;
    node.disconnected().await;
    assert_eq!(node.connected().await.peer_id, others[0].handle.peer_id());
    for other in others {
        other.stop().await;
    }
    node.stop().await;
}

/// Connections that say nothing are closed at their deadline, and no more of them come from one source than may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_few_and_short() {
    let mut recipe = Recipe::new(Transport::Tcp);
    recipe.config.limits.pending_per_source_max = 4;
    recipe.config.limits.handshake_timeout = Duration::from_millis(300);
    recipe.config.limits.dial_timeout = Duration::from_millis(300);
    let mut node = recipe.start().await;
    let (socket, _) = network::socket_of(&node.address).unwrap();
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(tokio::net::TcpStream::connect(socket).await.unwrap());
    }
    node.refused(Refusal::Source, 6).await;
    // Those that were let in time out in noise; then there is room for a peer.
    node.refused(Refusal::Transport, 4).await;
    let other = Recipe::new(Transport::Tcp).peer(&node.address).start().await;
    assert_eq!(node.connected().await.peer_id, other.handle.peer_id());
    drop(silent);
    other.stop().await;
    node.stop().await;
}
