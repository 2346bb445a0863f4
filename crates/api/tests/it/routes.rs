//! Every route answers what its type says; every refusal has its code.

use api::info::*;
use serde_json::{Value, json};
use types::{BatchId, BlockHash, ChainId, TxId};

use crate::backend::{Frozen, Lie, ask, file, get, router, send};

/// The contract: a change here is a change for every user.
#[tokio::test]
async fn the_index_is_the_golden_file() {
    let golden: Value = serde_json::from_str(include_str!("index.json")).unwrap();
    assert_eq!(ask(&router(), "/").await.json()["routes"], golden);
}

#[tokio::test]
async fn every_route_of_the_index_exists_and_refuses_other_methods() {
    let router = router();
    let hash = "00".repeat(32);
    for route in api::ROUTES {
        let path = route.path.replace("{epoch}", "0").replace("{height}", "1").replace("{id}", &hash).replace("{address}", &hash);
        let answer = send(&router, route.method, &path, "application/json", "").await;
        assert!(answer.status != 405 && !answer.text.contains("route_unknown"), "{path}: {}", answer.text);
        let other = if path == "/api/v1/transactions" { "PUT" } else { "DELETE" };
        let answer = send(&router, other, &path, "application/json", "").await;
        assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"), "{path}");
    }
}

#[tokio::test]
async fn blocks_carry_their_proof() {
    let (router, frozen) = (router(), Frozen::new(Lie::None));
    let genesis: GenesisInfo = get(&ask(&router, "/api/v1/genesis").await.json());
    assert_eq!(genesis.record.chain_id(), genesis.chain_id);
    for height in 1..=10 {
        let block: BlockInfo = get(&ask(&router, &format!("/api/v1/blocks/{height}")).await.json());
        let header = block.finality.verify(&genesis.chain_id, &block.epoch.set()).unwrap();
        assert_eq!((header, block.hash, block.epoch.hash()), (&block.header, header.hash(), header.epoch_hash));
        assert_eq!(block.body.root(), block.header.body_root);
        for id in &block.body.batches {
            let batch: BatchInfo = get(&ask(&router, &format!("/api/v1/batches/{id}")).await.json());
            assert_eq!((batch.id, batch.header.id()), (*id, *id));
            assert!(batch.transactions.iter().all(|listed| listed.signed.id() == listed.id && listed.signed.verify_signature()));
        }
    }
    let latest: BlockInfo = get(&ask(&router, "/api/v1/blocks/latest").await.json());
    assert_eq!(latest.hash, get::<BlockHash>(&frozen.list("blocks")[9]["hash"]));
}

#[tokio::test]
async fn transactions_and_accounts_carry_their_proof() {
    let (router, frozen) = (router(), Frozen::new(Lie::None));
    let chain: ChainId = get(&frozen.chain["genesis"]["chain_id"]);
    let epochs: Vec<EpochInfo> = frozen.list("epochs").iter().map(get).collect();
    let mut proved = 0;
    for receipt in frozen.list("receipts") {
        let id: TxId = get(&receipt["receipt"]["id"]);
        let info: TransactionInfo = get(&ask(&router, &format!("/api/v1/transactions/{id}")).await.json());
        assert_eq!((info.id, info.status, info.receipt.map(|r| r.id)), (id, TransactionStatus::Final, Some(id)));
        if let Some(proof) = info.proof {
            let epoch = proof.finality.headers[0].epoch.0 as usize;
            assert_eq!(Some(*proof.verify(&chain, &epochs[epoch].record.set()).unwrap()), info.receipt);
            proved += 1;
        }
    }
    assert_eq!(proved, 9);
    let unknown: TransactionInfo = get(&ask(&router, &format!("/api/v1/transactions/{}", "ab".repeat(32))).await.json());
    assert_eq!((unknown.status, unknown.receipt, unknown.proof), (TransactionStatus::Unknown, None, None));
    for (index, present) in [(0, true), (9, true), (77, false)] {
        let address = types::AccountKey::development(index).public().address();
        let info: AccountInfo = get(&ask(&router, &format!("/api/v1/accounts/{address}")).await.json());
        let value = info.proof.unwrap().verify(&chain, &epochs[2].record.set()).unwrap();
        assert_eq!((info.address, info.account.is_some(), value.is_some()), (address, present, present));
    }
}

#[tokio::test]
async fn the_rest_answers_its_types() {
    let router = router();
    let info: NodeInfo = get(&ask(&router, "/api/v1/node/info").await.json());
    assert_eq!((info.height.0, info.epoch.0), (10, 2));
    let validators: ValidatorsInfo = get(&ask(&router, "/api/v1/validators").await.json());
    assert_eq!((validators.total_weight, validators.validators.len()), (99, 4));
    let guard: GuardInfo = get(&ask(&router, "/api/v1/guard").await.json());
    assert!(!guard.available && guard.reason.is_some());
    assert_eq!(ask(&router, "/api/v1/network/peers").await.json(), json!([]));
    let epoch: EpochInfo = get(&ask(&router, "/api/v1/epochs/2").await.json());
    assert_eq!(epoch.record.hash(), epoch.hash);
    assert_eq!(ask(&router, "/health").await.json(), json!({ "status": "ok" }));
    let metrics = ask(&router, "/metrics").await;
    assert!(metrics.content_type.starts_with("application/openmetrics-text") && metrics.text.contains("ebpf_node_height 0"));
    for message in file("messages.json")["messages"].as_array().unwrap() {
        let series = format!("ebpf_node_messages_received_total{{kind={}}} 0", message["kind"]);
        assert!(metrics.text.contains(&series), "{series}");
    }
    assert_eq!(ask(&router, "/ready").await.status, 200);
    let syncing = api::router(Frozen::new(Lie::Header), &api::Config::default());
    let answer = ask(&syncing, "/ready").await;
    assert_eq!((answer.status, answer.json()), (503, json!({ "ready": false, "missing": ["syncing"] })));
}

#[tokio::test]
async fn refusals_have_stable_codes() {
    let router = router();
    let unknown_batch = format!("/api/v1/batches/{}", BatchId::default());
    for (path, status, code) in [
        ("/nothing", 404, "route_unknown"),
        ("/api/v1/", 404, "route_unknown"),
        ("/api/v1/blocks/0", 404, "block_unknown"),
        ("/api/v1/blocks/11", 404, "block_unknown"),
        ("/api/v1/blocks/18446744073709551615", 404, "block_unknown"),
        ("/api/v1/blocks/18446744073709551616", 400, "bad_request"),
        ("/api/v1/blocks/-1", 400, "bad_request"),
        ("/api/v1/blocks/first", 400, "bad_request"),
        ("/api/v1/blocks/%ff", 400, "bad_request"),
        ("/api/v1/epochs/4", 404, "epoch_unknown"),
        (unknown_batch.as_str(), 404, "batch_unknown"),
        ("/api/v1/batches/abc", 400, "bad_request"),
        ("/api/v1/transactions/zz", 400, "bad_request"),
        ("/api/v1/accounts/0x00", 400, "bad_request"),
        ("/api/v1/epochs/77", 500, "internal"),
        ("/api/v1/epochs/78", 503, "unavailable"),
    ] {
        let answer = ask(&router, path).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}");
        assert!(!answer.text.contains("secret"), "what went wrong inside is for the log");
    }
}
