//! The devnet as it ships: real nodes, real guards, real load. See docs/guide/devnet.md.
