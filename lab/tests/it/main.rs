//! The lab against the real kernel: namespaces, users, sockets, signals; and the devnet as a person starts it.
#![allow(clippy::unwrap_used)]

mod devnet;
mod fabric;
mod ground;
mod runner;
mod service;
