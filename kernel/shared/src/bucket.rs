//! The token bucket: a limit, not an account.
//!
//! It is shared by all CPUs without a lock. Two CPUs that race may each spend the same token: the limit is then
//! off by as much as there are CPUs, which is well inside what a limit has to promise.

use crate::Word;

/// Units in one packet: rates are in 1/1024 packet a tick, so that slow budgets exist at 250 ticks a second.
pub const UNITS: u64 = 1024;

/// A bucket's state. A new one is full: `tokens` starts at the burst and `last` at the tick of creation. One of zeros, as maps are
/// made, was never touched and counts as full, too.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Bucket {
    tokens: Word,
    last: Word,
}

impl Bucket {
    /// A full bucket of this burst (units) at this tick.
    pub const fn new(burst: u64, now: u64) -> Bucket {
        Bucket { tokens: Word::new(burst), last: Word::new(now) }
    }

    /// Tokens at this tick, after what was earned since `last`.
    #[inline(always)]
    fn filled(&self, last: u64, now: u64, rate: u32, burst: u32) -> u64 {
        let mut tokens = self.tokens.load();
        if now > last {
            // Elapsed ticks are capped so that the product fits: 2^31 ticks is 99 days at 250 Hz, longer than any refill.
            let elapsed = if now - last < 1 << 31 { now - last } else { 1 << 31 };
            tokens = if last == 0 { burst as u64 } else { tokens.wrapping_add(elapsed.wrapping_mul(rate as u64)) };
        }
        if tokens > burst as u64 { burst as u64 } else { tokens }
    }

    /// Whether the bucket would refuse a packet at this tick. It stays as it is.
    #[inline(always)]
    pub fn is_dry(&self, now: u64, rate: u32, burst: u32) -> bool {
        self.filled(self.last.load(), now, rate, burst) < UNITS
    }

    /// Takes one packet's tokens; false when the bucket is dry. `rate` in units a tick, `burst` in units, `now` in ticks.
    ///
    /// Ticks that run backwards (another CPU was faster) refill nothing.
    #[inline(always)]
    pub fn take(&self, now: u64, rate: u32, burst: u32) -> bool {
        let last = self.last.load();
        let tokens = self.filled(last, now, rate, burst);
        if now > last {
            self.last.store(now);
        }
        let granted = tokens >= UNITS;
        self.tokens.store(if granted { tokens - UNITS } else { tokens });
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Over any schedule the bucket grants at most its burst plus what the elapsed ticks earned.
        #[test]
        fn never_grants_more_than_burst_and_rate(rate in 0u32..5000, burst in 0u32..100_000, steps in proptest::collection::vec(0u64..10, 1..300)) {
            let bucket = Bucket::new(burst as u64, 1000);
            let (mut now, mut granted) = (1000u64, 0u64);
            for step in steps {
                now += step;
                granted += bucket.take(now, rate, burst) as u64;
            }
            prop_assert!(granted * UNITS <= burst as u64 + (now - 1000) * rate as u64);
        }

        /// It is dry exactly when it refuses.
        #[test]
        fn dry_is_what_refuses(tokens: u64, last in 0u64..100, now in 0u64..200, rate in 0u32..5000, burst in 0u32..100_000) {
            let bucket = Bucket::new(tokens, last);
            let dry = bucket.is_dry(now, rate, burst);
            prop_assert_eq!(dry, !bucket.take(now, rate, burst));
        }

        /// Who stays at or under the rate is never refused.
        #[test]
        fn never_refuses_a_sender_within_its_rate(gap in 1u64..50, burst in 1024u32..100_000) {
            let rate = UNITS.div_ceil(gap) as u32;
            let bucket = Bucket::new(burst as u64, 0);
            for k in 0..500u64 {
                prop_assert!(bucket.take(k * gap, rate, burst));
            }
        }

        /// A bucket of zeros is full at its first packet, whatever the rate.
        #[test]
        fn an_untouched_bucket_is_full(now in 1u64.., rate: u32, burst in 1024u32..) {
            let bucket = Bucket::default();
            prop_assert!(bucket.take(now, rate, burst));
            prop_assert_eq!(bucket.tokens.load(), burst as u64 - UNITS);
        }

        #[test]
        fn never_panics(tokens: u64, last: u64, now: u64, rate: u32, burst: u32) {
            let bucket = Bucket::new(tokens, last);
            bucket.take(now, rate, burst);
            prop_assert!(bucket.tokens.load() <= burst as u64);
        }
    }
}
