//! A packet that the stack drops: whose it was, and why.

use crate::{
    maps,
    memory::{self, constant, read},
};
use kernel_shared::abi::{TCP, UDP};

/// Counts it, if it was on its way to a protected port of our namespace.
#[inline(always)]
pub fn dropped(skb: u64, reason: u32) -> Option<()> {
    let ethertype = u16::from_be(read(skb, constant(&memory::SKB_PROTOCOL))?);
    let head: u64 = read(skb, constant(&memory::SKB_HEAD))?;
    let ip = head + read::<u16>(skb, constant(&memory::SKB_NETWORK))? as u64;
    // The transport header may not be known yet where the packet ends; extension headers and fragments are none of our ports.
    let (protocol, length) = match ethertype {
        0x0800 => {
            let first: u8 = read(ip, 0)?;
            (read::<u8>(ip, 9)?, (first as u64 & 15) * 4)
        }
        0x86dd => (read::<u8>(ip, 6)?, 40),
        _ => return None,
    };
    if protocol != TCP && protocol != UDP {
        return None;
    }
    let port = u16::from_be(read(ip, length + 2)?);
    if maps::protected(protocol, port) && ours(skb) {
        maps::count_drop(protocol, port, reason);
    }
    Some(())
}

/// Whether it is of our namespace, by its socket or by its device. (The device's field is used for other things while a packet waits in a
/// socket: what is read there then is no namespace of ours.)
#[inline(always)]
fn ours(skb: u64) -> bool {
    let of = |owner: &'static u32, net: &'static u32| {
        let owner: u64 = read(skb, constant(owner))?;
        let net: u64 = read(owner, constant(net))?;
        read::<u32>(net, constant(&memory::NET_INUM))
    };
    let netns = Some(constant(&memory::NETNS) as u32);
    of(&memory::SKB_DEV, &memory::DEV_NET) == netns || of(&memory::SKB_SK, &memory::SK_NET) == netns
}
