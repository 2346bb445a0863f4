//! The only holder of a validator's key: what may be signed, and the one journal.
//!
//! ```text
//! signer      the rules: only what is durable, only what contradicts nothing
//! record      what a journal record says
//! journal     the journal's bytes
//! disk        the port to the journal's disk
//! file        the disk as a file
//! key         the key file
//! ```
//!
//! Never here: bytes from peers, the network, threads.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod disk;
pub mod file;
mod journal;
pub mod key;
mod record;
mod signer;

pub use disk::Disk;
pub use key::ValidatorKey;
pub use record::{Attach, Record};
#[cfg(feature = "planted-bugs")]
pub use signer::Bugs;
pub use signer::{Config, OpenError, Plain, SignError, Signer};
