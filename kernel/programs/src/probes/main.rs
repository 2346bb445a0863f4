//! The probes' object: what the kernel knows about our peers' connections and about packets that it drops itself.
//!
//! Each program is optional: one that a kernel refuses costs its figures, never the filter. The maps that the filter's object
//! owns (flows, ports, control) are taken from their pins.
#![no_std]
#![no_main]

mod drops;
mod maps;
mod memory;
mod truth;

use aya_ebpf::{
    macros::{raw_tracepoint, sock_ops},
    programs::{RawTracePointContext, SockOpsContext},
};

/// A callback of a TCP connection of the guarded cgroup.
#[sock_ops]
pub fn tcp_truth(ctx: SockOpsContext) -> u32 {
    truth::called(&ctx);
    1
}

/// `kfree_skb(skb, location, reason, …)`: the stack drops a packet.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn kernel_drop(ctx: RawTracePointContext) -> i32 {
    drops::dropped(ctx.arg(0), ctx.arg(2));
    0
}

kernel_shared::object!();
