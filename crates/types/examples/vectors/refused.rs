//! Proofs that must convince nobody. Each is wrong in one way; all signatures in it were really made, where it has any.

use serde_json::{Value, json};
use types::{AccountKey, Amount, Certificate, FinalityProof, Hash, Height, Kind, StateKey, StateProof, TransactionProof, TxResult};

use super::chain::{Chain, QUORUM};
use super::signatures::plus_order;

/// `refused.json`.
pub fn file(chain: &Chain) -> Value {
    let finality = finality(chain).into_iter().map(|(name, proof)| json!({ "name": name, "proof": proof }));
    let transaction = transaction(chain).into_iter().map(|(name, proof)| json!({ "name": name, "proof": proof }));
    let state = state(chain).into_iter().map(|(name, proof)| json!({ "name": name, "proof": proof }));
    json!({
        "finality": finality.collect::<Vec<_>>(),
        "transaction": transaction.collect::<Vec<_>>(),
        "state": state.collect::<Vec<_>>(),
    })
}

fn finality(chain: &Chain) -> Vec<(&'static str, FinalityProof)> {
    let good = chain.finality(1);
    let with_certificate = |certificate: Certificate| FinalityProof { certificate, ..good.clone() };
    let changed = |change: &dyn Fn(&mut Certificate)| {
        let mut certificate = good.certificate.clone();
        change(&mut certificate);
        with_certificate(certificate)
    };
    let headers = |heights: &[usize], last: u64| FinalityProof {
        headers: heights.iter().map(|h| chain.blocks[h - 1].header.clone()).collect(),
        certificate: chain.certificate(last, Kind::Finalize, &QUORUM),
    };
    let another_chain = {
        let mut statement = chain.statement(2, Kind::Finalize);
        statement.chain.0.0[0] ^= 1;
        chain.sign(&statement, &QUORUM)
    };
    vec![
        ("exactly two thirds of the weight", with_certificate(chain.certificate(2, Kind::Finalize, &[2, 3]))),
        ("a minority of the weight, though three of four", with_certificate(chain.certificate(2, Kind::Finalize, &[0, 1, 2]))),
        ("nobody", with_certificate(chain.certificate(2, Kind::Finalize, &[]))),
        ("a notarization", with_certificate(chain.certificate(2, Kind::Notarize, &QUORUM))),
        ("a proposal", with_certificate(chain.certificate(2, Kind::Propose, &QUORUM))),
        ("a certificate of another block", with_certificate(chain.certificate(4, Kind::Finalize, &QUORUM))),
        ("a certificate of another chain", with_certificate(another_chain)),
        ("an unknown scheme", changed(&|c| c.scheme = 1)),
        ("a bit beyond the set", changed(&|c| c.bitmap[0] |= 0x10)),
        ("a bitmap that is too long", changed(&|c| c.bitmap.push(0))),
        ("no bitmap", changed(&|c| c.bitmap.clear())),
        ("a signature too few", changed(&|c| _ = c.signatures.pop())),
        ("a signature too many", changed(&|c| c.signatures.push(c.signatures[0]))),
        ("signatures in another order", changed(&|c| c.signatures.swap(0, 1))),
        ("one signature for all", changed(&|c| c.signatures = vec![c.signatures[0]; 3])),
        ("a seat that did not sign", changed(&|c| c.bitmap[0] ^= 0b11)),
        ("S plus the order", changed(&|c| c.signatures[1] = plus_order(&c.signatures[1]))),
        ("a parent view that is not below the view", changed(&|c| c.statement.parent_view = c.statement.view)),
        ("another view than was signed", changed(&|c| c.statement.view.0 += 1)),
        ("no headers", headers(&[], 2)),
        ("a missing header", headers(&[1, 3, 4], 4)),
        ("headers in another order", headers(&[2, 1], 1)),
        ("a header of another epoch", headers(&[4, 5, 6], 6)),
        ("a changed header", {
            let mut proof = good.clone();
            proof.headers[0].state_root.0[31] ^= 1;
            proof
        }),
    ]
}

fn transaction(chain: &Chain) -> Vec<(&'static str, TransactionProof)> {
    let proofs = chain.transaction_proofs();
    let good = proofs.iter().find(|proof| proof.path.count > 2).unwrap_or(&proofs[0]);
    let changed = |change: &dyn Fn(&mut TransactionProof)| {
        let mut proof = good.clone();
        change(&mut proof);
        proof
    };
    vec![
        ("another result", changed(&|p| p.receipt.result = TxResult::BalanceOverflow)),
        ("another fee", changed(&|p| p.receipt.fee = Amount(p.receipt.fee.0 + 1))),
        ("another transaction", changed(&|p| p.receipt.id.0.0[0] ^= 1)),
        ("a height that is not executed", changed(&|p| p.receipt.height = Height(64))),
        ("another place", changed(&|p| p.path.index ^= 1)),
        ("a place beyond the tree", changed(&|p| p.path.index = p.path.count)),
        ("a sibling too many", changed(&|p| p.path.siblings.push(Hash::ZERO))),
        ("a sibling too few", changed(&|p| _ = p.path.siblings.pop())),
        ("another header's finality", changed(&|p| p.finality = chain.finality(1))),
    ]
}

fn state(chain: &Chain) -> Vec<(&'static str, StateProof)> {
    let account = |i| StateKey::account(AccountKey::development(i).public().address());
    let (present, absent) = (chain.state_proof(account(0), 6), chain.state_proof(account(77), 6));
    let changed = |good: &StateProof, change: &dyn Fn(&mut StateProof)| {
        let mut proof = good.clone();
        change(&mut proof);
        proof
    };
    vec![
        ("another value", changed(&present, &|p| p.value.iter_mut().for_each(|bytes| bytes[0] ^= 1))),
        ("a value with a byte too many", changed(&present, &|p| p.value.iter_mut().for_each(|bytes| bytes.push(0)))),
        ("absence shown with the key's own leaf", changed(&present, &|p| p.value = None)),
        (
            "absence shown with a leaf elsewhere in the ring",
            changed(&present, &|p| {
                *p = StateProof { key: p.key, value: None, ..chain.state_proof(StateKey::supply(), 6) };
            }),
        ),
        ("presence shown with another key's leaf", changed(&present, &|p| p.key = account(77))),
        ("a value beside a leaf that excludes the key", changed(&absent, &|p| p.value.clone_from(&present.value))),
        ("another leaf count", changed(&present, &|p| p.path.count += 1)),
        ("another next key", changed(&absent, &|p| p.leaf.next = StateKey::supply())),
        ("the same key of another kind", changed(&present, &|p| p.key.kind = types::LeafKind::Validator)),
        ("another header's finality", changed(&present, &|p| p.finality = chain.finality(1))),
    ]
}
