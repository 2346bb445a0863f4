//! The HTTP surface over the chain of `docs/spec/vectors`: real headers, certificates, batches and proofs.
#![allow(clippy::unwrap_used)]

mod backend;
mod limits;
mod routes;
mod submit;
mod verifier;
