//! The maps, and the trait through which the verdict reaches them.

use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, r#generated::bpf_jiffies64},
    btf_maps,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, RingBuf, lpm_trie::Key},
};
use kernel_shared::{Tables, Word, abi::*, bucket::Bucket, control, latency, list, strangers};

/// User space may map the array's memory (`BPF_F_MMAPABLE`).
const MMAPABLE: u32 = 1 << 10;
/// An inner map may have another size than the one that the program was loaded with (`BPF_F_INNER_MAP`).
const INNER_MAP: u32 = 1 << 12;
/// `BPF_RB_NO_WAKEUP`: the guard polls; a wake-up per event costs more than the event.
const NO_WAKEUP: u64 = 1;

/// Columns of the arrays of counters: the loader writes it, and sizes the arrays that are indexed `row * columns + cpu`.
#[unsafe(no_mangle)]
static COLUMNS: u32 = 1;

#[map]
static CONTROL: Array<Word> = Array::with_max_entries(control::WORDS, 0);
#[map]
static PORTS: Array<Word> = Array::with_max_entries(PORT_WORDS, 0);
#[map]
static FLOWS4: HashMap<Flow4, FlowValue> = HashMap::with_max_entries(FLOWS_MAX, 0);
#[map]
static FLOWS6: HashMap<Flow6, FlowValue> = HashMap::with_max_entries(FLOWS_MAX, 0);
#[map]
static BANS4: HashMap<u32, BanValue> = HashMap::with_max_entries(BANS_MAX, 0);
#[map]
static BANS6: HashMap<u64, BanValue> = HashMap::with_max_entries(BANS_MAX, 0);
#[map]
static RANGES4: LpmTrie<u32, BanValue> = LpmTrie::with_max_entries(RANGES_MAX, 0);
#[map]
static RANGES6: LpmTrie<[u64; 2], BanValue> = LpmTrie::with_max_entries(RANGES_MAX, 0);
/// An array whose size the guard chooses anew for each list.
type List = btf_maps::Array<u64, 1, { (INNER_MAP | MMAPABLE) as usize }>;
#[btf_map]
static LISTS: btf_maps::ArrayOfMaps<List, { LISTS_MAX as usize }> = btf_maps::ArrayOfMaps::new();
#[map]
static HOSTS: Array<Word> = Array::with_max_entries(HOST_WORDS, MMAPABLE);
#[map]
static VALIDATORS4: HashMap<u32, ValidatorValue> = HashMap::with_max_entries(VALIDATORS_MAX, 0);
#[map]
static VALIDATORS6: HashMap<[u64; 2], ValidatorValue> = HashMap::with_max_entries(VALIDATORS_MAX, 0);
#[map]
static STRANGERS: Array<Bucket> = Array::with_max_entries(strangers::STRANGER_ROWS, 0);
#[map]
static BITS4: Array<Word> = Array::with_max_entries(BITS4_WORDS, MMAPABLE);
#[map]
static BITS6: Array<Word> = Array::with_max_entries(BITS6_WORDS, MMAPABLE);
#[map]
static COUNTERS: Array<CounterCell> = Array::with_max_entries(COUNTER_SLOTS, MMAPABLE);
#[map]
static ROWS: Array<RowCell> = Array::with_max_entries(ROWS_MAX, MMAPABLE);
#[map]
static LATENCY: Array<LatencyCell> = Array::with_max_entries(2 * LATENCY_BUCKETS, MMAPABLE);
#[map]
static LATENCY_ROWS: Array<RowLatency> = Array::with_max_entries(ROWS_MAX, MMAPABLE);
#[map]
static STAMPS: Array<latency::Stamp> = Array::with_max_entries(latency::SLOTS, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// The maps of this object.
pub struct Kernel;

#[inline(always)]
fn word(array: &'static Array<Word>, index: u32) -> u64 {
    array.get(index).map_or(0, |word| word.load())
}

/// Index of this CPU's cell.
#[inline(always)]
fn cell(row: u32) -> u32 {
    // SAFETY: rodata, written by the loader before the program is loaded; volatile, or the compiler would take the 1 for granted.
    let columns = unsafe { core::ptr::read_volatile(&COLUMNS) };
    // SAFETY: a helper without arguments.
    row.wrapping_mul(columns).wrapping_add(unsafe { bpf_get_smp_processor_id() } as u32)
}

impl Tables for Kernel {
    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_jiffies64() }
    }
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }
    #[inline(always)]
    fn control(&self, index: u32) -> u64 {
        word(&CONTROL, index)
    }
    #[inline(always)]
    fn protected(&self, index: u32) -> u64 {
        word(&PORTS, index)
    }
    #[inline(always)]
    fn flow4(&self, key: &Flow4) -> Option<&FlowValue> {
        // SAFETY: the record is preallocated, and all that changes in it is atomic.
        unsafe { FLOWS4.get(key) }
    }
    #[inline(always)]
    fn flow6(&self, key: &Flow6) -> Option<&FlowValue> {
        // SAFETY: as above.
        unsafe { FLOWS6.get(key) }
    }
    #[inline(always)]
    fn ban_bits4(&self, index: u32) -> u64 {
        word(&BITS4, index)
    }
    #[inline(always)]
    fn ban_bits6(&self, index: u32) -> u64 {
        word(&BITS6, index)
    }
    #[inline(always)]
    fn ban4(&self, address: u32) -> Option<&BanValue> {
        // SAFETY: as above.
        unsafe { BANS4.get(&address) }
    }
    #[inline(always)]
    fn ban6(&self, network: u64) -> Option<&BanValue> {
        // SAFETY: as above.
        unsafe { BANS6.get(&network) }
    }
    #[inline(always)]
    fn range4(&self, address: u32) -> Option<&BanValue> {
        RANGES4.get(Key::new(32, address))
    }
    #[inline(always)]
    fn range6(&self, address: [u64; 2]) -> Option<&BanValue> {
        RANGES6.get(Key::new(128, address))
    }
    type List = List;
    #[inline(always)]
    fn list(&self, slot: u32) -> Option<&List> {
        LISTS.get(slot)
    }
    #[inline(always)]
    fn list_word(list: &List, index: u32) -> Option<&Word> {
        // SAFETY: `Word` is a `u64` in memory, and stays for as long as the program runs: a list that is taken out is freed later.
        list.get(index).map(|word| unsafe { &*core::ptr::from_ref(word).cast::<Word>() })
    }
    #[inline(always)]
    fn listed4(&self, number: u32, now: u64) -> bool {
        list_holds4(number, now) != 0
    }
    #[inline(always)]
    fn listed6(&self, number: u64, now: u64) -> bool {
        list_holds6(number, now) != 0
    }
    #[inline(always)]
    fn host_bits(&self, index: u32) -> u64 {
        word(&HOSTS, index)
    }
    #[inline(always)]
    fn validator4(&self, address: u32) -> Option<&ValidatorValue> {
        // SAFETY: as above.
        unsafe { VALIDATORS4.get(&address) }
    }
    #[inline(always)]
    fn validator6(&self, address: [u64; 2]) -> Option<&ValidatorValue> {
        // SAFETY: as above.
        unsafe { VALIDATORS6.get(&address) }
    }
    #[inline(always)]
    fn stranger(&self, index: u32) -> Option<&Bucket> {
        STRANGERS.get(index)
    }
    #[inline(always)]
    fn counter(&self, slot: u32) -> Option<&CounterCell> {
        COUNTERS.get(cell(slot))
    }
    #[inline(always)]
    fn row(&self, row: u32) -> Option<&RowCell> {
        if row >= ROWS_MAX {
            return None;
        }
        ROWS.get(cell(row))
    }
    #[inline(always)]
    fn latency(&self, bucket: u32) -> Option<&LatencyCell> {
        LATENCY.get(cell(bucket))
    }
    #[inline(always)]
    fn row_latency(&self, row: u32) -> Option<&RowLatency> {
        LATENCY_ROWS.get(row)
    }
    #[inline(always)]
    fn stamp(&self, index: u32) -> Option<&latency::Stamp> {
        STAMPS.get(index)
    }
}

/// Global, so that the verifier walks the search once, and not once for each path that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn list_holds4(number: u32, now: u64) -> u32 {
    list::listed4(number, now, &Kernel) as u32
}

/// As [`list_holds4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn list_holds6(number: u64, now: u64) -> u32 {
    list::listed6(number, now, &Kernel) as u32
}

/// Sends an event; false when the ring is full.
#[inline(always)]
pub fn send(event: &Event) -> bool {
    match EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(*event);
            entry.submit(NO_WAKEUP);
            true
        }
        None => false,
    }
}

/// Writes jiffies where user space finds them.
pub fn write_clock() {
    if let Some(word) = CONTROL.get(control::WORD_CLOCK) {
        word.store(Kernel.now());
    }
}
