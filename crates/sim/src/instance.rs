//! One machine: a replica with its disks and connections. A twin is two machines under one key.

use std::collections::BTreeMap;

use replica::{Config, Peer, Replica};
use signer::{Signer, ValidatorKey};
use types::{Tick, UnixMs};

use crate::adversary::Adversary;
use crate::disk::Disk;
use crate::keys;
use crate::plan::Plan;
use crate::store::Store;

/// Wall-clock time at tick 0, ms.
pub const UNIX_START: u64 = 1_700_000_100_000;

/// A machine.
pub struct Instance {
    /// Index of its node: validators first, then followers. Twins share it.
    pub node: usize,
    /// Its name in messages of judges.
    pub name: String,
    /// Whether it keeps to the rules.
    pub honest: bool,
    /// Its process, if it runs.
    pub replica: Option<Replica<Disk>>,
    /// Counts its processes: what was meant for an older one is lost.
    pub life: u64,
    /// When it is to be woken, as far as the queue knows.
    pub wake: Option<Tick>,
    /// Its storage.
    pub store: Store,
    /// Its journal.
    pub journal: Disk,
    /// Connections: the peer's handle and its instance.
    pub peers: BTreeMap<Peer, usize>,
    /// The other way round.
    pub handles: BTreeMap<usize, Peer>,
    /// Its clock's lead, ms.
    pub skew_ms: u64,
    /// How it lies.
    pub adversaries: Vec<Box<dyn Adversary>>,
    /// It crashes after its next effects that others see.
    pub crash_armed: bool,
    /// Its storage is put back from a backup at its next start.
    pub roll_back: bool,
    /// It was started with storage older than its journal, and signs nothing any more.
    pub muted: bool,
}

impl Instance {
    /// Its clock.
    pub fn unix(&self, now: Tick) -> UnixMs {
        UnixMs(UNIX_START + self.skew_ms + now.0 / 1_000)
    }

    /// Whether it is a validator's.
    pub fn is_validator(&self, plan: &Plan) -> bool {
        self.node < plan.validators
    }

    /// Starts a process from what the disks hold.
    ///
    /// # Errors
    /// What could not be read: a violation, since disks only lose what was not synced.
    pub fn start(&mut self, plan: &Plan, config: &Config, signer: &signer::Config, now: Tick) -> Result<(), String> {
        self.life += 1;
        self.wake = None;
        self.crash_armed = false;
        if std::mem::take(&mut self.roll_back) && self.store.roll_back() {
            self.muted = true;
        }
        let boot = self.store.boot(&plan.genesis)?;
        let signer = if self.is_validator(plan) {
            let key = ValidatorKey::from_seed(keys::validator_seed(self.node));
            Some(Signer::open_with(key, self.journal.clone(), signer.clone()).map_err(|error| format!("journal: {error}"))?)
        } else {
            None
        };
        let unix = self.unix(now);
        let replica = Replica::new(config.clone(), boot, signer, now, unix).map_err(|error| format!("boot: {error}"))?;
        self.replica = Some(replica);
        Ok(())
    }
}
