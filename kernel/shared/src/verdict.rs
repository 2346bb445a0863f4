//! The verdict: steps 0 to 7 of the data path, in their order.
//!
//! 0. Parse; split early into a v4 and a v6 half, so that no call ever sees two maps (the verifier then inlines each look-up).
//! 1. Not a protected port, or no readable port: pass. SSH, ARP, neighbour discovery, path-MTU errors: never touched.
//! 2. First fragment to a protected port: drop.
//! 3. Floor flow: its own budget, and no ban reaches it.
//! 4. Ban: bitmap, then the exact hash, the ranges, the lists; expiry checked here.
//! 5. Known or dialing flow: its own budget, pass.
//! 6. Stateless sanity, of strangers only: flags, ports, addresses, lengths that no honest sender makes ([`crate::sanity`]).
//! 7. Budgets of strangers, and apart from them of validators' addresses outside their flows ([`crate::strangers`]).
//!
//! In front of 3, 5 and 7 stands a bitmap of the hosts that have a flow or a validator's budget: a spoofed source costs a bit, not a hash.

use crate::{
    abi::{
        BanValue, CounterCell, Flow4, Flow6, FlowClass, FlowValue, LatencyCell, PORTS_UDP, ROW_NONE, RowCell, RowLatency, TCP,
        ValidatorValue,
    },
    bucket::Bucket,
    control::{Config, WORD_BEAT_DEADLINE, WORD_CONFIG},
    half::Half,
    latency::Stamp,
    list,
    packet::{self, IpHeader, Packet, Parsed},
    reason::Reason,
    sanity, strangers,
    word::Word,
};

/// The maps, as the verdict sees them. In the kernel these are BPF maps; natively, a model of them.
///
/// References are shared with other CPUs and with user space: everything that changes is an atomic.
pub trait Tables {
    /// Jiffies now.
    fn now(&self) -> u64;
    /// A word of the control array (0 if it does not exist).
    fn control(&self, word: u32) -> u64;
    /// A word of the protected ports.
    fn protected(&self, word: u32) -> u64;
    /// A v4 flow's record.
    fn flow4(&self, key: &Flow4) -> Option<&FlowValue>;
    /// A v6 flow's record.
    fn flow6(&self, key: &Flow6) -> Option<&FlowValue>;
    /// A word of the v4 bitmap.
    fn ban_bits4(&self, word: u32) -> u64;
    /// A word of the v6 bitmap.
    fn ban_bits6(&self, word: u32) -> u64;
    /// The ban of exactly this v4 address.
    fn ban4(&self, address: u32) -> Option<&BanValue>;
    /// The ban of this v6 /64.
    fn ban6(&self, network: u64) -> Option<&BanValue>;
    /// The longest banned v4 range that holds the address.
    fn range4(&self, address: u32) -> Option<&BanValue>;
    /// The longest banned v6 range that holds the address.
    fn range6(&self, address: [u64; 2]) -> Option<&BanValue>;
    /// A list's array.
    type List;
    /// The list in a slot (0 to [`crate::abi::LISTS_MAX`] - 1).
    fn list(&self, slot: u32) -> Option<&Self::List>;
    /// A word of a list.
    fn list_word(list: &Self::List, index: u32) -> Option<&Word>;
    /// [`list::listed4`] over these tables; the kernel's are asked through a function that the verifier walks once.
    #[inline(always)]
    fn listed4(&self, number: u32, now: u64) -> bool
    where
        Self: Sized,
    {
        list::listed4(number, now, self)
    }
    /// [`list::listed6`] over these tables.
    #[inline(always)]
    fn listed6(&self, number: u64, now: u64) -> bool
    where
        Self: Sized,
    {
        list::listed6(number, now, self)
    }
    /// A word of the bitmap of hosts that have flows or a validator's budget.
    fn host_bits(&self, word: u32) -> u64;
    /// The budgets of a validator's v4 address.
    fn validator4(&self, address: u32) -> Option<&ValidatorValue>;
    /// The budgets of a validator's v6 address.
    fn validator6(&self, address: [u64; 2]) -> Option<&ValidatorValue>;
    /// A bucket of strangers.
    fn stranger(&self, index: u32) -> Option<&Bucket>;
    /// This CPU's cell of a counter slot.
    fn counter(&self, slot: u32) -> Option<&CounterCell>;
    /// This CPU's cell of a row.
    fn row(&self, row: u32) -> Option<&RowCell>;
    /// This CPU's cell of a latency bucket.
    fn latency(&self, bucket: u32) -> Option<&LatencyCell>;
    /// A row's latencies; none for [`ROW_NONE`].
    fn row_latency(&self, row: u32) -> Option<&RowLatency>;
    /// A latency stamp.
    fn stamp(&self, index: u32) -> Option<&Stamp>;
    /// Nanoseconds since boot: asked for samples only.
    fn now_ns(&self) -> u64;
}

