//! Keys, values and events of the maps, as they lie in memory. Little-endian; every struct is free of implicit padding.
//!
//! IPv4 addresses are `u32`s and IPv6 addresses are pairs of `u64`s *in the order of their bytes on the wire*
//! (`u32::from_ne_bytes(octets)`); ports are numbers. Times in the kernel are ticks (jiffies).

use crate::Word;
use crate::bucket::Bucket;

/// Words in the array of protected ports, one bit a port: 1,024 of TCP, 1,024 of UDP, 1,024 of the UDP ports that speak QUIC.
pub const PORT_WORDS: u32 = 3072;
/// First word of the protected UDP ports.
pub const PORTS_UDP: u32 = 1024;
/// First word of the UDP ports that speak QUIC: the sanity checks of its long headers are for them only.
pub const PORTS_QUIC: u32 = 2048;
/// Flows in each of the two tables (v4, v6).
pub const FLOWS_MAX: u32 = 4096;
/// Exact bans in each of the two tables (v4 addresses, v6 /64 networks).
pub const BANS_MAX: u32 = 16384;
/// Banned ranges in each of the two tries.
pub const RANGES_MAX: u32 = 4096;
/// Lists at a time.
pub const LISTS_MAX: u32 = 8;
/// Rows: peers that have counters of their own.
pub const ROWS_MAX: u32 = 1024;
/// A flow without a row.
pub const ROW_NONE: u32 = u32::MAX;
/// Words of the bitmap in front of the v4 bans: one bit a /24.
pub const BITS4_WORDS: u32 = 1 << 18;
/// Words of the bitmap in front of the v6 bans: one bit a hash of a /48.
pub const BITS6_WORDS: u32 = 1 << 16;
/// Words of the bitmap in front of flows and validators' addresses: one bit a hash of an address.
pub const HOST_WORDS: u32 = 1 << 10;
/// Validators' addresses in each of the two tables (v4, v6).
pub const VALIDATORS_MAX: u32 = 1024;
/// Prefixes that the egress guard allows, in each of the two tries (v4, v6).
pub const EGRESS_ALLOWED_MAX: u32 = 256;
/// Bytes of the event ring.
pub const EVENTS_BYTES: u32 = 1 << 18;
/// Slots of the counter array: reasons, would-be drops of shadow mode, then the guard's own.
pub const COUNTER_SLOTS: u32 = 256;
/// Offset of the would-be drops in the counter array.
pub const SLOT_WOULD_DROP: u32 = crate::REASON_SLOTS;
/// Slot of events that found the ring full.
pub const SLOT_EVENTS_LOST: u32 = 128;
/// Slot of packets stamped for their latency.
pub const SLOT_LATENCY_STAMPED: u32 = 129;
/// Slot of stamps that nobody read in time.
pub const SLOT_LATENCY_LAPSED: u32 = 130;
/// Slot of drops seen by the event sampler.
pub const SLOT_EVENTS_SEEN: u32 = 131;
/// Slot of SYNs answered with a cookie.
pub const SLOT_SYN_COOKIES_SENT: u32 = 160;
/// Slot of ACKs over a budget that named a valid cookie, and passed.
pub const SLOT_SYN_COOKIES_VALID: u32 = 161;
/// Slot of ACKs over a budget without a valid cookie.
pub const SLOT_SYN_COOKIES_INVALID: u32 = 162;
/// Slot of TCP's round-trip samples on protected ports and flows; in the place of bytes the sum of the smoothed round trips, µs.
pub const SLOT_TCP_RTT: u32 = 164;
/// Slot of segments retransmitted there.
pub const SLOT_TCP_RETRANSMITS: u32 = 165;
/// Slot of retransmission timeouts there.
pub const SLOT_TCP_TIMEOUTS: u32 = 166;
/// Slots of the array that remembers when a cookie was last made in a listener's name.
pub const PRIMED_LISTENERS: u32 = 1 << 12;
/// Buckets of a latency histogram: bucket n counts latencies in [2^n, 2^(n+1)) ns.
pub const LATENCY_BUCKETS: u32 = 64;
/// Buckets of a row's latency histogram.
pub const ROW_LATENCY_BUCKETS: u32 = 31;
/// Binary logarithm of the latency (ns) that a row's histogram begins with.
pub const ROW_LATENCY_LOG2_MIN: u32 = 10;
/// TCP's protocol number.
pub const TCP: u8 = 6;
/// UDP's protocol number.
pub const UDP: u8 = 17;

