//! One message of each kind, and the handshake.

use std::sync::Arc;

use serde_json::{Value, json};
use types::{
    Epoch, Evidence, Height, Hello, Kind, Message, ProofOfValidator, Proposal, Seat, SignedStatement, Statement, Status,
    SyncBlocks, View, Vote, WIRE_VERSION, encode,
};

use super::chain::{Chain, QUORUM};

/// A PeerId's bytes as libp2p makes them: an identity multihash of a protobuf with an Ed25519 key, here of 32 equal bytes.
const PEER_ID: &str = "0024080112200505050505050505050505050505050505050505050505050505050505050505";

fn signed(chain: &Chain, statement: Statement, seat: Seat) -> SignedStatement {
    let key = chain.key(seat);
    SignedStatement { statement, key: key.public(), signature: key.sign(&statement.signing_bytes()) }
}

fn messages(chain: &Chain) -> Vec<Message> {
    let (epoch, view) = (Epoch(0), View(4));
    let block = chain.blocks[2].clone();
    let statement = chain.statement(3, Kind::Propose);
    let leader = chain.set(3).leader(&chain.id, statement.view);
    let nullified = chain.sign(&Statement::nullify(chain.id, epoch, View(3)), &QUORUM);
    let head = signed(chain, statement, leader);
    let notarization = chain.certificate(3, Kind::Notarize, &QUORUM);
    let vote =
        Vote { signed: signed(chain, statement.with_kind(Kind::Finalize), Seat(1)), certificate: Some(notarization.clone()) };
    let batch = &chain.batches[0];
    let sync = SyncBlocks {
        blocks: chain.blocks[2..4].to_vec(),
        certificate: Some(chain.certificate(4, Kind::Finalize, &QUORUM)),
        next_record: Some(chain.epochs[2].clone()),
    };
    vec![
        Message::Proposal(Box::new(Proposal { head, block: block.clone(), admitting: Some(nullified.clone()) })),
        Message::Vote(Box::new(vote)),
        Message::Certificate(Box::new(nullified.clone())),
        Message::Certificates(vec![nullified, notarization]),
        Message::FetchCertificate { epoch, view, kind: Kind::Notarize },
        Message::FetchProposal { epoch, view },
        Message::Status(Status { epoch: Epoch(1), final_view: View(3), height: Height(6) }),
        Message::Announce(chain.batches.iter().map(types::Batch::id).collect()),
        Message::Batch(Arc::new(batch.clone())),
        Message::FetchBatches(vec![batch.id()]),
        Message::FetchBlock(block.hash()),
        Message::Block(Box::new(block)),
        Message::Sync(Height(3)),
        Message::SyncBlocks(Box::new(sync)),
        Message::Transactions(batch.transactions.clone()),
    ]
}

/// `messages.json`.
pub fn file(chain: &Chain) -> Value {
    let list = messages(chain).into_iter().map(
        |message| json!({ "kind": message.as_str(), "lane": message.lane().as_str(), "bytes": hex::encode(message.to_bytes()) }),
    );
    let peer_id = hex::decode(PEER_ID).expect("hex");
    let signing_bytes = ProofOfValidator::signing_bytes(&chain.id, &peer_id);
    let key = chain.key(Seat(0));
    let proof = ProofOfValidator { key: key.public(), signature: key.sign(&signing_bytes) };
    let hello = Hello { version: WIRE_VERSION, chain: chain.id, validator: Some(proof) };
    let plain = Hello { validator: None, ..hello };
    let statements = [
        chain.statement(3, Kind::Propose),
        chain.statement(3, Kind::Notarize),
        Statement::nullify(chain.id, Epoch(0), View(3)),
        chain.statement(3, Kind::Finalize),
    ];
    let signed_statements = statements.map(
        |statement| json!({ "signed": signed(chain, statement, Seat(2)), "signing_bytes": hex::encode(statement.signing_bytes()) }),
    );
    let evidence = {
        let (first, second) = (statements[2], Statement { view: View(3), ..statements[3] });
        let second = Statement { parent_view: View(2), ..second };
        let sign = |statement: Statement| (statement, chain.key(Seat(1)).sign(&statement.signing_bytes()));
        Evidence { key: chain.key(Seat(1)).public(), first: sign(first), second: sign(second) }
    };
    json!({
        "handshake": {
            "chain": chain.id,
            "peer_id": PEER_ID,
            "key": proof.key,
            "signature": proof.signature,
            "signing_bytes": hex::encode(signing_bytes),
            "hello_of_a_validator": hex::encode(encode(&hello)),
            "hello_of_another_node": hex::encode(encode(&plain)),
        },
        "statements": signed_statements,
        "evidence": { "evidence": evidence, "convicts": evidence.verify(), "bytes": hex::encode(encode(&evidence)) },
        "messages": list.collect::<Vec<_>>(),
    })
}
