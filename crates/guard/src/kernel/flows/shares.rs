//! How what validators' flows may send is divided: by stake, with a least that every validator has. Pure.
//!
//! A share is a guarantee, not a loan: nobody else's packets are taken from it, so a flood in one validator's name costs that validator
//! alone, and all shares together never exceed the total that the node behind can take. What belongs to validators that are not here
//! stays theirs.

use kernel_shared::abi::{STAKE_NONE, STAKE_UNKNOWN};

/// The whole of the stake, in the unit of [`Stake::Parts`].
pub const PARTS: u32 = 1_000_000;

/// A validator's part of all stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stake {
    /// Not told: an equal share.
    Unknown,
    /// So many millionths: 1 to [`PARTS`].
    Parts(u32),
}

impl Stake {
    /// As it stands in a flow's record.
    pub const fn word(stake: Option<Stake>) -> u32 {
        match stake {
            None => STAKE_NONE,
            Some(Stake::Unknown) => STAKE_UNKNOWN,
            Some(Stake::Parts(parts)) => parts,
        }
    }

    /// From a flow's record.
    pub const fn from_word(word: u32) -> Option<Stake> {
        match word {
            STAKE_NONE => None,
            1..=PARTS => Some(Stake::Parts(word)),
            _ => Some(Stake::Unknown),
        }
    }

    /// Millionths; none if they were not told.
    pub const fn parts(self) -> Option<u32> {
        match self {
            Stake::Unknown => None,
            Stake::Parts(parts) => Some(parts),
        }
    }
}

/// Each validator's share of `total`, in the order of `stakes`.
///
/// A share is the stake's part of the total, or `least` if that is more; `least` is at most an equal share of all that are here. What
/// the small ones are given beyond their stake, the others pay for by stake. Stakes that add up to more than the whole (an epoch is
/// changing) count in proportion. Unknown ones count as equal parts.
pub fn divide(total: u64, least: u64, stakes: &[Stake]) -> Vec<u64> {
    let count = stakes.len().max(1) as u64;
    let least = least.min(total / count);
    let equal = (u64::from(PARTS) / count).max(1);
    let mut weights: Vec<(u64, usize)> = stakes.iter().map(|stake| stake.parts().map_or(equal, u64::from)).zip(0..).collect();
    weights.sort_unstable();
    let (mut pool, mut whole) = (total, weights.iter().map(|(weight, _)| weight).sum::<u64>().max(u64::from(PARTS)));
    let mut shares = vec![0; stakes.len()];
    // In ascending order: once a part by stake reaches the least, all further ones do.
    for (weight, index) in weights {
        let part = (u128::from(pool) * u128::from(weight) / u128::from(whole.max(1))) as u64;
        if part < least {
            pool -= least;
            whole -= weight;
        }
        if let Some(share) = shares.get_mut(index) {
            *share = part.max(least);
        }
    }
    shares
}

