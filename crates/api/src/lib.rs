//! HTTP: the node's face, behind a [`Backend`] trait.
//!
//! This crate knows routes, limits, errors and metrics; what the answers are made of comes from whoever implements
//! [`Backend`]. The contract of the routes is the golden file `tests/it/index.json`; the bytes and proofs in the answers are
//! described in `docs/spec/wire.md`, well enough that a foreign verifier needs nothing else.
//!
//! - [`backend`]: the port, with [`info`] for the plain data of its answers;
//! - [`router`]: routes → handlers, and the self-describing index at `/`;
//! - [`limits`]: body, time and concurrency, each refused with a coded error;
//! - [`error`]: the one shape of every refusal;
//! - [`listen`]: a socket of our own, or one passed on by a parent (`LISTEN_FDS`);
//! - [`serve()`]: the accept loop, with bounded connections;
//! - [`metrics`]: the catalogue of metrics; [`peer_series`]: the few that are about single peers.
//!
//! Never here: storage or consensus handles, a decision about validity, an unbounded body.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backend;
pub mod error;
pub mod info;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod peer_series;
mod router;
mod serve;
mod submit;

pub use backend::{Backend, BackendError, BlockAt, SubmitError};
pub use error::ApiError;
pub use info::{
    AccountInfo, BanInfo, BatchInfo, BlockInfo, EpochInfo, GenesisInfo, GuardInfo, ListedTransaction, NodeInfo, PeerInfo,
    PeerPackets, Readiness, TcpInfo, TransactionInfo, TransactionStatus, ValidatorInfo, ValidatorsInfo,
};
pub use limits::Config;
pub use listen::{ListenError, listener};
pub use router::{ROUTES, Route, router};
pub use serve::serve;
