//! The lab: real nodes under real faults, on one machine.
//!
//! - [`devnet`]: one command runs a network of validators, each in a namespace of its own behind its own guard;
//! - [`load`]: signed transfers, followed until each is final or named;
//! - [`attack`]: hostile guests on a running devnet;
//! - [`bench`]: figures that need a devnet;
//! - below them: [`fabric`] and [`namespace`] (the wires), [`run_dir`] (what must not be left behind), [`launch`] and
//!   [`supervise`] (processes), [`home`] and [`chain`] (what a node starts from), [`process`] (what it costs),
//!   [`screen`], [`summary`] and [`state`] (what people and programs see).
//!
//! Never here: production code, an assumption about the host's network.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod attack;
pub mod bench;
pub mod cgroups;
pub mod chain;
pub mod devnet;
pub mod fabric;
pub mod files;
pub mod home;
pub mod launch;
pub mod load;
pub mod namespace;
pub mod process;
pub mod run_dir;
pub mod screen;
pub mod signals;
pub mod state;
pub mod summary;
pub mod supervise;
