//! The signer over a simulated disk and over a real file.
#![allow(clippy::unwrap_used)]

mod crash;
mod fixture;
mod memory;
mod rules;
