//! Admission, batches, availability and quotas; builds and judges a block's header and body.
//!
//! ```text
//! transaction   submit ─ precheck ─ (signature pool) ─ insert ─ waiting ─ pack ─ in an own batch ─ executed
//!                                                        ▲                          │
//!                                                        └── batch expired uncited ─┘
//! batch         check_batch ─ (signature pool, sync) ─ hold ─ announce ─ quorum announced = available
//!                                                      ─ cited by a final block ─ executed ─ forgotten
//! block         build / judge ─ add_block ─ finalized ─ next_execution ─ executed
//! ```
//!
//! Every transaction that [`Mempool::insert`] took ends in one of two ways: a receipt in an [`ledger::Outcome`], or a
//! [`Dropped`] with a reason; at the latest when the height of its expiry is executed.
//!
//! Never here: clocks ([`types::Tick`] and [`types::UnixMs`] are inputs), randomness, sockets, threads, keys. Signatures are
//! checked outside: of transactions by the signature pool, of notarizations in bodies by the replica.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admission;
mod build;
mod chain;
mod config;
mod epoch;
mod error;
mod executed;
mod judge;
mod lifecycle;
mod mempool;
mod pool;
mod quota;
mod seats;
mod store;

pub use build::{BuildContext, BuildError};
pub use chain::{Tip, UNFINAL_BLOCKS_MAX};
pub use config::{Config, ConfigError};
pub use error::{BatchRefusal, DropReason, Dropped, OutOfOrder, SubmitError};
pub use executed::ExecutedRoots;
pub use judge::{Invalid, JudgeContext, Verdict, Wait};
pub use mempool::{Boot, Draft, Execution, Mempool, Packed, Status};
pub use pool::Source;
pub use quota::SKIP_RECORDS_MAX;
