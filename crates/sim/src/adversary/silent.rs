//! Says less and less: a share of its messages at first, nothing later.

use super::{Adversary, Context, Parcel};
use crate::dice::Dice;

/// A machine that fades out.
pub struct Silent {
    /// Messages that it still sends.
    left: u64,
}

impl Silent {
    /// Fades out after some messages, maybe none.
    pub fn new(dice: &mut Dice) -> Silent {
        Silent { left: if dice.chance(300) { 0 } else { dice.range(1, 2_000) } }
    }
}

impl Adversary for Silent {
    fn send(&mut self, _context: &mut Context<'_>, parcel: Parcel, out: &mut Vec<Parcel>) {
        if self.left > 0 {
            self.left -= 1;
            out.push(parcel);
        }
    }
}
