//! The only holder of a validator's key: what may be signed, and the one journal.
//!
//! ```text
//! signer      the rules: only what is durable, only what contradicts nothing
//! record      what a journal record says
//! disk        the port to the journal's disk
//! file        the disk as a file
//! key         the key file
//! ```
//!
//! Never here: bytes from peers, the network, threads.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod disk;
pub mod file;
pub mod key;
mod record;
mod signer;

pub use disk::Disk;
pub use key::ValidatorKey;
pub use record::{Attach, Record};
pub use signer::{OpenError, Plain, SignError, Signer};
