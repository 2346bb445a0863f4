//! What a verdict leaves behind: counters per reason, counters per peer, and whether an event is due.

use crate::{
    abi::{CounterCell, Event, ROW_NONE, RowCell, SLOT_EVENTS_LOST, SLOT_EVENTS_SEEN, SLOT_WOULD_DROP},
    control::{Config, Mode, WORD_CONFIG, WORD_ENFORCE_DEADLINE},
    latency,
    packet::Packet,
    proxy,
    reason::Reason,
    verdict::{Tables, Verdict, inspect},
};

/// What the program does with the packet, and the event it owes.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Drop it.
    pub drop: bool,
    /// Send this, if the ring has room; else count it with [`event_lost`].
    pub event: Option<Event>,
}

/// The whole program: mode, verdict, counters, latency stamp, event.
#[inline(always)]
pub fn filter<P: Packet + ?Sized, T: Tables>(packet: &P, tables: &T) -> Outcome {
    filter_or_divert(packet, tables, |_| {})
}

/// The same; a verdict that is the SYN proxy's business is given to `divert` first, which does not return if the proxy is there.
#[inline(always)]
pub fn filter_or_divert<P: Packet + ?Sized, T: Tables>(packet: &P, tables: &T, divert: impl FnOnce(&Verdict)) -> Outcome {
    let config = Config::from_word(tables.control(WORD_CONFIG));
    if config.mode() == Mode::Off {
        count(tables, Reason::Off as u32, packet.length());
        return Outcome { drop: false, event: None };
    }
    let verdict = inspect(packet, tables);
    if proxy::takes(&verdict, config) && enforcing(config, tables) {
        divert(&verdict);
    }
    settle(packet, &verdict, config, tables)
}

/// Counts a packet that the SYN proxy lets pass in spite of its budget.
#[inline(always)]
pub fn admit<T: Tables>(length: usize, tables: &T) {
    count(tables, Reason::Stranger as u32, length);
}

/// Counts an occurrence in one of the guard's own slots.
#[inline(always)]
pub fn occurred<T: Tables>(slot: u32, tables: &T) {
    count(tables, slot, 0);
}

/// Counts a verdict and applies the mode.
#[inline(always)]
pub fn settle<P: Packet + ?Sized, T: Tables>(packet: &P, verdict: &Verdict, config: Config, tables: &T) -> Outcome {
    let drop = verdict.drop() && enforcing(config, tables);
    let would_drop = verdict.drop() && !drop;
    let length = packet.length();
    if would_drop {
        count(tables, SLOT_WOULD_DROP + verdict.reason_slot(), length);
    }
    let counted = count(tables, if drop { verdict.reason_slot() } else { verdict.class_slot() }, length);
    let mut ordinal = counted;
    if verdict.row != ROW_NONE
        && let Some(cell) = tables.row(verdict.row)
    {
        ordinal = row(cell, verdict, drop, length, tables.now());
    }
    if !drop && verdict.version() != 0 && ordinal & config.latency_mask() == 0 {
        latency::stamp(packet, verdict, config.udp_by_flow(), tables);
    }
    let event = if verdict.drop() { event(packet, verdict, drop, config, tables) } else { None };
    Outcome { drop, event }
}

/// Whether drops are drops: in `enforce`, unless it was a trial that is over.
#[inline(always)]
fn enforcing<T: Tables>(config: Config, tables: &T) -> bool {
    if config.mode() != Mode::Enforce {
        return false;
    }
    let deadline = tables.control(WORD_ENFORCE_DEADLINE);
    deadline == 0 || tables.now() <= deadline
}

/// Counts an event that found the ring full.
#[inline(always)]
pub fn event_lost<T: Tables>(tables: &T) {
    count(tables, SLOT_EVENTS_LOST, 0);
}

/// Adds one packet to this CPU's cell of a slot; the cell's count after it.
#[inline(always)]
pub(crate) fn count<T: Tables>(tables: &T, slot: u32, length: usize) -> u64 {
    let Some(cell): Option<&CounterCell> = tables.counter(slot) else { return 1 };
    cell.bytes.add(length as u64);
    cell.packets.add(1)
}

/// Counts a packet of a flow in its row; the number of packets that passed in this cell so far.
#[inline(always)]
fn row(cell: &RowCell, verdict: &Verdict, drop: bool, length: usize, now: u64) -> u64 {
    if cell.generation.load() != verdict.generation as u64 {
        // The row has a new owner. User space can't write a frozen map, so the first packet of the new owner clears the cell.
        cell.packets.store(0);
        cell.bytes.store(0);
        cell.dropped.store(0);
        cell.would_drop.store(0);
        cell.generation.store(verdict.generation as u64);
    }
    cell.last.store(now);
    if drop {
        cell.dropped.add(1);
    } else {
        cell.packets.add(1);
        cell.bytes.add(length as u64);
        if verdict.drop() {
            cell.would_drop.add(1);
        }
    }
    cell.packets.load()
}

/// The event of a sampled drop: every 2^n-th of a CPU, by counting (a random number costs 14 ns, this nothing).
#[inline(always)]
fn event<P: Packet + ?Sized, T: Tables>(packet: &P, verdict: &Verdict, drop: bool, config: Config, tables: &T) -> Option<Event> {
    let seen = count(tables, SLOT_EVENTS_SEEN, 0);
    // The first of each series is told, so that a single drop is not silent.
    if seen.wrapping_sub(1) & config.event_mask() != 0 {
        return None;
    }
    // Masks renew the bounds that the kernel's verifier forgets when an offset rests on the stack.
    let (ip, transport) = ((verdict.ip & 0xff) as usize, (verdict.transport & 0x1fff) as usize);
    let mut address = [0u8; 16];
    if verdict.version() == 4 {
        let source = packet.raw32(ip + 12)?.to_ne_bytes();
        address[0] = source[0];
        address[1] = source[1];
        address[2] = source[2];
        address[3] = source[3];
    } else if verdict.version() == 6 {
        let (high, low) = (packet.raw64(ip + 8)?, packet.raw64(ip + 16)?);
        // SAFETY: two u64s and sixteen octets are the same memory.
        address = unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>([high, low]) };
    }
    let ports = if verdict.version() == 0 { 0 } else { u32::from_be(packet.raw32(transport)?) };
    Some(Event {
        time_ns: tables.now_ns(),
        address,
        port: (ports >> 16) as u16,
        local_port: ports as u16,
        protocol: verdict.protocol(),
        version: verdict.version(),
        reason: verdict.reason_slot() as u8,
        dropped: drop as u8,
        length: packet.length() as u32,
        row: verdict.row,
        stands_for: config.event_mask() as u32 + 1,
        zeros: [0; 5],
    })
}