/// The part of flow `index` (from 0) of a validator with so many flows; the parts add up to its share.
pub fn part(share: u64, flows: u64, index: u64) -> u64 {
    let flows = flows.max(1);
    share / flows + u64::from(index < share % flows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel_shared::bucket::{Bucket, UNITS};
    use proptest::prelude::*;

    const fn parts(parts: u32) -> Stake {
        Stake::Parts(parts)
    }

    #[test]
    fn shares_by_hand() {
        let check = |total, least, stakes: &[Stake], expect: &[u64]| assert_eq!(divide(total, least, stakes), expect);
        check(1000, 0, &[parts(250_000), parts(750_000)], &[250, 750]);
        check(1000, 0, &[parts(250_000)], &[250]); // the rest belongs to those who are not here
        check(1000, 10, &[parts(1_000), parts(999_000)], &[10, 990]);
        check(1000, 600, &[parts(1_000), parts(999_000)], &[500, 500]); // a least that can't be had is an equal share
        check(1000, 10, &[parts(900_000), parts(600_000)], &[600, 400]);
        check(1000, 10, &[Stake::Unknown; 4], &[250; 4]);
        check(1000, 10, &[Stake::Unknown, parts(500_000)], &[500, 500]);
        check(0, 10, &[parts(1)], &[0]);
        check(1000, 10, &[], &[]);
    }

    #[test]
    fn a_stake_is_read_as_it_was_written() {
        for stake in [None, Some(Stake::Unknown), Some(parts(1)), Some(parts(PARTS))] {
            assert_eq!(Stake::from_word(Stake::word(stake)), stake);
        }
        assert_eq!(Stake::from_word(PARTS + 1), Some(Stake::Unknown), "what nobody writes is the least that a validator can be");
    }

    fn stake() -> impl Strategy<Value = Stake> {
        prop_oneof![1 => Just(Stake::Unknown), 4 => (1..=PARTS).prop_map(Stake::Parts), 4 => (1..1000u32).prop_map(Stake::Parts)]
    }

    proptest! {
        /// Whatever the stakes are: no more than the total is promised, and everybody has the least (or an equal share of the total).
        #[test]
        fn never_more_than_all_and_never_less_than_the_least(
            total in 0u64..=u64::from(u32::MAX), least in 0u64..1 << 24, stakes in prop::collection::vec(stake(), 1..200),
        ) {
            let shares = divide(total, least, &stakes);
            prop_assert_eq!(shares.len(), stakes.len());
            prop_assert!(shares.iter().sum::<u64>() <= total);
            let least = least.min(total / stakes.len() as u64);
            prop_assert!(shares.iter().all(|share| *share >= least));
            // More stake is never less share.
            for (stake, share) in stakes.iter().zip(&shares) {
                for (other, theirs) in stakes.iter().zip(&shares) {
                    if let (Stake::Parts(a), Stake::Parts(b)) = (stake, other) {
                        prop_assert!(a < b || share >= theirs);
                    }
                }
            }
        }

        /// Who has more than the least has it in proportion to his stake, to a unit.
        #[test]
        fn above_the_least_shares_are_in_proportion(
            total in 1u64..=u64::from(u32::MAX), stakes in prop::collection::vec(1..=PARTS, 2..50),
        ) {
            let all: Vec<Stake> = stakes.iter().copied().map(Stake::Parts).collect();
            let shares = divide(total, 0, &all);
            let sum: u128 = stakes.iter().map(|stake| u128::from(*stake)).sum::<u128>().max(u128::from(PARTS));
            for (stake, share) in stakes.iter().zip(shares) {
                let exact = u128::from(total) * u128::from(*stake);
                let scaled = u128::from(share) * sum;
                prop_assert!(scaled <= exact && exact - scaled < sum, "{share} of {total} for {stake}");
            }
        }

        #[test]
        fn parts_of_flows_add_up(share in 0u64..1 << 40, flows in 1u64..50) {
            prop_assert_eq!((0..flows).map(|index| part(share, flows, index)).sum::<u64>(), share);
        }

        /// All saturated at once, for a while, through the kernel's own bucket: what passes is in proportion to the stakes, to a
        /// packet for the burst and one for what the last ticks have earned.
        #[test]
        fn saturated_flows_pass_in_proportion(weights in prop::collection::vec(1u32..100, 2..8), ticks in 1u64..60) {
            let sum: u32 = weights.iter().sum();
            let stakes: Vec<Stake> = weights.iter().map(|weight| Stake::Parts((weight * (PARTS / sum)).max(1))).collect();
            let (rate, burst) = (divide(40 * UNITS, 0, &stakes), divide(4000 * UNITS, 0, &stakes));
            let passed = rate.iter().zip(&burst).map(|(rate, burst)| {
                let bucket = Bucket::new(*burst, 1_000);
                let mut passed = 0u64;
                for tick in 0..=ticks {
                    while bucket.take(1_000 + tick, *rate as u32, *burst as u32) {
                        passed += 1;
                    }
                }
                passed
            });
            for (stake, passed) in stakes.iter().zip(passed) {
                let exact = (4000 + 40 * ticks) * u64::from(stake.parts().unwrap()) / u64::from(PARTS);
                prop_assert!(passed.abs_diff(exact) <= 2, "{passed} passed, {exact} by stake");
            }
        }
    }
}
