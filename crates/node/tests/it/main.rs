//! The node as a process: what its home, its command line and its API promise, with real peers on loopback.
#![allow(clippy::unwrap_used)]

mod fake_guard;
mod follow;
mod guard_link;
mod offences;
mod process;
