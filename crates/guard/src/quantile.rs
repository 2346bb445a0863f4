//! Quantiles of the guard's latency histograms.

/// The smallest bound that `percent` of the samples stay below, ns: the end of their bucket, so at most twice what it was. `None` without
/// samples. Bucket n counts [2^n, 2^(n+1)) ns, as everywhere in the protocol.
pub fn quantile_ns(buckets: &[u64], percent: u8) -> Option<u64> {
    let all: u128 = buckets.iter().map(|count| u128::from(*count)).sum();
    let wanted = (all * u128::from(percent.min(100))).div_ceil(100).max(1);
    let mut below = 0u128;
    let bucket = buckets.iter().position(|count| {
        below += u128::from(*count);
        below >= wanted
    })?;
    Some(1u64.checked_shl(bucket as u32 + 1).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_a_few() {
        let mut buckets = vec![0; 12];
        assert_eq!((quantile_ns(&buckets, 50), quantile_ns(&[], 99)), (None, None));
        (buckets[4], buckets[11]) = (99, 1);
        assert_eq!([50, 99, 100].map(|percent| quantile_ns(&buckets, percent)), [Some(32), Some(32), Some(4096)]);
        buckets[11] = 2;
        assert_eq!(quantile_ns(&buckets, 99), Some(4096));
    }

    proptest! {
        /// Against samples that are sorted and counted one by one.
        #[test]
        fn bounds_its_share_of_the_samples(samples in prop::collection::vec(1u64..1 << 40, 1..200), percent in 1u8..=100) {
            let mut buckets = vec![0u64; 41];
            samples.iter().for_each(|sample| buckets[sample.ilog2() as usize] += 1);
            let bound = quantile_ns(&buckets, percent).unwrap();
            let share = |bound: u64| samples.iter().filter(|sample| **sample < bound).count() * 100;
            prop_assert!(share(bound) >= samples.len() * percent as usize);
            prop_assert!(share(bound / 2) < samples.len() * percent as usize);
        }

        #[test]
        fn any_counts_are_survived(buckets in prop::collection::vec(any::<u64>(), 0..80), percent: u8) {
            prop_assert_eq!(quantile_ns(&buckets, percent).is_some(), buckets.iter().any(|count| *count > 0));
        }
    }
}
