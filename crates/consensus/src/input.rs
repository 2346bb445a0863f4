//! What an engine is told.

use types::{BlockHash, Certificate, Epoch, Height, Kind, PublicKey, SignedStatement, Statement, View};

/// All that an engine knows of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockMeta {
    /// Its hash.
    pub digest: BlockHash,
    /// Its parent's hash, from its header.
    pub parent: BlockHash,
    /// Its height, from its header.
    pub height: Height,
}

/// What is thought of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Header and body are held and valid. What is voted for is made durable with the vote's journal record.
    Valid,
    /// It breaks a rule, whatever may still arrive: the view is nullified at once.
    Invalid,
}

/// What an engine is told, one at a time. All statements and certificates are verified: signatures, the set's quorum, shape.
#[derive(Clone, Debug)]
pub enum Input {
    /// A proposal arrived. `block.digest` was computed from the block's bytes and equals the head's digest.
    Proposal {
        /// Kind propose.
        head: SignedStatement,
        /// Of the block.
        block: BlockMeta,
        /// Who sent it; not always the leader.
        from: PublicKey,
    },
    /// A vote arrived. The certificate that came with it is an input of its own, before the vote.
    Vote {
        /// Notarize, nullify or finalize.
        signed: SignedStatement,
        /// Who sent it.
        from: PublicKey,
    },
    /// A certificate of this epoch arrived, alone, in a list, or with a vote or proposal.
    Certificate(Certificate),
    /// Answers [`crate::Effect::Judge`]; may take its time.
    Judged {
        /// The view.
        view: View,
        /// The proposed block.
        digest: BlockHash,
        /// What is thought of it.
        verdict: Verdict,
    },
    /// Answers [`crate::Effect::Build`]; may take its time.
    Built {
        /// The view.
        view: View,
        /// The new block on the asked parent; the parent itself if it is the epoch's last block; none if there is nothing to
        /// propose now (then it is asked again after `resend_ms`).
        block: Option<BlockMeta>,
    },
    /// Answers [`crate::Effect::Sign`]: signed, and durable.
    Signed(SignedStatement),
    /// Answers [`crate::Effect::Sign`]: refused. It is not asked for again.
    SignRefused(Statement),
    /// Whether there is work that the engine can't see: a citable batch that isn't final, or an executed non-empty block whose
    /// root no header on the highest notarized chain names.
    Work(bool),
    /// A validator's connection stands (again). Told to a new engine for each that stands.
    PeerConnected(PublicKey),
    /// It is gone.
    PeerDisconnected(PublicKey),
    /// A peer asks for certificates.
    FetchCertificate {
        /// Of which epoch.
        epoch: Epoch,
        /// Of which view.
        view: View,
        /// Which kind.
        kind: Kind,
        /// Who asks.
        from: PublicKey,
    },
    /// A peer asks for a signed proposal.
    FetchProposal {
        /// Of which epoch.
        epoch: Epoch,
        /// Of which view.
        view: View,
        /// Who asks.
        from: PublicKey,
    },
    /// Time has passed.
    Timeout,
}
