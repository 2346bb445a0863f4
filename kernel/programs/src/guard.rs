//! The guard's object: the filter, for XDP and for TCX, the clock, and the hooks that resolve latency stamps.
//!
//! Thin shims: what is decided is decided in `kernel-shared`, here are only maps, packet memory and kernel memory.
#![no_std]
#![no_main]

mod buffer;
mod frame;
mod maps;
mod probe;
mod proxy;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{cgroup_sock_addr, classifier, raw_tracepoint, xdp},
    programs::{RawTracePointContext, SockAddrContext, TcContext, XdpContext},
};
use frame::Frame;
use kernel_shared::{account, account::Outcome, inspect};
use maps::Kernel;

/// The filter.
#[xdp]
pub fn guard(ctx: XdpContext) -> u32 {
    filter(&ctx)
}

#[inline(always)]
fn filter(ctx: &XdpContext) -> u32 {
    let outcome = account::filter_or_divert(&Frame::new(ctx), &Kernel, |verdict| proxy::divert(ctx, verdict));
    tell(&outcome);
    if outcome.drop { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// Sends the event that a packet owes.
#[inline(always)]
fn tell(outcome: &Outcome) {
    if let Some(event) = outcome.event
        && !maps::send(&event)
    {
        account::event_lost(&Kernel);
    }
}

/// The filter where XDP is refused: the same verdict at the next place on a packet's way in, after the kernel has made a socket buffer of it.
/// What passes goes on to the programs behind this one.
#[classifier]
pub fn guard_tcx(ctx: TcContext) -> i32 {
    let outcome = account::filter(&Frame::pulled(&ctx), &Kernel);
    tell(&outcome);
    if outcome.drop { TC_ACT_SHOT as i32 } else { TC_ACT_UNSPEC }
}

/// Answers SYNs above their budget and lets in ACKs that name a cookie: tail-called by the filter, never attached.
#[xdp]
pub fn syn_proxy(ctx: XdpContext) -> u32 {
    proxy::run(&ctx)
}

/// The verdict on one packet as its return value, without counters: for test runs only, never attached.
#[xdp]
pub fn explain(ctx: XdpContext) -> u32 {
    inspect(&Frame::new(&ctx), &Kernel).encode()
}

/// The least that a program can do: what the filter's cost is measured against. For test runs only, never attached.
#[xdp]
pub fn bench_bare(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// The filter over a source drawn from a million. For test runs only, never attached.
#[xdp]
pub fn bench_spoofed(ctx: XdpContext) -> u32 {
    frame::spoof(&ctx);
    filter(&ctx)
}

/// Writes jiffies into the control array: run by the guard whenever it has to speak in ticks, never attached.
#[xdp]
pub fn clock(_ctx: XdpContext) -> u32 {
    maps::write_clock();
    xdp_action::XDP_PASS
}

/// `skb_copy_datagram_iovec(skb, len)`: a TCP segment is copied into its reader's memory.
#[raw_tracepoint(tracepoint = "skb_copy_datagram_iovec")]
pub fn read_tcp(ctx: RawTracePointContext) -> i32 {
    probe::segment_read(ctx.arg(0));
    0
}

/// `sock_recv_length(sk, ret, flags)`: a receiving call returns.
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn read_udp(ctx: RawTracePointContext) -> i32 {
    probe::socket_read(ctx.arg(0), ctx.arg(1));
    0
}

/// `recvmsg(2)` that asks for the sender: how sockets of many peers read.
#[cgroup_sock_addr(recvmsg4)]
pub fn datagram4(ctx: SockAddrContext) -> i32 {
    probe::datagram_read(ctx.sock_addr, false);
    1
}

/// The same of an IPv6 socket.
#[cgroup_sock_addr(recvmsg6)]
pub fn datagram6(ctx: SockAddrContext) -> i32 {
    probe::datagram_read(ctx.sock_addr, true);
    1
}

kernel_shared::object!();
