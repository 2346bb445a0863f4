//! Kernel memory behind the tracepoints. Field offsets differ from kernel to kernel: the loader reads them from BTF.

use crate::maps::Kernel;
use aya_ebpf::{bindings::bpf_sock_addr, helpers::bpf_probe_read_kernel};
use core::ptr::read_volatile;
use kernel_shared::{Tables, abi, latency};

const AF_INET: u16 = 2;
/// The third word of an IPv4 address in an IPv6 socket, in wire order.
const MAPPED: u32 = 0xffff_0000;

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
    /// `sock.__sk_common.skc_family`.
    SK_FAMILY,
    /// `sock.__sk_common.skc_dport`: 0 where the socket is not connected.
    SK_REMOTE_PORT,
    /// `sock.__sk_common.skc_daddr`.
    SK_REMOTE4,
    /// `sock.__sk_common.skc_v6_daddr`.
    SK_REMOTE6,
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
        latency::read_udp(port, length as u32, connected(socket, port), &Kernel);
    }
    Some(())
}

/// The flow of a connected UDP socket.
#[inline(always)]
fn connected(socket: u64, port: u16) -> Option<u32> {
    let remote_port: u16 = kernel(socket, constant(&SK_REMOTE_PORT))?;
    if remote_port == 0 {
        return None;
    }
    let family: u16 = kernel(socket, constant(&SK_FAMILY))?;
    let remote = match family {
        AF_INET => kernel(socket, constant(&SK_REMOTE4))?,
        _ => remote6(kernel(socket, constant(&SK_REMOTE6))?),
    };
    Some(latency::mark_udp(remote, latency::ports(remote_port, port)))
}

/// A v6 address in 32 bits; a mapped v4 address is what it is on the wire.
#[inline(always)]
fn remote6(words: [u32; 4]) -> u32 {
    if words[0] == 0 && words[1] == 0 && words[2] == MAPPED {
        return words[3];
    }
    let pair = |low: u32, high: u32| low as u64 | (high as u64) << 32;
    latency::fold(pair(words[0], words[1]), pair(words[2], words[3]))
}

/// Loads a field of the context, whole: the kernel accepts no wider and no narrower loads than its fields.
macro_rules! field {
    ($address:expr, $($field:tt)+) => {
        // SAFETY: a field of the context that the kernel has handed over.
        unsafe { read_volatile(&raw const (*$address).$($field)+) }
    };
}

/// A datagram is handed to a process of the control group, which asked for its sender.
#[inline(always)]
pub fn datagram_read(address: *mut bpf_sock_addr, v6: bool) -> Option<()> {
    let socket = field!(address, __bindgen_anon_1.sk);
    if socket.is_null() {
        return None;
    }
    let port = field!(socket, src_port) as u16;
    if !protected(abi::UDP, port) {
        return None;
    }
    let remote = if v6 {
        remote6([
            field!(address, user_ip6[0]),
            field!(address, user_ip6[1]),
            field!(address, user_ip6[2]),
            field!(address, user_ip6[3]),
        ])
    } else {
        field!(address, user_ip4)
    };
    let mark = latency::mark_udp(remote, latency::ports(field!(address, user_port) as u16, port));
    latency::read_udp_flow(mark, port, &Kernel);
    Some(())
}
