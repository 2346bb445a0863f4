//! Storage from outside: what is asked equals what was stored, across reopening, SIGKILL and torn logs.
#![allow(clippy::unwrap_used, missing_docs)]

mod chain;
mod crash;
mod genesis;
mod layout;
mod model;
mod refused;
mod torn;
