//! The epoch that blocks are built and judged in.

use types::{EpochRecord, Hash, PublicKey, Seat, ValidatorSet};

/// The epoch's record with what is derived from it.
#[derive(Clone, Debug)]
pub(crate) struct EpochView {
    pub(crate) record: EpochRecord,
    pub(crate) hash: Hash,
    pub(crate) next_hash: Hash,
    pub(crate) set: ValidatorSet,
}

impl EpochView {
    pub(crate) fn new(record: EpochRecord, next: &EpochRecord) -> EpochView {
        EpochView { hash: record.hash(), next_hash: next.hash(), set: record.set(), record }
    }

    pub(crate) fn seat(&self, key: &PublicKey) -> Option<Seat> {
        self.set.seat(key)
    }
}
