//! Why transactions that were taken here got no receipt, for those who ask later. Bounded: the oldest is forgotten first.

use std::collections::{HashMap, VecDeque};

use types::TxId;

/// Most that are remembered; about 100 bytes each.
pub const DROPPED_MAX: usize = 16_384;

/// The last drops.
#[derive(Debug, Default)]
pub struct DroppedTable {
    reasons: HashMap<TxId, &'static str>,
    order: VecDeque<TxId>,
}

impl DroppedTable {
    /// Notes a drop; a later one of the same id replaces its reason.
    pub fn note(&mut self, id: TxId, reason: &'static str) {
        if self.reasons.insert(id, reason).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > DROPPED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.reasons.remove(&oldest);
        }
    }

    /// Why it was dropped, if it was lately.
    pub fn reason(&self, id: &TxId) -> Option<&'static str> {
        self.reasons.get(id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Hash;

    fn id(n: u64) -> TxId {
        TxId(Hash::of("id", &n))
    }

    #[test]
    fn the_last_are_known_and_the_oldest_forgotten() {
        let mut table = DroppedTable::default();
        for n in 0..=DROPPED_MAX as u64 {
            table.note(id(n), "expired");
        }
        table.note(id(1), "nonce_used");
        assert_eq!([table.reason(&id(0)), table.reason(&id(1)), table.reason(&id(2))], [None, Some("nonce_used"), Some("expired")]);
        assert_eq!((table.reasons.len(), table.order.len()), (DROPPED_MAX, DROPPED_MAX));
    }
}
