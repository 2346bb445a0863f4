//! Step 7: budgets of those who have no flow.
//!
//! Token buckets in one array, found by a salted hash of the address and of its network: no entry is ever inserted, so a flood of
//! spoofed sources costs three array look-ups a packet at most and evicts nobody. Strangers that share a row share its budget.
//! While the budget of all strangers together is dry, a packet other than a SYN costs one row that the cache holds, and takes nothing
//! from its sender's.
//! A validator's address pays from buckets of its own: one that restarts gets in while strangers' budgets are dry, and a flood
//! spoofed from its address costs nobody but that validator.

use crate::{
    bucket::Bucket,
    control::{Limit, WORD_BUDGETS, WORD_SALT, WORD_SHARES},
    half::Half,
    reason::Reason,
    verdict::Tables,
};

/// Classes of strangers' packets.
pub const CLASSES: u32 = 4;
/// Rows of addresses (v6: /64s), per class.
pub const SOURCE_ROWS: u32 = 1 << 14;
/// Rows of networks (/24; v6: /48), per class.
pub const PREFIX_ROWS: u32 = 1 << 12;
/// First row of the networks.
const PREFIXES: u32 = CLASSES * SOURCE_ROWS;
/// First of the two totals.
const TOTALS: u32 = PREFIXES + CLASSES * PREFIX_ROWS;
/// All rows.
pub const STRANGER_ROWS: u32 = TOTALS + 2;

/// What a stranger's packet is, for its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Class {
    /// A TCP SYN.
    Syn = 0,
    /// A QUIC Initial, on a port that speaks QUIC.
    Initial = 1,
    /// Any other UDP datagram.
    Udp = 2,
    /// Any other TCP segment.
    Tcp = 3,
}

/// A budget, by the word of the control array that holds its [`Limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Budget {
    /// SYNs of one address.
    SynSource = 0,
    /// QUIC Initials of one address.
    InitialSource = 1,
    /// Other datagrams of one address.
    UdpSource = 2,
    /// Other segments of one address.
    TcpSource = 3,
    /// SYNs of one network.
    SynPrefix = 4,
    /// QUIC Initials of one network.
    InitialPrefix = 5,
    /// Other datagrams of one network.
    UdpPrefix = 6,
    /// Other segments of one network.
    TcpPrefix = 7,
    /// SYNs and Initials of all strangers together.
    Handshakes = 8,
    /// Other packets of all strangers together.
    Rest = 9,
    /// SYNs and Initials of one validator's address.
    ValidatorHandshakes = 10,
    /// Other packets of one validator's address, outside its flows.
    ValidatorRest = 11,
    /// What all validators' flows share by stake. The guard divides it and writes each flow's part into its record; no program reads it.
    Validators = 12,
    /// The least that a validator's flows have together, however small its stake. For the guard, likewise.
    ValidatorLeast = 13,
}

impl Budget {
    /// All budgets, in the order of their words.
    pub const ALL: [Budget; 14] = [
        Budget::SynSource,
        Budget::InitialSource,
        Budget::UdpSource,
        Budget::TcpSource,
        Budget::SynPrefix,
        Budget::InitialPrefix,
        Budget::UdpPrefix,
        Budget::TcpPrefix,
        Budget::Handshakes,
        Budget::Rest,
        Budget::ValidatorHandshakes,
        Budget::ValidatorRest,
        Budget::Validators,
        Budget::ValidatorLeast,
    ];

    /// The name on the command line and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Budget::SynSource => "syn_source",
            Budget::InitialSource => "initial_source",
            Budget::UdpSource => "udp_source",
            Budget::TcpSource => "tcp_source",
            Budget::SynPrefix => "syn_prefix",
            Budget::InitialPrefix => "initial_prefix",
            Budget::UdpPrefix => "udp_prefix",
            Budget::TcpPrefix => "tcp_prefix",
            Budget::Handshakes => "handshakes",
            Budget::Rest => "rest",
            Budget::ValidatorHandshakes => "validator_handshakes",
            Budget::ValidatorRest => "validator_rest",
            Budget::Validators => "validators",
            Budget::ValidatorLeast => "validator_least",
        }
    }

    /// The budget with this name.
    pub fn from_name(name: &str) -> Option<Budget> {
        Self::ALL.into_iter().find(|budget| budget.as_str() == name)
    }

    /// Index of its word in the control array.
    pub const fn word(self) -> u32 {
        match self {
            Budget::Validators => WORD_SHARES,
            Budget::ValidatorLeast => WORD_SHARES + 1,
            _ => WORD_BUDGETS + self as u32,
        }
    }
}

