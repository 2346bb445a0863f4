//! Packet latency: from the first instruction of XDP to the moment the socket's owner reads it.
//!
//! XDP stamps a sampled packet; a tracepoint of the receive path resolves the stamp:
//! - TCP: `skb_copy_datagram_iovec`, which fires when the kernel copies the segment into the reader's memory. The stamp holds the
//!   sequence number of the segment's first byte, so exactly that segment resolves it, also after it was merged with others.
//! - UDP: `sock_recv_length`, which fires as the receiving call returns. It names the socket, not the datagram, so the stamp is
//!   resolved by the first read on that port that is at least as long: with datagrams waiting, a lower bound.
//!
//! One stamp may be open per slot; flows and strangers have slots apart, so that a flood can't blind us to our peers.

use crate::{
    Word,
    abi::{LATENCY_BUCKETS, ROW_NONE, SLOT_LATENCY_LAPSED, SLOT_LATENCY_STAMPED, TCP},
    account::count,
    packet::Packet,
    verdict::{Tables, Verdict},
};

/// Slots of TCP flows, by hash.
pub const SLOTS_FLOWS: u32 = 1024;
/// Slots of TCP strangers, by hash.
pub const SLOTS_STRANGERS: u32 = 256;
/// Slots of UDP: two for each port's low six bits.
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
    /// What resolves it: number (TCP sequence, UDP length) in the upper half, mark of flow or port in the lower.
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

/// A v6 address in 32 bits.
#[inline(always)]
pub fn fold(high: u64, low: u64) -> u32 {
    let mixed = high ^ low.rotate_left(17);
    (mixed ^ mixed >> 32) as u32
}

/// The slots in which a TCP connection's stamp may lie: as a flow, as a stranger.
#[inline(always)]
pub fn slots_tcp(mark: u32) -> (u32, u32) {
    (mark & (SLOTS_FLOWS - 1), SLOTS_FLOWS + (mark >> 12 & (SLOTS_STRANGERS - 1)))
}

/// The slots in which a UDP port's stamp may lie: of flows, of strangers.
#[inline(always)]
pub fn slots_udp(port: u16) -> (u32, u32) {
    let base = SLOTS_FLOWS + SLOTS_STRANGERS + (port as u32 & 63) * 2;
    (base, base + 1)
}

/// Stamps a packet, if it carries payload and its slot is free.
#[inline(always)]
pub(crate) fn stamp<P: Packet + ?Sized, T: Tables>(packet: &P, verdict: &Verdict, tables: &T) {
    if let Some((slot, tag)) = tag(packet, verdict) {
        open(slot, tag, verdict.row as u64 | (verdict.generation as u64) << 32, tables);
    }
}

/// Slot and tag of a packet with payload.
#[inline(always)]
fn tag<P: Packet + ?Sized>(packet: &P, verdict: &Verdict) -> Option<(u32, u64)> {
    // Masks renew the bounds that the kernel's verifier forgets when an offset rests on the stack.
    let (ip, transport, end) = ((verdict.ip & 0xff) as usize, (verdict.transport & 0x1fff) as usize, verdict.end as usize);
    let is_flow = verdict.row != ROW_NONE;
    let ports = packet.raw32(transport)?;
    if verdict.protocol() != TCP {
        let length = packet.be16(transport + 4)?;
        let port = u32::from_be(ports) as u16;
        let (flow, stranger) = slots_udp(port);
        let payload = length.checked_sub(8).filter(|payload| *payload > 0)?;
        return Some((if is_flow { flow } else { stranger }, (payload as u64) << 32 | port as u64));
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
    let (flow, stranger) = slots_tcp(mark);
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
    let (flow, stranger) = slots_tcp(mark);
    let matches =
        |tag: u64| tag as u32 == mark && ((tag >> 32) as u32).wrapping_sub(sequence) < sequence_end.wrapping_sub(sequence);
    resolve(flow, 0, matches, tables);
    resolve(stranger, 0, matches, tables);
}

/// A UDP read of `length` bytes on `port` returns.
#[inline(always)]
pub fn read_udp<T: Tables>(port: u16, length: u32, tables: &T) {
    let (flow, stranger) = slots_udp(port);
    let matches = |tag: u64| tag as u32 == port as u32 && length as u64 >= tag >> 32;
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
    use super::*;
    use crate::model::Model;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn log2_is_the_position_of_the_highest_bit(value in 1u64..) {
            prop_assert_eq!(log2(value), 63 - value.leading_zeros());
        }

        #[test]
        fn slots_are_in_bounds_and_apart(mark: u32, port: u16) {
            let (flow, stranger) = slots_tcp(mark);
            let (flow_udp, stranger_udp) = slots_udp(port);
            prop_assert!(flow < SLOTS_FLOWS && (SLOTS_FLOWS..SLOTS_FLOWS + SLOTS_STRANGERS).contains(&stranger));
            prop_assert!(flow_udp >= SLOTS_FLOWS + SLOTS_STRANGERS && stranger_udp < SLOTS);
        }

        /// The segment that holds the stamped byte resolves it, also across the wrap of the sequence; no other does.
        #[test]
        fn only_the_stamped_byte_resolves(sequence: u32, before in 0u32..5000, after in 1u32..5000, mark: u32) {
            let model = Model::default();
            model.set_time(0, 1_000);
            open(slots_tcp(mark).0, (sequence as u64) << 32 | mark as u64, 5 | 9 << 32, &model);
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
