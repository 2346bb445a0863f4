//! Simplex with stake weights, as a value: inputs in, effects out.
//!
//! ```text
//! config      timers, intervals, bounds
//! input       what an engine is told
//! effect      what it asks for
//! engine      one epoch of one node: the protocol, "upon…"
//! receiving   what peers say: proposals, votes, certificates, questions
//! leading     when to propose, and on what
//! voting      own statements, and their re-sending
//! waking      work, deadlines, when to be woken
//! views       the final view and the open ones: certificates, parents, gaps
//! slot        one view
//! tally       first statement of each kind and seat; evidence
//! timers      timers as data
//! allowance   how often a peer is answered
//! ```
//!
//! The shell calls [`Engine::handle`] with one [`Input`] at a time, takes every [`Effect`] out with [`Engine::poll_effect`],
//! and calls again at [`Engine::poll_timeout`] with [`Input::Timeout`].
//!
//! Never here: the meaning of transactions, keys, signing, verification, clocks, async, I/O.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod allowance;
mod config;
mod effect;
mod engine;
mod input;
mod leading;
mod receiving;
mod slot;
mod tally;
mod timers;
mod views;
mod voting;
mod waking;

#[cfg(feature = "planted-bugs")]
pub use config::Bugs;
pub use config::{Config, ConfigError};
pub use effect::{Effect, NullifyReason, Target};
pub use engine::{Context, Engine, OwnVote, Recovered};
pub use input::{BlockMeta, Input, Verdict};
