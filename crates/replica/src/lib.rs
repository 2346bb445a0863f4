//! One validator (or follower) as a value: it routes what the engine, the mempool, the ledger and the signer say to each
//! other, and owns what lies between them: recovery, verification of peers' bytes, fetch, sync, execution.
//!
//! ```text
//! config      limits and intervals
//! boot        what storage hands over at the start
//! input       what the shell tells: peers, messages, answers of the signature pool and of storage, time
//! effect      what the shell must do: send, verify, store, load, report
//! recovery    the start, and the start of each epoch
//! replica     the parts as one value, and the order in which an input goes through them
//! messages    what peers say, checked
//! verify      signatures of validators, each once
//! routing     what the engine asks for, carried out
//! judging     proposals that are built, or judged when what they wait for has come
//! data        transactions and batches on their way in and out
//! finality    final blocks: linked, stored, executed; the hand-over between epochs
//! claims      final headers held against the own execution
//! fetch       what is missing, asked for
//! sync        final blocks from peers, for late joiners
//! peers       who is connected, and how much each may ask
//! ```
//!
//! The shell (`node`, or `sim`) calls [`Replica::handle`] with one [`Input`] at a time, takes every [`Effect`] out with
//! [`Replica::poll_effect`], and calls again at [`Replica::poll_timeout`] with [`Input::Timeout`]. Effects are carried out in
//! order. What ships is what was simulated: nothing here knows which of the two shells drives it.
//!
//! Never here: I/O, async, clocks, randomness, sockets. Signing alone touches a disk, through the signer's port.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod boot;
mod claims;
mod config;
mod data;
mod effect;
mod fetch;
mod finality;
mod input;
mod judging;
mod messages;
mod peers;
mod recent;
mod recovery;
mod repeats;
mod replica;
mod routing;
mod sync;
mod verify;

pub use boot::{Boot, BootError, ExecutedHeight};
#[cfg(feature = "planted-bugs")]
pub use config::Bugs;
pub use config::Config;
pub use effect::{Effect, Event, Executed, Fatal, FinalBlock, Finalized, Load, StoreOp, Verifiable};
pub use input::{Input, Loaded, Peer, Token};
pub use mempool::SubmitError;
pub use replica::{Replica, Summary};