/// Takes one packet from a bucket under this budget's limit (an offset from [`WORD_BUDGETS`]); no limit grants all.
#[inline(always)]
fn granted<T: Tables>(bucket: Option<&Bucket>, budget: u32, now: u64, tables: &T) -> bool {
    let limit = Limit::from_word(tables.control(WORD_BUDGETS + budget));
    match bucket {
        Some(bucket) if limit.burst() != 0 => bucket.take(now, limit.rate(), limit.burst()),
        _ => true,
    }
}

/// Whether a bucket would refuse a packet under this budget's limit.
#[inline(always)]
fn dry<T: Tables>(bucket: Option<&Bucket>, budget: u32, now: u64, tables: &T) -> bool {
    let limit = Limit::from_word(tables.control(WORD_BUDGETS + budget));
    match bucket {
        Some(bucket) if limit.burst() != 0 => bucket.is_dry(now, limit.rate(), limit.burst()),
        _ => false,
    }
}

/// Spreads a network over rows (the finalizer of MurmurHash3).
#[inline(always)]
const fn spread(network: u64, salt: u64) -> u32 {
    let mut mixed = network ^ salt;
    mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (mixed ^ mixed >> 33) as u32
}

/// What becomes of a sane packet without a flow: [`Reason::Stranger`] passes, the rest are drops. `hosted`: the address may be a
/// validator's.
#[inline(always)]
pub(crate) fn judge<A: Half, T: Tables>(source: A, hosted: bool, class: Class, now: u64, tables: &T) -> Reason {
    let class = class as u32;
    let handshake = class <= Class::Initial as u32;
    if hosted
        && let Some(validator) = A::validator(tables, source)
        && now <= validator.expiry.load()
    {
        let (bucket, budget) =
            if handshake { (&validator.handshakes, Budget::ValidatorHandshakes) } else { (&validator.rest, Budget::ValidatorRest) };
        return if granted(Some(bucket), budget as u32, now, tables) { Reason::Stranger } else { Reason::RateSource };
    }
    // Before the rows that random sources make random: a flood costs one look-up. Not for SYNs: what the proxy answers must have
    // passed its source's own budget, or we would reflect a flood to whom it names.
    let total = !handshake as u32;
    if class != Class::Syn as u32 && dry(tables.stranger(TOTALS + total), Budget::Handshakes as u32 + total, now, tables) {
        return Reason::RateStrangers;
    }
    let salt = tables.control(WORD_SALT);
    let (address, network) = A::networks(source);
    let row = class * SOURCE_ROWS + (spread(address, salt) & (SOURCE_ROWS - 1));
    if !granted(tables.stranger(row), class, now, tables) {
        return Reason::RateSource;
    }
    let row = PREFIXES + class * PREFIX_ROWS + (spread(network, salt) & (PREFIX_ROWS - 1));
    if !granted(tables.stranger(row), Budget::SynPrefix as u32 + class, now, tables) {
        return Reason::RatePrefix;
    }
    if !granted(tables.stranger(TOTALS + total), Budget::Handshakes as u32 + total, now, tables) {
        return Reason::RateStrangers;
    }
    Reason::Stranger
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_follow_their_classes_and_names_are_found() {
        for (index, budget) in Budget::ALL.into_iter().enumerate() {
            assert_eq!(budget as usize, index);
            assert_eq!(Budget::from_name(budget.as_str()), Some(budget));
        }
        assert_eq!(Budget::UdpSource as u32, Class::Udp as u32);
        assert_eq!(Budget::TcpPrefix as u32, Budget::SynPrefix as u32 + Class::Tcp as u32);
        assert_eq!(Budget::from_name("syn"), None);
    }

    proptest! {
        /// Neighbours do not share rows as a rule: of 4,096 addresses, most have a row of their own.
        #[test]
        fn neighbours_spread(first: u32, salt: u64) {
            let rows: std::collections::BTreeSet<u32> =
                (0..4096u64).map(|host| spread(first as u64 + host, salt) & (SOURCE_ROWS - 1)).collect();
            prop_assert!(rows.len() > 3400, "{} rows", rows.len());
        }
    }
}
