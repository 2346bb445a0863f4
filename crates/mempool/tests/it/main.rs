//! The mempool: rules of judging one by one, the life of transactions and batches, and small random networks.
#![allow(clippy::unwrap_used)]

mod judging;
mod lifecycle;
mod network;
mod world;
