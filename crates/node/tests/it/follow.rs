//! A node that is no validator: it joins late, follows over several epochs, answers with proofs, and forwards transactions.

use types::{AccountKey, Action, Amount, ChainId, Height, Nonce, SignedTransaction, Transaction};

use crate::process::{Node, await_that, cli, edit, genesis, home, keys};

/// More than a late joiner keeps apart at once, and more than one epoch.
const HEIGHTS: u64 = 450;
const ACCOUNTS: u32 = 64;

fn transfer(chain: ChainId, sender: u32, nonce: u64) -> SignedTransaction {
    let key = AccountKey::development(sender);
    let action = Action::Transfer { to: AccountKey::development(0).public().address(), amount: Amount(1), memo: Vec::new() };
    Transaction { chain, sender: key.public(), nonce: Nonce(nonce), expiry: Height(2_000), action }.sign(&key)
}

/// Keeps the chain at work until it is this high.
fn drive(node: &Node, chain: ChainId, height: u64) {
    let mut sent = 0u64;
    await_that("the chain grows", || {
        let (sender, nonce) = ((sent % u64::from(ACCOUNTS - 1)) as u32 + 1, sent / u64::from(ACCOUNTS - 1));
        let body = types::encode(&vec![transfer(chain, sender, nonce)]);
        let posted =
            ureq::post(format!("{}/api/v1/transactions", node.api)).content_type("application/octet-stream").send(&body[..]);
        sent += u64::from(posted.is_ok());
        node.number("height") >= height
    });
}

#[test]
fn a_late_follower_catches_up_and_forwards() {
    let folder = tempfile::tempdir().unwrap();
    let (alpha, beta) = (home(folder.path(), "alpha", true), home(folder.path(), "beta", false));
    let record = genesis(&[keys(&alpha)["validator_key"].as_str().unwrap().parse().unwrap()], ACCOUNTS);
    for home in [&alpha, &beta] {
        std::fs::write(format!("{home}/genesis.json"), serde_json::to_vec(&record).unwrap()).unwrap();
    }
    let validator = Node::start(&alpha);
    drive(&validator, record.chain_id(), HEIGHTS);

    let info = validator.get("/api/v1/node/info");
    let listen = info["listen"].as_array().unwrap().iter().find_map(|a| a.as_str().filter(|a| a.contains("/tcp/"))).unwrap();
    let peer = format!("peers = [\"{listen}/p2p/{}\"]", info["peer_id"].as_str().unwrap());
    edit(&beta, &[("peers = []", &peer)]);
    let follower = Node::start(&beta);
    await_that("the follower has executed what was final", || follower.number("executed") >= HEIGHTS);
    let path = format!("/api/v1/blocks/{HEIGHTS}");
    assert_eq!(follower.get(&path)["hash"], validator.get(&path)["hash"]);

    let sent = cli(&["tx", "send", "--api", &follower.api, "--from", "dev:0", "--to", "dev:1", "--amount", "5", "--wait", "60"]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let refused = cli(&["tx", "send", "--api", &follower.api, "--from", "dev:9999", "--to", "dev:1", "--amount", "5"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("no account"));
}

#[test]
fn a_killed_node_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let alpha = home(folder.path(), "alpha", true);
    let record = genesis(&[keys(&alpha)["validator_key"].as_str().unwrap().parse().unwrap()], ACCOUNTS);
    std::fs::write(format!("{alpha}/genesis.json"), serde_json::to_vec(&record).unwrap()).unwrap();
    let first = Node::start(&alpha);
    drive(&first, record.chain_id(), 40);
    let before = first.get("/api/v1/blocks/40")["hash"].clone();
    let height = first.number("height");
    first.kill();

    let second = Node::start(&alpha);
    assert!(second.number("height") >= height, "what was final is final");
    assert_eq!(second.get("/api/v1/blocks/40")["hash"], before);
    let sent = cli(&["tx", "send", "--api", &second.api, "--from", "dev:0", "--to", "dev:1", "--amount", "5", "--wait", "60"]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    // Two processes never sign with one key.
    let rival = cli(&["start", "--home", &alpha]);
    assert!(!rival.status.success());
}
