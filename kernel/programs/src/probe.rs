//! Kernel memory behind the tracepoints. Field offsets differ from kernel to kernel: the loader reads them from BTF.

use crate::maps::Kernel;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use core::ptr::read_volatile;
use kernel_shared::{Tables, abi, latency};

macro_rules! offsets { ($($(#[$doc:meta])* $name:ident),* $(,)?) => { $( $(#[$doc])* #[unsafe(no_mangle)] static $name: u32 = 0; )* } }

offsets! {
    /// `sk_buff.head`.
    SKB_HEAD,
    /// `sk_buff.network_header`.
    SKB_NETWORK,
    /// `sk_buff.transport_header`.
    SKB_TRANSPORT,
    /// `sk_buff.protocol`.
    SKB_PROTOCOL,
    /// `sk_buff.cb`: for TCP it starts with `seq`, `end_seq`.
    SKB_CB,
    /// `sock.__sk_common.skc_num`.
    SK_NUM,
    /// `sock.__sk_common.skc_net`.
    SK_NET,
    /// `sock.sk_protocol`.
    SK_PROTOCOL,
    /// `net.ns.inum`.
    NET_INUM,
    /// Inode of the guard's own network namespace.
    NETNS,
}

#[inline(always)]
fn constant(value: &'static u32) -> u64 {
    // SAFETY: rodata, written by the loader; volatile, or the compiler would take the 0 for granted.
    unsafe { read_volatile(value) as u64 }
}

#[inline(always)]
fn kernel<T>(base: u64, offset: u64) -> Option<T> {
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_kernel((base + offset) as *const T) }.ok()
}

#[inline(always)]
fn protected(protocol: u8, port: u16) -> bool {
    let half = if protocol == abi::TCP { 0 } else { abi::PORTS_UDP };
    Kernel.protected(half + (port as u32 >> 6)) >> (port & 63) & 1 == 1
}

/// A segment is copied to its reader: find its connection and its range of sequence numbers.
#[inline(always)]
pub fn segment_read(skb: u64) -> Option<()> {
    let ethertype = u16::from_be(kernel(skb, constant(&SKB_PROTOCOL))?);
    if ethertype != 0x0800 && ethertype != 0x86dd {
        return None;
    }
    let head: u64 = kernel(skb, constant(&SKB_HEAD))?;
    let transport: u16 = kernel(skb, constant(&SKB_TRANSPORT))?;
    let ports: u32 = kernel(head, transport as u64)?;
    if !protected(abi::TCP, u32::from_be(ports) as u16) {
        return None;
    }
    let ip = head + kernel::<u16>(skb, constant(&SKB_NETWORK))? as u64;
    let (remote, local) = if ethertype == 0x0800 {
        let protocol: u8 = kernel(ip, 9)?;
        let addresses: [u32; 2] = kernel(ip, 12)?;
        if protocol != abi::TCP {
            return None;
        }
        (addresses[0], addresses[1])
    } else {
        let next: u8 = kernel(ip, 6)?;
        let addresses: [u64; 4] = kernel(ip, 8)?;
        if next != abi::TCP {
            return None;
        }
        (latency::fold(addresses[0], addresses[1]), latency::fold(addresses[2], addresses[3]))
    };
    let sequences: [u32; 2] = kernel(skb, constant(&SKB_CB))?;
    latency::read_tcp(latency::mark(remote, local, ports), sequences[0], sequences[1], &Kernel);
    Some(())
}

/// A receiving call returns: if it read from a protected UDP port of our namespace, it resolves that port's stamp.
#[inline(always)]
pub fn socket_read(socket: u64, result: u64) -> Option<()> {
    let length = result as i32;
    if length <= 0 {
        return None;
    }
    let protocol: u16 = kernel(socket, constant(&SK_PROTOCOL))?;
    let port: u16 = kernel(socket, constant(&SK_NUM))?;
    if protocol != abi::UDP as u16 || !protected(abi::UDP, port) {
        return None;
    }
    let net: u64 = kernel(socket, constant(&SK_NET))?;
    let inum: u32 = kernel(net, constant(&NET_INUM))?;
    if inum as u64 == constant(&NETNS) {
        latency::read_udp(port, length as u32, &Kernel);
    }
    Some(())
}
