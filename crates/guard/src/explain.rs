//! A verdict in words: which step ended a packet's way, and which it went through before.

use crate::protocol::StepInfo;
use kernel_shared::Reason;

/// Longest packet of a test run, bytes.
pub const PACKET_BYTES_MAX: usize = 3000;
/// Shortest: an Ethernet header.
pub const PACKET_BYTES_MIN: usize = 14;

/// The steps of the verdict, in their order.
const STEPS: [&str; 8] = ["parse", "scope", "fragment", "floor", "ban", "flow", "sanity", "budget"];

/// A verdict as the program `explain` returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Why.
    pub reason: Reason,
    /// What it passes as, where it passes.
    pub class: Reason,
    /// Whether `enforce` drops it.
    pub drop: bool,
    /// 4, 6, or 0 when no protected port was read.
    pub version: u8,
    /// IP protocol, or 0.
    pub protocol: u8,
}

impl Explained {
    /// Reads the word of `kernel_shared::Verdict::encode`; none if it holds a slot without a reason.
    pub fn decode(word: u32) -> Option<Explained> {
        Some(Explained {
            reason: Reason::from_slot(word & 0xff)?,
            class: Reason::from_slot(word >> 8 & 0xff)?,
            drop: word >> 16 & 1 == 1,
            version: (word >> 17 & 7) as u8,
            protocol: (word >> 24) as u8,
        })
    }

    /// The step that ended it.
    fn last(&self) -> usize {
        match self.reason {
            Reason::Off | Reason::OutOfScope | Reason::Unreadable | Reason::Hidden => 1,
            Reason::Fragment => 2,
            Reason::Floor => 3,
            Reason::RatePeer if self.class == Reason::Floor => 3,
            Reason::Known | Reason::Dialing | Reason::RatePeer => 5,
            Reason::Malformed => 6,
            Reason::Stranger | Reason::RateSource | Reason::RatePrefix | Reason::RateStrangers => 7,
            Reason::BannedManual
            | Reason::BannedList
            | Reason::BannedBadSignature
            | Reason::BannedMalformed
            | Reason::BannedReplay
            | Reason::BannedEquivocation
            | Reason::BannedInvalidBlock
            | Reason::BannedOversize
            | Reason::BannedRate => 4,
        }
    }

    /// The steps that it went through; the last one's outcome is the reason.
    pub fn steps(&self) -> Vec<StepInfo> {
        let last = self.last();
        let info = |(step, name): (usize, &&str)| {
            let outcome = if step == last { self.reason.as_str() } else { "next" };
            StepInfo { step: step as u8, name: name.to_string(), outcome: outcome.to_string() }
        };
        STEPS.iter().enumerate().take(last + 1).map(info).collect()
    }
}

/// Reads a packet in hexadecimal; blanks and colons between bytes are skipped. None if it is no such text or of another length than
/// [`PACKET_BYTES_MIN`] to [`PACKET_BYTES_MAX`].
pub fn packet(text: &str) -> Option<Vec<u8>> {
    if text.len() > 3 * PACKET_BYTES_MAX {
        return None;
    }
    let digits = text.chars().filter(|c| !c.is_ascii_whitespace() && *c != ':');
    let digits: Vec<u8> = digits.map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let fits = digits.len().is_multiple_of(2) && (PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&bytes.len());
    fits.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel_shared::{golden, inspect};
    use proptest::prelude::*;

    #[test]
    fn every_golden_verdict_is_explained_to_its_end() {
        let model = golden::model();
        for case in golden::cases() {
            let explained = Explained::decode(inspect(&case.frame[..], &model).encode()).unwrap();
            assert_eq!((explained.reason, explained.class, explained.drop), (case.reason, case.class, case.drop), "{}", case.name);
            let steps = explained.steps();
            assert_eq!(steps.last().unwrap().outcome, case.reason.as_str());
            assert!(steps.iter().rev().skip(1).all(|step| step.outcome == "next"));
        }
    }

    #[test]
    fn a_step_is_named_for_what_it_drops() {
        let last = |reason, class| {
            let explained = Explained { reason, class, drop: true, version: 4, protocol: 6 };
            explained.steps().pop().map(|step| (step.step, step.name)).unwrap()
        };
        assert_eq!(last(Reason::RatePeer, Reason::Floor), (3, "floor".to_string()));
        assert_eq!(last(Reason::RatePeer, Reason::Known), (5, "flow".to_string()));
        assert_eq!(last(Reason::BannedList, Reason::Stranger), (4, "ban".to_string()));
        assert_eq!(last(Reason::RateStrangers, Reason::Stranger), (7, "budget".to_string()));
        assert_eq!(Explained::decode(15), None);
    }

    #[test]
    fn packets_in_hexadecimal() {
        assert_eq!(packet("00:01 02030405060708090a0b0C0D").unwrap(), (0..14).collect::<Vec<u8>>());
        for wrong in ["", "00", "000102030405060708090a0b0c0", "000102030405060708090a0b0c0g", &"00".repeat(PACKET_BYTES_MAX + 1)] {
            assert_eq!(packet(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_and_any_word_are_survived(text in ".*", word: u32) {
            packet(&text);
            if let Some(explained) = Explained::decode(word) {
                prop_assert!(!explained.steps().is_empty());
            }
        }
    }
}
