//! Simplex with stake weights, as a value: inputs in, effects out.
//!
//! ```text
//! config      timers, intervals, bounds
//! input       what an engine is told
//! effect      what it asks for
//! engine      one epoch of one node
//! ```
//!
//! The shell calls [`Engine::handle`] with one [`Input`] at a time, takes every [`Effect`] out with [`Engine::poll_effect`],
//! and calls again at [`Engine::poll_timeout`] with [`Input::Timeout`].
//!
//! Never here: the meaning of transactions, keys, signing, verification, clocks, async, I/O.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod effect;
mod engine;
mod input;

#[cfg(feature = "planted-bugs")]
pub use config::Bugs;
pub use config::Config;
pub use effect::{Effect, NullifyReason, Target};
pub use engine::{Context, Engine, OwnVote, Recovered};
pub use input::{BlockMeta, Input, Verdict};
