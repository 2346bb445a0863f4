//! What `top` knows: the last sample, rates against the one before, sources from events. Time is an input.

use guard::protocol::{BanInfo, EventInfo, Stats};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
};

/// Samples that a sparkline remembers.
pub const HISTORY: usize = 120;
/// Sources remembered; the lightest goes when a new one comes.
pub const SOURCES_MAX: usize = 1024;
/// What is left of a source's weight after each sample: half after about ten.
const FADE: f64 = 0.933;
/// Weight at which a source is forgotten.
const WEIGHT_MIN: f64 = 0.5;

/// What was done with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Passed on a protected port.
    Pass,
    /// Would have been dropped.
    WouldDrop,
    /// Dropped.
    Drop,
}

/// One reason's line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Packets since the guard's maps were made.
    pub total: u64,
    /// Packets a second.
    pub rate: f64,
    /// Rates of past samples, oldest first.
    pub history: VecDeque<f64>,
}

/// One source's line.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Drops that its events stand for, fading.
    pub weight: f64,
    /// Why the last one was dropped.
    pub reason: String,
    /// Which of our ports it was for.
    pub port: String,
    /// False if it would have been.
    pub dropped: bool,
}

/// One peer's line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peer {
    /// Who.
    pub label: String,
    /// Flows now.
    pub flows: u32,
    /// Packets a second.
    pub rate: f64,
    /// Bytes a second.
    pub bytes_rate: f64,
    /// Drops (or what would be) a second.
    pub drop_rate: f64,
    /// All of them.
    pub dropped: u64,
    /// Smoothed round-trip time, µs; `None`: not visible.
    pub rtt_us: Option<u64>,
    /// What half of its packets' latencies stayed below, ns; `None`: not measured.
    pub p50_ns: Option<u64>,
    /// The same of 99 %.
    pub p99_ns: Option<u64>,
    /// Segments sent again; `None`: not visible.
    pub retransmits: Option<String>,
}

/// A key that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// End.
    Quit,
    /// Stop the picture; again goes on.
    Pause,
    /// Show the keys; again hides them.
    Help,
    /// The next pane.
    Next,
    /// The one before.
    Previous,
    /// This pane.
    Pane(usize),
    /// Hide the keys.
    Escape,
}

/// Panes, in the order of their keys.
pub const PANES: [&str; 4] = ["Verdicts", "Sources", "Peers", "Bans"];

/// Everything that is drawn.
#[derive(Default)]
pub struct State {
    /// When the last sample was taken, Unix ms.
    pub now_ms: u64,
    /// The last sample.
    pub stats: Option<Stats>,
    /// Bans, the next to end first.
    pub bans: Vec<BanInfo>,
    /// By action and reason.
    pub verdicts: BTreeMap<(Action, String), Verdict>,
    /// Sources that met a drop.
    pub sources: HashMap<IpAddr, Source>,
    /// Peers, the busiest first.
    pub peers: Vec<Peer>,
    /// Which pane has the screen, or the mark where all have a part of it.
    pub pane: usize,
    /// Samples and events are left out.
    pub paused: bool,
    /// The keys are shown.
    pub help: bool,
    /// Why the guard can't be asked; it is asked again and again.
    pub gone: Option<String>,
}

impl State {
    /// Takes a sample of this moment.
    pub fn sample(&mut self, now_ms: u64, stats: Stats, mut bans: Vec<BanInfo>) {
        self.gone = None;
        if self.paused {
            return;
        }
        // The first sample has nothing to be compared with; nor has the first one of another guard.
        let before = self.stats.take().filter(|old| old.started_unix_ms == stats.started_unix_ms);
        let seconds = before.as_ref().map(|_| now_ms.saturating_sub(self.now_ms).max(1) as f64 / 1e3);
        if before.is_none() {
            self.verdicts.clear();
        }
        self.count(&stats, seconds);
        self.peers = peers(before.as_ref(), &stats, seconds);
        for source in self.sources.values_mut() {
            source.weight *= FADE;
        }
        self.sources.retain(|_, source| source.weight >= WEIGHT_MIN);
        bans.sort_by_key(|ban| (ban.until_unix_ms, ban.address));
        (self.now_ms, self.stats, self.bans) = (now_ms, Some(stats), bans);
    }

