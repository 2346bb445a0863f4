//! Drops of the kernel's own stack, after the guard let a packet pass: counted by the kernel's reason and by protected port. The first
//! ports that a guard protects have slots of their own, the others share one.

/// Reasons that have a slot of their own: those of the core (`enum skb_drop_reason`); subsystems number theirs from 65,536 on.
pub const REASONS_MAX: u32 = 256;
/// Slot of all other reasons.
pub const SLOT_OTHER: u32 = REASONS_MAX;
/// Slots of reasons.
pub const REASONS: u32 = REASONS_MAX + 1;
/// Ports that have a slot of their own.
pub const PORTS_NAMED: u32 = 15;
/// Slot of all other ports.
pub const PORT_OTHER: u32 = PORTS_NAMED;
/// Slots: by port, then by reason.
pub const SLOTS: u32 = (PORTS_NAMED + 1) * REASONS;

/// A port's word in the list of those that have a slot; 0 is none.
#[inline(always)]
pub const fn port_word(protocol: u8, port: u16) -> u64 {
    (protocol as u64) << 16 | port as u64
}

/// Protocol and port of a word.
pub const fn port_of(word: u64) -> Option<(u8, u16)> {
    if word == 0 { None } else { Some(((word >> 16) as u8, word as u16)) }
}

/// Where a drop is counted.
#[inline(always)]
pub const fn cell(port: u32, reason: u32) -> u32 {
    let port = if port < PORTS_NAMED { port } else { PORT_OTHER };
    port * REASONS + slot(reason)
}

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
            prop_assert!(slot(reason) < REASONS);
            prop_assert_eq!(slot(reason) == reason, reason <= REASONS_MAX);
        }

        #[test]
        fn every_drop_has_a_cell(port: u32, reason: u32, protocol in 1u8.., number: u16) {
            prop_assert!(cell(port, reason) < SLOTS);
            prop_assert_eq!(cell(port, reason) % REASONS, slot(reason));
            prop_assert_eq!(port_of(port_word(protocol, number)), Some((protocol, number)));
        }
    }
}
