//! What the kernel programs and user space share: map layouts, the packet parser, the verdict and its accounting.
//!
//! Everything here is pure: packets and maps are reached through two small traits ([`Packet`], [`Tables`]), so the same
//! `verdict` runs in the kernel over BPF maps and natively over [`model`] for unit tests, property tests and fuzzing.
//!
//! Never here: std (outside `model`), allocation, panics, clock reads, a decision that depends on anything but the packet and the tables.
//! The bytes of every key, value and event are an ABI: `docs/spec/kernel-abi.md`, hashed into [`abi::ABI_TEXT`].
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod abi;
pub mod account;
pub mod ban;
pub mod bucket;
pub mod control;
pub mod drops;
pub mod egress;
#[cfg(any(test, feature = "model"))]
pub mod golden;
mod half;
#[cfg(any(test, feature = "model"))]
pub mod invariants;
pub mod latency;
pub mod layout;
pub mod list;
#[cfg(any(test, feature = "model"))]
pub mod model;
mod object;
mod packet;
pub mod proxy;
mod reason;
mod sanity;
pub mod strangers;
pub mod truth;
mod verdict;
mod word;

pub use packet::{Family, IpHeader, Packet, Parsed, Ports, family, has_extension_headers, parse_v4, parse_v6};
pub use reason::{REASON_SLOTS, Reason};
pub use verdict::{Tables, Verdict, inspect};
pub use word::Word;