/// The text that the ABI hash is made of: any change of layout, size or meaning changes it.
pub const ABI_TEXT: &str = "ebpf-guard abi 8: control 8x32 (4 enforce deadline, 8 budgets, 24 shares); ports 3072x8; hosts 8x1024; flow4 8->48 x4096; flow6 24->48 x4096 (44 stake, class 3 dialed); \
lists x8 of 8 x n (32 head, 65537 directory, v4 first<<32|last, v6 firsts, lasts, 1); ban4 4->32 x16384; ban6 8->32 x16384; range4 8->32 x4096; range6 20->32 x4096; \
validator4 4->40 x1024; validator6 16->40 x1024; strangers 16 x81922 (4x16384 sources, 4x4096 prefixes, 2 totals); bits4 8x262144; bits6 8x65536 (fibonacci of /48, 22 bits); \
counters 16 x256 (164 tcp rtt, retransmits, timeouts), rows 64 x1024, latency 8 x2x64, each x (cpus + 1 carried over); stamps 24 x1408 (udp by flow, or by port); events 64 ring 262144; egress4 8->1 x256; egress6 20->1 x256; egress 8 x16 x cpus; syn proxy: programs x1, diverted 24 x1 per cpu, primed 8 x4096; truth 128 x1024; kernel drops 8 x257 x16 ports, drop ports 8 x15; row latency 256 x1024";

/// An IPv4 flow: who speaks to us from where.
///
/// Port and protocol are written as one word: written one by one, the hash that reads them as words has to wait for the stores.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow4 {
    /// Remote address, wire order.
    pub address: u32,
    /// Remote port (16 bits), protocol (8), zeros.
    tail: u32,
}

/// An IPv6 flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow6 {
    /// Remote address, wire order.
    pub address: [u64; 2],
    /// Remote port (16 bits), protocol (8), zeros.
    tail: u64,
}

impl Flow4 {
    /// The flow of this protocol ([`TCP`] or [`UDP`]) from this address and port.
    #[inline(always)]
    pub const fn new(address: u32, port: u16, protocol: u8) -> Flow4 {
        Flow4 { address, tail: port as u32 | (protocol as u32) << 16 }
    }

    /// Remote port.
    pub const fn port(&self) -> u16 {
        self.tail as u16
    }

    /// Protocol.
    pub const fn protocol(&self) -> u8 {
        (self.tail >> 16) as u8
    }
}

impl Flow6 {
    /// The flow of this protocol ([`TCP`] or [`UDP`]) from this address and port.
    #[inline(always)]
    pub const fn new(address: [u64; 2], port: u16, protocol: u8) -> Flow6 {
        Flow6 { address, tail: port as u64 | (protocol as u64) << 16 }
    }

    /// Remote port.
    pub const fn port(&self) -> u16 {
        self.tail as u16
    }

    /// Protocol.
    pub const fn protocol(&self) -> u8 {
        (self.tail >> 16) as u8
    }
}

/// What kind of flow it is. Bans reach none of them while the flow lives: a ban deletes its address's flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FlowClass {
    /// A validator's, or one of an operator's range: never lapses with the heartbeat.
    Floor = 0,
    /// An admitted peer's: lapses when the node's heart stops.
    Known = 1,
    /// One that we are opening ourselves.
    Dialing = 2,
    /// A TCP connection that we opened, from a port of ours that is not protected. Its expiry is 0, so the filter never takes a packet
    /// that names its source for one of it; it is here for its row, and for its peer's address.
    Dialed = 3,
}

/// A flow that is no validator's, or whose limit is not by stake.
pub const STAKE_NONE: u32 = 0;
/// A validator's whose stake was not told: its share is an equal one.
pub const STAKE_UNKNOWN: u32 = u32::MAX;

/// A flow's record. The bucket is shared by all CPUs.
#[repr(C)]
#[derive(Debug)]
pub struct FlowValue {
    /// Tick after which the flow is a stranger again; `u64::MAX` = never.
    pub expiry: Word,
    /// The flow's own budget.
    pub bucket: Bucket,
    /// Refill, units a tick ([`crate::bucket::UNITS`]).
    pub rate: u32,
    /// Depth, units.
    pub burst: u32,
    /// Row of its counters, or [`ROW_NONE`].
    pub row: u32,
    /// Generation of that row: a cell of an older one is zeroed by the program before it counts.
    pub generation: u32,
    /// A [`FlowClass`].
    pub class: u32,
    /// The part of all stake that the validator behind it has, in millionths; or [`STAKE_NONE`], [`STAKE_UNKNOWN`]. For the guard, which
    /// has put it into `rate` and `burst` already: the kernel does not read it.
    pub stake: u32,
}

