//! The world as one value: machines, links, a queue of what happens when, and the judges beside it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use replica::{Config, Input, Loaded, Peer, Token};
use types::{Message, SignedTransaction, Tick, TxId};

use crate::dice::Dice;
use crate::instance::Instance;
use crate::load::Ledgerless;
use crate::oracle::{Chain, Speech};
use crate::plan::{Options, Plan, Provoke, Vice};
use crate::store::Store;
use crate::trace::Trace;

/// Events after which a run is called endless.
pub const EVENTS_MAX: u64 = 400_000;

/// Journals are rewritten often, so that cuts and crashes meet.
const REWRITE_BYTES: usize = 16 << 10;

/// What happens at a time.
#[derive(Debug)]
pub enum Event {
    /// A message arrives over a connection.
    Deliver {
        /// At which instance.
        at: usize,
        /// The connection's handle there.
        peer: Peer,
        /// What.
        message: Arc<Message>,
    },
    /// A replica's timer.
    Wake(usize, u64),
    /// An answer to an effect, for a process of that life.
    Answer(usize, u64, Answer),
    /// A machine loses power with its next effects.
    Crash(usize),
    /// It gets power again.
    Restart(usize),
    /// All lose power.
    PowerLoss,
    /// Links are cut anew.
    Partition,
    /// Twins see other parts of the network.
    Twins,
    /// A bad machine acts unasked.
    Mischief,
    /// A client sends a transaction.
    Load,
}

/// An answer that takes its time.
#[derive(Debug)]
pub enum Answer {
    /// Of the signature pool.
    Verified(Token, Vec<bool>),
    /// Of storage: the write's number, and whether it is synced.
    Stored(Token, u64, bool),
    /// Of storage.
    Loaded(Token, replica::Load),
}

/// An event in the queue; ties go by order of scheduling.
struct Slot(Tick, u64, Event);

impl PartialEq for Slot {
    fn eq(&self, other: &Slot) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Slot {}

impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Slot) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slot {
    fn cmp(&self, other: &Slot) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Everything.
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) options: Options,
    pub(crate) config: Config,
    pub(crate) signer: signer::Config,
    pub(crate) dice: Dice,
    pub(crate) now: Tick,
    scheduled: u64,
    queue: BinaryHeap<Reverse<Slot>>,
    pub(crate) instances: Vec<Instance>,
    /// For each node, whom its messages reach.
    pub(crate) reach: Vec<u64>,
    /// For each instance, which nodes it sees: all, but for twins.
    pub(crate) sees: Vec<u64>,
    pub(crate) next_peer: u64,
    /// When an instance's storage is done with what it was given.
    pub(crate) storage_free: Vec<Tick>,
    pub(crate) healed: bool,
    pub(crate) loading: bool,
    /// The load has ended for good, and with it what bad machines do unasked: a spammer's batches are load, too.
    pub(crate) settling: bool,
    /// Byzantine machines say nothing more.
    pub(crate) hushed: bool,
    pub(crate) chain: Chain,
    pub(crate) honest_speech: Speech,
    pub(crate) all_speech: Speech,
    pub(crate) broken: Option<String>,
    pub(crate) trace: Trace,
    pub(crate) marks: BTreeMap<&'static str, u64>,
    pub(crate) events: u64,
    pub(crate) messages: u64,
    pub(crate) clients: Ledgerless,
    pub(crate) verified: HashMap<TxId, bool>,
}

/// The configuration of every node of a world: short timers, so that a second of the world's time holds many views.
fn config_of(plan: &Plan, options: &Options) -> Config {
    let consensus = consensus::Config {
        leader_timeout_ms: 60,
        view_timeout_ms: 120,
        idle_interval_ms: plan.idle_interval_ms,
        resend_ms: 50,
        block_interval_min_ms: 10,
        ..consensus::Config::default()
    };
    let config = Config { consensus, resend_ms: 50, ..Config::default() };
    plant(config, options)
}

#[cfg(not(feature = "planted-bugs"))]
fn plant(config: Config, _options: &Options) -> Config {
    config
}

