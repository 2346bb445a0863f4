//! The kernel guard: what a node, an operator and the kernel tell each other about who may reach a port.
//!
//! - [`policy`]: offences in, disconnects and bans out; pure.
//! - [`prefix`], [`protocol`], [`client`]: the guard's Unix socket, seen from outside.
//! - [`truth`]: what the kernel's TCP knows about a peer's connection.
//! - [`quantile`]: p50, p99 of the latency histograms.
//! - [`reader`]: counters read from mapped kernel memory, without a capability and without a system call per counter.
//! - [`kernel`] (feature `kernel`): loader, attach, pins, adoption, tables, server: what the privileged `ebpf-guard` runs.
//! - `cli` (the same): its command line and its configuration file; the binary's alone, and here so that both can be fuzzed.
//!
//! Never here: chain logic. What the guard knows of the chain is the closed list of `types::Offence`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

// The command line calls the library by its name, as any program does.
#[cfg(feature = "kernel")]
extern crate self as guard;

#[cfg(feature = "kernel")]
#[doc(hidden)]
pub mod cli;
pub mod client;
pub mod explain;
#[cfg(any(test, feature = "fuzz"))]
pub mod invariants;
#[cfg(feature = "kernel")]
pub mod kernel;
pub mod policy;
pub mod prefix;
pub mod protocol;
pub mod quantile;
pub mod reader;
pub mod truth;

pub use client::{Client, ClientError};
pub use policy::{Action, Policy, PolicyConfig, Subject};
pub use prefix::Prefix;
pub use protocol::{ErrorCode, FlowKind, Protocol, Request, Response};
pub use reader::{Maps, ReaderError};
pub use truth::{TcpState, TcpTruth};
