//! The deterministic world: network, disk, clock, adversaries, oracles.