/// What was decided about one packet, before the mode has its say.
///
/// Words only: with bytes in it, the compiler clears the struct by calling `memset`, which on this target is a loop over bytes and
/// costs more than the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Reason, class, drop, version, protocol; see [`Verdict::encode`].
    word: u32,
    /// Offset of the IP header.
    pub ip: u32,
    /// Offset of the transport header.
    pub transport: u32,
    /// Offset of the end of the IP packet.
    pub end: u32,
    /// Row of its flow, or [`ROW_NONE`].
    pub row: u32,
    /// Generation of that row.
    pub generation: u32,
}

impl Verdict {
    #[inline(always)]
    const fn outside(reason: Reason) -> Verdict {
        let word = reason as u32 | (reason as u32) << 8;
        Verdict { word, ip: 0, transport: 0, end: 0, row: ROW_NONE, generation: 0 }
    }

    /// The same packet with another ending.
    #[inline(always)]
    const fn ended(self, reason: Reason, class: Reason, drop: bool) -> Verdict {
        let word = self.word & 0xfffe_0000 | reason as u32 | (class as u32) << 8 | (drop as u32) << 16;
        Verdict { word, ..self }
    }

    /// Whether `enforce` drops it.
    #[inline(always)]
    pub const fn drop(&self) -> bool {
        self.word >> 16 & 1 == 1
    }

    /// Why: the slot of a [`Reason`].
    #[inline(always)]
    pub const fn reason_slot(&self) -> u32 {
        self.word & 0xff
    }

    /// What it passes as, where it passes (in shadow mode that includes would-be drops): the slot of a [`Reason`].
    #[inline(always)]
    pub const fn class_slot(&self) -> u32 {
        self.word >> 8 & 0xff
    }

    /// 4, 6, or 0 when no port was read.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        (self.word >> 17 & 7) as u8
    }

    /// IP protocol, or 0.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        (self.word >> 24) as u8
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        Reason::from_slot(self.reason_slot()).unwrap_or(Reason::OutOfScope)
    }

    /// What it passes as.
    pub fn class(&self) -> Reason {
        Reason::from_slot(self.class_slot()).unwrap_or(Reason::OutOfScope)
    }

    /// The verdict in one word, for comparing two runs: reason (bits 0–7), class (8–15), drop (16), version (17–19), protocol (24–31).
    #[inline(always)]
    pub const fn encode(&self) -> u32 {
        self.word
    }
}

/// The verdict on one frame.
#[inline(always)]
pub fn inspect<P: Packet + ?Sized, T: Tables>(packet: &P, tables: &T) -> Verdict {
    match packet::family(packet) {
        packet::Family::V4(offset) => inspect_v4(packet, offset, tables),
        packet::Family::V6(offset) => inspect_v6(packet, offset, tables),
        packet::Family::Tagged => unreadable(tables),
        packet::Family::Other => Verdict::outside(Reason::OutOfScope),
    }
}

/// The v4 half: a function of its own in the object, so that the compiler can't merge its map calls with the other half's.
#[inline(never)]
fn inspect_v4<P: Packet + ?Sized, T: Tables>(packet: &P, offset: usize, tables: &T) -> Verdict {
    match packet::parse_v4(packet, offset) {
        Parsed::Transport(header) => decide(packet, &header, offset, tables),
        Parsed::NoPort | Parsed::Unreadable => Verdict::outside(Reason::OutOfScope),
    }
}

/// The v6 half.
#[inline(never)]
fn inspect_v6<P: Packet + ?Sized, T: Tables>(packet: &P, offset: usize, tables: &T) -> Verdict {
    match packet::parse_v6(packet, offset) {
        Parsed::Transport(header) => decide(packet, &header, offset, tables),
        Parsed::NoPort => Verdict::outside(Reason::OutOfScope),
        Parsed::Unreadable => unreadable(tables),
    }
}

