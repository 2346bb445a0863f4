//! The egress guard's object: four hooks of a control group, in front of connecting and of sending datagrams.
//!
//! Thin shims: what is decided is decided in `kernel_shared::egress`.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_smp_processor_id, r#generated::bpf_jiffies64},
    macros::{cgroup_sock_addr, map},
    maps::{Array, LpmTrie, lpm_trie::Key},
    programs::SockAddrContext,
};
use core::ptr::read_volatile;
use kernel_shared::{
    Word,
    abi::EGRESS_ALLOWED_MAX,
    control::{Config, WORD_CONFIG, WORD_ENFORCE_DEADLINE, WORDS},
    egress::{Dial, OUTCOMES, RANGES, Range, judge, range4, range6},
};

/// User space may map the array's memory (`BPF_F_MMAPABLE`).
const MMAPABLE: u32 = 1 << 10;
const ALLOW: i32 = 1;
const DENY: i32 = 0;

/// Possible CPUs: the loader writes it, and sizes the counters.
#[unsafe(no_mangle)]
static CPUS: u32 = 1;

/// The filter's own control array, by its pin: one word switches both.
#[map]
static CONTROL: Array<Word> = Array::with_max_entries(WORDS, 0);
#[map]
static EGRESS4: LpmTrie<u32, u8> = LpmTrie::with_max_entries(EGRESS_ALLOWED_MAX, 0);
#[map]
static EGRESS6: LpmTrie<[u64; 2], u8> = LpmTrie::with_max_entries(EGRESS_ALLOWED_MAX, 0);
#[map]
static EGRESS: Array<Word> = Array::with_max_entries(RANGES * OUTCOMES, MMAPABLE);

/// `connect(2)` of an IPv4 socket.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    dial4(ctx.sock_addr)
}

/// `connect(2)` of an IPv6 socket.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    dial6(ctx.sock_addr)
}

/// `sendmsg(2)` with an address: how QUIC's unconnected sockets send.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    dial4(ctx.sock_addr)
}

/// The same of an IPv6 socket.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    dial6(ctx.sock_addr)
}

#[inline(always)]
fn dial4(address: *mut bpf_sock_addr) -> i32 {
    // SAFETY: the context is valid while the program runs; the kernel allows loads of four bytes of it.
    let target = unsafe { read_volatile(&raw const (*address).user_ip4) };
    decide(range4(target), || EGRESS4.get(Key::new(32, target)).is_some())
}

#[inline(always)]
fn dial6(address: *mut bpf_sock_addr) -> i32 {
    // SAFETY: as above.
    let word = |index: usize| unsafe { read_volatile((&raw const (*address).user_ip6).cast::<u32>().add(index)) } as u64;
    let target = [word(0) | word(1) << 32, word(2) | word(3) << 32];
    decide(range6(target), || EGRESS6.get(Key::new(128, target)).is_some())
}

#[inline(always)]
fn decide(range: Option<Range>, allowed: impl Fn() -> bool) -> i32 {
    if range.is_none() {
        return ALLOW;
    }
    let control = |index| CONTROL.get(index).map_or(0, |word| word.load());
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_jiffies64() };
    let dial = judge(Config::from_word(control(WORD_CONFIG)), control(WORD_ENFORCE_DEADLINE), now, range, allowed());
    if let Some(slot) = dial.slot() {
        count(slot);
    }
    if matches!(dial, Dial::Denied(_)) { DENY } else { ALLOW }
}

#[inline(always)]
fn count(slot: u32) {
    // SAFETY: rodata, written by the loader before the program is loaded; volatile, or the compiler would take the 1 for granted.
    let cpus = unsafe { read_volatile(&CPUS) };
    // SAFETY: a helper without arguments.
    let cell = slot.wrapping_mul(cpus).wrapping_add(unsafe { bpf_get_smp_processor_id() } as u32);
    if let Some(word) = EGRESS.get(cell) {
        word.add(1);
    }
}

kernel_shared::object!();
