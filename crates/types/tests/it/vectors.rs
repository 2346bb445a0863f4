//! `docs/spec/vectors` is what the code makes, and the checks say about it what the files say.

use std::path::PathBuf;

use borsh::BorshDeserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use types::{
    Certificate, ChainId, Epoch, EpochRecord, Evidence, FinalityProof, Hello, Kind, Lane, Message, PublicKey, Signature,
    SignedStatement, StateProof, TransactionProof, ValidatorSet, decode, encode,
};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/spec/vectors"))
}

fn file(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

fn get<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().filter(|list| !list.is_empty()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

/// The chain id and the sets of its epochs.
fn trust() -> (ChainId, Vec<ValidatorSet>) {
    let chain = file("chain.json");
    let sets = list(&chain["epochs"]).iter().map(|epoch| get::<EpochRecord>(&epoch["record"]).set()).collect();
    (get(&chain["genesis"]["chain_id"]), sets)
}

fn set_of<'a>(sets: &'a [ValidatorSet], finality: &Value) -> &'a ValidatorSet {
    let epoch: Epoch = finality["headers"].get(0).map_or(Epoch(0), |header| get(&header["epoch"]));
    &sets[epoch.0 as usize]
}

/// A difference here is a change of format: it needs a decision, a new tag, and `cargo run -p types --example vectors`.
#[test]
fn files_are_what_the_code_makes() {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    names.sort();
    let mut made: Vec<String> = Vec::new();
    for (name, value) in crate::files::all() {
        assert!(file(name) == value, "{name} differs from what the code makes");
        made.push(name.to_owned());
    }
    made.sort();
    assert_eq!(names, made);
}

#[test]
fn proofs_hold_and_their_bytes_are_canonical() {
    let (chain, sets) = trust();
    let proofs = file("proofs.json");
    for entry in list(&proofs["finality"]) {
        let proof: FinalityProof = round_trip(entry);
        assert_eq!(proof.verify(&chain, set_of(&sets, &entry["proof"])).unwrap(), &proof.headers[0]);
    }
    for entry in list(&proofs["transaction"]) {
        let proof: TransactionProof = round_trip(entry);
        proof.verify(&chain, set_of(&sets, &entry["proof"]["finality"])).unwrap();
    }
    let mut absent = 0;
    for entry in list(&proofs["state"]) {
        let proof: StateProof = round_trip(entry);
        let value = proof.verify(&chain, set_of(&sets, &entry["proof"]["finality"])).unwrap();
        assert_eq!(value.is_none(), entry["value"].is_null());
        absent += usize::from(value.is_none());
    }
    assert!(absent >= 4);
}

/// JSON and borsh say the same.
fn round_trip<T: DeserializeOwned + BorshDeserialize + borsh::BorshSerialize + PartialEq + std::fmt::Debug>(entry: &Value) -> T {
    let value: T = get(&entry["proof"]);
    let wire = bytes(&entry["bytes"]);
    assert_eq!(encode(&value), wire);
    assert_eq!(decode::<T>(&wire, wire.len()).unwrap(), value);
    value
}

#[test]
fn wrong_proofs_are_refused() {
    let (chain, sets) = trust();
    let refused = file("refused.json");
    for entry in list(&refused["finality"]) {
        let proof: FinalityProof = get(&entry["proof"]);
        assert!(proof.verify(&chain, set_of(&sets, &entry["proof"])).is_err(), "{}", entry["name"]);
    }
    for entry in list(&refused["transaction"]) {
        let proof: TransactionProof = get(&entry["proof"]);
        assert!(proof.verify(&chain, set_of(&sets, &entry["proof"]["finality"])).is_err(), "{}", entry["name"]);
    }
    for entry in list(&refused["state"]) {
        let proof: StateProof = get(&entry["proof"]);
        assert!(proof.verify(&chain, set_of(&sets, &entry["proof"]["finality"])).is_err(), "{}", entry["name"]);
    }
}

/// The two rules, written down by hand: what follows from the definitions, not from a library.
#[test]
fn signatures_at_the_edges_follow_the_two_rules() {
    let expected = [
        ("honest", true, true),
        ("another message", false, false),
        ("a flipped bit in R", false, false),
        ("a flipped bit in S", false, false),
        ("S plus the order", false, false),
        ("S with high bits", false, false),
        ("A is no point", false, false),
        ("R is no point", false, false),
        ("A and R are the identity", false, true),
        ("A of order 8, R the identity", false, true),
        ("A and R of order 8", false, true),
        ("A is the identity with y above p", false, true),
        ("R is the identity with y above p", false, true),
        ("A is the identity with minus zero as x", false, true),
        ("R is the identity, A honest", false, true),
        ("A with torsion, challenge a multiple of 8", true, true),
        ("A with torsion, challenge no multiple of 8", false, true),
        ("R with torsion", false, true),
        ("A and R with torsion that cancel", true, true),
    ];
    let file = file("signatures.json");
    let cases = list(&file["signatures"]);
    assert_eq!(cases.len(), expected.len());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let (_, strict, zip215) = expected.iter().find(|(n, _, _)| *n == name).unwrap();
        let (key, message, signature): (PublicKey, _, Signature) =
            (get(&case["key"]), bytes(&case["message"]), get(&case["signature"]));
        assert_eq!(key.verify_strict(&message, &signature).is_ok(), *strict, "{name}, strict");
        assert_eq!(key.verify_zip215(&message, &signature).is_ok(), *zip215, "{name}, ZIP-215");
    }
}

