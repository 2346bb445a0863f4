//! The SYN proxy, as a program of its own behind a tail call: the filter loads on kernels that lack its helpers, and pays for none of it.

use crate::{
    frame::Frame,
    maps::{self, Kernel},
};
use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_CURRENT_NETNS, iphdr, ipv6hdr, tcphdr, xdp_action, xdp_md},
    helpers::r#generated::{
        bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_gen_syncookie, bpf_tcp_raw_check_syncookie_ipv4,
        bpf_tcp_raw_check_syncookie_ipv6, bpf_tcp_raw_gen_syncookie_ipv4,
        bpf_tcp_raw_gen_syncookie_ipv6, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
    macros::map,
    maps::{Array, PerCpuArray, ProgramArray},
    programs::XdpContext,
};
use kernel_shared::{
    Packet, Tables, Verdict, Word,
    abi::{PRIMED_LISTENERS, SLOT_SYN_COOKIES_INVALID, SLOT_SYN_COOKIES_SENT, SLOT_SYN_COOKIES_VALID},
    account,
    control::{Config, WORD_CONFIG},
    proxy::{self, IP4_WORDS, IP6_WORDS, Segment, TCP_WORDS_MAX},
};

/// Slot 0: the proxy's program. Empty where it could not be loaded.
#[map]
static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// The verdict that goes with a tail call. XDP is not interrupted by XDP on its CPU.
#[map]
static DIVERTED: PerCpuArray<Verdict> = PerCpuArray::with_max_entries(1, 0);
/// When a cookie was last made in a listener's name, ns since boot.
#[map]
static PRIMED: Array<Word> = Array::with_max_entries(PRIMED_LISTENERS, 0);

/// What becomes of a packet.
enum Fate {
    /// It passes: it holds a valid cookie.
    Admit,
    /// It is dropped.
    Drop,
    /// It is turned into this answer, an IP packet.
    Answer4([u32; proxy::ANSWER4_WORDS]),
    Answer6([u32; proxy::ANSWER6_WORDS]),
}

/// Goes over to the proxy; returns if it is not there.
#[inline(always)]
pub fn divert(ctx: &XdpContext, verdict: &Verdict) {
    if let Some(slot) = DIVERTED.get_ptr_mut(0) {
        // SAFETY: this CPU's slot; the tail call replaces this program by one that holds nothing of it.
        unsafe {
            *slot = *verdict;
            PROGRAMS.tail_call(ctx, 0);
        }
    }
}

/// The program.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> u32 {
    let Some(verdict) = DIVERTED.get(0).copied() else { return xdp_action::XDP_DROP };
    let config = Config::from_word(Kernel.control(WORD_CONFIG));
    let fate = if verdict.version() == 4 { judge4(ctx, &verdict, config) } else { judge6(ctx, &verdict, config) };
    if let Fate::Admit = fate {
        account::admit(Frame::new(ctx).length(), &Kernel);
        return xdp_action::XDP_PASS;
    }
    // An answered SYN never reaches the stack either: it is counted as what it is, above its budget.
    let outcome = account::settle(&Frame::new(ctx), &verdict, config, &Kernel);
    if let Some(event) = outcome.event
        && !maps::send(&event)
    {
        account::event_lost(&Kernel);
    }
    let sent = match fate {
        Fate::Answer4(packet) => answer(ctx, verdict.ip, packet),
        Fate::Answer6(packet) => answer(ctx, verdict.ip, packet),
        _ => false,
    };
    if !sent {
        return xdp_action::XDP_DROP;
    }
    account::occurred(SLOT_SYN_COOKIES_SENT, &Kernel);
    xdp_action::XDP_TX
}

/// Reads words of the packet.
#[inline(always)]
fn load<const N: usize>(ctx: &XdpContext, offset: u32, words: &mut [u32; N], bytes: u32) -> bool {
    // SAFETY: the helper checks the packet's bounds, the callers pass no more bytes than words have.
    unsafe { bpf_xdp_load_bytes(ctx.as_ptr() as *mut xdp_md, offset, words.as_mut_ptr().cast(), bytes) == 0 }
}

/// Whether it is time to make a cookie in the listener's name again.
#[inline(always)]
fn due(slot: u32, now: u64) -> bool {
    PRIMED.get(slot).is_none_or(|last| now.wrapping_sub(last.load()) >= proxy::PRIME_EVERY_NS)
}

/// Makes a cookie in the name of the listener that `tuple` (addresses, then ports, as they are on the wire) finds; negative if there is none
/// or it takes no more connections. Only such a cookie makes the listener believe in those that are made without it.
#[inline(always)]
fn in_its_name<const T: usize, const N: usize>(
    ctx: &XdpContext,
    tuple: &mut [u32; T],
    ip: &mut [u32; N],
    tcp: &mut [u32; TCP_WORDS_MAX],
    length: u32,
) -> i64 {
    // SAFETY: the helpers check what they are given; the socket is released on the only way out.
    unsafe {
        let socket =
            bpf_skc_lookup_tcp(ctx.as_ptr(), tuple.as_mut_ptr().cast(), (T * 4) as u32, BPF_F_CURRENT_NETNS as u64, 0);
        if socket.is_null() {
            return -1;
        }
        let (header, segment) = (ip.as_mut_ptr().cast(), tcp.as_mut_ptr().cast());
        let made = bpf_tcp_gen_syncookie(socket.cast(), header, (N * 4) as u32, segment, length);
        bpf_sk_release(socket.cast());
        made
    }
}

