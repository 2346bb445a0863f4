//! Who may have how much in the pool. A skipped transaction pays nothing, so it costs its sender and forwarder room here: the
//! only price that a skip ever has.

use std::collections::BTreeMap;

use types::Height;

/// Most senders or forwarders whose skips are remembered; beyond it new ones are not, until old ones decayed.
pub const SKIP_RECORDS_MAX: usize = 4_096;

/// Heights after which one skip is forgiven.
const SKIP_DECAY: u64 = 16;
/// A quota is halved for each skip, at most this often.
const HALVINGS_MAX: u64 = 6;

/// Counts what each key has in the pool, and its recent skips.
#[derive(Clone, Debug)]
pub(crate) struct Quotas<K: Ord + Copy> {
    max: usize,
    used: BTreeMap<K, usize>,
    skips: BTreeMap<K, (u64, Height)>,
}

impl<K: Ord + Copy> Quotas<K> {
    pub(crate) fn new(max: usize) -> Quotas<K> {
        Quotas { max, used: BTreeMap::new(), skips: BTreeMap::new() }
    }

    fn skips_at(&self, key: &K, height: Height) -> u64 {
        self.skips.get(key).map_or(0, |(count, since)| count.saturating_sub(height.since(*since) / SKIP_DECAY))
    }

    /// Whether one more fits.
    pub(crate) fn has_room(&self, key: &K, height: Height) -> bool {
        let limit = (self.max >> self.skips_at(key, height).min(HALVINGS_MAX)).max(1);
        self.used.get(key).copied().unwrap_or(0) < limit
    }

    pub(crate) fn take(&mut self, key: K) {
        *self.used.entry(key).or_default() += 1;
    }

    pub(crate) fn give_back(&mut self, key: &K) {
        if let Some(used) = self.used.get_mut(key) {
            *used = used.saturating_sub(1);
            if *used == 0 {
                self.used.remove(key);
            }
        }
    }

    /// Notes a skip at a height.
    pub(crate) fn note_skip(&mut self, key: K, height: Height) {
        let count = self.skips_at(&key, height) + 1;
        if !self.skips.contains_key(&key) && self.skips.len() >= SKIP_RECORDS_MAX {
            self.skips.retain(|_, (count, since)| *count > height.since(*since) / SKIP_DECAY);
            if self.skips.len() >= SKIP_RECORDS_MAX {
                return;
            }
        }
        self.skips.insert(key, (count.min(2 * HALVINGS_MAX), height));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_halve_and_decay() {
        let mut quotas = Quotas::new(8);
        let limit = |quotas: &mut Quotas<u8>, height| {
            let mut taken = 0;
            while quotas.has_room(&1, Height(height)) {
                quotas.take(1);
                taken += 1;
            }
            (0..taken).for_each(|_| quotas.give_back(&1));
            taken
        };
        assert_eq!(limit(&mut quotas, 0), 8);
        quotas.note_skip(1, Height(0));
        quotas.note_skip(1, Height(0));
        assert_eq!(limit(&mut quotas, 0), 2);
        assert_eq!(limit(&mut quotas, SKIP_DECAY), 4);
        assert_eq!(limit(&mut quotas, 2 * SKIP_DECAY), 8);
        (0..100).for_each(|_| quotas.note_skip(1, Height(0)));
        assert_eq!(limit(&mut quotas, 0), 1);
    }

    #[test]
    fn records_are_bounded() {
        let mut quotas = Quotas::new(8);
        (0..2 * SKIP_RECORDS_MAX).for_each(|key| quotas.note_skip(key, Height(0)));
        assert_eq!(quotas.skips.len(), SKIP_RECORDS_MAX);
        quotas.note_skip(usize::MAX, Height(SKIP_DECAY));
        assert_eq!(quotas.skips.len(), 1);
    }
}
