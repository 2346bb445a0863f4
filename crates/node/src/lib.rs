//! The composition root: config, task tree, wiring.
