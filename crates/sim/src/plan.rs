//! What a seed makes of a world: who is in it, how bad the network is, who lies and how.
//!
//! *Faults*: delay with stragglers, loss by class of message, duplication, reorder (by delay), partitions (halves, islands,
//! one-way), reset connections, crashes between any two effects with loss of unsynced writes, power loss everywhere, storage
//! put back from a backup, skewed clocks, slow disks and slow signature pools. *Not here*: bit rot, libp2p, RocksDB, the kernel.

use std::collections::BTreeSet;

use types::{Amount, Epoch, EpochRecord, GenesisRecord, Height, Params, Stake, UnixMs, Validator};

use crate::dice::Dice;
use crate::keys;

/// Accounts that the load sends from.
pub const ACCOUNTS: u32 = 12;

/// What the caller decides; all else comes from the seed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How many validators; 4 or 7 by the seed if not given.
    pub nodes: Option<usize>,
    /// Print every event.
    pub verbose: bool,
    /// The control: Byzantine keys with a third of the weight or more, run as twins in a halved network.
    pub over_third: bool,
    /// A control for a planted bug: a plan in which it shows.
    pub provoke: Option<Provoke>,
    /// A control: honest nodes break a rule.
    #[cfg(feature = "planted-bugs")]
    pub bug: Option<Bug>,
}

/// A rule that honest nodes break, for controls that must be found.
#[cfg(feature = "planted-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Propose and vote without the nullifications between a block's view and its parent's.
    NoGapCheck,
    /// Nullify a view after a finalize vote in it, and the other way round.
    NullifyAndFinalize,
    /// Let votes leave before their journal record is durable.
    VoteBeforeJournal,
    /// Cut the journal at finality that storage has not synced, and sign on after a crash.
    EarlyCut,
}

#[cfg(feature = "planted-bugs")]
impl Bug {
    /// The worlds in which it shows.
    pub fn provoked_by(self) -> Provoke {
        match self {
            Bug::NoGapCheck => Provoke::SecondParent,
            Bug::NullifyAndFinalize => Provoke::Lateness,
            Bug::VoteBeforeJournal | Bug::EarlyCut => Provoke::Crashes,
        }
    }
}

/// Which planted bug is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provoke {
    /// A leader that builds past notarized parents.
    SecondParent,
    /// Crashes, often and with losses, slow storage.
    Crashes,
    /// Finalize votes that come late, so that views are nullified beside them.
    Lateness,
}

/// Ways to be Byzantine; one key may have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vice {
    /// Says nothing any more from some time on.
    Silent,
    /// Tells halves of the network different things.
    Equivocator,
    /// Shows its votes to one peer only.
    PrivateVoter,
    /// Two machines under one key.
    Twin,
    /// Announces batches and keeps them.
    BatchWithholder,
    /// Makes as many batches as it can, and false announcements.
    BatchSpammer,
}

/// All of them.
pub const VICES: [Vice; 6] =
    [Vice::Silent, Vice::Equivocator, Vice::PrivateVoter, Vice::Twin, Vice::BatchWithholder, Vice::BatchSpammer];

/// Classes of messages with a loss rate of their own.
pub const CLASSES: usize = 6;

