//! The composition root of `ebpf-node`: configuration, threads and tasks, wiring. It contains no algorithm: what needs a model
//! test lives in the crates below.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod doctor;
pub mod verify;
