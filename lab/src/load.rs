//! Load: signed transfers sent to the nodes' APIs at a steady rate, and the chain followed on every node until each is final.
//!
//! - [`accounts`]: who sends what, and what each account must hold in the end: a model of its own, not the ledger;
//! - [`client`]: the few routes that are asked;
//! - [`sender`]: the rate, the retries that `Retry-After` asks for, the node that takes over when one is gone;
//! - [`follower`]: every final block of every node, its hash recomputed and compared;
//! - [`tracker`]: which transactions are on their way, and how long the others took;
//! - [`settle`]: the end: everything final, or named with the reason; balances and nonces compared with the model.
//!
//! All of it runs on one thread, whose CPU time is therefore the generator's whole cost.
//!
//! *Finality of a transaction* is the time from the moment when its request was sent to the moment when the node it was sent to
//! shows a final block that cites it. The block is polled for every [`follower::POLL_BUSY`], which is part of the figure.

pub mod accounts;
pub mod client;
pub mod follower;
pub mod sender;
pub mod settle;
pub mod tracker;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use types::{ChainId, Params};

use accounts::Accounts;
use client::Client;
use tracker::Tracker;

/// What to send, and where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The chain.
    pub chain: ChainId,
    /// Its parameters.
    pub params: Params,
    /// The nodes' names and API addresses (`http://127.0.0.1:8545`).
    pub nodes: Vec<(String, String)>,
    /// Development accounts that the load uses, from [`crate::chain::ACCOUNTS_RESERVED`] on; all hold money.
    pub accounts: u32,
    /// Transactions a second; 0: only follow.
    pub tps: u32,
    /// Chooses senders, recipients and amounts.
    pub seed: u64,
    /// How long to send; none: until told to stop.
    pub duration: Option<Duration>,
}

/// What the table shows of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// Highest final height seen there.
    pub height: u64,
    /// Peers connected.
    pub peers: u32,
    /// Whether its API answers.
    pub answers: bool,
}

/// What the table shows.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// By node.
    pub nodes: Vec<NodeView>,
    /// Transactions taken by a node so far.
    pub submitted: u64,
    /// Transactions final so far.
    pub committed: u64,
    /// Median and 99th percentile of finality in ms over the last few seconds.
    pub recent_ms: Option<(u64, u64)>,
    /// 99th percentile of the same span, what is open included; see [`tracker::Tracker::honest_p99`].
    pub honest_p99_ms: Option<u64>,
    /// Age of the oldest transaction that is open.
    pub oldest_open: Duration,
    /// Whether the nodes answer and sending has begun.
    pub sending: bool,
    /// Whether sending is over and what is open is waited for.
    pub settling: bool,
}

/// Percentiles in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: u64,
    /// 90th.
    pub p90: u64,
    /// 99th.
    pub p99: u64,
    /// Largest.
    pub max: u64,
}

/// Counts of transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Sent and not put off by `Full`: every one of these is final, failed or lost in the end.
    pub submitted: u64,
    /// In a final block on the node that they were sent to.
    pub r#final: u64,
    /// Refused for good, or final without success.
    pub failed: u64,
    /// Neither.
    pub lost: u64,
}

/// A transaction that is not final, or a fact that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Which transaction, account or height.
    pub what: String,
    /// What became of it.
    pub reason: String,
    /// Whether the reason is a known fault of the run (a node died), not a flaw.
    pub explained: bool,
}

/// What the load found in the end.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Highest height that every node has final.
    pub height_common: u64,
    /// Highest final height by node.
    pub heights: Vec<u64>,
    /// Whether all nodes had the same block at every height up to `height_common`, and their hashes are those of the headers.
    pub agree: bool,
    /// Transactions.
    pub transactions: Counts,
    /// Final transactions a second, from the first sending to the last finality.
    pub committed_tps: f64,
    /// Finality.
    pub finality_ms: Percentiles,
    /// Sent again, because the node that took them was gone or they stayed open for long.
    pub resent: u64,
    /// Requests put off with 429.
    pub put_off: u64,
    /// All that is not as it should be; bounded by [`NAMED_MAX`].
    pub named: Vec<Named>,
    /// CPU of the whole load thread.
    pub cpu_us: u64,
}

/// Most entries of [`Outcome::named`]; what is beyond is counted in the last one.
pub const NAMED_MAX: usize = 100;

/// Everything that the tasks of the load thread share.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) client: Client,
    pub(crate) accounts: Accounts,
    pub(crate) tracker: Tracker,
    pub(crate) ledger: follower::Agreement,
    pub(crate) views: Vec<NodeView>,
    pub(crate) named: Vec<Named>,
    /// Deaths of nodes, by node, as told by the runner.
    pub(crate) deaths: Vec<u32>,
    /// Transactions refused for good, or final without success.
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    pub(crate) resent: u64,
    pub(crate) put_off: u64,
}

impl Shared {
    pub(crate) fn name(&mut self, what: impl ToString, reason: impl Into<String>, explained: bool) {
        if self.named.len() < NAMED_MAX {
            self.named.push(Named { what: what.to_string(), reason: reason.into(), explained });
        } else if let Some(last) = self.named.last_mut() {
            last.what = "more".to_owned();
            last.explained &= explained;
        }
    }
}

pub(crate) type Handle = Rc<RefCell<Shared>>;

/// What the runner tells the load.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Orders {
    stop: bool,
    deaths: Vec<u32>,
}

