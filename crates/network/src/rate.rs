//! How much a peer may send: a token bucket over time that is passed in.

use std::time::Instant;

/// `rate` units a second for ever, `rate * burst_s` at once.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    rate_per_s: u64,
    /// In millionths of a unit, as is `level`: a microsecond earns `rate` of them.
    capacity: u64,
    level: u64,
    last: Instant,
}

const MILLION: u64 = 1_000_000;

impl Allowance {
    /// Starts full.
    pub(crate) fn new(rate_per_s: u64, burst_s: u64, now: Instant) -> Allowance {
        let capacity = rate_per_s.saturating_mul(burst_s).saturating_mul(MILLION);
        Allowance { rate_per_s, capacity, level: capacity, last: now }
    }

    /// Takes `units`; false, and nothing taken, if there are not as many.
    pub(crate) fn take(&mut self, units: u64, now: Instant) -> bool {
        let micros = u64::try_from(now.saturating_duration_since(self.last).as_micros()).unwrap_or(u64::MAX);
        if micros > 0 {
            self.last = now;
            self.level = self.level.saturating_add(micros.saturating_mul(self.rate_per_s)).min(self.capacity);
        }
        let price = units.saturating_mul(MILLION);
        if price > self.level {
            return false;
        }
        self.level -= price;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn burst_then_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::new(10, 3, start);
        assert_eq!((0..100).filter(|_| allowance.take(1, start)).count(), 30);
        assert!(!allowance.take(1, start + Duration::from_millis(99)));
        assert!(allowance.take(1, start + Duration::from_millis(100)));
        assert_eq!((0..100).filter(|_| allowance.take(1, start + Duration::from_secs(3600))).count(), 30);
    }

    proptest! {
        /// However the time is cut, no more is granted than burst + rate × time, and an honest sender is never refused.
        #[test]
        fn grants_no_more_than_promised(steps in prop::collection::vec((0u64..200_000, 0u64..40), 1..200)) {
            let start = Instant::now();
            let mut greedy = Allowance::new(100, 2, start);
            let (mut micros, mut granted) = (0, 0);
            for (step, units) in steps {
                micros += step;
                if greedy.take(units, start + Duration::from_micros(micros)) {
                    granted += units;
                }
                prop_assert!(granted * MILLION <= 200 * MILLION + 100 * micros);
            }
        }
    }
}