/// A packet whose port lies beyond what is walked. No honest sender makes one, and the kernel may well deliver it: the switch decides.
#[inline(always)]
fn unreadable<T: Tables>(tables: &T) -> Verdict {
    let passed = Verdict::outside(Reason::Unreadable);
    if Config::from_word(tables.control(WORD_CONFIG)).drop_unreadable() {
        passed.ended(Reason::Hidden, Reason::Unreadable, true)
    } else {
        passed
    }
}

/// Steps 1 to 7 for one family.
#[inline(always)]
fn decide<A: Half, P: Packet + ?Sized, T: Tables>(packet: &P, header: &IpHeader<A>, ip: usize, tables: &T) -> Verdict {
    // 1. Scope.
    let half = if header.protocol == TCP { 0 } else { PORTS_UDP };
    let port = header.ports.destination as u32;
    if tables.protected(half + (port >> 6)) >> (port & 63) & 1 == 0 {
        return Verdict::outside(Reason::OutOfScope);
    }
    let verdict = Verdict {
        word: (A::VERSION as u32) << 17 | (header.protocol as u32) << 24,
        ip: ip as u32,
        transport: header.transport as u32,
        end: header.end as u32,
        row: ROW_NONE,
        generation: 0,
    };
    // 2. First fragments.
    if header.first_fragment {
        return verdict.ended(Reason::Fragment, Reason::Stranger, true);
    }
    let now = tables.now();
    let hosted = A::hosted(tables, header.source);
    let flow = if hosted {
        A::flow(tables, header.source, header.ports.source, header.protocol).filter(|flow| alive(flow, now, tables))
    } else {
        None
    };
    // 3. Floor flows, before any ban.
    if let Some(flow) = flow
        && flow.class == FlowClass::Floor as u32
    {
        return budget(verdict, flow, Reason::Floor, now);
    }
    // 4. Bans.
    if A::suspicious(tables, header.source) {
        if let Some(ban) = banned(header.source, now, tables) {
            ban.hits.add(1);
            return verdict.ended(Reason::banned(ban.offence), Reason::Stranger, true);
        }
        if A::listed(tables, header.source, now) {
            return verdict.ended(Reason::BannedList, Reason::Stranger, true);
        }
    }
    // 5. Known and dialing flows.
    if let Some(flow) = flow {
        let class = if flow.class == FlowClass::Known as u32 { Reason::Known } else { Reason::Dialing };
        return budget(verdict, flow, class, now);
    }
    // 6. Sanity.
    let Some(class) = sanity::class(packet, header, ip, tables) else {
        return verdict.ended(Reason::Malformed, Reason::Stranger, true);
    };
    // 7. Budgets.
    let reason = strangers::judge(header.source, hosted, class, now, tables);
    verdict.ended(reason, Reason::Stranger, reason as u32 != Reason::Stranger as u32)
}

/// Whether a flow still counts: unexpired and, for an admitted peer's, with the node's heart beating.
#[inline(always)]
fn alive<T: Tables>(flow: &FlowValue, now: u64, tables: &T) -> bool {
    if now > flow.expiry.load() {
        return false;
    }
    if flow.class != FlowClass::Known as u32 {
        return true;
    }
    let deadline = tables.control(WORD_BEAT_DEADLINE);
    deadline == 0 || now <= deadline
}

/// The unexpired ban of an address: its own, else the longest range's.
#[inline(always)]
fn banned<A: Half, T: Tables>(address: A, now: u64, tables: &T) -> Option<&BanValue> {
    if let Some(ban) = A::exact(tables, address)
        && now <= ban.expiry.load()
    {
        return Some(ban);
    }
    A::range(tables, address).filter(|ban| now <= ban.expiry.load())
}

/// A flow's own budget.
#[inline(always)]
fn budget(verdict: Verdict, flow: &FlowValue, class: Reason, now: u64) -> Verdict {
    let granted = flow.bucket.take(now, flow.rate, flow.burst);
    let reason = if granted { class } else { Reason::RatePeer };
    Verdict { row: flow.row, generation: flow.generation, ..verdict.ended(reason, class, !granted) }
}

#[cfg(test)]
mod tests;
