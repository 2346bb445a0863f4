//! A replica from outside: what its shell sees.
#![allow(clippy::unwrap_used)]

mod follow;
mod offences;
mod shell;
mod single;
