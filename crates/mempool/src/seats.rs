//! A set of seats.

use types::{Seat, VALIDATORS_MAX, ValidatorSet};

const WORDS: usize = VALIDATORS_MAX / 64;

/// Which seats, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seats([u64; WORDS]);

impl Seats {
    /// Adds a seat; false if it was there, or is none.
    pub(crate) fn insert(&mut self, seat: Seat) -> bool {
        let Some(word) = self.0.get_mut(seat.index() / 64) else {
            return false;
        };
        let bit = 1u64 << (seat.index() % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// All, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Seat> + '_ {
        (0..VALIDATORS_MAX).filter(|i| self.0[i / 64] & (1 << (i % 64)) != 0).map(|i| Seat(i as u16))
    }

    /// Their weight.
    pub(crate) fn weight(&self, set: &ValidatorSet) -> u128 {
        self.iter().map(|seat| set.weight(seat)).sum()
    }

    /// The same keys' seats in another set; keys that are not in it are left out.
    pub(crate) fn moved(&self, from: &ValidatorSet, to: &ValidatorSet) -> Seats {
        let mut moved = Seats::default();
        for seat in self.iter().filter_map(|seat| from.get(seat)).filter_map(|validator| to.seat(&validator.key)) {
            moved.insert(seat);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Epoch, PublicKey, Stake, Validator};

    #[test]
    fn seats_move_with_their_keys() {
        let set = |keys: &[u8]| {
            let validators = keys.iter().map(|k| Validator { key: PublicKey([*k; 32]), weight: Stake(u64::from(*k)) });
            ValidatorSet::new(Epoch(0), validators.collect())
        };
        let (old, new) = (set(&[1, 2, 3]), set(&[0, 2, 3, 9]));
        let mut seats = Seats::default();
        assert!(seats.insert(Seat(0)) && seats.insert(Seat(2)) && !seats.insert(Seat(2)) && !seats.insert(Seat(256)));
        assert_eq!(seats.weight(&old), 4);
        let moved = seats.moved(&old, &new);
        assert_eq!(moved.iter().collect::<Vec<_>>(), [Seat(2)]);
        assert_eq!(moved.weight(&new), 3);
    }
}
