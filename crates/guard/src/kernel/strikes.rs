//! How often each prefix was banned in a row: what `--escalate` multiplies by.

use super::state::SavedStrike;
use crate::Prefix;
use std::collections::BTreeMap;

/// A ban counts against the next one until so long after its end, ms: a day.
pub const MEMORY_MS: u64 = 24 * 3600 * 1000;
/// Prefixes remembered. When there are more, the one whose last ban ends first is forgotten.
pub const STRIKES_MAX: usize = 16_384;

struct Strike {
    count: u32,
    until_ms: u64,
}

/// Repeat offenders.
#[derive(Default)]
pub struct Strikes(BTreeMap<Prefix, Strike>);

impl Strikes {
    /// Reads back what was saved.
    pub fn restore(saved: &[SavedStrike]) -> Strikes {
        let strike = |saved: &SavedStrike| (saved.address, Strike { count: saved.strikes, until_ms: saved.until_unix_ms });
        Strikes(saved.iter().take(STRIKES_MAX).map(strike).collect())
    }

    /// A time to live, doubled for each ban in a row that this prefix had; at most `max_ms`.
    pub fn escalated(&self, prefix: &Prefix, ttl_ms: u64, max_ms: u64, now_ms: u64) -> u64 {
        let counted = self.0.get(prefix).filter(|strike| now_ms <= strike.until_ms.saturating_add(MEMORY_MS));
        let doublings = counted.map_or(0, |strike| strike.count.min(63));
        ttl_ms.saturating_mul(1 << doublings).min(max_ms)
    }

    /// Counts a ban that ends then.
    pub fn count(&mut self, prefix: Prefix, until_ms: u64, now_ms: u64) {
        self.forget(now_ms);
        if self.0.len() >= STRIKES_MAX && !self.0.contains_key(&prefix) {
            let first = self.0.iter().min_by_key(|(_, strike)| strike.until_ms).map(|(prefix, _)| *prefix);
            first.map(|prefix| self.0.remove(&prefix));
        }
        let strike = self.0.entry(prefix).or_insert(Strike { count: 0, until_ms });
        strike.count = strike.count.saturating_add(1);
        strike.until_ms = until_ms;
    }

    fn forget(&mut self, now_ms: u64) {
        self.0.retain(|_, strike| now_ms <= strike.until_ms.saturating_add(MEMORY_MS));
    }

    /// For keeping.
    pub fn save(&self) -> Vec<SavedStrike> {
        let saved = |(address, strike): (&Prefix, &Strike)| SavedStrike {
            address: *address,
            strikes: strike.count,
            until_unix_ms: strike.until_ms,
        };
        self.0.iter().map(saved).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ban_in_a_row_doubles_and_a_quiet_day_forgives() {
        let mut strikes = Strikes::default();
        let prefix: Prefix = "10.0.0.1".parse().unwrap();
        let ttl = |strikes: &Strikes, now| strikes.escalated(&prefix, 1000, 5000, now);
        assert_eq!(ttl(&strikes, 0), 1000);
        strikes.count(prefix, 1000, 0);
        assert_eq!(ttl(&strikes, 10), 2000);
        strikes.count(prefix, 2000, 10);
        let mut strikes = Strikes::restore(&strikes.save());
        assert_eq!((ttl(&strikes, 2000), strikes.escalated(&"10.0.0.2".parse().unwrap(), 1000, 5000, 0)), (4000, 1000));
        strikes.count(prefix, 4000, 2000);
        assert_eq!(ttl(&strikes, 4000), 5000);
        assert_eq!((ttl(&strikes, 4000 + MEMORY_MS), ttl(&strikes, 4001 + MEMORY_MS)), (5000, 1000));
    }

    #[test]
    fn there_is_a_limit() {
        let mut strikes = Strikes::default();
        for number in 0..=STRIKES_MAX as u32 {
            strikes.count(Prefix::host(std::net::Ipv4Addr::from(number).into()), 1000 + number as u64, 0);
        }
        assert_eq!(strikes.save().len(), STRIKES_MAX);
        assert!(strikes.save().iter().all(|strike| strike.until_unix_ms > 1000));
    }
}
