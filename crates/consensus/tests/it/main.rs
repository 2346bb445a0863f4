//! The engine among its like: a small lockstep world, and single engines under hand-made inputs.
#![allow(clippy::unwrap_used)]

mod chaos;
mod hand;
mod rules;
mod world;
mod worlds;
