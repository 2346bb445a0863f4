//! The tables as ordinary maps: what the verdict runs over natively.

extern crate std;

use crate::{
    Word,
    abi::*,
    ban::{bit4, bit6, host4, host6},
    bucket::Bucket,
    control,
    latency::{SLOTS, Stamp},
    strangers::STRANGER_ROWS,
    verdict::Tables,
};
use std::{boxed::Box, collections::BTreeMap, vec::Vec};

/// One CPU's world. Times are set by hand.
pub struct Model {
    now: Word,
    now_ns: Word,
    control: [Word; control::WORDS as usize],
    protected: Box<[u64]>,
    flows4: BTreeMap<Flow4, FlowValue>,
    flows6: BTreeMap<Flow6, FlowValue>,
    hosts: Box<[u64]>,
    validators4: BTreeMap<u32, ValidatorValue>,
    validators6: BTreeMap<[u64; 2], ValidatorValue>,
    strangers: Vec<Bucket>,
    bits4: Box<[u64]>,
    bits6: Box<[u64]>,
    bans4: BTreeMap<u32, BanValue>,
    bans6: BTreeMap<u64, BanValue>,
    ranges4: BTreeMap<Range4, BanValue>,
    ranges6: BTreeMap<Range6, BanValue>,
    lists: Vec<Vec<Word>>,
    counters: Vec<CounterCell>,
    rows: Vec<RowCell>,
    latency: Vec<LatencyCell>,
    row_latency: Vec<RowLatency>,
    stamps: Vec<Stamp>,
}

fn cells<T: Default>(count: u32) -> Vec<T> {
    (0..count).map(|_| T::default()).collect()
}

impl Default for Model {
    fn default() -> Model {
        Model {
            now: Word::new(0),
            now_ns: Word::new(0),
            control: Default::default(),
            protected: std::vec![0; PORT_WORDS as usize].into(),
            flows4: BTreeMap::new(),
            flows6: BTreeMap::new(),
            hosts: std::vec![0; HOST_WORDS as usize].into(),
            validators4: BTreeMap::new(),
            validators6: BTreeMap::new(),
            strangers: cells(STRANGER_ROWS),
            bits4: std::vec![0; BITS4_WORDS as usize].into(),
            bits6: std::vec![0; BITS6_WORDS as usize].into(),
            bans4: BTreeMap::new(),
            bans6: BTreeMap::new(),
            ranges4: BTreeMap::new(),
            ranges6: BTreeMap::new(),
            lists: (0..LISTS_MAX).map(|_| Vec::new()).collect(),
            counters: cells(COUNTER_SLOTS),
            rows: cells(ROWS_MAX),
            latency: cells(2 * LATENCY_BUCKETS),
            row_latency: cells(ROWS_MAX),
            stamps: cells(SLOTS),
        }
    }
}

impl Model {
    /// Sets both clocks: ticks and nanoseconds.
    pub fn set_time(&self, ticks: u64, ns: u64) {
        self.now.store(ticks);
        self.now_ns.store(ns);
    }

    /// Sets a word of the control array.
    pub fn set_control(&self, word: u32, value: u64) {
        self.control[word as usize].store(value);
    }

    /// Protects a port.
    pub fn protect(&mut self, protocol: u8, port: u16) {
        let half = if protocol == TCP { 0 } else { PORTS_UDP as usize };
        self.protected[half + (port >> 6) as usize] |= 1 << (port & 63);
    }

    /// Says that a UDP port speaks QUIC.
    pub fn speaks_quic(&mut self, port: u16) {
        self.protected[PORTS_QUIC as usize + (port >> 6) as usize] |= 1 << (port & 63);
    }

    fn host(&mut self, bit: crate::ban::Bit) {
        self.hosts[bit.word as usize] |= bit.mask;
    }

    /// Gives a v4 address the budgets of a validator's.
    pub fn add_validator4(&mut self, address: u32, value: ValidatorValue) {
        self.host(host4(address));
        self.validators4.insert(address, value);
    }

    /// Gives a v6 address the budgets of a validator's.
    pub fn add_validator6(&mut self, address: [u64; 2], value: ValidatorValue) {
        self.host(host6(address));
        self.validators6.insert(address, value);
    }

    /// Adds a v4 flow.
    pub fn add_flow4(&mut self, key: Flow4, value: FlowValue) {
        self.host(host4(key.address));
        self.flows4.insert(key, value);
    }

    /// Adds a v6 flow.
    pub fn add_flow6(&mut self, key: Flow6, value: FlowValue) {
        self.host(host6(key.address));
        self.flows6.insert(key, value);
    }

    /// Bans a v4 address and sets its bit.
    pub fn add_ban4(&mut self, address: u32, value: BanValue) {
        let bit = bit4(address);
        self.bits4[bit.word as usize] |= bit.mask;
        self.bans4.insert(address, value);
    }

    /// Bans a v6 /64 and sets its bit.
    pub fn add_ban6(&mut self, network: u64, value: BanValue) {
        let bit = bit6([network, 0]);
        self.bits6[bit.word as usize] |= bit.mask;
        self.bans6.insert(network, value);
    }

    /// Bans a v4 range of at least /16 and sets its bits.
    pub fn add_range4(&mut self, range: Range4, value: BanValue) {
        let networks = 1u32 << 24u32.saturating_sub(range.length);
        for network in 0..networks {
            let bit = bit4((u32::from_be(range.address).wrapping_add(network << 8)).to_be());
            self.bits4[bit.word as usize] |= bit.mask;
        }
        self.ranges4.insert(range, value);
    }

