//! Real nodes on loopback, over both transports.
#![allow(clippy::unwrap_used)]

mod admission;
mod decoder;
mod lanes;
mod mesh;
mod misbehaviour;
mod pressure;
mod world;
