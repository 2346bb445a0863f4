//! Drops of the kernel's own stack, after the guard let a packet pass: counted by the kernel's reason, on protected ports.

/// Reasons that have a slot of their own: those of the core (`enum skb_drop_reason`); subsystems number theirs from 65,536 on.
pub const REASONS_MAX: u32 = 256;
/// Slot of all other reasons.
pub const SLOT_OTHER: u32 = REASONS_MAX;
/// Slots.
pub const SLOTS: u32 = REASONS_MAX + 1;

/// The slot of a reason.
#[inline(always)]
pub const fn slot(reason: u32) -> u32 {
    if reason < REASONS_MAX { reason } else { SLOT_OTHER }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_reason_has_a_slot(reason: u32) {
            prop_assert!(slot(reason) < SLOTS);
            prop_assert_eq!(slot(reason) == reason, reason <= REASONS_MAX);
        }
    }
}
