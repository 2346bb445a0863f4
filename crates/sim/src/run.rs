//! One run: chaos, then healing, then what must follow from it.

use std::collections::BTreeMap;

use types::{Hash, Height, PublicKey};

use crate::keys;
use crate::plan::Options;
use crate::world::{Event, World};

/// Time after healing in which everything must have come right, ms.
const LIVE_MS: u64 = 40_000;
/// A client that gets no receipt asks again after so long, ms.
const PROBE_EVERY_MS: u64 = 4_000;
/// The window in which an idle network is listened to, ms.
const QUIET_MS: u64 = 5_000;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of the run.
    pub seed: u64,
    /// The first violation.
    pub broken: Option<String>,
    /// Two blocks of one height were final at honest nodes.
    pub forked: bool,
    /// Keys that the evidence list convicts, over everything that was said.
    pub guilty: Vec<PublicKey>,
    /// Whether those have a third of the weight or more.
    pub guilty_third: bool,
    /// Whether an honest key is among them.
    pub honest_guilty: bool,
    /// Over everything that happened.
    pub trace: Hash,
    /// Figures: events, messages, heights, epochs, ms to liveness.
    pub events: u64,
    /// Messages on the wire.
    pub messages: u64,
    /// Final heights.
    pub height: Height,
    /// The world's time from healing to the probe's end at every honest node, ms.
    pub live_ms: u64,
    /// How often what happened.
    pub marks: BTreeMap<&'static str, u64>,
}

impl Report {
    /// The line that shows the failure again.
    pub fn reproduce(&self, options: &Options) -> String {
        let nodes = options.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
        format!("ebpf-sim --seed {}{nodes}", self.seed)
    }
}

/// Runs the world of a seed.
pub fn run(seed: u64, options: &Options) -> Report {
    match World::new(seed, options) {
        Ok(mut world) => {
            world.scenario();
            world.report(seed)
        }
        Err(error) => Report {
            seed,
            broken: Some(format!("START {error}")),
            forked: false,
            guilty: Vec::new(),
            guilty_third: false,
            honest_guilty: false,
            trace: Hash::ZERO,
            events: 0,
            messages: 0,
            height: Height(0),
            live_ms: 0,
            marks: BTreeMap::new(),
        },
    }
}

impl World {
    fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    fn scenario(&mut self) {
        self.chaos();
        if self.is_broken() {
            return;
        }
        if self.options.over_third {
            self.heal();
            let end = self.now.plus_ms(1_000);
            self.run_until(end, World::is_broken);
            return;
        }
        self.heal();
        self.liveness();
        if self.is_broken() {
            return;
        }
        self.settle();
        if self.is_broken() {
            return;
        }
        self.check_taken();
        self.quiet();
    }

    /// Everything at once.
    fn chaos(&mut self) {
        let chaos = self.plan.chaos_ms;
        self.after_ms(0, Event::Load);
        self.after_ms(1, Event::Partition);
        self.after_ms(1, Event::Mischief);
        if self.instances.len() > self.reach.len() && !self.options.over_third {
            self.after_ms(1, Event::Twins);
        }
        for _ in 0..self.plan.crashes {
            let (at, when) = (self.dice.below(self.instances.len()), self.dice.range(20, chaos));
            self.after_ms(when, Event::Crash(at));
        }
        for _ in 0..self.plan.power_losses {
            let when = self.dice.range(50, chaos);
            self.after_ms(when, Event::PowerLoss);
        }
        if self.plan.old_storage {
            self.plan_old_storage();
        }
        let end = self.now.plus_ms(chaos);
        self.run_until(end, World::is_broken);
    }

    /// One node without which there is still a quorum crashes and gets old storage back.
    fn plan_old_storage(&mut self) {
        let validators = &self.plan.genesis.epochs[0].validators;
        let total: u64 = validators.iter().map(|validator| validator.weight.0).sum();
        let light = |node: &usize| {
            let key = keys::validator(*node).public();
            let weight = validators.iter().find(|v| v.key == key).map_or(0, |v| v.weight.0);
            weight * 3 < total
        };
        let candidates: Vec<usize> = (0..self.plan.validators).filter(light).collect();
        if candidates.is_empty() {
            return;
        }
        let at = *self.dice.pick(&candidates);
        self.instances[at].roll_back = true;
        let when = self.dice.range(self.plan.chaos_ms / 3, self.plan.chaos_ms);
        self.after_ms(when, Event::Crash(at));
    }

