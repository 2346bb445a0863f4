//! A chain of one validator: the whole way of a transaction without a network.

use replica::{Config, Event, Input, SubmitError, Token};
use types::Height;

use crate::shell::{Node, genesis, transfer};

#[test]
fn a_transaction_becomes_final_and_its_root_after_it() {
    let genesis = genesis(1);
    let mut node = Node::start(&genesis, Some(0), Config::default());
    let mut forged = transfer(&genesis, 1, 0);
    forged.signature.0[0] ^= 1;
    let good = transfer(&genesis, 0, 0);
    node.tell(Input::Submit { token: Token(7), transactions: vec![good.clone(), forged] });
    assert_eq!(node.answers.len(), 2);
    assert_eq!(node.answers[0].as_ref().unwrap(), &good.id());
    assert_eq!(node.answers[1], Err(SubmitError::Signature));
    node.pass_ms(1_000);
    let executed = node.events.iter().find_map(|event| match event {
        Event::Executed(executed) if !executed.receipts.is_empty() => Some(executed.clone()),
        _ => None,
    });
    let executed = executed.expect("the transaction is executed");
    assert_eq!(executed.receipts[0].id, good.id());
    let summary = node.replica.summary();
    let named = node.finals.get(&summary.height).unwrap().block.header.executed;
    assert!(named >= executed.height, "the root of height {} stands in a final header", executed.height);
    assert!(!node.replica.is_pending(&good.id()));
}

#[test]
fn epochs_follow_each_other() {
    let genesis = genesis(1);
    let mut node = Node::start(&genesis, Some(0), Config::default());
    for nonce in 0..12 {
        node.tell(Input::Submit { token: Token(nonce), transactions: vec![transfer(&genesis, 0, nonce)] });
        node.pass_ms(200);
    }
    let summary = node.replica.summary();
    assert!(summary.height >= Height(12) && summary.epoch.0 >= 2, "{summary:?}");
    for (height, block) in &node.finals {
        assert_eq!(block.block.header.epoch.0, (height.0 - 1) / 4);
    }
    node.replica.ledger().audit().unwrap();
}
