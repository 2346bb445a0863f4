//! Packet latency: from the first instruction of XDP to the moment the socket's owner reads it.
//!
//! XDP stamps a sampled packet; a tracepoint of the receive path resolves the stamp:
//! - TCP: `skb_copy_datagram_iovec`, which fires when the kernel copies the segment into the reader's memory. The stamp holds the
//!   sequence number of the segment's first byte, so exactly that segment resolves it, also after it was merged with others.
//! - UDP, where the node's control group is known: its `recvmsg4`/`recvmsg6` hooks, which tell the sender of each datagram as it is handed
//!   over. A stamp lies by its flow and is resolved by the next datagram of that flow: exact but for older ones that were not sampled.
//! - UDP elsewhere: `sock_recv_length`, which fires as the receiving call returns. It names the socket, not the datagram. A connected socket
//!   has one flow, which must be the stamp's; another socket's stamp is resolved by the first read on its port that is at least as
//!   long: with datagrams waiting, a lower bound. One stamp is open per port then, of flows and of strangers.
//!
//! One stamp may be open per slot; flows and strangers have slots apart, so that a flood can't blind us to our peers.

use crate::{
    Word,
    abi::{LATENCY_BUCKETS, ROW_NONE, SLOT_LATENCY_LAPSED, SLOT_LATENCY_STAMPED, TCP},
    account::count,
    control::{Config, WORD_CONFIG},
    packet::Packet,
    verdict::{Tables, Verdict},
};

/// Slots of flows, by hash.
pub const SLOTS_FLOWS: u32 = 1024;
/// Slots of strangers, by hash.
pub const SLOTS_STRANGERS: u32 = 256;
/// Slots of UDP where stamps lie by port: two for each port's low six bits.
pub const SLOTS_UDP: u32 = 128;
/// All slots.
pub const SLOTS: u32 = SLOTS_FLOWS + SLOTS_STRANGERS + SLOTS_UDP;
/// A stamp that nobody resolved for so long is given up, ns.
pub const LAPSE_NS: u64 = 10_000_000_000;

/// One open measurement.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Stamp {
    /// When the packet met XDP, ns; 0 = free.
    pub arrival_ns: Word,
    /// What resolves it: mark of the flow in the lower half; in the upper TCP's sequence, or UDP's length and port.
    pub tag: Word,
    /// Whose packet it is: row in the lower half ([`ROW_NONE`] = nobody's), its generation in the upper.
    pub owner: Word,
}

// SAFETY: atomic words.
unsafe impl crate::abi::Plain for Stamp {}

/// A connection's mark: mixes both ends, so that the same peer seen in another namespace of this machine has another one.
#[inline(always)]
pub fn mark(remote: u32, local: u32, ports: u32) -> u32 {
    let mixed = (remote.wrapping_mul(0x9E37_79B1) ^ local).wrapping_mul(0x85EB_CA6B) ^ ports;
    (mixed ^ mixed >> 15).wrapping_mul(0xC2B2_AE35)
}

/// A datagram's flow; the local address is left out, because a socket that hears on all of them does not tell it.
#[inline(always)]
pub fn mark_udp(remote: u32, ports: u32) -> u32 {
    mark(remote, crate::abi::UDP as u32, ports)
}

/// Both ports as they lie in a header, from the remote one in wire order and the local one as a number.
#[inline(always)]
pub const fn ports(remote: u16, local: u16) -> u32 {
    remote as u32 | (local.to_be() as u32) << 16
}

/// A v6 address in 32 bits.
#[inline(always)]
pub fn fold(high: u64, low: u64) -> u32 {
    let mixed = high ^ low.rotate_left(17);
    (mixed ^ mixed >> 32) as u32
}

/// The slots in which the stamp of a flow may lie: as a known one, as a stranger's.
#[inline(always)]
pub fn slots_flow(mark: u32) -> (u32, u32) {
    (mark & (SLOTS_FLOWS - 1), SLOTS_FLOWS + (mark >> 12 & (SLOTS_STRANGERS - 1)))
}

/// The slots in which the stamp of a UDP port may lie: of flows, of strangers.
#[inline(always)]
pub fn slots_port(port: u16) -> (u32, u32) {
    let base = SLOTS_FLOWS + SLOTS_STRANGERS + (port as u32 & 63) * 2;
    (base, base + 1)
}

