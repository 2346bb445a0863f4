//! A node without a key follows a validator: blocks by sync, batches by fetch, transactions forwarded.

use std::sync::Arc;

use replica::{Config, Input, Peer, Token};
use types::Message;

use crate::shell::{Node, genesis, key, transfer};

/// Carries messages between the two until neither has any.
fn exchange(one: &mut Node, other: &mut Node) {
    loop {
        let (from_one, from_other) = (std::mem::take(&mut one.sent), std::mem::take(&mut other.sent));
        if from_one.is_empty() && from_other.is_empty() {
            return;
        }
        for (_, message) in from_one {
            let bytes = message.to_bytes();
            let message = Message::from_bytes(&bytes, message.lane()).unwrap();
            other.tell(Input::Message { peer: Peer(1), message });
        }
        for (_, message) in from_other {
            one.tell(Input::Message { peer: Peer(2), message: Arc::unwrap_or_clone(message) });
        }
    }
}

fn pass(one: &mut Node, other: &mut Node, ms: u64) {
    for _ in 0..ms / 5 {
        one.pass_ms(5);
        other.pass_ms(5);
        exchange(one, other);
    }
}

#[test]
fn a_late_follower_catches_up_and_forwards() {
    let genesis = genesis(1);
    let mut validator = Node::start(&genesis, Some(0), Config::default());
    for nonce in 0..10 {
        validator.tell(Input::Submit { token: Token(nonce), transactions: vec![transfer(&genesis, 0, nonce)] });
        validator.pass_ms(150);
    }
    let before = validator.replica.summary();
    assert!(before.epoch.0 >= 1);

    let mut follower = Node::start(&genesis, None, Config::default());
    follower.now = validator.now;
    follower.tell(Input::PeerConnected { peer: Peer(1), validator: Some(key(0).public()) });
    validator.tell(Input::PeerConnected { peer: Peer(2), validator: None });
    pass(&mut validator, &mut follower, 3_000);
    let after = follower.replica.summary();
    assert!(after.height >= before.height && !after.validator, "{after:?}");
    assert_eq!(after.executed, after.height);
    assert_eq!(follower.replica.ledger().root_at(before.height), validator.replica.ledger().root_at(before.height));

    let forwarded = transfer(&genesis, 3, 0);
    follower.tell(Input::Submit { token: Token(99), transactions: vec![forwarded.clone()] });
    pass(&mut validator, &mut follower, 1_500);
    assert!(!follower.replica.is_pending(&forwarded.id()), "its receipt came back");
    assert!(validator.offences.is_empty() && follower.offences.is_empty());
}
