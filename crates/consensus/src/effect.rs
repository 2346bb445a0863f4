//! What an engine asks for.

use types::{BlockHash, Certificate, Evidence, Message, PublicKey, SignedStatement, Statement, View};

use crate::input::BlockMeta;

/// To whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every other validator of the epoch.
    Validators,
    /// Every peer, validator or not.
    Everyone,
    /// One validator.
    One(PublicKey),
}

/// Why a view shall end without a final block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NullifyReason {
    /// The leader stayed silent for the leader timeout.
    LeaderTimeout,
    /// There was a proposal, but no certificate within the view timeout.
    ViewTimeout,
    /// The proposal breaks a rule.
    InvalidProposal,
}

impl NullifyReason {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            NullifyReason::LeaderTimeout => "leader_timeout",
            NullifyReason::ViewTimeout => "view_timeout",
            NullifyReason::InvalidProposal => "invalid_proposal",
        }
    }
}

/// What an engine asks for, in this order of coming out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// This node leads the view: build a block on the parent, then [`crate::Input::Built`]. If the parent is the epoch's last
    /// block, the answer is the parent's own meta: it is proposed again.
    Build {
        /// The view.
        view: View,
        /// The view that notarized the parent; 0 is the epoch's base.
        parent_view: View,
        /// The parent.
        parent: BlockHash,
        /// The parent's notarization in that view; none for the epoch's base.
        notarization: Option<Certificate>,
    },
    /// Judge the view's proposal, then [`crate::Input::Judged`]. That its parent is notarized and every view between is
    /// nullified is checked already.
    Judge {
        /// The view.
        view: View,
        /// The proposed block.
        block: BlockMeta,
        /// The view that notarized its parent (of a re-proposal: the block itself).
        parent_view: View,
        /// The view's leader.
        leader: PublicKey,
        /// The epoch's last block again: a quorum judged it, only holding it counts.
        reproposal: bool,
    },
    /// Sign, durably, with this certificate in the record (and the block, for propose and notarize), then
    /// [`crate::Input::Signed`] or [`crate::Input::SignRefused`].
    Sign {
        /// What.
        statement: Statement,
        /// What allows it: of a finalize its notarization, of a view's first vote the certificate that admitted this node.
        certificate: Option<Certificate>,
    },
    /// Send a message.
    Send {
        /// To whom.
        to: Target,
        /// Vote, Certificate, Certificates, FetchCertificate or FetchProposal.
        message: Message,
    },
    /// Send a proposal, if its block is held; else stay silent.
    SendProposal {
        /// To whom.
        to: Target,
        /// What the leader signed.
        head: SignedStatement,
        /// What admitted the leader to the view, if this node is the leader.
        admitting: Option<Certificate>,
    },
    /// The engine entered a view.
    Entered {
        /// Which.
        view: View,
        /// Who leads it.
        leader: PublicKey,
    },
    /// The engine gives a view up.
    Nullifying {
        /// Which.
        view: View,
        /// Why.
        reason: NullifyReason,
    },
    /// A view above the final one got its notarization.
    Notarized(Certificate),
    /// A view above the final one got its nullification.
    Nullified(Certificate),
    /// The block and its ancestors are final. The highest one wins: earlier views may be passed over.
    Finalized(Certificate),
    /// A key signed what no honest key signs. One pair a key and epoch.
    Evidence(Evidence),
}