#[cfg(feature = "planted-bugs")]
fn plant(mut config: Config, options: &Options) -> Config {
    use crate::plan::Bug;
    config.consensus.bugs.no_gap_check = options.bug == Some(Bug::NoGapCheck);
    config.consensus.bugs.nullify_and_finalize = options.bug == Some(Bug::NullifyAndFinalize);
    config.bugs.early_cut = options.bug == Some(Bug::EarlyCut);
    config
}

/// The configuration of every signer of a world.
#[cfg(not(feature = "planted-bugs"))]
fn signer_config(_options: &Options) -> signer::Config {
    signer::Config { rewrite_bytes: REWRITE_BYTES, ..signer::Config::default() }
}

#[cfg(feature = "planted-bugs")]
fn signer_config(options: &Options) -> signer::Config {
    use crate::plan::Bug;
    let mut config = signer::Config { rewrite_bytes: REWRITE_BYTES, ..signer::Config::default() };
    config.bugs.sign_before_sync = options.bug == Some(Bug::VoteBeforeJournal);
    config.bugs.nullify_and_finalize = options.bug == Some(Bug::NullifyAndFinalize);
    config.bugs.ignore_cut = options.bug == Some(Bug::EarlyCut);
    if options.bug == Some(Bug::EarlyCut) {
        config.rewrite_bytes = 0;
    }
    config
}

