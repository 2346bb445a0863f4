//! The only holder of a validator's key: what may be signed, and the one journal.
