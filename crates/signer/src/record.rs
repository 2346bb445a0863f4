//! What the journal says.

use borsh::{BorshDeserialize, BorshSerialize};
use types::{Block, Certificate, SignedStatement};

/// A signed statement with what has to survive together with it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Record {
    /// What was signed.
    pub signed: SignedStatement,
    /// What allowed it: of a finalize its notarization, of a view's first vote the admitting certificate.
    pub certificate: Option<Certificate>,
    /// Of a proposal or notarize, the block: *held* means synced.
    pub block: Option<Block>,
}

/// What goes into the journal beside the signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attach {
    /// See [`Record::certificate`].
    pub certificate: Option<Certificate>,
    /// See [`Record::block`].
    pub block: Option<Block>,
}
