//! The end: everything is final or named, every node holds the same chain, and every account holds what the model says.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use types::{Address, TxId, TxResult};

use super::accounts::Expected;
use super::sender::resend_stale;
use super::tracker::Open;
use super::{Counts, Handle, Outcome};

/// How long nothing may happen before what is open counts as lost.
const PATIENCE: Duration = Duration::from_secs(25);
/// How long the whole may take.
const SETTLE_MAX: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);
/// Accounts asked for at once; each of these lines ends at its first problem.
const QUESTIONS: usize = 8;

/// Waits, asks, compares.
pub(crate) async fn settle(shared: &Handle, started: Instant) -> Outcome {
    let again = tokio::task::spawn_local(resend_stale(Rc::clone(shared)));
    wait_for_finality(shared).await;
    again.abort();
    ask_for_open(shared).await;
    let level = wait_for_all_nodes(shared).await;
    check_accounts(shared, &level).await;
    let mut shared = shared.borrow_mut();
    for problem in shared.ledger.problems() {
        shared.name("agreement", problem, false);
    }
    let tracker = &shared.tracker;
    let span = tracker.last_commit().map_or(0.0, |last| last.saturating_duration_since(started).as_secs_f64());
    Outcome {
        height_common: shared.ledger.height_common(),
        heights: shared.ledger.heights().to_vec(),
        agree: shared.ledger.problems().is_empty(),
        transactions: Counts {
            submitted: tracker.submitted(),
            r#final: tracker.committed(),
            failed: shared.failed,
            lost: shared.lost,
        },
        committed_tps: if span > 0.0 { tracker.committed() as f64 / span } else { 0.0 },
        finality_ms: tracker.percentiles(),
        resent: shared.resent,
        put_off: shared.put_off,
        named: shared.named.clone(),
        cpu_us: 0,
    }
}

async fn wait_for_finality(shared: &Handle) {
    let start = Instant::now();
    let mut progress = (0, start);
    loop {
        let (open, committed) = {
            let shared = shared.borrow();
            (shared.tracker.open_count(), shared.tracker.committed())
        };
        if open == 0 || start.elapsed() > SETTLE_MAX || progress.1.elapsed() > PATIENCE {
            return;
        }
        if committed != progress.0 {
            progress = (committed, Instant::now());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Asks every node about each transaction that no block showed in time.
async fn ask_for_open(shared: &Handle) {
    let open: Vec<(TxId, Open)> = shared.borrow().tracker.open().map(|(id, open)| (*id, open.clone())).collect();
    let client = shared.borrow().client.clone();
    let nodes = shared.borrow().plan.nodes.len();
    for (id, entry) in open {
        let mut said = Vec::new();
        let mut receipt = None;
        for node in 0..nodes {
            // A node that is gone would take its whole timeout for each question.
            let answers = shared.borrow().views[node].answers;
            let answer = if answers { client.transaction(node, id).await.ok() } else { None };
            match answer {
                Some(info) => {
                    receipt = receipt.or(info.receipt);
                    said.push(format!("{:?}", info.status).to_lowercase());
                }
                None => said.push("no answer".to_owned()),
            }
            if receipt.is_some() {
                break;
            }
        }
        let mut shared = shared.borrow_mut();
        if shared.tracker.remove(&id).is_none() {
            continue;
        }
        match receipt {
            Some(receipt) if receipt.result == TxResult::Success => {
                shared.tracker.found_final(Instant::now());
                shared.accounts.succeeded(&entry.transfer);
            }
            Some(receipt) => {
                shared.failed += 1;
                shared.accounts.failed(&entry.transfer);
                shared.name(id, receipt.result.as_str(), true);
            }
            None => {
                shared.lost += 1;
                let name = shared.plan.nodes[entry.node].0.clone();
                let died = shared.deaths.get(entry.node).is_some_and(|deaths| *deaths != entry.deaths);
                let fate = if died { ", which died before it packed it" } else { "" };
                shared.name(id, format!("taken by {name}{fate}; nodes say: {}", said.join(", ")), died);
            }
        }
    }
}

/// Waits until every node has the highest block that any had when this began; returns those that have.
async fn wait_for_all_nodes(shared: &Handle) -> Vec<usize> {
    let target = shared.borrow().ledger.height_max();
    let start = Instant::now();
    while shared.borrow().ledger.height_common() < target && start.elapsed() < PATIENCE {
        tokio::time::sleep(POLL).await;
    }
    let mut shared = shared.borrow_mut();
    let (level, behind): (Vec<_>, Vec<_>) = shared.ledger.heights().iter().copied().enumerate().partition(|(_, h)| *h >= target);
    for (node, height) in behind {
        let name = shared.plan.nodes[node].0.clone();
        shared.name(name, format!("is at height {height}, the network at {target}"), false);
    }
    level.into_iter().map(|(node, _)| node).collect()
}

/// Each touched account, asked on one of these nodes in turn: their states are one by the state root, so together they are
/// checked.
async fn check_accounts(shared: &Handle, nodes: &[usize]) {
    if nodes.is_empty() {
        return;
    }
    let list: Vec<(usize, (Address, Expected))> = shared.borrow().accounts.expected().into_iter().enumerate().collect();
    let chunk = list.len().div_ceil(QUESTIONS).max(1);
    let mut tasks = tokio::task::JoinSet::new();
    for part in list.chunks(chunk) {
        let (shared, nodes, part) = (Rc::clone(shared), nodes.to_vec(), part.to_vec());
        tasks.spawn_local(async move {
            for (index, (address, expected)) in part {
                let turn = (0..nodes.len()).map(|step| nodes[(index + step) % nodes.len()]);
                if let Err(problem) = check_account(&shared, turn, address, expected).await {
                    shared.borrow_mut().name(format!("account {address}"), problem, false);
                    return;
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// Asks the first of these nodes that answers: one may be killed at any time.
async fn check_account(
    shared: &Handle,
    nodes: impl Iterator<Item = usize>,
    address: Address,
    expected: Expected,
) -> Result<(), String> {
    let mut silent = String::from("nobody to ask");
    for node in nodes {
        let name = shared.borrow().plan.nodes[node].0.clone();
        match account(shared, node, address).await {
            Ok(found) if found == expected => return Ok(()),
            Ok(found) => return Err(format!("{name} shows {found:?}, the transfers add up to {expected:?}")),
            Err(error) => silent = format!("{name}: {error:#}"),
        }
    }
    Err(silent)
}

/// What a node shows of an account after it has executed all our transactions.
async fn account(shared: &Handle, node: usize, address: Address) -> Result<Expected> {
    let (client, height) = {
        let shared = shared.borrow();
        (shared.client.clone(), shared.ledger.last_cited())
    };
    let start = Instant::now();
    loop {
        let info = client.account(node, address).await?;
        if info.height.0 >= height {
            let account = info.account.unwrap_or_default();
            return Ok(Expected { balance: account.balance.0, nonce_next: account.nonce_next.0 });
        }
        ensure!(start.elapsed() < PATIENCE, "has executed height {} only, the last transaction is at {height}", info.height);
        tokio::time::sleep(POLL).await;
    }
}