    /// Bans a v6 range between /32 and /63 and sets its bits.
    pub fn add_range6(&mut self, range: Range6, value: BanValue) {
        let networks = 1u64 << 48u32.saturating_sub(range.length);
        let first = (u128::from_be_bytes(range.address) >> 64) as u64;
        for network in 0..networks {
            let bit = bit6([first.wrapping_add(network << 16).to_be(), 0]);
            self.bits6[bit.word as usize] |= bit.mask;
        }
        self.ranges6.insert(range, value);
    }

    /// Puts a list into a slot; the bits in front of it are the caller's ([`Model::suspect_all`]).
    pub fn set_list(&mut self, slot: u32, words: impl IntoIterator<Item = u64>) {
        self.lists[slot as usize] = words.into_iter().map(Word::new).collect();
    }

    /// Sets every bit in front of the bans: the tables behind decide alone.
    pub fn suspect_all(&mut self) {
        self.bits4.fill(u64::MAX);
        self.bits6.fill(u64::MAX);
    }

    /// Hits of an exact v4 ban.
    pub fn hits4(&self, address: u32) -> Option<u64> {
        self.bans4.get(&address).map(|ban| ban.hits.load())
    }

    /// Packets counted in a slot.
    pub fn counted(&self, slot: u32) -> u64 {
        self.counters[slot as usize].packets.load()
    }

    /// Packets in one latency bucket (protocol 0 TCP, 1 UDP).
    pub fn latency_bucket(&self, protocol: u32, bucket: u32) -> u64 {
        self.latency[(protocol * LATENCY_BUCKETS + bucket) as usize].count.load()
    }

    /// Packets in all latency buckets.
    pub fn latency_count(&self) -> u64 {
        self.latency.iter().map(|cell| cell.count.load()).sum()
    }
}

/// Whether `address` lies in the prefix of `length` bits, both in numeric order.
fn holds(prefix: u128, length: u32, address: u128, width: u32) -> bool {
    length == 0 || (prefix ^ address) >> (width - length) == 0
}

impl Tables for Model {
    fn now(&self) -> u64 {
        self.now.load()
    }
    fn now_ns(&self) -> u64 {
        self.now_ns.load()
    }
    fn control(&self, word: u32) -> u64 {
        self.control.get(word as usize).map_or(0, |word| word.load())
    }
    fn protected(&self, word: u32) -> u64 {
        self.protected.get(word as usize).copied().unwrap_or(0)
    }
    fn flow4(&self, key: &Flow4) -> Option<&FlowValue> {
        self.flows4.get(key)
    }
    fn flow6(&self, key: &Flow6) -> Option<&FlowValue> {
        self.flows6.get(key)
    }
    fn ban_bits4(&self, word: u32) -> u64 {
        self.bits4.get(word as usize).copied().unwrap_or(0)
    }
    fn ban_bits6(&self, word: u32) -> u64 {
        self.bits6.get(word as usize).copied().unwrap_or(0)
    }
    fn ban4(&self, address: u32) -> Option<&BanValue> {
        self.bans4.get(&address)
    }
    fn ban6(&self, network: u64) -> Option<&BanValue> {
        self.bans6.get(&network)
    }
    fn range4(&self, address: u32) -> Option<&BanValue> {
        let address = u32::from_be(address) as u128;
        let holding =
            self.ranges4.iter().filter(|(range, _)| holds(u32::from_be(range.address) as u128, range.length, address, 32));
        holding.max_by_key(|(range, _)| range.length).map(|(_, ban)| ban)
    }
    fn range6(&self, address: [u64; 2]) -> Option<&BanValue> {
        let address = (u64::from_be(address[0]) as u128) << 64 | u64::from_be(address[1]) as u128;
        let holding =
            self.ranges6.iter().filter(|(range, _)| holds(u128::from_be_bytes(range.address), range.length, address, 128));
        holding.max_by_key(|(range, _)| range.length).map(|(_, ban)| ban)
    }
    type List = Vec<Word>;
    fn list(&self, slot: u32) -> Option<&Vec<Word>> {
        self.lists.get(slot as usize)
    }
    fn list_word(list: &Vec<Word>, index: u32) -> Option<&Word> {
        list.get(index as usize)
    }
    fn host_bits(&self, word: u32) -> u64 {
        self.hosts.get(word as usize).copied().unwrap_or(0)
    }
    fn validator4(&self, address: u32) -> Option<&ValidatorValue> {
        self.validators4.get(&address)
    }
    fn validator6(&self, address: [u64; 2]) -> Option<&ValidatorValue> {
        self.validators6.get(&address)
    }
    fn stranger(&self, index: u32) -> Option<&Bucket> {
        self.strangers.get(index as usize)
    }
    fn counter(&self, slot: u32) -> Option<&CounterCell> {
        self.counters.get(slot as usize)
    }
    fn row(&self, row: u32) -> Option<&RowCell> {
        self.rows.get(row as usize)
    }
    fn latency(&self, bucket: u32) -> Option<&LatencyCell> {
        self.latency.get(bucket as usize)
    }
    fn row_latency(&self, row: u32) -> Option<&RowLatency> {
        self.row_latency.get(row as usize)
    }
    fn stamp(&self, index: u32) -> Option<&Stamp> {
        self.stamps.get(index as usize)
    }
}
