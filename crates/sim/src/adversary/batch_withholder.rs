//! Gives its batches to as few as it likes, announces them to all, and does not serve them.

use types::Message;

use super::{Adversary, Context, Parcel};
use crate::dice::Dice;

/// Keeps batches.
pub struct BatchWithholder {
    /// Who gets them, by index.
    favoured: u64,
}

impl BatchWithholder {
    /// Favours some nodes for ever.
    pub fn new(dice: &mut Dice) -> BatchWithholder {
        BatchWithholder { favoured: dice.any() }
    }
}

impl Adversary for BatchWithholder {
    fn send(&mut self, context: &mut Context<'_>, parcel: Parcel, out: &mut Vec<Parcel>) {
        let keep = match &*parcel.message {
            Message::Batch(_) | Message::Block(_) => self.favoured >> parcel.to & 1 == 1 || context.dice.chance(50),
            _ => true,
        };
        if keep {
            out.push(parcel);
        }
    }
}