/// A world's plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The chain.
    pub genesis: GenesisRecord,
    /// Validators, by index of their key.
    pub validators: usize,
    /// Followers beside them.
    pub followers: usize,
    /// Vices by validator; empty is honest.
    pub vices: Vec<BTreeSet<Vice>>,
    /// End of the chaos, ms.
    pub chaos_ms: u64,
    /// Loss in a thousand, by class.
    pub loss: [u64; CLASSES],
    /// Duplicates in a thousand.
    pub duplicates: u64,
    /// Delay in the chaos, ms.
    pub delay_ms: (u64, u64),
    /// Most delay after it, ms.
    pub healed_delay_ms: u64,
    /// Whether halves, islands and one-way cuts happen.
    pub partitions: bool,
    /// Single crashes.
    pub crashes: usize,
    /// Power losses at every node at once.
    pub power_losses: usize,
    /// Whether some first part of what was not synced may survive a power loss.
    pub keeps_unsynced: bool,
    /// One node's storage comes back older than its journal.
    pub old_storage: bool,
    /// How long a sync takes, ms.
    pub sync_ms: (u64, u64),
    /// How long a signature check takes, ms.
    pub verify_ms: u64,
    /// Time between two transactions, ms.
    pub load_every_ms: u64,
    /// Whether there is a pause before the probe, in which nothing is pending.
    pub idle: bool,
    /// The engines' idle interval, ms.
    pub idle_interval_ms: u64,
    /// Clock skews by node, ms ahead of the slowest.
    pub skew_ms: Vec<u64>,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(dice: &mut Dice, options: &Options) -> Plan {
        let validators = options.nodes.unwrap_or(if dice.chance(700) { 4 } else { 7 });
        let (weights, bad) = draw_weights(dice, validators, options);
        let provoke = options.provoke;
        let vices = draw_vices(dice, validators, &bad, options);
        let loss_rates = [0, 0, 50, 200, 500, 900];
        let mut loss = [0; CLASSES];
        for rate in &mut loss {
            *rate = *dice.pick(&loss_rates);
        }
        let slow = dice.chance(150);
        let byzantine = vices.iter().any(|vices| !vices.is_empty());
        let crashes = if provoke == Some(Provoke::Crashes) { 4 } else { dice.below(4) };
        let sync_ms = if dice.chance(300) { (5, 60) } else { (0, 3) };
        let plan = Plan {
            // An epoch is longer than the way of a batch to the disk.
            genesis: draw_genesis(dice, &weights, if sync_ms.1 > 10 { 8 } else { 3 }),
            validators,
            followers: usize::from(dice.chance(200)),
            vices,
            chaos_ms: dice.range(500, 1_500),
            loss,
            duplicates: *dice.pick(&[0, 20, 200]),
            delay_ms: (dice.range(1, 3), dice.range(4, 40)),
            healed_delay_ms: if slow { dice.range(60, 150) } else { dice.range(3, 12) },
            partitions: dice.chance(700),
            crashes,
            power_losses: usize::from(dice.chance(250)),
            keeps_unsynced: true,
            old_storage: !byzantine && provoke.is_none() && dice.chance(300),
            sync_ms,
            verify_ms: dice.range(0, 5),
            load_every_ms: if dice.chance(400) { dice.range(200, 600) } else { dice.range(15, 80) },
            idle: dice.chance(400),
            idle_interval_ms: if dice.chance(500) { 30_000 } else { 700 },
            skew_ms: (0..validators + 1).map(|_| dice.below(300) as u64).collect(),
        };
        plan.provoked(provoke)
    }

    fn provoked(mut self, provoke: Option<Provoke>) -> Plan {
        match provoke {
            Some(Provoke::SecondParent) => {
                self.crashes = 0;
                self.power_losses = 0;
                // Finality lags behind notarization, so that there is a notarized parent to skip.
                self.loss = [0, 900, 0, 600, 0, 0];
                self.partitions = false;
                self.delay_ms = (1, 6);
                self.load_every_ms = 30;
            }
            Some(Provoke::Lateness) => {
                self.loss = [0, 300, 300, 300, 0, 0];
                self.load_every_ms = 30;
                self.crashes = 0;
            }
            Some(Provoke::Crashes) => {
                // Storage lags behind finality, and loses all of the lag.
                self.sync_ms = (20, 200);
                self.power_losses = 4;
                self.keeps_unsynced = false;
                self.partitions = false;
                self.loss = [0; CLASSES];
            }
            None => {}
        }
        self
    }

    /// Whether a validator keeps to the rules.
    pub fn is_honest(&self, validator: usize) -> bool {
        self.vices.get(validator).is_none_or(BTreeSet::is_empty)
    }
}

/// Weights, and which keys are bad: as much weight as fits under a third, or just over it.
fn draw_weights(dice: &mut Dice, count: usize, options: &Options) -> (Vec<u64>, BTreeSet<usize>) {
    let equal = dice.chance(500);
    let mut weights: Vec<u64> = (0..count).map(|_| if equal { 1 } else { dice.range(1, 9) }).collect();
    let mut order: Vec<usize> = (0..count).collect();
    dice.shuffle(&mut order);
    let total: u64 = weights.iter().sum();
    let (mut bad, mut weight) = (BTreeSet::new(), 0);
    if options.over_third {
        for key in order {
            if weight * 3 < total && bad.len() + 2 < count {
                bad.insert(key);
                weight += weights[key];
            }
        }
        return (weights, bad);
    }
    if options.provoke == Some(Provoke::Crashes) || (options.provoke.is_none() && !dice.chance(800)) {
        return (weights, bad);
    }
    for key in &order {
        if (weight + weights[*key]) * 3 < total {
            bad.insert(*key);
            weight += weights[*key];
        }
    }
    if bad.is_empty() {
        weights = vec![1; count];
        bad.insert(order[0]);
    }
    (weights, bad)
}

fn draw_vices(dice: &mut Dice, count: usize, bad: &BTreeSet<usize>, options: &Options) -> Vec<BTreeSet<Vice>> {
    let mut all = vec![BTreeSet::new(); count];
    for key in bad {
        let vices: &mut BTreeSet<Vice> = &mut all[*key];
        if options.over_third {
            vices.insert(Vice::Twin);
            continue;
        }
        match options.provoke {
            Some(Provoke::SecondParent) => drop(vices.insert(Vice::Equivocator)),
            Some(Provoke::Lateness) => drop(vices.insert(Vice::PrivateVoter)),
            Some(Provoke::Crashes) => {}
            None => {
                vices.extend(VICES.into_iter().filter(|_| dice.chance(250)));
                if vices.is_empty() {
                    vices.insert(*dice.pick(&VICES));
                }
            }
        }
    }
    all
}

fn draw_genesis(dice: &mut Dice, weights: &[u64], shortest: u64) -> GenesisRecord {
    let mut validators: Vec<Validator> = weights
        .iter()
        .enumerate()
        .map(|(index, weight)| Validator { key: keys::validator(index).public(), weight: Stake(*weight) })
        .collect();
    validators.sort_by_key(|validator| validator.key);
    let params = Params { lag_max: dice.range(4, 8), batch_life: dice.range(40, 120), ..Params::default() };
    let length = dice.range(shortest, 12);
    let record = |epoch: u64| EpochRecord {
        epoch: Epoch(epoch),
        first_height: Height(1 + epoch * length),
        length,
        version: 1,
        params: params.clone(),
        validators: validators.clone(),
    };
    let mut accounts: Vec<_> =
        (0..ACCOUNTS).map(|index| (keys::account(index).public().address(), Amount(1_000_000_000))).collect();
    accounts.sort();
    GenesisRecord { time: UnixMs(1_700_000_000_000), accounts, epochs: [record(0), record(1)] }
}