/// Stamps a packet, if it carries payload and its slot is free.
#[inline(always)]
pub(crate) fn stamp<P: Packet + ?Sized, T: Tables>(packet: &P, verdict: &Verdict, udp_by_flow: bool, tables: &T) {
    if let Some((slot, tag)) = tag(packet, verdict, udp_by_flow) {
        open(slot, tag, verdict.row as u64 | (verdict.generation as u64) << 32, tables);
    }
}

/// Slot and tag of a packet with payload.
#[inline(always)]
fn tag<P: Packet + ?Sized>(packet: &P, verdict: &Verdict, udp_by_flow: bool) -> Option<(u32, u64)> {
    // Masks renew the bounds that the kernel's verifier forgets when an offset rests on the stack.
    let (ip, transport, end) = ((verdict.ip & 0xff) as usize, (verdict.transport & 0x1fff) as usize, verdict.end as usize);
    let is_flow = verdict.row != ROW_NONE;
    let ports = packet.raw32(transport)?;
    if verdict.protocol() != TCP {
        let length = packet.be16(transport + 4)?;
        let port = u32::from_be(ports) as u16;
        let payload = length.checked_sub(8).filter(|payload| *payload > 0)?;
        let remote = match verdict.version() {
            4 => packet.raw32(ip + 12)?,
            _ => fold(packet.raw64(ip + 8)?, packet.raw64(ip + 16)?),
        };
        let mark = mark_udp(remote, ports);
        let (flow, stranger) = if udp_by_flow { slots_flow(mark) } else { slots_port(port) };
        return Some((if is_flow { flow } else { stranger }, (payload as u64) << 48 | (port as u64) << 32 | mark as u64));
    }
    let header = (packet.be16(transport + 12)? >> 12) as usize * 4;
    if transport + header >= end {
        return None;
    }
    let sequence = u32::from_be(packet.raw32(transport + 4)?);
    let (remote, local) = if verdict.version() == 4 {
        (packet.raw32(ip + 12)?, packet.raw32(ip + 16)?)
    } else {
        (fold(packet.raw64(ip + 8)?, packet.raw64(ip + 16)?), fold(packet.raw64(ip + 24)?, packet.raw64(ip + 32)?))
    };
    let mark = mark(remote, local, ports);
    let (flow, stranger) = slots_flow(mark);
    Some((if is_flow { flow } else { stranger }, (sequence as u64) << 32 | mark as u64))
}

/// Opens a measurement in a free or lapsed slot.
#[inline(always)]
fn open<T: Tables>(slot: u32, tag: u64, owner: u64, tables: &T) {
    let Some(stamp) = tables.stamp(slot) else { return };
    let open_since = stamp.arrival_ns.load();
    let now = tables.now_ns();
    if open_since != 0 {
        if now.wrapping_sub(open_since) < LAPSE_NS {
            return;
        }
        count(tables, SLOT_LATENCY_LAPSED, 0);
    }
    stamp.arrival_ns.store(0);
    stamp.tag.store(tag);
    stamp.owner.store(owner);
    stamp.arrival_ns.store(now);
    count(tables, SLOT_LATENCY_STAMPED, 0);
}

/// A TCP segment is being read: resolves the stamp of its connection, if the stamped byte is in it. `ports` in wire order.
#[inline(always)]
pub fn read_tcp<T: Tables>(mark: u32, sequence: u32, sequence_end: u32, tables: &T) {
    let (flow, stranger) = slots_flow(mark);
    let matches =
        |tag: u64| tag as u32 == mark && ((tag >> 32) as u32).wrapping_sub(sequence) < sequence_end.wrapping_sub(sequence);
    resolve(flow, 0, matches, tables);
    resolve(stranger, 0, matches, tables);
}

/// A read of `length` bytes on a UDP port returns; `mark` is the flow's where its socket is connected.
#[inline(always)]
pub fn read_udp<T: Tables>(port: u16, length: u32, mark: Option<u32>, tables: &T) {
    // One look at two slots, not two at four: the verifier walks each by itself.
    let (flow, stranger) = match (Config::from_word(tables.control(WORD_CONFIG)).udp_by_flow(), mark) {
        (true, None) => return,
        (true, Some(mark)) => slots_flow(mark),
        (false, _) => slots_port(port),
    };
    let fits = |tag: u64| (tag >> 32) as u16 == port && length as u64 >= tag >> 48;
    let matches = |tag: u64| fits(tag) && mark.is_none_or(|mark| mark == tag as u32);
    resolve(flow, 1, matches, tables);
    resolve(stranger, 1, matches, tables);
}

