//! Programs for benchmarks only: what the guard is compared with, and what floods it. None is ever attached outside of a
//! namespace that a benchmark made, and no guard loads this object.
//!
//! `lpm_first` and `lru_first` are the two pipelines that filters usually are, written as well as we can write them: the guard's own
//! parser, its token bucket with its cheap clock, a counter per CPU. They do less than the guard (no flows, no sanity, no networks,
//! no totals); what differs is only how they find what they know about a source.
#![no_std]
#![no_main]

mod frame;

use aya_ebpf::{
    bindings::xdp_action,
    helpers::r#generated::bpf_jiffies64,
    macros::{map, xdp},
    maps::{Array, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
    programs::XdpContext,
};
use frame::Frame;
use kernel_shared::{Family, IpHeader, Parsed, bucket::Bucket, family, parse_v4};

/// The port that they protect: the benchmarks' own.
const PORT: u16 = 9000;
/// Prefixes that the deny list holds.
const DENY_MAX: u32 = 1 << 20;
/// Sources with a bucket, in either store: about the guard's number of rows.
const SOURCES: u32 = 1 << 16;
/// Never dry in a benchmark: a packet that passes goes the longest way.
const RATE: u32 = 1 << 30;
const BURST: u32 = 1 << 30;

#[map]
static DENY: LpmTrie<u32, u64> = LpmTrie::with_max_entries(DENY_MAX, 0);
#[map]
static HASHED: Array<Bucket> = Array::with_max_entries(SOURCES, 0);
#[map]
static RECENT: LruHashMap<u32, Bucket> = LruHashMap::with_max_entries(SOURCES, 0);
#[map]
static SEEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// A packet to the protected port.
#[inline(always)]
fn parse(ctx: &XdpContext) -> Option<IpHeader<u32>> {
    let frame = Frame::new(ctx);
    let Family::V4(offset) = family(&frame) else { return None };
    match parse_v4(&frame, offset) {
        Parsed::Transport(header) if header.ports.destination == PORT => Some(header),
        _ => None,
    }
}

#[inline(always)]
fn denied(source: u32) -> bool {
    DENY.get(Key::new(32, source)).is_some()
}

/// Counts and ends.
#[inline(always)]
fn end(drop: bool) -> u32 {
    if let Some(seen) = SEEN.get_ptr_mut(drop as u32) {
        // SAFETY: this CPU's own cell.
        unsafe { *seen += 1 };
    }
    if drop { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() }
}

/// Every source is looked up in a trie of prefixes first; then a bucket in a hashed array.
#[xdp]
pub fn lpm_first(ctx: XdpContext) -> u32 {
    frame::spoof(&ctx);
    let Some(header) = parse(&ctx) else { return xdp_action::XDP_PASS };
    if denied(header.source) {
        return end(true);
    }
    let row = header.source.wrapping_mul(0x9E37_79B1) >> 16;
    end(HASHED.get(row).is_some_and(|bucket| !bucket.take(now(), RATE, BURST)))
}

/// Every source gets an entry in an LRU map, with its bucket; then the trie of prefixes.
#[xdp]
pub fn lru_first(ctx: XdpContext) -> u32 {
    frame::spoof(&ctx);
    let Some(header) = parse(&ctx) else { return xdp_action::XDP_PASS };
    // SAFETY: what changes in the record is atomic; an entry that is evicted meanwhile takes a packet's tokens with it.
    let granted = match unsafe { RECENT.get(&header.source) } {
        Some(bucket) => bucket.take(now(), RATE, BURST),
        None => RECENT.insert(&header.source, &Bucket::new(BURST as u64, now()), 0).is_ok(),
    };
    end(!granted || denied(header.source))
}

/// Sends the frame on, from another source each time: live test runs make it a flood.
#[xdp]
pub fn flood(ctx: XdpContext) -> u32 {
    frame::spoof(&ctx);
    checksum(&ctx);
    xdp_action::XDP_TX
}

/// Writes the checksum of an untagged IPv4 header of twenty bytes (RFC 1071; the order of bytes does not matter).
#[inline(always)]
fn checksum(ctx: &XdpContext) {
    let ip = ctx.data() + 14;
    if ip + 20 > ctx.data_end() {
        return;
    }
    let mut sum = 0u32;
    for word in [0, 1, 2, 3, 4, 6, 7, 8, 9] {
        // SAFETY: the bound was checked.
        sum += unsafe { *((ip + 2 * word) as *const u16) } as u32;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    // SAFETY: as above.
    unsafe { *((ip + 10) as *mut u16) = !sum as u16 };
}

/// Does nothing: a veth sends what a program returns only while its own end has one.
#[xdp]
pub fn pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

kernel_shared::object!();
