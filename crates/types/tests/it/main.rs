//! The formats, frozen: what the code makes today against the vectors in `docs/spec/vectors`.
#![allow(clippy::unwrap_used)]

#[path = "../../examples/vectors/files.rs"]
mod files;
mod vectors;