/// A datagram of this flow to this port is handed over.
#[inline(always)]
pub fn read_udp_flow<T: Tables>(mark: u32, port: u16, tables: &T) {
    let (flow, stranger) = slots_flow(mark);
    let matches = |tag: u64| tag as u32 == mark && (tag >> 32) as u16 == port;
    resolve(flow, 1, matches, tables);
    resolve(stranger, 1, matches, tables);
}

/// Closes a measurement.
#[inline(always)]
fn resolve<T: Tables>(slot: u32, histogram: u32, matches: impl Fn(u64) -> bool, tables: &T) {
    let Some(stamp) = tables.stamp(slot) else { return };
    let arrival = stamp.arrival_ns.load();
    if arrival == 0 || !matches(stamp.tag.load()) {
        return;
    }
    let owner = stamp.owner.load();
    stamp.arrival_ns.store(0);
    let latency = log2(tables.now_ns().saturating_sub(arrival));
    if let Some(cell) = tables.latency(histogram * LATENCY_BUCKETS + latency) {
        cell.count.add(1);
    }
    if let Some(cell) = tables.row_latency(owner as u32) {
        cell.record((owner >> 32) as u32, latency);
    }
}

/// Floor of the binary logarithm; 0 for 0. (The kernel's instruction set can't count leading zeros.)
#[inline(always)]
pub fn log2(mut value: u64) -> u32 {
    let mut log = 0;
    if value >> 32 != 0 {
        value >>= 32;
        log += 32;
    }
    if value >> 16 != 0 {
        value >>= 16;
        log += 16;
    }
    if value >> 8 != 0 {
        value >>= 8;
        log += 8;
    }
    if value >> 4 != 0 {
        value >>= 4;
        log += 4;
    }
    if value >> 2 != 0 {
        value >>= 2;
        log += 2;
    }
    if value >> 1 != 0 {
        log += 1;
    }
    log & 63
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::{abi::UDP, control::Mode, model::Model};
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    proptest! {
        #[test]
        fn log2_is_the_position_of_the_highest_bit(value in 1u64..) {
            prop_assert_eq!(log2(value), 63 - value.leading_zeros());
        }

        #[test]
        fn slots_are_in_bounds_and_apart(mark: u32, port: u16) {
            let (flow, stranger) = slots_flow(mark);
            let (flow_udp, stranger_udp) = slots_port(port);
            prop_assert!(flow < SLOTS_FLOWS && (SLOTS_FLOWS..SLOTS_FLOWS + SLOTS_STRANGERS).contains(&stranger));
            prop_assert!(flow_udp >= SLOTS_FLOWS + SLOTS_STRANGERS && stranger_udp < SLOTS);
        }

        /// The segment that holds the stamped byte resolves it, also across the wrap of the sequence; no other does.
        #[test]
        fn only_the_stamped_byte_resolves(sequence: u32, before in 0u32..5000, after in 1u32..5000, mark: u32) {
            let model = Model::default();
            model.set_time(0, 1_000);
            open(slots_flow(mark).0, (sequence as u64) << 32 | mark as u64, 5 | 9 << 32, &model);
            model.set_time(0, 1_000 + 5_000);
            let start = sequence.wrapping_sub(before);
            read_tcp(mark ^ 1, start, sequence.wrapping_add(after), &model);
            read_tcp(mark, start, sequence, &model);
            read_tcp(mark, sequence.wrapping_add(1), sequence.wrapping_add(1 + after), &model);
            prop_assert_eq!(model.latency_count(), 0);
            read_tcp(mark, start, sequence.wrapping_add(after), &model);
            prop_assert_eq!(model.latency_bucket(0, 12), 1);
            let row = model.row_latency(5).unwrap();
            prop_assert_eq!((row.generation.load(), row.buckets[2].load()), (9, 1));
            prop_assert!(model.row_latency(ROW_NONE).is_none());
            read_tcp(mark, start, sequence.wrapping_add(after), &model);
            prop_assert_eq!(model.latency_count(), 1);
        }
    }

    /// A datagram to 10.0.0.2:9000 whose payload has this length.
    fn datagram(source: [u8; 4], port: u16, payload: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((28 + payload).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        frame.extend(source);
        frame.extend([10, 0, 0, 2]);
        frame.extend(port.to_be_bytes());
        frame.extend(9000u16.to_be_bytes());
        frame.extend((8 + payload).to_be_bytes());
        frame.extend([0, 0]);
        frame.resize(frame.len() + payload as usize, 7);
        frame
    }

    fn mark_of(source: [u8; 4], port: u16) -> u32 {
        mark_udp(u32::from_ne_bytes(source), ports(port.to_be(), 9000))
    }

    /// Stamps what comes from two peers at once, one of them a known flow's; what each read then adds to the histogram.
    fn stamped(by_flow: bool) -> Model {
        let mut model = Model::default();
        model.protect(UDP, 9000);
        model.set_control(WORD_CONFIG, Config::new(Mode::Shadow).with_udp_by_flow(by_flow).word());
        model.set_time(0, 1_000);
        for (source, payload) in [([10, 0, 0, 5], 100), ([10, 0, 0, 6], 50)] {
            let frame = datagram(source, 4000, payload);
            let verdict = crate::inspect(frame.as_slice(), &model);
            stamp(frame.as_slice(), &verdict, by_flow, &model);
        }
        model.set_time(0, 2_000);
        model
    }

    #[test]
    fn a_datagrams_stamp_by_flow_is_resolved_by_its_flow_alone() {
        let model = stamped(true);
        assert_eq!(model.counted(SLOT_LATENCY_STAMPED), 2);
        read_udp(9000, 5000, None, &model);
        read_udp(9000, 5000, Some(mark_of([10, 0, 0, 5], 4001)), &model);
        read_udp_flow(mark_of([10, 0, 0, 5], 4000), 9001, &model);
        assert_eq!(model.latency_count(), 0);
        read_udp_flow(mark_of([10, 0, 0, 6], 4000), 9000, &model);
        read_udp_flow(mark_of([10, 0, 0, 6], 4000), 9000, &model);
        assert_eq!(model.latency_count(), 1);
        read_udp(9000, 100, Some(mark_of([10, 0, 0, 5], 4000)), &model);
        assert_eq!(model.latency_count(), 2);
    }

    #[test]
    fn a_datagrams_stamp_by_port_waits_for_a_read_that_can_be_its_own() {
        let model = stamped(false);
        assert_eq!(model.counted(SLOT_LATENCY_STAMPED), 1, "one a port");
        read_udp(9000, 99, None, &model);
        read_udp(9001, 100, None, &model);
        read_udp(9000, 100, Some(mark_of([10, 0, 0, 6], 4000)), &model);
        assert_eq!(model.latency_count(), 0);
        read_udp(9000, 100, Some(mark_of([10, 0, 0, 5], 4000)), &model);
        assert_eq!(model.latency_count(), 1);
    }

    #[test]
    fn a_rows_new_owner_begins_with_an_empty_histogram() {
        let cell = crate::abi::RowLatency::default();
        for log2 in [0, 10, 11, 40, 63] {
            cell.record(1, log2);
        }
        assert_eq!([0, 1, 30].map(|bucket| cell.buckets[bucket].load()), [2, 1, 2]);
        cell.record(2, 11);
        assert_eq!([0, 1, 30].map(|bucket| cell.buckets[bucket].load()), [0, 1, 0]);
    }

    #[test]
    fn a_stamp_that_nobody_reads_lapses_and_is_counted() {
        let model = Model::default();
        model.set_time(0, 1_000);
        open(3, 7, ROW_NONE as u64, &model);
        model.set_time(0, 1_000 + LAPSE_NS - 1);
        open(3, 8, ROW_NONE as u64, &model);
        assert_eq!((model.counted(SLOT_LATENCY_STAMPED), model.counted(SLOT_LATENCY_LAPSED)), (1, 0));
        model.set_time(0, 1_000 + LAPSE_NS);
        open(3, 8, ROW_NONE as u64, &model);
        assert_eq!((model.counted(SLOT_LATENCY_STAMPED), model.counted(SLOT_LATENCY_LAPSED)), (2, 1));
    }
}
