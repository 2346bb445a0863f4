//! Numbers with a meaning, so that a height is never a view.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The next one; stays at the maximum.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
            /// The one before; stays at zero.
            #[must_use]
            pub const fn prev(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
            /// `self + n`, saturating.
            #[must_use]
            pub const fn plus(self, n: u64) -> Self {
                Self(self.0.saturating_add(n))
            }
            /// `self - other`, zero if `other` is larger.
            #[must_use]
            pub const fn since(self, other: Self) -> u64 {
                self.0.saturating_sub(other.0)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    };
}

number!(
    /// Counts finalized blocks; genesis is 0.
    Height
);
number!(
    /// One attempt by one leader; restarts at 1 in each epoch. 0 is the epoch's base.
    View
);
number!(
    /// Counts validator sets; the first is 0.
    Epoch
);
number!(
    /// A validator's weight.
    Stake
);
number!(
    /// Money, in the smallest unit.
    Amount
);
number!(
    /// A sender's transaction number; lands in a 64-wide sliding window.
    Nonce
);
number!(
    /// An author's batch number.
    Sequence
);
number!(
    /// Wall-clock time: milliseconds since 1970-01-01 UTC.
    UnixMs
);
number!(
    /// Monotonic time: microseconds since a start that only its process knows. An input of the pure core, never read there.
    Tick
);

impl Amount {
    /// `self + other`, if it fits.
    pub const fn checked_add(self, other: Amount) -> Option<Amount> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Amount(sum)),
            None => None,
        }
    }

    /// `self - other`, if there is enough.
    pub const fn checked_sub(self, other: Amount) -> Option<Amount> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Some(Amount(rest)),
            None => None,
        }
    }
}

impl Tick {
    /// This many milliseconds later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Tick {
        self.plus(ms.saturating_mul(1_000))
    }
}
