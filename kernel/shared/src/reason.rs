//! Reasons: the label of every counter, one per way a packet can end.

/// Slots kept for reasons in the counter array: discriminants stay below it, with room for later ones.
pub const REASON_SLOTS: u32 = 64;

/// First slot of the bans; the offence's discriminant is added to it.
const BANNED_BASE: u8 = 32;

/// Why a packet passed or was dropped. The discriminant is the slot in the counter array and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Passed: not for a protected port, or a packet that has no port.
    OutOfScope = 0,
    /// Passed, with the switch off: the port lies beyond the headers that we walk.
    Unreadable = 1,
    /// Passed uninspected: the guard is switched off.
    Off = 2,
    /// Passed: an established flow of the floor.
    Floor = 3,
    /// Passed: an established flow of an admitted peer.
    Known = 4,
    /// Passed: a flow that this node is opening itself.
    Dialing = 5,
    /// Passed: a protected port, a source without a flow.
    Stranger = 6,
    /// Dropped: first fragment to a protected port.
    Fragment = 16,
    /// Dropped: a flow above its own budget.
    RatePeer = 17,
    /// Dropped: impossible flags, ports or lengths (step 6).
    Malformed = 18,
    /// Dropped: a stranger's address above its budget (step 7).
    RateSource = 19,
    /// Dropped: a stranger's prefix above its budget (step 7).
    RatePrefix = 20,
    /// Dropped: all strangers together above their budget (step 7).
    RateStrangers = 21,
    /// Dropped, with the switch on: the port lies beyond the headers that we walk.
    Hidden = 22,
    /// Dropped: banned by an operator.
    BannedManual = BANNED_BASE,
    /// Dropped: banned by an imported list.
    BannedList = BANNED_BASE + 1,
    /// Dropped: banned for a signature that does not verify.
    BannedBadSignature = BANNED_BASE + 2,
    /// Dropped: banned for bytes that do not decode.
    BannedMalformed = BANNED_BASE + 3,
    /// Dropped: banned for replays.
    BannedReplay = BANNED_BASE + 4,
    /// Dropped: banned for contradicting itself.
    BannedEquivocation = BANNED_BASE + 5,
    /// Dropped: banned for an invalid block or batch.
    BannedInvalidBlock = BANNED_BASE + 6,
    /// Dropped: banned for oversized frames.
    BannedOversize = BANNED_BASE + 7,
    /// Dropped: banned for its message rate.
    BannedRate = BANNED_BASE + 8,
}

impl Reason {
    /// All reasons, in the order of their slots.
    pub const ALL: [Reason; 23] = [
        Reason::OutOfScope,
        Reason::Unreadable,
        Reason::Off,
        Reason::Floor,
        Reason::Known,
        Reason::Dialing,
        Reason::Stranger,
        Reason::Fragment,
        Reason::RatePeer,
        Reason::Malformed,
        Reason::RateSource,
        Reason::RatePrefix,
        Reason::RateStrangers,
        Reason::Hidden,
        Reason::BannedManual,
        Reason::BannedList,
        Reason::BannedBadSignature,
        Reason::BannedMalformed,
        Reason::BannedReplay,
        Reason::BannedEquivocation,
        Reason::BannedInvalidBlock,
        Reason::BannedOversize,
        Reason::BannedRate,
    ];

    /// The label: `snake_case`, stable, used in metrics and JSON. A ban's label is `banned_` and its offence's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::OutOfScope => "out_of_scope",
            Reason::Unreadable => "unreadable",
            Reason::Off => "off",
            Reason::Floor => "floor",
            Reason::Known => "known",
            Reason::Dialing => "dialing",
            Reason::Stranger => "stranger",
            Reason::Fragment => "fragment",
            Reason::RatePeer => "rate_peer",
            Reason::Malformed => "malformed",
            Reason::RateSource => "rate_source",
            Reason::RatePrefix => "rate_prefix",
            Reason::RateStrangers => "rate_strangers",
            Reason::Hidden => "hidden",
            Reason::BannedManual => "banned_manual",
            Reason::BannedList => "banned_list",
            Reason::BannedBadSignature => "banned_bad_signature",
            Reason::BannedMalformed => "banned_malformed",
            Reason::BannedReplay => "banned_replay",
            Reason::BannedEquivocation => "banned_equivocation",
            Reason::BannedInvalidBlock => "banned_invalid_block",
            Reason::BannedOversize => "banned_oversize",
            Reason::BannedRate => "banned_rate",
        }
    }

    /// The reason of a ban for this offence (its discriminant in `types::Offence`); an unknown one counts as an operator's.
    #[inline(always)]
    pub const fn banned(offence: u32) -> Reason {
        match offence {
            1 => Reason::BannedList,
            2 => Reason::BannedBadSignature,
            3 => Reason::BannedMalformed,
            4 => Reason::BannedReplay,
            5 => Reason::BannedEquivocation,
            6 => Reason::BannedInvalidBlock,
            7 => Reason::BannedOversize,
            8 => Reason::BannedRate,
            _ => Reason::BannedManual,
        }
    }

    /// The reason in this slot.
    pub fn from_slot(slot: u32) -> Option<Reason> {
        Self::ALL.into_iter().find(|reason| *reason as u32 == slot)
    }

    /// Whether `enforce` drops a packet with this reason.
    pub const fn is_drop(self) -> bool {
        self as u8 >= Reason::Fragment as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_unique_ordered_and_in_bounds() {
        for pair in Reason::ALL.windows(2) {
            assert!((pair[0] as u8) < pair[1] as u8);
        }
        for reason in Reason::ALL {
            assert!((reason as u32) < REASON_SLOTS);
            assert_eq!(Reason::from_slot(reason as u32), Some(reason));
        }
        assert_eq!(Reason::from_slot(63), None);
    }

    #[test]
    fn a_ban_is_always_a_drop_whatever_the_offence() {
        for offence in 0..300 {
            assert!(Reason::banned(offence).is_drop());
            assert!(Reason::banned(offence).as_str().starts_with("banned_"));
        }
    }
}
