//! How often a peer is answered and asked: once an interval and kind.

use std::collections::BTreeMap;

use types::{PublicKey, Tick};

/// What is limited; each kind has an interval of its own, so that none starves another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allow {
    /// A vote of a view that was left is answered with certificates.
    AnswerVote,
    /// A fetch of certificates is answered.
    AnswerCertificates,
    /// A fetch of a proposal is answered.
    AnswerProposal,
    /// A voter is asked for the proposal that it voted for.
    AskProposal,
}

const KINDS: usize = 4;

/// The connected validators.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowances {
    last: BTreeMap<PublicKey, [Option<Tick>; KINDS]>,
}

impl Allowances {
    /// Keeps track of a peer, if there is room.
    pub(crate) fn connect(&mut self, peer: PublicKey, max: usize) {
        if self.last.len() < max {
            self.last.entry(peer).or_default();
        }
    }

    /// A peer that comes back starts anew; what limits that is the network's budget for connections.
    pub(crate) fn disconnect(&mut self, peer: &PublicKey) {
        self.last.remove(peer);
    }

    /// Whether it may happen now; if so, it is noted. Never for a peer that is not connected.
    pub(crate) fn take(&mut self, peer: &PublicKey, kind: Allow, now: Tick, interval_ms: u64) -> bool {
        let Some(last) = self.last.get_mut(peer).and_then(|kinds| kinds.get_mut(kind as usize)) else { return false };
        if last.is_some_and(|last| last.plus_ms(interval_ms) > now) {
            return false;
        }
        *last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_an_interval_and_kind() {
        let (peer, other) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let mut allowances = Allowances::default();
        assert!(!allowances.take(&peer, Allow::AnswerVote, Tick(0), 100), "not connected");
        allowances.connect(peer, 1);
        allowances.connect(other, 1);
        assert!(!allowances.take(&other, Allow::AnswerVote, Tick(0), 100), "no room");
        assert!(allowances.take(&peer, Allow::AnswerVote, Tick(0), 100));
        assert!(allowances.take(&peer, Allow::AnswerProposal, Tick(0), 100));
        assert!(!allowances.take(&peer, Allow::AnswerVote, Tick(99_999), 100));
        assert!(allowances.take(&peer, Allow::AnswerVote, Tick(100_000), 100));
    }
}
