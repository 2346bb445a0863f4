//! HTTP: the node's face, behind a Backend trait.
