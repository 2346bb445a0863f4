//! Which transactions are on their way, and how long the others took. Bounded: what is final is only counted.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use types::TxId;

use super::Percentiles;
use super::accounts::Transfer;

/// Finality is counted in buckets of 1 ms; what takes longer than this lands in the last one (the maximum is exact).
const BUCKETS: usize = 60_000;
/// The span of [`Tracker::recent`].
pub const RECENT: Duration = Duration::from_secs(3);
/// Most entries of the recent span.
const RECENT_MAX: usize = 20_000;

/// A transaction on its way.
#[derive(Clone, Debug)]
pub struct Open {
    /// What was sent.
    pub transfer: Transfer,
    /// The node that took it last.
    pub node: usize,
    /// When the request that it first took left.
    pub sent: Instant,
    /// When it was last sent.
    pub resent: Instant,
    /// How often that node had died when it took it.
    pub deaths: u32,
    /// Nodes that showed it final, one bit each.
    seen: u128,
}

/// The transactions.
#[derive(Debug)]
pub struct Tracker {
    open: HashMap<TxId, Open>,
    buckets: Vec<u64>,
    max_ms: u64,
    recent: VecDeque<(Instant, u64)>,
    submitted: u64,
    committed: u64,
    last_commit: Option<Instant>,
}

impl Tracker {
    /// Nothing yet.
    pub fn new() -> Tracker {
        Tracker {
            open: HashMap::new(),
            buckets: vec![0; BUCKETS],
            max_ms: 0,
            recent: VecDeque::new(),
            submitted: 0,
            committed: 0,
            last_commit: None,
        }
    }

    /// Notes a transaction before its request leaves, so that no block can be ahead of us.
    pub fn sent(&mut self, transfer: &Transfer, node: usize, deaths: u32, now: Instant) {
        let id = transfer.signed.id();
        let open = self.open.entry(id).or_insert_with(|| {
            self.submitted += 1;
            Open { transfer: transfer.clone(), node, sent: now, resent: now, deaths, seen: 0 }
        });
        (open.node, open.resent, open.deaths) = (node, now, deaths);
    }

    /// Whether a node has shown a transaction final before it was (sent again and) told to wait for that node.
    pub fn seen_by(&self, id: &TxId, node: usize) -> bool {
        self.open.get(id).is_some_and(|open| open.seen & bit(node) != 0)
    }

    /// Takes back one that was put off: it was never submitted, and its time starts with the next attempt.
    pub fn put_off(&mut self, id: &TxId) {
        if self.open.remove(id).is_some() {
            self.submitted -= 1;
        }
    }

    /// Takes out one that was refused or is lost.
    pub fn remove(&mut self, id: &TxId) -> Option<Open> {
        self.open.remove(id)
    }

    /// A final block of a node cites it. Counts if it was sent there; `None` for what is known already or not ours.
    pub fn cited(&mut self, id: &TxId, node: usize, now: Instant) -> Option<Open> {
        let open = self.open.get_mut(id)?;
        open.seen |= bit(node);
        if open.node != node {
            return None;
        }
        let open = self.open.remove(id)?;
        let ms = age_ms(&open, now);
        let bucket = usize::try_from(ms).unwrap_or(BUCKETS).min(BUCKETS - 1);
        self.buckets[bucket] += 1;
        self.max_ms = self.max_ms.max(ms);
        self.committed += 1;
        self.last_commit = Some(now);
        self.recent.push_back((now, ms));
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        Some(open)
    }

    /// Counts one whose finality was only learned by asking: no time was measured.
    pub fn found_final(&mut self, now: Instant) {
        self.committed += 1;
        self.last_commit = Some(now);
    }

    /// All that are open, as they are.
    pub fn open(&self) -> impl Iterator<Item = (&TxId, &Open)> {
        self.open.iter()
    }

    /// How many are open.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Transactions that left and were not put off.
    pub fn submitted(&self) -> u64 {
        self.submitted
    }

    /// Transactions seen final.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// When the last one became final.
    pub fn last_commit(&self) -> Option<Instant> {
        self.last_commit
    }

