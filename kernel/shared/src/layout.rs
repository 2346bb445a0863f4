//! Rows that outlive a change of layout: what a guard may take over from one whose maps were laid out otherwise.
//!
//! A row is understood if its sizes are today's and its version is. Whoever changes what the bytes of a row mean, or what its place in an
//! array of counters does, raises its version here. The versions lie beside the pins, in a map of their own ([`PIN`]); pins without it are of version 1 throughout.

use crate::{
    Word,
    abi::{
        BanValue, COUNTER_SLOTS, CounterCell, Flow4, Flow6, FlowValue, LATENCY_BUCKETS, LatencyCell, ROWS_MAX, Range4, Range6,
        RowCell, RowLatency, ValidatorValue,
    },
    bucket::Bucket,
    strangers::STRANGER_ROWS,
};

/// Name of the pinned array of versions, a word for each of [`ROWS`] in their order.
pub const PIN: &str = "LAYOUT";

/// How rows are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A hash or a trie: each entry as it is.
    Entries,
    /// An array whose rows stand for themselves: as many as both have.
    Words,
    /// An array of so many rows: as it is, or not at all.
    Array(u32),
    /// Counters of so many rows, each in columns: summed.
    Columns(u32),
    /// Arrays of any size, pinned one by one: kept as they are.
    Lists,
}

/// The rows of one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Its name.
    pub map: &'static str,
    /// What its bytes mean.
    pub version: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// How they are taken over.
    pub kind: Kind,
}

const fn rows<K, V>(map: &'static str, version: u32, kind: Kind) -> Rows {
    Rows { map, version, key: size_of::<K>() as u32, value: size_of::<V>() as u32, kind }
}

/// All of them. Their order is the order of the versions in [`PIN`]: new ones come last, none goes.
pub const ROWS: [Rows; 15] = [
    rows::<u32, Word>("CONTROL", 1, Kind::Words),
    rows::<Flow4, FlowValue>("FLOWS4", 1, Kind::Entries),
    rows::<Flow6, FlowValue>("FLOWS6", 1, Kind::Entries),
    rows::<u32, ValidatorValue>("VALIDATORS4", 1, Kind::Entries),
    rows::<[u64; 2], ValidatorValue>("VALIDATORS6", 1, Kind::Entries),
    rows::<u32, BanValue>("BANS4", 1, Kind::Entries),
    rows::<u64, BanValue>("BANS6", 1, Kind::Entries),
    rows::<Range4, BanValue>("RANGES4", 1, Kind::Entries),
    rows::<Range6, BanValue>("RANGES6", 1, Kind::Entries),
    rows::<u32, Bucket>("STRANGERS", 1, Kind::Array(STRANGER_ROWS)),
    rows::<u32, CounterCell>("COUNTERS", 1, Kind::Columns(COUNTER_SLOTS)),
    rows::<u32, RowCell>("ROWS", 1, Kind::Columns(ROWS_MAX)),
    rows::<u32, LatencyCell>("LATENCY", 1, Kind::Columns(2 * LATENCY_BUCKETS)),
    rows::<u32, RowLatency>("LATENCY_ROWS", 1, Kind::Array(ROWS_MAX)),
    rows::<u32, Word>("LISTS", 1, Kind::Lists),
];
