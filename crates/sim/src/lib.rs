//! The deterministic world: seeded machines, links and disks drive `replica` unmodified, adversaries bend what some of them
//! say, and judges that never call the engine look on.
//!
//! ```text
//! dice        the only source of chance
//! keys        everybody's keys
//! plan        what a seed makes of a world: the list of faults is there
//! store disk  storage and journal that lose what is not synced
//! instance    one machine
//! world       the queue of what happens when
//! shell       effects carried out, the wire
//! faults      crashes, partitions, connections
//! load        clients
//! adversary/  ways to lie, one file each
//! oracle/     the judges
//! trace       the hash over everything that happened
//! run         chaos, healing, and what must follow
//! ```
//!
//! Equal seeds give equal runs, on every machine. `docs/spec/simulation.md` describes the method.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod adversary;
mod dice;
mod disk;
mod faults;
mod instance;
mod keys;
mod load;
pub mod oracle;
mod plan;
mod run;
mod shell;
mod store;
mod trace;
mod world;

pub use dice::Dice;
pub use disk::Disk;
#[cfg(feature = "planted-bugs")]
pub use plan::Bug;
pub use plan::{ACCOUNTS, CLASSES, Options, Plan, Provoke, VICES, Vice};
pub use run::{Report, run};
pub use store::Store;
pub use trace::Trace;
