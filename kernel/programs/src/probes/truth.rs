//! Callbacks of TCP connections: joined with the flow table, written to the row.

use crate::{
    maps,
    memory::{self, constant, read},
};
use aya_ebpf::{EbpfContext, bindings::bpf_sock_ops, helpers::bpf_ktime_get_ns, programs::SockOpsContext};
use core::ptr::read_volatile;
use kernel_shared::{
    abi::{Flow4, Flow6, FlowValue, ROW_NONE, SLOT_TCP_RETRANSMITS, SLOT_TCP_RTT, SLOT_TCP_TIMEOUTS, TCP},
    truth::{Sample, connection},
};

const OP_ACTIVE_ESTABLISHED: u32 = 4;
const OP_PASSIVE_ESTABLISHED: u32 = 5;
const OP_RTO: u32 = 8;
const OP_RETRANSMIT: u32 = 9;
const OP_STATE: u32 = 10;
const OP_RTT: u32 = 12;
/// `BPF_SOCK_OPS_{RTO,RETRANS,STATE,RTT}_CB_FLAG`.
const CALLBACKS: i32 = 1 | 2 | 4 | 8;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// The third word of an IPv4 address in an IPv6 socket, in wire order.
const MAPPED: u32 = 0xffff_0000;

/// Loads a field of the context, whole: the kernel accepts no wider and no narrower loads than its fields.
macro_rules! field {
    ($ops:expr, $($field:tt)+) => {
        // SAFETY: a field of the context that the kernel has handed over.
        unsafe { read_volatile(&raw const (*$ops).$($field)+) }
    };
}

/// What to do in a callback.
#[inline(always)]
pub fn called(ctx: &SockOpsContext) -> Option<()> {
    let ops = ctx.ops;
    let state = match field!(ops, op) {
        OP_ACTIVE_ESTABLISHED | OP_PASSIVE_ESTABLISHED => {
            // A refusal leaves this connection without figures of its own.
            let _ = ctx.set_cb_flags(CALLBACKS);
            kernel_shared::truth::ESTABLISHED
        }
        OP_RTO | OP_RETRANSMIT | OP_RTT => field!(ops, state),
        OP_STATE => field!(ops, __bindgen_anon_1.args[1]),
        _ => return None,
    };
    // The port lies in wire order in the upper half of the word.
    let port = u32::from_be(field!(ops, remote_port)) as u16;
    let local = field!(ops, local_port) as u16;
    let flow = flow(ops, port);
    if flow.is_some() || maps::protected(TCP, local) {
        match field!(ops, op) {
            OP_RTT => maps::count(SLOT_TCP_RTT, 1, (field!(ops, srtt_us) >> 3) as u64),
            OP_RETRANSMIT => maps::count(SLOT_TCP_RETRANSMITS, field!(ops, __bindgen_anon_1.args[1]) as u64, 0),
            OP_RTO => maps::count(SLOT_TCP_TIMEOUTS, 1, 0),
            _ => {}
        }
    }
    let flow = flow?;
    let (row, generation) = (flow.row, flow.generation);
    if row == ROW_NONE {
        return None;
    }
    let sample = Sample {
        connection: connection(port, local),
        srtt_us: field!(ops, srtt_us) >> 3,
        min_rtt_us: field!(ops, rtt_min),
        rto_us: timeout_us(ctx).unwrap_or(0),
        retransmits: field!(ops, total_retrans),
        state,
        bytes_acked: field!(ops, bytes_acked),
        bytes_received: field!(ops, bytes_received),
        // SAFETY: a helper without arguments.
        updated_ns: unsafe { bpf_ktime_get_ns() },
    };
    maps::truth(row)?.record(generation, &sample);
    Some(())
}

/// The connection's flow; none while the node has not announced it.
#[inline(always)]
fn flow(ops: *mut bpf_sock_ops, port: u16) -> Option<&'static FlowValue> {
    match field!(ops, family) {
        AF_INET => maps::flow4(&Flow4::new(field!(ops, remote_ip4), port, TCP)),
        AF_INET6 => {
            let words: [u32; 4] =
                [field!(ops, remote_ip6[0]), field!(ops, remote_ip6[1]), field!(ops, remote_ip6[2]), field!(ops, remote_ip6[3])];
            if words[0] == 0 && words[1] == 0 && words[2] == MAPPED {
                return maps::flow4(&Flow4::new(words[3], port, TCP));
            }
            let pair = |low: u32, high: u32| low as u64 | (high as u64) << 32;
            maps::flow6(&Flow6::new([pair(words[0], words[1]), pair(words[2], words[3])], port, TCP))
        }
        _ => None,
    }
}

/// The retransmission timeout, µs. The context has no field for it: it is read from the socket, which the kernel's own context names.
#[inline(always)]
fn timeout_us(ctx: &SockOpsContext) -> Option<u64> {
    let offset = constant(&memory::ICSK_RTO);
    let socket: u64 = read(ctx.as_ptr() as u64, 0)?;
    if offset == 0 || socket == 0 {
        return None;
    }
    let ticks: u32 = read(socket, offset)?;
    (ticks as u64 * 1_000_000).checked_div(constant(&memory::HZ))
}