impl World {
    /// The world of a seed, all machines running.
    ///
    /// # Errors
    /// If a machine can't start from an empty disk.
    pub fn new(seed: u64, options: &Options) -> Result<World, String> {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice, options);
        let (_, genesis) = ledger::Ledger::genesis(&plan.genesis).map_err(|error| error.to_string())?;
        let nodes = plan.validators + plan.followers;
        let twins = (0..plan.validators).filter(|node| plan.vices[*node].contains(&Vice::Twin));
        let places: Vec<usize> = (0..nodes).chain(twins).collect();
        let second_parent = options.provoke == Some(Provoke::SecondParent);
        let mut instances = Vec::new();
        for node in places {
            let honest = plan.is_honest(node);
            let adversaries = match plan.vices.get(node) {
                Some(vices) => crate::adversary::make(vices, second_parent, &mut dice),
                None => Vec::new(),
            };
            instances.push(Instance {
                node,
                name: format!("{}{node}", if honest { "node" } else { "bad" }),
                honest,
                replica: None,
                life: 0,
                wake: None,
                store: Store::new(&genesis, plan.old_storage),
                journal: crate::disk::Disk::default(),
                peers: BTreeMap::new(),
                handles: BTreeMap::new(),
                skew_ms: plan.skew_ms[node.min(plan.skew_ms.len() - 1)],
                adversaries,
                crash_armed: false,
                roll_back: false,
                muted: false,
            });
        }
        let count = instances.len();
        let mut world = World {
            config: config_of(&plan, options),
            signer: signer_config(options),
            options: options.clone(),
            chain: Chain::new(&plan.genesis),
            clients: Ledgerless::new(&plan),
            reach: vec![u64::MAX; nodes],
            sees: vec![u64::MAX; count],
            storage_free: vec![Tick(0); count],
            plan,
            dice,
            now: Tick(1_000),
            scheduled: 0,
            queue: BinaryHeap::new(),
            instances,
            next_peer: 0,
            healed: false,
            loading: true,
            settling: false,
            hushed: false,
            honest_speech: Speech::default(),
            all_speech: Speech::default(),
            broken: None,
            trace: Trace::default(),
            marks: BTreeMap::new(),
            events: 0,
            messages: 0,
            verified: HashMap::new(),
        };
        for instance in 0..count {
            world.start(instance);
        }
        Ok(world)
    }

    pub(crate) fn mark(&mut self, mark: &'static str) {
        *self.marks.entry(mark).or_default() += 1;
    }

    /// The first violation counts.
    pub(crate) fn fail(&mut self, what: String) {
        if self.options.verbose {
            println!("{:>9} !! {what}", self.now.0);
        }
        self.broken.get_or_insert(what);
    }

    pub(crate) fn say(&self, instance: usize, what: impl FnOnce() -> String) {
        if self.options.verbose {
            println!("{:>9} {:<8} {}", self.now.0, self.instances[instance].name, what());
        }
    }

    pub(crate) fn at(&mut self, time: Tick, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse(Slot(time.max(self.now), self.scheduled, event)));
    }

    pub(crate) fn after_ms(&mut self, ms: u64, event: Event) {
        self.at(self.now.plus_ms(ms), event);
    }

    /// Lets things happen until a time, or until `stop`. Gives whether `stop` held.
    pub(crate) fn run_until(&mut self, end: Tick, stop: impl Fn(&World) -> bool) -> bool {
        loop {
            if stop(self) {
                return true;
            }
            match self.queue.peek() {
                Some(Reverse(slot)) if slot.0 <= end => {}
                _ => {
                    self.now = self.now.max(end);
                    return stop(self);
                }
            }
            let Some(Reverse(Slot(time, _, event))) = self.queue.pop() else { return false };
            self.now = self.now.max(time);
            self.events += 1;
            if self.events > EVENTS_MAX {
                let standing = self.standing();
                self.fail(format!("EVENTS more than {EVENTS_MAX}: {standing}"));
                return stop(self);
            }
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { at, peer, message } => self.deliver(at, peer, &message),
            Event::Wake(at, life) => {
                if self.instances[at].life == life && self.instances[at].wake.is_some_and(|wake| wake <= self.now) {
                    self.instances[at].wake = None;
                    self.input(at, Input::Timeout);
                }
            }
            Event::Answer(at, life, answer) => {
                if self.instances[at].life == life && self.instances[at].replica.is_some() {
                    self.answer(at, answer);
                }
            }
            Event::Crash(at) => self.arm_crash(at),
            Event::Restart(at) => {
                if self.instances[at].replica.is_none() {
                    self.start(at);
                }
            }
            Event::PowerLoss => self.power_loss(),
            Event::Partition => self.partition(),
            Event::Twins => self.split_twins(),
            Event::Mischief => self.mischief(),
            Event::Load => self.load(),
        }
    }

    fn answer(&mut self, at: usize, answer: Answer) {
        let input = match answer {
            Answer::Verified(token, good) => Input::Verified { token, good },
            Answer::Stored(token, number, synced) => {
                if synced {
                    self.instances[at].store.sync(number);
                }
                Input::Stored { token }
            }
            Answer::Loaded(token, load) => {
                let loaded: Loaded = self.instances[at].store.load(&load);
                Input::Loaded { token, loaded }
            }
        };
        self.input(at, input);
    }

    /// Gives an input to a replica and carries out what it asks for.
    pub(crate) fn input(&mut self, at: usize, input: Input) {
        let now = self.now;
        let unix = self.instances[at].unix(now);
        let Some(replica) = &mut self.instances[at].replica else { return };
        replica.handle(input, now, unix);
        self.carry_out(at);
    }

    /// The signature pool's verdicts: real ones, each computed once for the whole world.
    pub(crate) fn verdicts(&mut self, transactions: &[SignedTransaction]) -> Vec<bool> {
        let verified = &mut self.verified;
        transactions.iter().map(|tx| *verified.entry(tx.id()).or_insert_with(|| tx.verify_signature())).collect()
    }

    /// Where everybody stands, for messages.
    pub(crate) fn standing(&self) -> String {
        let one = |instance: &Instance| match &instance.replica {
            Some(replica) => {
                let s = replica.summary();
                let pool = replica.pool();
                format!(
                    "[{} e{} v{} f{} h{} x{} due {:?} goal {:?} open {} avail {} unknown {} pool {}]",
                    instance.name,
                    s.epoch,
                    s.view,
                    s.final_view,
                    s.height,
                    s.executed,
                    replica.poll_timeout().map(|due| due.0),
                    s.goal.map(|height| height.0),
                    pool.open_batches,
                    pool.available_batches,
                    pool.unknown_batches,
                    pool.transactions
                )
            }
            None => format!("[{} down]", instance.name),
        };
        self.instances.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// Honest machines that run.
    pub(crate) fn honest(&self) -> impl Iterator<Item = (usize, &Instance)> {
        self.instances.iter().enumerate().filter(|(_, instance)| instance.honest)
    }
}
