//! libp2p: bytes in, typed messages out, limits on everything.
