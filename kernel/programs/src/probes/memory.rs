//! Kernel memory. Field offsets differ from kernel to kernel: the loader reads them from BTF.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use core::ptr::read_volatile;

macro_rules! constants { ($($(#[$doc:meta])* $name:ident),* $(,)?) => { $( $(#[$doc])* #[unsafe(no_mangle)] pub static $name: u32 = 0; )* } }

constants! {
    /// `sk_buff.head`.
    SKB_HEAD,
    /// `sk_buff.network_header`.
    SKB_NETWORK,
    /// `sk_buff.protocol`.
    SKB_PROTOCOL,
    /// `sk_buff.dev`.
    SKB_DEV,
    /// `sk_buff.sk`.
    SKB_SK,
    /// `net_device.nd_net`.
    DEV_NET,
    /// `sock.__sk_common.skc_net`.
    SK_NET,
    /// `net.ns.inum`.
    NET_INUM,
    /// `inet_connection_sock.icsk_rto`, ticks.
    ICSK_RTO,
    /// Inode of the guard's own network namespace.
    NETNS,
    /// Ticks a second.
    HZ,
}

/// A constant's value.
#[inline(always)]
pub fn constant(value: &'static u32) -> u64 {
    // SAFETY: rodata, written by the loader; volatile, or the compiler would take the 0 for granted.
    unsafe { read_volatile(value) as u64 }
}

/// Reads a field.
#[inline(always)]
pub fn read<T>(base: u64, offset: u64) -> Option<T> {
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset) as *const T) }.ok()
}
