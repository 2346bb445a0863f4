//! The state machine: a block's batches in, receipts and state changes out; the state tree and its proofs.
