//! What is an offence, and what never is.

use std::sync::Arc;

use replica::{Config, Input, Peer};
use types::{
    Batch, BatchHeader, BlockHash, Certificate, ChainId, Epoch, GenesisRecord, Hash, Height, Kind, Message, Offence, Seat,
    Sequence, SignedStatement, SignedTransaction, Statement, View, Vote, transactions_root,
};

use crate::shell::{Node, genesis, key, transfer};

const PEER: Peer = Peer(5);

fn node(genesis: &GenesisRecord) -> Node {
    let mut node = Node::start(genesis, Some(0), Config::default());
    node.tell(Input::PeerConnected { peer: PEER, validator: Some(key(1).public()) });
    node
}

fn signed(statement: Statement) -> SignedStatement {
    SignedStatement { statement, key: key(1).public(), signature: key(1).sign(&statement.signing_bytes()) }
}

fn vote(signed: SignedStatement) -> Message {
    Message::Vote(Box::new(Vote { signed, certificate: None }))
}

fn nullify(chain: ChainId, epoch: u64, view: u64) -> Statement {
    Statement::nullify(chain, Epoch(epoch), View(view))
}

/// What a fresh node charges its peer with for these messages.
fn check(messages: impl Fn(&GenesisRecord) -> Vec<Message>, expect: &[Offence]) {
    let genesis = genesis(4);
    let mut node = node(&genesis);
    for message in messages(&genesis) {
        node.tell(Input::Message { peer: PEER, message });
    }
    let found: Vec<Offence> = node
        .offences
        .iter()
        .map(|(peer, offence)| {
            assert_eq!(*peer, PEER);
            *offence
        })
        .collect();
    assert_eq!(found, expect);
}

fn batch(genesis: &GenesisRecord, transactions: Vec<SignedTransaction>) -> Batch {
    let header = BatchHeader {
        chain: genesis.chain_id(),
        epoch: Epoch(0),
        author: key(1).public(),
        sequence: Sequence(0),
        expiry: Height(50),
        count: transactions.len() as u32,
        bytes: transactions.iter().map(SignedTransaction::size).sum::<usize>() as u32,
        root: transactions_root(transactions.iter().map(SignedTransaction::id)),
    };
    let signature = key(1).sign(&header.signing_bytes());
    Batch { header, signature, transactions }
}

#[test]
fn honest_mistakes_are_none() {
    check(
        |genesis| {
            let chain = genesis.chain_id();
            let good = vote(signed(nullify(chain, 0, 1)));
            vec![
                good.clone(),
                good,
                vote(signed(nullify(chain, 0, 60_000))),
                vote(signed(nullify(chain, 9, 1))),
                Message::Sync(Height(1_000_000)),
                Message::Sync(Height(0)),
                Message::FetchBlock(BlockHash::default()),
                Message::FetchCertificate { epoch: Epoch(3), view: View(9), kind: Kind::Finalize },
                Message::Announce(vec![types::BatchId::default()]),
                Message::Batch(Arc::new(batch(genesis, vec![transfer(genesis, 2, 0)]))),
            ]
        },
        &[],
    );
}

#[test]
fn bad_signatures_are() {
    let forge = |mut signed: SignedStatement| {
        signed.signature.0[5] ^= 1;
        signed
    };
    check(|genesis| vec![vote(forge(signed(nullify(genesis.chain_id(), 0, 1))))], &[Offence::BadSignature]);
    check(
        |genesis| {
            let set = genesis.epochs[0].set();
            let statement = nullify(genesis.chain_id(), 0, 1);
            let mine = key(1).sign(&statement.signing_bytes());
            let votes: Vec<_> = (0..3).map(|seat| (Seat(seat), mine)).collect();
            vec![Message::Certificate(Box::new(Certificate::assemble(&set, statement, &votes)))]
        },
        &[Offence::BadSignature],
    );
    check(
        |genesis| {
            let mut bad = transfer(genesis, 2, 0);
            bad.signature.0[5] ^= 1;
            vec![
                Message::Transactions(vec![bad.clone(), transfer(genesis, 3, 0)]),
                Message::Batch(Arc::new(batch(genesis, vec![bad]))),
            ]
        },
        &[Offence::BadSignature, Offence::BadSignature],
    );
}

