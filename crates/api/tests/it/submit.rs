//! `POST /api/v1/transactions`.

use serde_json::{Value, json};
use types::{AccountKey, Action, Amount, ChainId, Height, Nonce, SignedTransaction, Transaction, encode};

use crate::backend::{Frozen, Lie, NONCE_FULL, get, router, send};

const PATH: &str = "/api/v1/transactions";
const JSON: &str = "application/json";
const BORSH: &str = "application/octet-stream";

fn transfer(nonce: u64) -> SignedTransaction {
    let (key, chain) = (AccountKey::development(0), get(&Frozen::new(Lie::None).chain["genesis"]["chain_id"]));
    let action = Action::Transfer { to: AccountKey::development(1).public().address(), amount: Amount(1), memo: vec![7; 3] };
    Transaction { chain, sender: key.public(), nonce: Nonce(nonce), expiry: Height(50), action }.sign(&key)
}

fn statuses(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    answer["results"].as_array().unwrap().iter().map(|r| (text(&r["status"]), text(&r["error"]["code"]))).collect()
}

fn accepted() -> (String, String) {
    ("accepted".into(), String::new())
}

fn refused(code: &str) -> (String, String) {
    ("refused".into(), code.into())
}

#[tokio::test]
async fn one_or_many_as_json_or_borsh() {
    let (router, one, other) = (router(), transfer(10), transfer(11));
    let both = vec![one.clone(), other.clone()];
    for (kind, body, ids) in [
        (JSON, json!(one).to_string().into_bytes(), vec![one.id()]),
        ("application/json; charset=utf-8", json!(both).to_string().into_bytes(), vec![one.id(), other.id()]),
        (BORSH, encode(&both), vec![one.id(), other.id()]),
    ] {
        let answer = send(&router, "POST", PATH, kind, body).await;
        let listed: Vec<_> = answer.json()["results"].as_array().unwrap().iter().map(|r| get(&r["id"])).collect();
        assert_eq!((answer.status, listed), (202, ids));
        assert!(statuses(&answer.json()).iter().all(|status| *status == accepted()));
    }
}

#[tokio::test]
async fn each_gets_its_verdict() {
    let router = router();
    let mut forged = transfer(12);
    forged.signature.0[3] ^= 1;
    let mut foreign = transfer(13);
    foreign.transaction.chain = ChainId::default();
    let known: SignedTransaction = get(&Frozen::new(Lie::None).list("batches")[0]["transactions"][0]);
    let full = transfer(NONCE_FULL);
    for (list, status, verdicts) in [
        (vec![forged.clone(), transfer(1)], 202, vec![refused("signature"), accepted()]),
        (vec![forged.clone(), foreign.clone()], 422, vec![refused("signature"), refused("wrong_chain")]),
        (vec![known.clone()], 202, vec![refused("duplicate")]),
        (vec![known, full.clone()], 429, vec![refused("duplicate"), refused("full")]),
        (vec![full.clone(), forged], 429, vec![refused("full"), refused("signature")]),
    ] {
        let answer = send(&router, "POST", PATH, BORSH, encode(&list)).await;
        assert_eq!((answer.status, statuses(&answer.json())), (status, verdicts));
        // 1.5 s, rounded up to whole seconds.
        assert_eq!(answer.retry_after, (status == 429).then(|| "2".to_owned()));
    }
}

#[tokio::test]
async fn a_refused_body_says_what_is_missing() {
    let mut value = json!([transfer(1)]);
    value[0]["transaction"].as_object_mut().unwrap().remove("nonce");
    let answer = send(&router(), "POST", PATH, JSON, value.to_string()).await;
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(answer.status == 400 && message.contains("missing field `nonce`"), "{message}");
    let long = json!({ "x".repeat(100_000): 1 }).to_string();
    assert!(send(&router(), "POST", PATH, JSON, long).await.text.len() < 1_000);
}

#[tokio::test]
async fn bodies_that_are_none_are_refused() {
    let router = router();
    let long: Vec<SignedTransaction> = (0..513).map(transfer).collect();
    let mut cut = encode(&vec![transfer(1)]);
    cut.pop();
    let mut trailing = encode(&vec![transfer(1)]);
    trailing.push(0);
    // A list that claims 2^32 - 1 items costs no more than its bytes.
    let claim = u32::MAX.to_le_bytes().to_vec();
    for (kind, body, status, code) in [
        (BORSH, encode(&long), 400, "bad_request"),
        (BORSH, encode(&Vec::<SignedTransaction>::new()), 400, "bad_request"),
        (BORSH, vec![], 400, "bad_request"),
        (BORSH, cut, 400, "bad_request"),
        (BORSH, trailing, 400, "bad_request"),
        (BORSH, claim, 400, "bad_request"),
        (JSON, b"[]".to_vec(), 400, "bad_request"),
        (JSON, b"{}".to_vec(), 400, "bad_request"),
        (JSON, vec![b'['; 100_000], 400, "bad_request"),
        (JSON, vec![0xff, 0xfe], 400, "bad_request"),
        ("text/plain", b"hello".to_vec(), 415, "content_type"),
        (BORSH, vec![0; 3 * 1024 * 1024], 413, "body_too_large"),
    ] {
        let answer = send(&router, "POST", PATH, kind, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{kind}");
    }
}
