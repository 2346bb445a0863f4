//! What is known of one view above the final one.

use types::{Certificate, Kind, SignedStatement, Tick};

use crate::input::{BlockMeta, Verdict};
use crate::tally::Tally;

/// A proposal as it was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proposed {
    pub(crate) head: SignedStatement,
    pub(crate) block: BlockMeta,
    pub(crate) seen_at: Tick,
}

/// How far the judging of a proposal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Judging {
    /// Something that this engine must know first is missing.
    #[default]
    Open,
    /// The shell judges.
    Asked,
    /// Done.
    Done(Verdict),
}

/// How far an own statement is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Own {
    /// Not said.
    #[default]
    Unsaid,
    /// The signer was asked; from here on it counts as said.
    Asked,
    /// The signer refused: never said in this life, and not asked for again.
    Refused,
    /// Said.
    Signed(SignedStatement),
}

impl Own {
    /// Whether it was said, or may be said any moment.
    pub(crate) fn is_said(&self) -> bool {
        matches!(self, Own::Asked | Own::Signed(_))
    }

    /// The signed statement.
    pub(crate) fn signed(&self) -> Option<SignedStatement> {
        match self {
            Own::Signed(signed) => Some(*signed),
            _ => None,
        }
    }
}

/// One view.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// The first proposal of its leader.
    pub(crate) proposal: Option<Proposed>,
    pub(crate) judging: Judging,
    pub(crate) tally: Tally,
    /// A view may get both certificates: both are kept, for either may be what somebody lacks.
    pub(crate) notarization: Option<Certificate>,
    pub(crate) nullification: Option<Certificate>,
    pub(crate) notarized_at: Tick,
    own: [Own; 4],
}

impl Slot {
    /// The own statement of a kind.
    pub(crate) fn own(&self, kind: Kind) -> &Own {
        &self.own[kind as usize]
    }

    pub(crate) fn set_own(&mut self, kind: Kind, own: Own) {
        self.own[kind as usize] = own;
    }

    /// The certificate that admits to the next view.
    pub(crate) fn admits(&self) -> Option<&Certificate> {
        self.notarization.as_ref().or(self.nullification.as_ref())
    }

    pub(crate) fn certificates(&self) -> usize {
        usize::from(self.notarization.is_some()) + usize::from(self.nullification.is_some())
    }

    /// Whether own statements of the view itself (not finalize) were asked for or signed.
    pub(crate) fn has_voted(&self) -> bool {
        [Kind::Propose, Kind::Notarize, Kind::Nullify].iter().any(|kind| self.own(*kind).is_said())
    }
}
