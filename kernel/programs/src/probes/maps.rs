//! The probes' maps. Those of the filter's object have its names, keys and sizes: the loader gives both objects the same ones.

use crate::memory::constant;
use aya_ebpf::{
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap},
};
use kernel_shared::{Word, abi::*, drops, truth::TruthCell};

/// User space may map the array's memory (`BPF_F_MMAPABLE`).
const MMAPABLE: u32 = 1 << 10;

#[map]
static PORTS: Array<Word> = Array::with_max_entries(PORT_WORDS, 0);
#[map]
static FLOWS4: HashMap<Flow4, FlowValue> = HashMap::with_max_entries(FLOWS_MAX, 0);
#[map]
static FLOWS6: HashMap<Flow6, FlowValue> = HashMap::with_max_entries(FLOWS_MAX, 0);
#[map]
static TRUTH: Array<TruthCell> = Array::with_max_entries(ROWS_MAX, MMAPABLE);
#[map]
static KERNEL_DROPS: Array<Word> = Array::with_max_entries(drops::SLOTS, MMAPABLE);
/// The ports that have slots of their own in `KERNEL_DROPS`.
#[map]
static DROP_PORTS: Array<Word> = Array::with_max_entries(drops::PORTS_NAMED, 0);
#[map]
static COUNTERS: Array<CounterCell> = Array::with_max_entries(COUNTER_SLOTS, MMAPABLE);

/// Columns of the counters, as for the filter.
#[unsafe(no_mangle)]
static COLUMNS: u32 = 1;

/// A v4 flow's record. (A reference, not what is read from it: of a pair in an option, the compiler would read the half that is not there.)
#[inline(always)]
pub fn flow4(key: &Flow4) -> Option<&'static FlowValue> {
    // SAFETY: the record is preallocated, and row and generation are written before it is inserted.
    unsafe { FLOWS4.get(key) }
}

/// A v6 flow's record.
#[inline(always)]
pub fn flow6(key: &Flow6) -> Option<&'static FlowValue> {
    // SAFETY: as above.
    unsafe { FLOWS6.get(key) }
}

/// A row's connection.
#[inline(always)]
pub fn truth(row: u32) -> Option<&'static TruthCell> {
    TRUTH.get(row)
}

/// Whether the guard protects this port.
#[inline(always)]
pub fn protected(protocol: u8, port: u16) -> bool {
    let half = if protocol == TCP { 0 } else { PORTS_UDP };
    PORTS.get(half + (port as u32 >> 6)).map_or(0, |word| word.load()) >> (port & 63) & 1 == 1
}

/// Counts a drop of the kernel's.
#[inline(always)]
pub fn count_drop(protocol: u8, port: u16, reason: u32) {
    let word = drops::port_word(protocol, port);
    let mut slot = 0;
    while slot < drops::PORTS_NAMED && DROP_PORTS.get(slot).map_or(0, |named| named.load()) != word {
        slot += 1;
    }
    if let Some(count) = KERNEL_DROPS.get(drops::cell(slot, reason)) {
        count.add(1);
    }
}

/// Adds to one of this CPU's counters.
#[inline(always)]
pub fn count(slot: u32, occurrences: u64, sum: u64) {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
    let cell = slot.wrapping_mul(constant(&COLUMNS) as u32).wrapping_add(cpu);
    if let Some(cell) = COUNTERS.get(cell) {
        cell.packets.add(occurrences);
        cell.bytes.add(sum);
    }
}