    /// A transaction submitted after healing is executed at every honest node.
    fn liveness(&mut self) {
        let start = self.now;
        self.loading = !self.plan.idle;
        let pause = self.now.plus_ms(self.plan.healed_delay_ms * 2);
        self.run_until(pause, World::is_broken);
        let end = start.plus_ms(LIVE_MS);
        while !self.is_broken() && self.now < end {
            let willing: Vec<usize> = self.honest().filter(|(_, node)| !node.muted).map(|(at, _)| at).collect();
            let at = *self.dice.pick(&willing);
            let probe = self.transfer();
            self.clients.probe = Some(probe.id());
            self.clients.probe_refused = false;
            self.clients.executed_probe.clear();
            self.submit(at, probe);
            let patience = self.now.plus_ms(PROBE_EVERY_MS).min(end);
            let done = self.run_until(patience, |w| w.is_broken() || w.clients.probe_refused || w.probe_everywhere());
            if done && self.probe_everywhere() {
                self.marks.insert("live ms", self.now.since(start) / 1_000);
                return;
            }
            self.mark("probe again");
        }
        let standing = self.standing();
        self.fail(format!("LIVENESS no probe is final everywhere {LIVE_MS} ms after healing: {standing}"));
    }

    fn probe_everywhere(&self) -> bool {
        self.honest().all(|(at, _)| self.clients.executed_probe.contains(&at))
    }

    /// After the load stops, all honest nodes are level, and the last non-empty block's root stands in a final header.
    fn settle(&mut self) {
        (self.loading, self.settling) = (false, true);
        let end = self.now.plus_ms(LIVE_MS);
        let settled = self.run_until(end, |w| w.is_broken() || w.is_settled());
        if !settled {
            let standing = self.standing();
            let (named, last) = (self.chain.executed(), self.chain.last_nonempty());
            self.fail(format!("ROOT final headers name {named}, last non-empty block is {last}: {standing}"));
        }
    }

    fn is_settled(&self) -> bool {
        let top = self.chain.height();
        let level = self.honest().all(|(_, node)| {
            node.replica.as_ref().is_some_and(|replica| {
                let summary = replica.summary();
                // What a follower forwarded into a crash is forwarded again some heights later: an idle chain has none.
                let idle = node.muted || !summary.validator || replica.pool().transactions == 0;
                summary.height == top && summary.executed == top && idle
            })
        });
        level && self.chain.executed() >= self.chain.last_nonempty()
    }

    /// With nothing to do, honest nodes have nothing to say; with a short idle interval, a block now and then.
    fn quiet(&mut self) {
        self.hushed = true;
        let vote_timeout = self.config.consensus.view_timeout_ms;
        let calm = self.now.plus_ms(20 * vote_timeout + 6 * self.plan.healed_delay_ms);
        self.run_until(calm, World::is_broken);
        let (messages, height) = (self.messages, self.chain.height());
        let end = self.now.plus_ms(QUIET_MS);
        self.run_until(end, World::is_broken);
        let (messages, blocks) = (self.messages - messages, self.chain.height().since(height));
        let nodes = self.reach.len() as u64;
        if self.plan.idle_interval_ms > QUIET_MS {
            self.mark("quiet window");
            if messages == 0 {
                self.mark("quiet window without a message");
            }
            // At most one idle interval ends in the window: its block's messages, with re-sends.
            if messages > 12 * nodes * nodes {
                let standing = self.standing();
                self.fail(format!("QUIET {messages} messages in {QUIET_MS} ms with nothing to do: {standing}"));
            }
        } else if blocks > 3 * QUIET_MS / self.plan.idle_interval_ms {
            let standing = self.standing();
            self.fail(format!("QUIET {blocks} blocks in {QUIET_MS} ms with nothing to do: {standing}"));
        }
    }

    fn report(self, seed: u64) -> Report {
        let guilty = self.all_speech.guilty();
        let weight = |key: &PublicKey| {
            let validators = &self.plan.genesis.epochs[0].validators;
            validators.iter().find(|v| v.key == *key).map_or(0, |v| v.weight.0)
        };
        let total: u64 = self.plan.genesis.epochs[0].validators.iter().map(|v| v.weight.0).sum();
        let honest_guilty =
            (0..self.plan.validators).any(|n| self.plan.is_honest(n) && guilty.contains(&keys::validator(n).public()));
        Report {
            seed,
            forked: self.chain.forked,
            guilty_third: guilty.iter().map(weight).sum::<u64>() * 3 >= total,
            honest_guilty,
            guilty: guilty.into_iter().collect(),
            events: self.events,
            messages: self.messages,
            height: self.chain.height(),
            live_ms: self.marks.get("live ms").copied().unwrap_or(0),
            trace: {
                let mut trace = self.trace;
                trace.add(self.now, "end", self.events, self.broken.as_deref().unwrap_or("").as_bytes());
                trace.finish()
            },
            broken: self.broken,
            marks: self.marks,
        }
    }
}
