//! Two unmodified machines under one key, each seeing a part of the network. Both vote: that is what equivocation looks like
//! when nobody wrote an attack.

use crate::dice::Dice;

/// Who sees which of the two, anew now and then.
pub fn split(dice: &mut Dice, nodes: usize) -> (u64, u64) {
    let first = dice.subset(nodes);
    let all = (1 << nodes) - 1;
    // Now and then a node sees both.
    let both = if dice.chance(200) { dice.subset(nodes) } else { 0 };
    (first | both, (all & !first) | both)
}