/// A ban's record.
#[repr(C)]
#[derive(Debug)]
pub struct BanValue {
    /// Tick after which the ban is void.
    pub expiry: Word,
    /// Packets that met it (dropped, or would have been). CPUs that race may lose one: the exact count is the reason's counter.
    pub hits: Word,
    /// When it was imposed, Unix ms (for people; the kernel does not read it).
    pub since_ms: u64,
    /// `types::Offence` as a number.
    pub offence: u32,
    /// Always 0.
    pub zero: u32,
}

/// What a validator's address may send outside its flows: two budgets of its own, apart from strangers'.
#[repr(C)]
#[derive(Debug)]
pub struct ValidatorValue {
    /// Tick after which the address is a stranger's again; `u64::MAX` = while it has a floor flow.
    pub expiry: Word,
    /// New handshakes.
    pub handshakes: Bucket,
    /// All other packets.
    pub rest: Bucket,
}

/// Key of a banned IPv4 range, as the kernel's tries want it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range4 {
    /// Prefix length in bits.
    pub length: u32,
    /// Address, wire order.
    pub address: u32,
}

/// Key of a banned IPv6 range.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range6 {
    /// Prefix length in bits.
    pub length: u32,
    /// Address, octets.
    pub address: [u8; 16],
}

/// Columns of the arrays of counters: one a CPU, and a last one that no program writes. It holds what guards of older layouts had counted.
pub const fn columns(cpus: u32) -> u32 {
    cpus + 1
}

/// One CPU's count for one slot: index `slot * columns + cpu`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct CounterCell {
    /// Packets (or occurrences).
    pub packets: Word,
    /// Bytes of whole frames.
    pub bytes: Word,
}

/// One CPU's counts for one peer: index `row * columns + cpu`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct RowCell {
    /// Whose counts these are; cells of another generation than the row's are stale.
    pub generation: Word,
    /// Packets that passed.
    pub packets: Word,
    /// Bytes that passed.
    pub bytes: Word,
    /// Packets dropped.
    pub dropped: Word,
    /// Packets that `enforce` would have dropped.
    pub would_drop: Word,
    /// Tick of the last packet.
    pub last: Word,
    /// Always 0: room for later counters.
    pub zeros: [u64; 2],
}

/// One CPU's count for one bucket of one histogram: index `(protocol * LATENCY_BUCKETS + bucket) * columns + cpu`, protocol 0 TCP, 1 UDP.
#[repr(C)]
#[derive(Debug, Default)]
pub struct LatencyCell {
    /// Packets.
    pub count: Word,
}

/// Latencies of one row's packets, of all CPUs: index `row`. Sampled, so cells are shared: an addition is atomic, and two CPUs that both find
/// an older owner's cell may lose a sample.
#[repr(C)]
#[derive(Debug, Default)]
pub struct RowLatency {
    /// Whose they are: the generation of the row; the first sample of another one zeroes the buckets.
    pub generation: Word,
    /// Bucket n counts latencies in [2^(n+10), 2^(n+11)) ns; the first holds all below as well, the last all above.
    pub buckets: [Word; ROW_LATENCY_BUCKETS as usize],
}

impl RowLatency {
    /// Counts a latency with this binary logarithm for the owner of this generation.
    #[inline(always)]
    pub fn record(&self, generation: u32, log2: u32) {
        if self.generation.load() != generation as u64 {
            for bucket in &self.buckets {
                bucket.store(0);
            }
            self.generation.store(generation as u64);
        }
        let last = ROW_LATENCY_BUCKETS - 1;
        let bucket = log2.saturating_sub(ROW_LATENCY_LOG2_MIN);
        if let Some(count) = self.buckets.get(if bucket > last { last } else { bucket } as usize) {
            count.add(1);
        }
    }
}

/// A sampled drop.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since boot (CLOCK_MONOTONIC).
    pub time_ns: u64,
    /// Source, octets; IPv4 is in the first four.
    pub address: [u8; 16],
    /// Source port.
    pub port: u16,
    /// Destination port.
    pub local_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// 4 or 6.
    pub version: u8,
    /// A [`crate::Reason`] as a number.
    pub reason: u8,
    /// 1 if it was dropped, 0 if shadow mode let it pass.
    pub dropped: u8,
    /// Bytes of the frame.
    pub length: u32,
    /// The flow's row, or [`ROW_NONE`].
    pub row: u32,
    /// Drops on this CPU that this event stands for.
    pub stands_for: u32,
    /// Always 0.
    pub zeros: [u32; 5],
}