#[inline(never)]
fn judge4(ctx: &XdpContext, verdict: &Verdict, config: Config) -> Fate {
    let (mut ip, mut tcp) = ([0u32; IP4_WORDS], [0u32; TCP_WORDS_MAX]);
    let plain = verdict.transport.wrapping_sub(verdict.ip) == 20;
    if !plain || !load(ctx, verdict.ip, &mut ip, 20) || !load(ctx, verdict.transport, &mut tcp, 20) {
        return Fate::Drop;
    }
    let (header, segment) = (ip.as_mut_ptr().cast::<iphdr>(), tcp.as_mut_ptr().cast::<tcphdr>());
    let (kind, length) = proxy::segment(tcp[3]);
    match kind {
        // SAFETY: both headers are whole and on our stack.
        Segment::Ack => checked(unsafe { bpf_tcp_raw_check_syncookie_ipv4(header, segment) } == 0),
        Segment::Syn if proxy::answers(verdict, config) && proxy::unicast4(ip[4]) => {
            if !load(ctx, verdict.transport, &mut tcp, length) {
                return Fate::Drop;
            }
            let (slot, now) = (proxy::primed_slot(ip[4], tcp[0]), Kernel.now_ns());
            let made = if due(slot, now) {
                let made = in_its_name(ctx, &mut [ip[3], ip[4], tcp[0]], &mut ip, &mut tcp, length);
                if made >= 0
                    && let Some(last) = PRIMED.get(slot)
                {
                    last.store(now);
                }
                made
            } else {
                // SAFETY: as above; the helper refuses a length that is not the header's.
                unsafe { bpf_tcp_raw_gen_syncookie_ipv4(ip.as_mut_ptr().cast(), tcp.as_mut_ptr().cast(), length) }
            };
            if made < 0 {
                return Fate::Drop;
            }
            Fate::Answer4(proxy::answer4(&ip, &tcp, made as u32, (made >> 32) as u16))
        }
        _ => Fate::Drop,
    }
}

#[inline(never)]
fn judge6(ctx: &XdpContext, verdict: &Verdict, config: Config) -> Fate {
    let (mut ip, mut tcp) = ([0u32; IP6_WORDS], [0u32; TCP_WORDS_MAX]);
    let plain = verdict.transport.wrapping_sub(verdict.ip) == 40;
    if !plain || !load(ctx, verdict.ip, &mut ip, 40) || !load(ctx, verdict.transport, &mut tcp, 20) {
        return Fate::Drop;
    }
    let (header, segment) = (ip.as_mut_ptr().cast::<ipv6hdr>(), tcp.as_mut_ptr().cast::<tcphdr>());
    let (kind, length) = proxy::segment(tcp[3]);
    match kind {
        // SAFETY: both headers are whole and on our stack.
        Segment::Ack => checked(unsafe { bpf_tcp_raw_check_syncookie_ipv6(header, segment) } == 0),
        Segment::Syn if proxy::answers(verdict, config) && proxy::unicast6(ip[6]) => {
            if !load(ctx, verdict.transport, &mut tcp, length) {
                return Fate::Drop;
            }
            let (slot, now) = (proxy::primed_slot(ip[6].wrapping_add(ip[7]).wrapping_add(ip[8]).wrapping_add(ip[9]), tcp[0]), Kernel.now_ns());
            let made = if due(slot, now) {
                let made = in_its_name(ctx, &mut [ip[2], ip[3], ip[4], ip[5], ip[6], ip[7], ip[8], ip[9], tcp[0]], &mut ip, &mut tcp, length);
                if made >= 0
                    && let Some(last) = PRIMED.get(slot)
                {
                    last.store(now);
                }
                made
            } else {
                // SAFETY: as above; the helper refuses a length that is not the header's.
                unsafe { bpf_tcp_raw_gen_syncookie_ipv6(ip.as_mut_ptr().cast(), tcp.as_mut_ptr().cast(), length) }
            };
            if made < 0 {
                return Fate::Drop;
            }
            Fate::Answer6(proxy::answer6(&ip, &tcp, made as u32, (made >> 32) as u16))
        }
        _ => Fate::Drop,
    }
}

#[inline(always)]
fn checked(valid: bool) -> Fate {
    account::occurred(if valid { SLOT_SYN_COOKIES_VALID } else { SLOT_SYN_COOKIES_INVALID }, &Kernel);
    if valid { Fate::Admit } else { Fate::Drop }
}

/// Writes the answer over the packet, with the hardware addresses exchanged and any VLAN tags left as they are.
#[inline(always)]
fn answer<const N: usize>(ctx: &XdpContext, ip: u32, mut packet: [u32; N]) -> bool {
    let frame = ctx.as_ptr() as *mut xdp_md;
    let mut macs = [0u32; 3];
    if !load(ctx, 0, &mut macs, 12) {
        return false;
    }
    let Some(mut macs) = proxy::turned(macs) else { return false };
    let change = (ip as usize + N * 4) as i32 - Frame::new(ctx).length() as i32;
    // SAFETY: helpers that check the packet's bounds, over words of our stack.
    unsafe {
        bpf_xdp_adjust_tail(frame, change) == 0
            && bpf_xdp_store_bytes(frame, 0, macs.as_mut_ptr().cast(), 12) == 0
            && bpf_xdp_store_bytes(frame, ip, packet.as_mut_ptr().cast(), (N * 4) as u32) == 0
    }
}
