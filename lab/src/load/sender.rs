//! The rate, and what a careful client does with each answer: wait when told to, turn to another node when one is gone, and
//! send again what stays open for long (the id is the same, so it can't happen twice).

use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use types::{FORWARD_MAX, Height};

use super::Handle;
use super::accounts::Transfer;
use super::client::Verdict;

const TICK: Duration = Duration::from_millis(25);
/// Requests on their way at once; above it the generator falls behind its rate instead of piling up.
const REQUESTS_MAX: usize = 64;
/// Transactions that are open at once; above it the generator waits too. Senders take turns, so this also keeps each account's
/// nonces in flight inside the window.
const OPEN_MAX: usize = 40_000;
/// What stays open for this long is sent to the next node.
const STALE_AFTER: Duration = Duration::from_secs(10);
const STALE_EVERY: Duration = Duration::from_secs(1);
/// Attempts to hand a request to any node, a pause between; what is still open then is left to [`resend_stale`].
const ATTEMPTS_MAX: u32 = 8;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(250);
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// Sends until `end` is there, then waits for the answers to what was sent. What was put off and not sent again by then was
/// never submitted.
pub(crate) async fn send_until(shared: &Handle, end: impl Future) {
    let mut requests = JoinSet::new();
    let stale = tokio::task::spawn_local(resend_stale(Rc::clone(shared)));
    tokio::select! {
        _ = end => {}
        () = send(shared, &mut requests) => {}
    }
    shared.borrow_mut().plan.tps = 0;
    while requests.join_next().await.is_some() {}
    stale.abort();
}

/// The steady rate: each tick, what is due since the start goes to the next node in turn.
async fn send(shared: &Handle, requests: &mut JoinSet<()>) {
    let (tps, nodes, accounts) = {
        let shared = shared.borrow();
        (f64::from(shared.plan.tps), shared.plan.nodes.len(), shared.plan.accounts)
    };
    if tps == 0.0 || nodes == 0 || accounts == 0 {
        std::future::pending::<()>().await;
    }
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut due = 0.0;
    let mut node = 0;
    let mut last = Instant::now();
    // Signed before the tick that sends it.
    let mut ready: Vec<Transfer> = Vec::new();
    loop {
        ticks.tick().await;
        while requests.try_join_next().is_some() {}
        let now = Instant::now();
        // A generator that was held up does not make up for more than a second.
        due = (due + tps * now.duration_since(last).as_secs_f64()).min(tps.max(1.0));
        last = now;
        let room = requests.len() < REQUESTS_MAX && shared.borrow().tracker.open_count() < OPEN_MAX;
        let count = (due as usize).min(FORWARD_MAX);
        if count == 0 || !room {
            continue;
        }
        due -= count as f64;
        sign_up_to(shared, &mut ready, count);
        let batch: Vec<Transfer> = ready.drain(..count).collect();
        node = next_answering(shared, node);
        requests.spawn_local(deliver(Rc::clone(shared), node, batch, Attempt::First));
        sign_up_to(shared, &mut ready, count);
    }
}

/// The next node in turn that answers; the next one if none does.
fn next_answering(shared: &Handle, node: usize) -> usize {
    let shared = shared.borrow();
    let nodes = shared.views.len().max(1);
    let in_turn = (1..=nodes).map(|step| (node + step) % nodes);
    in_turn.clone().find(|node| shared.views.get(*node).is_some_and(|view| view.answers)).unwrap_or((node + 1) % nodes)
}

fn sign_up_to(shared: &Handle, ready: &mut Vec<Transfer>, count: usize) {
    let mut shared = shared.borrow_mut();
    let height = Height(shared.ledger.height_max());
    while ready.len() < count {
        ready.push(shared.accounts.sign_next(height));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    First,
    Again,
}

/// Hands transactions to a node, or to the next one if that can't be reached, until each is taken or refused.
async fn deliver(shared: Handle, mut node: usize, mut batch: Vec<Transfer>, mut attempt: Attempt) {
    for _ in 0..ATTEMPTS_MAX {
        let client = shared.borrow().client.clone();
        note_sent(&shared, node, &batch);
        let signed: Vec<_> = batch.iter().map(|transfer| transfer.signed.clone()).collect();
        match client.submit(node, &signed).await {
            Ok(verdicts) => {
                batch = sort_out(&shared, batch, &verdicts.list, attempt);
                if batch.is_empty() {
                    return;
                }
                shared.borrow_mut().put_off += 1;
                tokio::time::sleep(verdicts.retry_after.unwrap_or(FULL_PAUSE)).await;
                // Sending is over: what was put off was never submitted.
                if shared.borrow().plan.tps == 0 {
                    return;
                }
            }
            Err(_) => {
                attempt = Attempt::Again;
                shared.borrow_mut().views[node].answers = false;
                node = next_answering(&shared, node);
                tokio::time::sleep(ATTEMPT_PAUSE).await;
            }
        }
    }
}

fn note_sent(shared: &Handle, node: usize, batch: &[Transfer]) {
    let mut shared = shared.borrow_mut();
    let (deaths, now) = (shared.deaths.get(node).copied().unwrap_or(0), Instant::now());
    for transfer in batch {
        let id = transfer.signed.id();
        shared.tracker.sent(transfer, node, deaths, now);
        if shared.tracker.seen_by(&id, node) && shared.tracker.cited(&id, node, now).is_some() {
            shared.accounts.succeeded(transfer);
        }
    }
}

/// Books each verdict; returns those that found no room.
fn sort_out(shared: &Handle, batch: Vec<Transfer>, verdicts: &[Verdict], attempt: Attempt) -> Vec<Transfer> {
    let mut shared = shared.borrow_mut();
    let mut full = Vec::new();
    for (transfer, verdict) in batch.into_iter().zip(verdicts) {
        let id = transfer.signed.id();
        match (verdict, attempt) {
            (Verdict::Taken, _) => {}
            (Verdict::Full, Attempt::First) => {
                shared.tracker.put_off(&id);
                full.push(transfer);
            }
            // An earlier node may have taken it: it stays open, and its fate is asked for in the end.
            (Verdict::Full, Attempt::Again) => full.push(transfer),
            (Verdict::Refused(_), Attempt::Again) => {}
            (Verdict::Refused(code), Attempt::First) => {
                if shared.tracker.remove(&id).is_some() {
                    shared.failed += 1;
                    shared.name(id, format!("refused: {code}"), false);
                }
            }
        }
    }
    full
}

/// Sends what stays open for long to the next node, as a client would whose node is gone.
pub(crate) async fn resend_stale(shared: Handle) {
    loop {
        tokio::time::sleep(STALE_EVERY).await;
        let nodes = shared.borrow().plan.nodes.len();
        let mut by_node: Vec<Vec<Transfer>> = vec![Vec::new(); nodes];
        {
            let mut shared = shared.borrow_mut();
            let now = Instant::now();
            for (_, open) in shared.tracker.open().filter(|(_, open)| now.duration_since(open.resent) > STALE_AFTER) {
                let turn = (1..=nodes).map(|step| (open.node + step) % nodes);
                let next = turn.clone().find(|node| shared.views[*node].answers).unwrap_or((open.node + 1) % nodes);
                if by_node[next].len() < FORWARD_MAX {
                    by_node[next].push(open.transfer.clone());
                }
            }
            shared.resent += by_node.iter().map(|list| list.len() as u64).sum::<u64>();
        }
        for (node, batch) in by_node.into_iter().enumerate().filter(|(_, batch)| !batch.is_empty()) {
            tokio::task::spawn_local(deliver(Rc::clone(&shared), node, batch, Attempt::Again));
        }
    }
}
