//! The ledger against a naive model: a map, sets of nonces, wide arithmetic, and Merkle's recursion, all from scratch.
#![allow(clippy::unwrap_used)]

mod apply;
mod model;
mod store;
