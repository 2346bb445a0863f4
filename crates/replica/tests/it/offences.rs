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