/// The running load.
#[derive(Debug)]
pub struct Load {
    thread: JoinHandle<Result<Outcome>>,
    view: Arc<Mutex<View>>,
    orders: watch::Sender<Orders>,
}

impl Load {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(plan: Plan) -> Result<Load> {
        let view = Arc::new(Mutex::new(View { nodes: vec![NodeView::default(); plan.nodes.len()], ..View::default() }));
        let (orders, receiver) = watch::channel(Orders { stop: false, deaths: vec![0; plan.nodes.len()] });
        let shown = Arc::clone(&view);
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the load")?;
            let mut outcome = tokio::task::LocalSet::new().block_on(&runtime, run(plan, shown, receiver))?;
            outcome.cpu_us = crate::process::thread_cpu_us();
            Ok(outcome)
        });
        Ok(Load { thread: thread.context("start the load")?, view, orders })
    }

    /// The latest view.
    pub fn view(&self) -> View {
        locked(&self.view).clone()
    }

    /// Tells that a node died (or its guard took it down): what it had taken may be gone.
    pub fn node_died(&self, index: usize) {
        self.orders.send_modify(|orders| {
            if let Some(count) = orders.deaths.get_mut(index) {
                *count += 1;
            }
        });
    }

    /// Ends the sending; what is open is still waited for.
    pub fn stop(&self) {
        self.orders.send_modify(|orders| orders.stop = true);
    }

    /// Whether the outcome is there.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the outcome.
    ///
    /// # Errors
    /// If the load could not run.
    pub fn finish(self) -> Result<Outcome> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the load generator panicked"))?
    }
}

fn locked(view: &Mutex<View>) -> MutexGuard<'_, View> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often the table's figures are brought up to date.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);
const INFO_EVERY: Duration = Duration::from_secs(1);
/// The same before a node has answered for the first time.
const FIRST_INFO_EVERY: Duration = Duration::from_millis(25);
/// How long nodes may take to answer; then load begins with those that do.
const ANSWERS_MAX: Duration = Duration::from_secs(30);

async fn run(plan: Plan, view: Arc<Mutex<View>>, mut orders: watch::Receiver<Orders>) -> Result<Outcome> {
    let nodes = plan.nodes.len();
    let shared = Rc::new(RefCell::new(Shared {
        client: Client::new(&plan.nodes)?,
        accounts: Accounts::new(&plan),
        tracker: Tracker::new(),
        ledger: follower::Agreement::new(nodes),
        views: vec![NodeView::default(); nodes],
        named: Vec::new(),
        deaths: vec![0; nodes],
        failed: 0,
        lost: 0,
        resent: 0,
        put_off: 0,
        plan,
    }));
    for node in 0..nodes {
        tokio::task::spawn_local(follower::follow(Rc::clone(&shared), node));
        tokio::task::spawn_local(look(Rc::clone(&shared), node));
    }
    tokio::task::spawn_local(publish(Rc::clone(&shared), Arc::clone(&view)));
    tokio::task::spawn_local(hear(Rc::clone(&shared), orders.clone()));
    wait_for_answers(&shared, orders.clone()).await;
    locked(&view).sending = true;
    let duration = shared.borrow().plan.duration;
    let end = async {
        let told = async { orders.wait_for(|orders| orders.stop).await.is_ok() };
        match duration {
            Some(duration) => tokio::time::timeout(duration, told).await.is_ok(),
            None => told.await,
        }
    };
    let started = Instant::now();
    sender::send_until(&shared, end).await;
    locked(&view).settling = true;
    Ok(settle::settle(&shared, started).await)
}

/// Waits until every node answers, for a while, or until told to stop.
async fn wait_for_answers(shared: &Handle, mut orders: watch::Receiver<Orders>) {
    let all = async {
        while !shared.borrow().views.iter().all(|view| view.answers) {
            tokio::time::sleep(follower::POLL_BUSY).await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(ANSWERS_MAX, all) => {}
        _ = orders.wait_for(|orders| orders.stop) => {}
    }
}

/// Keeps the deaths of nodes up to date.
async fn hear(shared: Handle, mut orders: watch::Receiver<Orders>) {
    while orders.changed().await.is_ok() {
        let deaths = orders.borrow_and_update().deaths.clone();
        let mut shared = shared.borrow_mut();
        for (node, count) in deaths.into_iter().enumerate() {
            if shared.deaths[node] != count {
                shared.deaths[node] = count;
                shared.views[node].answers = false;
            }
        }
    }
}

/// Asks a node how it is.
async fn look(shared: Handle, node: usize) {
    let client = shared.borrow().client.clone();
    let mut pause = FIRST_INFO_EVERY;
    loop {
        let info = client.info(node).await;
        if info.is_ok() {
            pause = INFO_EVERY;
        }
        {
            let view = &mut shared.borrow_mut().views[node];
            view.answers = info.is_ok();
            view.peers = info.map_or(0, |info| info.peers);
        }
        tokio::time::sleep(pause).await;
    }
}

async fn publish(shared: Handle, view: Arc<Mutex<View>>) {
    loop {
        {
            let mut shared = shared.borrow_mut();
            let mut view = locked(&view);
            view.nodes.clone_from(&shared.views);
            view.submitted = shared.tracker.submitted();
            view.committed = shared.tracker.committed();
            let now = Instant::now();
            view.recent_ms = shared.tracker.recent(now);
            view.honest_p99_ms = shared.tracker.honest_p99(now);
            view.oldest_open = shared.tracker.oldest_open(now);
        }
        tokio::time::sleep(PUBLISH_EVERY).await;
    }
}
