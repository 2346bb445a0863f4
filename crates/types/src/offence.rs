//! Offences: proven misbehaviour, the label of every ban.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// Why somebody is banned. Closed: metric labels, map values and drop reasons are made of it, so free text has no place here.
///
/// The discriminant is the wire and map value; it is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = true)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Offence {
    /// An operator's own decision.
    Manual = 0,
    /// An entry of an imported list.
    List = 1,
    /// An authenticated peer sent a signature that does not verify.
    BadSignature = 2,
    /// An authenticated peer sent bytes that do not decode in a protocol version that we know.
    Malformed = 3,
    /// The same transaction or batch again and again.
    Replay = 4,
    /// Two different statements under one key in one view.
    Equivocation = 5,
    /// A block or batch that breaks a rule of validity.
    InvalidBlock = 6,
    /// A frame above the size that its kind allows.
    Oversize = 7,
    /// More messages than the protocol ever needs.
    Rate = 8,
}

impl Offence {
    /// All offences, in the order of their discriminants.
    pub const ALL: [Offence; 9] = [
        Offence::Manual,
        Offence::List,
        Offence::BadSignature,
        Offence::Malformed,
        Offence::Replay,
        Offence::Equivocation,
        Offence::InvalidBlock,
        Offence::Oversize,
        Offence::Rate,
    ];

    /// The label: `snake_case`, stable, used in metrics, JSON and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Offence::Manual => "manual",
            Offence::List => "list",
            Offence::BadSignature => "bad_signature",
            Offence::Malformed => "malformed",
            Offence::Replay => "replay",
            Offence::Equivocation => "equivocation",
            Offence::InvalidBlock => "invalid_block",
            Offence::Oversize => "oversize",
            Offence::Rate => "rate",
        }
    }

    /// The offence with this discriminant.
    pub const fn from_u8(value: u8) -> Option<Offence> {
        if (value as usize) < Self::ALL.len() { Some(Self::ALL[value as usize]) } else { None }
    }
}

impl std::fmt::Display for Offence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
