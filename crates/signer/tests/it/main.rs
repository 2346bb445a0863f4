//! The signer over a simulated disk and over a real file.

mod crash;
mod memory;
mod rules;