#[test]
fn messages_decode_on_their_lane_only() {
    let file = file("messages.json");
    let messages = list(&file["messages"]);
    for entry in messages {
        let wire = bytes(&entry["bytes"]);
        for lane in Lane::ALL {
            match Message::from_bytes(&wire, lane) {
                Ok(message) => {
                    assert_eq!(
                        (lane.as_str(), message.as_str()),
                        (entry["lane"].as_str().unwrap(), entry["kind"].as_str().unwrap())
                    );
                    assert_eq!(message.to_bytes(), wire);
                }
                Err(_) => assert_ne!(lane.as_str(), entry["lane"].as_str().unwrap()),
            }
        }
        let cut = &wire[..wire.len() - 1];
        assert!(Lane::ALL.iter().all(|lane| Message::from_bytes(cut, *lane).is_err()));
    }
    let mut tags: Vec<u8> = messages.iter().map(|entry| bytes(&entry["bytes"])[0]).collect();
    tags.sort_unstable();
    assert_eq!(tags, (0..15).collect::<Vec<u8>>(), "one of each kind");
}

#[test]
fn the_handshake_proves_a_validator() {
    let file = file("messages.json");
    let handshake = &file["handshake"];
    let chain: ChainId = get(&handshake["chain"]);
    let peer_id = bytes(&handshake["peer_id"]);
    let hello: Hello = decode(&bytes(&handshake["hello_of_a_validator"]), 1024).unwrap();
    let proof = hello.validator.unwrap();
    proof.verify(&chain, &peer_id).unwrap();
    proof.verify(&chain, &peer_id[1..]).unwrap_err();
    proof.verify(&ChainId::default(), &peer_id).unwrap_err();
    let plain: Hello = decode(&bytes(&handshake["hello_of_another_node"]), 1024).unwrap();
    assert_eq!((plain.validator, plain.chain), (None, chain));
}

/// What of `votes.json` is good, written down by hand; everything else in it must be refused.
#[test]
fn votes_certificates_and_evidence_follow_the_rules() {
    let file = file("votes.json");
    let chain: ChainId = get(&file["chain"]);
    let sets: Vec<ValidatorSet> = list(&file["records"]).iter().map(|record| get::<EpochRecord>(record).set()).collect();
    let set = |entry: &Value| &sets[entry["record"].as_u64().unwrap() as usize];
    let good_votes = [
        "notarize",
        "finalize",
        "nullify",
        "the first view on the epoch's base",
        "a key with torsion, challenge a multiple of 8",
        "a key and R with torsion that cancel",
        "a key made of a plain scalar",
    ];
    agree(&file["votes"], "counts", &good_votes, |entry| {
        let vote: SignedStatement = get(&entry["vote"]);
        let subject = vote.statement.chain == chain && vote.statement.epoch == set(entry).epoch();
        let about = vote.statement.kind != Kind::Propose && vote.statement.is_well_formed();
        subject && about && set(entry).seat(&vote.key).is_some() && vote.verify().is_ok()
    });
    let good_certificates =
        ["a finality certificate", "a notarization", "a nullification", "all seats", "three of four, weights beyond 64 bits"];
    agree(&file["certificates"], "convinces", &good_certificates, |entry| {
        get::<Certificate>(&entry["certificate"]).verify(&chain, set(entry)).is_ok()
    });
    let good_evidence = [
        "nullify and finalize",
        "finalize and nullify",
        "two blocks notarized",
        "two blocks finalized",
        "two blocks proposed",
        "one block on two parents",
    ];
    agree(&file["evidence"], "convicts", &good_evidence, |entry| get::<Evidence>(&entry["evidence"]).verify());
}

/// The code, the file and the list of good names say the same of every entry.
fn agree(entries: &Value, verdict: &str, good: &[&str], check: impl Fn(&Value) -> bool) {
    let mut found = 0;
    for entry in list(entries) {
        let name = entry["name"].as_str().unwrap();
        let expected = good.contains(&name);
        found += usize::from(expected);
        assert_eq!(entry[verdict].as_bool(), Some(expected), "{name}, in the file");
        assert_eq!(check(entry), expected, "{name}, by the code");
    }
    assert_eq!(found, good.len());
}