#[test]
fn impossible_statements_are() {
    check(|_| vec![vote(signed(nullify(ChainId(Hash([9; 32])), 0, 1)))], &[Offence::Malformed]);
    check(|genesis| vec![vote(signed(nullify(genesis.chain_id(), 0, 0)))], &[Offence::Malformed]);
    check(
        |genesis| {
            let statement = nullify(genesis.chain_id(), 0, 1);
            let stranger = key(9);
            let signature = stranger.sign(&statement.signing_bytes());
            vec![vote(SignedStatement { statement, key: stranger.public(), signature })]
        },
        &[Offence::Malformed],
    );
}

#[test]
fn questions_are_answered_at_a_pace() {
    let genesis = genesis(1);
    let mut node = Node::start(&genesis, Some(0), Config::default());
    node.tell(Input::PeerConnected { peer: PEER, validator: None });
    node.pass_ms(5_000);
    assert!(node.replica.summary().height >= Height(1));
    node.sent.clear();
    for _ in 0..500 {
        node.tell(Input::Message { peer: PEER, message: Message::Sync(Height(1)) });
    }
    let answers = node.sent.iter().filter(|(_, message)| matches!(&**message, Message::SyncBlocks(_))).count();
    assert_eq!(answers, 4);
    assert!(node.offences.is_empty());
}

/// The offences of a peer that sends one message so many times, one every `pause_ms`.
fn repeated(message: impl Fn(&GenesisRecord) -> Message, times: usize, pause_ms: u64) -> Vec<Offence> {
    let genesis = genesis(4);
    let mut node = node(&genesis);
    let message = message(&genesis);
    for _ in 0..times {
        node.tell(Input::Message { peer: PEER, message: message.clone() });
        node.pass_ms(pause_ms);
    }
    node.offences.into_iter().map(|(_, offence)| offence).collect()
}

fn one_transaction(genesis: &GenesisRecord) -> Message {
    Message::Transactions(vec![transfer(genesis, 2, 0)])
}

fn own_batch(genesis: &GenesisRecord) -> Message {
    Message::Batch(Arc::new(batch(genesis, vec![transfer(genesis, 2, 0)])))
}

/// Far more often than a re-send after `forward_patience` heights, or than a batch is pushed on a connect.
#[test]
fn the_same_again_and_again_is_a_replay() {
    assert_eq!(repeated(one_transaction, 40, 0), [Offence::Replay]);
    assert_eq!(repeated(own_batch, 40, 0), [Offence::Replay]);
    let twenty_copies = |genesis: &GenesisRecord| Message::Transactions(vec![transfer(genesis, 2, 0); 20]);
    assert_eq!(repeated(twenty_copies, 2, 0), [Offence::Replay], "within one message, too");
}

#[test]
fn a_duplicate_is_none() {
    assert_eq!(repeated(one_transaction, 10, 0), []);
    assert_eq!(repeated(own_batch, 10, 0), []);
    assert_eq!(repeated(one_transaction, 60, 1_000), [], "once a second");
    assert_eq!(repeated(own_batch, 60, 1_000), []);
}

/// An executed transaction that comes again is late; only its replay is an offence.
#[test]
fn an_executed_transaction_may_come_late() {
    let genesis = genesis(1);
    let mut node = Node::start(&genesis, Some(0), Config::default());
    node.tell(Input::PeerConnected { peer: PEER, validator: None });
    let message = Message::Transactions(vec![transfer(&genesis, 2, 0)]);
    node.tell(Input::Message { peer: PEER, message: message.clone() });
    node.pass_ms(10_000);
    assert!(node.events.iter().any(|event| matches!(event, replica::Event::Executed(done) if done.receipts.len() == 1)));
    for _ in 0..20 {
        node.tell(Input::Message { peer: PEER, message: message.clone() });
    }
    assert_eq!(node.offences, []);
    for _ in 0..20 {
        node.tell(Input::Message { peer: PEER, message: message.clone() });
    }
    assert_eq!(node.offences, [(PEER, Offence::Replay)]);
}

#[test]
fn questions_far_above_the_pace_are_an_offence() {
    let question = |_: &GenesisRecord| Message::FetchBlock(BlockHash::default());
    assert_eq!(repeated(question, 1_100, 0), [Offence::Rate]);
    assert_eq!(repeated(question, 1_100, 20), [], "fifty a second");
    // A peer that is late says so by itself, as often as it votes.
    let late = |genesis: &GenesisRecord| vote(signed(nullify(genesis.chain_id(), 0, 1)));
    assert_eq!(repeated(late, 3_000, 0), []);
    let status = |_: &GenesisRecord| Message::Status(types::Status { epoch: Epoch(0), final_view: View(0), height: Height(0) });
    assert_eq!(repeated(status, 3_000, 0), []);
}
