//! How often each prefix was banned in a row: what `--escalate` multiplies by.

use super::state::SavedStrike;
use crate::Prefix;
use std::collections::{BTreeMap, BTreeSet};

/// A ban counts against the next one until so long after its end, ms: a day.
pub const MEMORY_MS: u64 = 24 * 3600 * 1000;
/// Prefixes remembered. When there are more, the one whose last ban ends first is forgotten.
pub const STRIKES_MAX: usize = 16_384;

struct Strike {
    count: u32,
    until_ms: u64,
}

/// Repeat offenders. Counting one takes a time that grows with the logarithm of their number.
#[derive(Default)]
pub struct Strikes {
    strikes: BTreeMap<Prefix, Strike>,
    /// The same by the end of their last ban: who is forgotten next comes first.
    ends: BTreeSet<(u64, Prefix)>,
}

impl Strikes {
    /// Reads back what was saved.
    pub fn restore(saved: &[SavedStrike]) -> Strikes {
        let mut strikes = Strikes::default();
        for saved in saved.iter().take(STRIKES_MAX) {
            strikes.put(saved.address, Strike { count: saved.strikes, until_ms: saved.until_unix_ms });
        }
        strikes
    }

    /// A time to live, doubled for each ban in a row that this prefix had; at most `max_ms`.
    pub fn escalated(&self, prefix: &Prefix, ttl_ms: u64, max_ms: u64, now_ms: u64) -> u64 {
        let counted = self.strikes.get(prefix).filter(|strike| !is_forgiven(strike.until_ms, now_ms));
        let doublings = counted.map_or(0, |strike| strike.count.min(63));
        ttl_ms.saturating_mul(1 << doublings).min(max_ms)
    }

    /// Counts a ban that ends then.
    pub fn count(&mut self, prefix: Prefix, until_ms: u64, now_ms: u64) {
        while self.ends.first().is_some_and(|(until_ms, _)| is_forgiven(*until_ms, now_ms)) {
            self.forget_first();
        }
        let before = self.strikes.get(&prefix).map_or(0, |strike| strike.count);
        if before == 0 && self.strikes.len() >= STRIKES_MAX {
            self.forget_first();
        }
        self.put(prefix, Strike { count: before.saturating_add(1), until_ms });
    }

    fn put(&mut self, prefix: Prefix, strike: Strike) {
        let until_ms = strike.until_ms;
        if let Some(old) = self.strikes.insert(prefix, strike) {
            self.ends.remove(&(old.until_ms, prefix));
        }
        self.ends.insert((until_ms, prefix));
    }

    fn forget_first(&mut self) {
        if let Some((_, prefix)) = self.ends.pop_first() {
            self.strikes.remove(&prefix);
        }
    }

    /// For keeping.
    pub fn save(&self) -> Vec<SavedStrike> {
        let saved = |(address, strike): (&Prefix, &Strike)| SavedStrike {
            address: *address,
            strikes: strike.count,
            until_unix_ms: strike.until_ms,
        };
        self.strikes.iter().map(saved).collect()
    }
}

const fn is_forgiven(until_ms: u64, now_ms: u64) -> bool {
    now_ms > until_ms.saturating_add(MEMORY_MS)
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

    /// Both ways to look at them name the same ones, whatever is counted and forgotten.
    #[test]
    fn who_is_remembered_is_forgotten_by_his_last_end() {
        let mut strikes = Strikes::default();
        let (early, late): (Prefix, Prefix) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        strikes.count(early, 1000, 0);
        strikes.count(late, 2000, 0);
        strikes.count(early, 9000, 0);
        strikes.count("10.0.0.3".parse().unwrap(), 90_000, 2001 + MEMORY_MS);
        let left: Vec<_> = strikes.save().iter().map(|strike| (strike.address.to_string(), strike.strikes)).collect();
        assert_eq!(left, [("10.0.0.1/32".to_string(), 2), ("10.0.0.3/32".to_string(), 1)]);
        assert_eq!(strikes.ends.len(), 2);
    }
}