    fn count(&mut self, stats: &Stats, seconds: Option<f64>) {
        let of = |action, counts: &BTreeMap<String, u64>| {
            counts.iter().map(move |(reason, count)| ((action, reason.clone()), *count)).collect::<Vec<_>>()
        };
        let all = [(Action::Pass, &stats.passed), (Action::WouldDrop, &stats.would_drop), (Action::Drop, &stats.dropped)];
        for (name, total) in all.into_iter().flat_map(|(action, counts)| of(action, counts)) {
            let verdict = self.verdicts.entry(name).or_default();
            let more = total.saturating_sub(verdict.total);
            verdict.total = total;
            if let Some(seconds) = seconds {
                verdict.rate = more as f64 / seconds;
                verdict.history.push_back(verdict.rate);
                if verdict.history.len() > HISTORY {
                    verdict.history.pop_front();
                }
            }
        }
    }

    /// Takes an event.
    pub fn event(&mut self, event: &EventInfo) {
        if self.paused {
            return;
        }
        let weight = event.stands_for.max(1) as f64;
        let known = self.sources.get(&event.address).map_or(0.0, |source| source.weight);
        if known == 0.0 && self.sources.len() >= SOURCES_MAX {
            let lightest = self.sources.iter().min_by(|(_, a), (_, b)| a.weight.total_cmp(&b.weight)).map(|(address, _)| *address);
            lightest.and_then(|address| self.sources.remove(&address));
        }
        let source = Source {
            weight: known + weight,
            reason: event.reason.clone(),
            port: format!("{}/{}", event.protocol, event.local_port),
            dropped: event.dropped,
        };
        self.sources.insert(event.address, source);
    }

    /// The guard did not answer.
    pub fn gone(&mut self, why: &str) {
        self.gone = Some(why.to_string());
    }

    /// A key was pressed.
    pub fn press(&mut self, key: Key) {
        match key {
            Key::Quit => {}
            Key::Pause => self.paused = !self.paused,
            Key::Help => self.help = !self.help,
            Key::Escape => self.help = false,
            Key::Next => self.pane = (self.pane + 1) % PANES.len(),
            Key::Previous => self.pane = (self.pane + PANES.len() - 1) % PANES.len(),
            Key::Pane(pane) => self.pane = pane.min(PANES.len() - 1),
        }
    }

    /// Packets a second, and the sum so far, of one action.
    pub fn sum(&self, action: Action) -> (f64, u64) {
        let of = self.verdicts.iter().filter(|((of, _), _)| *of == action);
        of.fold((0.0, 0), |(rate, total), (_, verdict)| (rate + verdict.rate, total + verdict.total))
    }
}

fn peers(before: Option<&Stats>, stats: &Stats, seconds: Option<f64>) -> Vec<Peer> {
    let old: HashMap<(u32, u32), _> =
        before.iter().flat_map(|stats| &stats.rows).map(|row| ((row.row, row.generation), row)).collect();
    let peer = |row: &guard::protocol::RowInfo| {
        let mut peer = Peer {
            label: row.label.clone(),
            flows: row.flows,
            dropped: row.dropped + row.would_drop,
            rtt_us: row.tcp.as_ref().and_then(|tcp| tcp.srtt_us),
            retransmits: row.tcp.as_ref().map(|tcp| tcp.retransmits.to_string()),
            p50_ns: row.latency_p50_ns,
            p99_ns: row.latency_p99_ns,
            ..Peer::default()
        };
        if let Some((seconds, old)) = seconds.zip(old.get(&(row.row, row.generation))) {
            let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
            peer.rate = rate(row.packets, old.packets);
            peer.bytes_rate = rate(row.bytes, old.bytes);
            peer.drop_rate = rate(peer.dropped, old.dropped + old.would_drop);
        }
        peer
    };
    let mut peers: Vec<Peer> = stats.rows.iter().map(peer).collect();
    peers.sort_by(|a, b| b.rate.total_cmp(&a.rate).then_with(|| a.label.cmp(&b.label)));
    peers
}