    /// Median and 99th percentile of the last [`RECENT`] seconds.
    pub fn recent(&mut self, now: Instant) -> Option<(u64, u64)> {
        while self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RECENT) {
            self.recent.pop_front();
        }
        let mut all: Vec<u64> = self.recent.iter().map(|(_, ms)| *ms).collect();
        all.sort_unstable();
        let at = |percent: usize| all.get((all.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some((at(50)?, at(99)?))
    }

    /// 99th percentile of the last [`RECENT`] seconds, those that are open counted with the age that they have reached: a lower bound
    /// that does not fall when nothing becomes final any more.
    pub fn honest_p99(&mut self, now: Instant) -> Option<u64> {
        self.recent(now);
        let ages = self.open.values().map(|open| age_ms(open, now));
        let mut all: Vec<u64> = self.recent.iter().map(|(_, ms)| *ms).chain(ages).collect();
        all.sort_unstable();
        all.get((all.len() * 99).div_ceil(100).saturating_sub(1)).copied()
    }

    /// Age of the oldest that is open.
    pub fn oldest_open(&self, now: Instant) -> Duration {
        self.open.values().map(|open| now.saturating_duration_since(open.sent)).max().unwrap_or_default()
    }

    /// Percentiles of all.
    pub fn percentiles(&self) -> Percentiles {
        let total: u64 = self.buckets.iter().sum();
        let at = |percent: u64| {
            let rank = (total * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let reached = |count: &u64| {
                seen += count;
                seen >= rank
            };
            self.buckets.iter().position(reached).map_or(0, |ms| ms as u64)
        };
        Percentiles { p50: at(50), p90: at(90), p99: at(99), max: self.max_ms }
    }
}

fn age_ms(open: &Open, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(open.sent).as_millis()).unwrap_or(u64::MAX)
}

/// There are at most [`crate::fabric::NODES_MAX`] nodes, so each has a bit.
fn bit(node: usize) -> u128 {
    1u128.checked_shl(u32::try_from(node).unwrap_or(u32::MAX)).unwrap_or(0)
}

impl Default for Tracker {
    fn default() -> Tracker {
        Tracker::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Plan;
    use crate::load::accounts::Accounts;
    use types::{ChainId, Height, Params};

    fn plan() -> Plan {
        Plan {
            chain: ChainId::default(),
            params: Params::default(),
            nodes: Vec::new(),
            accounts: 4,
            tps: 1,
            seed: 0,
            duration: None,
        }
    }

    fn transfers(count: usize) -> Vec<Transfer> {
        let mut accounts = Accounts::new(&plan());
        (0..count).map(|_| accounts.sign_next(Height(1))).collect()
    }

    #[test]
    fn percentiles_count_every_transaction() {
        let mut tracker = Tracker::new();
        let start = Instant::now();
        for (i, transfer) in transfers(100).iter().enumerate() {
            tracker.sent(transfer, 0, 0, start);
            let at = start + Duration::from_millis(i as u64 + 1);
            assert!(tracker.cited(&transfer.signed.id(), 1, at).is_none(), "another node's finality does not count");
            assert!(tracker.cited(&transfer.signed.id(), 0, at).is_some());
            assert!(tracker.cited(&transfer.signed.id(), 0, at).is_none(), "a second citation does not count");
        }
        assert_eq!(tracker.percentiles(), Percentiles { p50: 50, p90: 90, p99: 99, max: 100 });
        assert_eq!((tracker.submitted(), tracker.committed(), tracker.open_count()), (100, 100, 0));
    }

    #[test]
    fn a_network_that_stands_still_does_not_look_quick() {
        let mut tracker = Tracker::new();
        let start = Instant::now();
        assert_eq!((tracker.honest_p99(start), tracker.oldest_open(start)), (None, Duration::ZERO));
        for transfer in &transfers(50) {
            tracker.sent(transfer, 0, 0, start);
            tracker.cited(&transfer.signed.id(), 0, start + Duration::from_millis(5));
        }
        assert_eq!(tracker.honest_p99(start + Duration::from_millis(5)), Some(5));
        let mut accounts = Accounts::new(&Plan { seed: 9, ..plan() });
        tracker.sent(&accounts.sign_next(Height(1)), 0, 0, start);
        let later = start + Duration::from_secs(2);
        assert_eq!((tracker.honest_p99(later), tracker.oldest_open(later)), (Some(2_000), Duration::from_secs(2)));
        // What became final long ago no longer speaks for the present.
        assert_eq!(tracker.honest_p99(start + Duration::from_secs(9)), Some(9_000));
    }

    #[test]
    fn what_is_put_off_was_not_submitted() {
        let mut tracker = Tracker::new();
        let transfer = &transfers(1)[0];
        let start = Instant::now();
        tracker.sent(transfer, 0, 0, start);
        tracker.put_off(&transfer.signed.id());
        assert_eq!((tracker.submitted(), tracker.open_count()), (0, 0));
        let later = start + Duration::from_secs(9);
        tracker.sent(transfer, 0, 0, later);
        assert!(tracker.cited(&transfer.signed.id(), 1, later).is_none());
        assert!(tracker.seen_by(&transfer.signed.id(), 1) && !tracker.seen_by(&transfer.signed.id(), 2));
        tracker.sent(transfer, 2, 1, later + Duration::from_secs(1));
        assert_eq!(tracker.submitted(), 1, "sending again is not another transaction");
        assert!(tracker.cited(&transfer.signed.id(), 2, later + Duration::from_secs(3)).is_some());
        assert_eq!(tracker.percentiles().max, 3_000, "time runs from the first attempt that was not put off");
    }
}
