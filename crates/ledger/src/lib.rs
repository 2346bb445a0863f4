//! The state machine: a block's batches in, receipts and state changes out; the state tree and its proofs.
//!
//! ```text
//! state      leaves by index (order of creation), each naming the next key: a ring
//! tree       RFC 6962 over the leaves' hashes, levels as vectors, touched nodes hashed once a block
//! execute    the rules: what a transaction consumes, and how it ends
//! history    what recent blocks overwrote: proofs at past heights
//! ledger     all of these as one value: apply, prove, restore
//! ```
//!
//! The rules are described for other implementations in `docs/spec/ledger.md`.
//!
//! Never here: clocks, randomness, I/O, network, storage handles. Signatures are not checked: who calls [`Ledger::apply`] has
//! run [`types::Batch::check`] and the signature pool over every batch.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod execute;
mod history;
mod ledger;
mod restore;
mod state;
mod tree;

pub use error::{LedgerError, RestoreError};
pub use execute::{SkipReason, Skipped};
pub use history::{HISTORY_HEIGHTS, HISTORY_LEAVES_MAX};
pub use ledger::{Ledger, Outcome, Proof};
pub use restore::{StateStore, StoredLeaf};
pub use state::{Change, LEAVES_MAX};
