//! One validator (or follower) as a value: it routes what the engine, the mempool, the ledger and the signer say to each
//! other, and owns what lies between them: recovery, verification of peers' bytes, fetch, sync, execution.
//!
//! ```text
//! config      limits and intervals
//! boot        what storage hands over at the start
//! input       what the shell tells: peers, messages, answers of the signature pool and of storage, time
//! effect      what the shell must do: send, verify, store, load, report
//! ```
//!
//! The shell (`node`, or `sim`) calls [`Replica::handle`] with one [`Input`] at a time, takes every [`Effect`] out with
//! [`Replica::poll_effect`], and calls again at [`Replica::poll_timeout`] with [`Input::Timeout`]. Effects are carried out in
//! order. What ships is what was simulated: nothing here knows which of the two shells drives it.
//!
//! Never here: I/O, async, clocks, randomness, sockets. Signing alone touches a disk, through the signer's port.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod boot;
mod config;
mod effect;
mod input;
mod replica;

pub use boot::{Boot, BootError, ExecutedHeight};
pub use config::Config;
pub use effect::{Effect, Event, Executed, Fatal, FinalBlock, Finalized, Load, StoreOp, SubmitError, Verifiable};
pub use input::{Input, Loaded, Peer, Token};
pub use replica::{Replica, Summary};