impl FlowClass {
    /// The class with this number; an unknown one is the least privileged.
    #[inline(always)]
    pub const fn from_u32(value: u32) -> FlowClass {
        match value {
            0 => FlowClass::Floor,
            1 => FlowClass::Known,
            3 => FlowClass::Dialed,
            _ => FlowClass::Dialing,
        }
    }

    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            FlowClass::Floor => "floor",
            FlowClass::Known => "known",
            FlowClass::Dialing => "dialing",
            FlowClass::Dialed => "dialed",
        }
    }
}

/// Marks types that are plain memory: any bytes are a valid value and there is no padding.
///
/// # Safety
/// The implementer must be `repr(C)`, without padding, and valid for every bit pattern.
pub unsafe trait Plain: Sized {}
macro_rules! plain { ($($t:ty),*) => { $( // SAFETY: repr(C) of integers and atomic integers, sizes asserted below.
    unsafe impl Plain for $t {} )* } }
plain!(
    u8,
    u32,
    u64,
    Flow4,
    Flow6,
    FlowValue,
    BanValue,
    ValidatorValue,
    Bucket,
    Range4,
    Range6,
    CounterCell,
    RowCell,
    LatencyCell,
    RowLatency,
    Event,
    crate::Word
);
// SAFETY: an array of plain memory is plain memory.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

const _: () = {
    assert!(size_of::<Flow4>() == 8);
    assert!(size_of::<Flow6>() == 24);
    assert!(size_of::<FlowValue>() == 48);
    assert!(size_of::<BanValue>() == 32);
    assert!(size_of::<ValidatorValue>() == 40);
    assert!(size_of::<Bucket>() == 16);
    assert!(size_of::<Range4>() == 8);
    assert!(size_of::<Range6>() == 20);
    assert!(size_of::<CounterCell>() == 16);
    assert!(size_of::<RowCell>() == 64);
    assert!(size_of::<LatencyCell>() == 8);
    assert!(size_of::<RowLatency>() == 256);
    assert!(size_of::<Event>() == 64);
    assert!(SLOT_WOULD_DROP + crate::REASON_SLOTS <= SLOT_EVENTS_LOST && SLOT_EVENTS_SEEN < SLOT_SYN_COOKIES_SENT);
    assert!(SLOT_SYN_COOKIES_INVALID < SLOT_TCP_RTT && SLOT_TCP_TIMEOUTS < COUNTER_SLOTS && size_of::<crate::Verdict>() == 24);
};

impl FlowValue {
    /// A flow with a full bucket. `rate` in units a tick, `burst` in units, `expiry` a tick (`u64::MAX` = never).
    pub const fn new(class: FlowClass, row: u32, generation: u32, rate: u32, burst: u32, expiry: u64, now: u64) -> FlowValue {
        FlowValue {
            expiry: Word::new(expiry),
            bucket: Bucket::new(burst as u64, now),
            rate,
            burst,
            row,
            generation,
            class: class as u32,
            stake: STAKE_NONE,
        }
    }

    /// The same flow with a stake.
    pub const fn with_stake(self, stake: u32) -> FlowValue {
        FlowValue { stake, ..self }
    }
}

impl ValidatorValue {
    /// An address with full budgets: buckets that were never touched.
    pub const fn new(expiry: u64) -> ValidatorValue {
        ValidatorValue { expiry: Word::new(expiry), handshakes: Bucket::new(0, 0), rest: Bucket::new(0, 0) }
    }
}

impl BanValue {
    /// A ban without hits.
    pub const fn new(offence: u32, expiry: u64, since_ms: u64) -> BanValue {
        BanValue { expiry: Word::new(expiry), hits: Word::new(0), since_ms, offence, zero: 0 }
    }
}

/// Hash of [`ABI_TEXT`] and the number of CPUs (which sizes the arrays): FNV-1a, 64 bits. Names the directory of the pins.
pub const fn abi_hash(cpus: u32) -> u64 {
    let bytes = ABI_TEXT.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        index += 1;
    }
    (hash ^ cpus as u64).wrapping_mul(0x0000_0100_0000_01b3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash is a name that outlives a process: a change of it is a change of the ABI, and its own commit.
    #[test]
    fn the_abi_is_frozen() {
        assert_eq!(abi_hash(2), 0x1075_7237_6094_1ada);
        assert_ne!(abi_hash(2), abi_hash(4));
    }
}
