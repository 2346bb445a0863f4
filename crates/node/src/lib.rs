//! The composition root of `ebpf-node`: configuration, threads and tasks, wiring. It contains no algorithm: what needs a model
//! test lives in the crates below.
//!
//! ```text
//! cli         the command line
//! config      node.toml: raw, then validated
//! home        a node's directory: keys, genesis
//! start       the task tree, built in one place
//! core        the replica's thread: inputs in, effects carried out
//! boot        from storage to what a replica begins with
//! store       the storage thread
//! verify      the signature pool
//! evidence    proofs against validator keys, kept on disk
//! guard_link  the thread that speaks with the kernel guard
//! peer_figures what is known about each peer, joined
//! standing    who stands, and who of them is a validator
//! dropped     why transactions got no receipt
//! backend     what the API asks
//! doctor      what this machine lets the node do and see
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backend;
pub mod boot;
pub mod cli;
pub mod config;
pub mod core;
pub mod doctor;
pub mod dropped;
pub mod evidence;
pub mod guard_link;
pub mod home;
pub mod peer_figures;
pub mod standing;
mod start;
pub mod store;
pub mod verify;

pub use start::start;
