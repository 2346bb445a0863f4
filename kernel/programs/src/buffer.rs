//! The frame of a socket buffer: for the filter where XDP is refused.
//!
//! On its way in a buffer's data begins with the Ethernet header. The kernel has taken the outermost VLAN tag off before, so one tag less is left
//! to walk. Headers may lie in pages that a program does not see: they are pulled into the part that it does see.

use crate::frame::{Bounds, Frame};
use aya_ebpf::{EbpfContext, bindings::__sk_buff, helpers::r#generated::bpf_skb_pull_data, programs::TcContext};
use kernel_shared::{Packet, has_extension_headers};

/// Bytes that the headers of nearly every packet fit into: Ethernet, tags, IP with options, TCP.
const HEADERS: u32 = 256;
/// Bytes that the longest headers fit into that the parser walks: four IPv6 extension headers of 2,048 bytes each.
const HEADERS_MAX: u32 = 8448;

impl Bounds for __sk_buff {
    #[inline(always)]
    fn data(context: *const __sk_buff) -> *const u32 {
        // SAFETY: no more than the field's address is taken; the context is valid while the program runs.
        unsafe { &raw const (*context).data }
    }
    #[inline(always)]
    fn data_end(context: *const __sk_buff) -> *const u32 {
        // SAFETY: as above.
        unsafe { &raw const (*context).data_end }
    }
    #[inline(always)]
    fn length(context: *const __sk_buff) -> Option<usize> {
        // SAFETY: as above.
        Some(unsafe { (&raw const (*context).len).read_volatile() } as usize)
    }
}

impl Frame<__sk_buff> {
    /// The frame of a socket buffer, its headers readable: drivers may leave most of a packet in pages that a program does not see.
    ///
    /// Asked for twice: a length that holds all headers that there can be would have the kernel copy most of every long packet.
    #[inline(always)]
    pub fn pulled(ctx: &TcContext) -> Frame<__sk_buff> {
        let buffer = ctx.as_ptr() as *mut __sk_buff;
        let frame = pull(buffer, HEADERS);
        if has_extension_headers(&frame) { pull(buffer, HEADERS_MAX) } else { frame }
    }
}

/// The frame with its first bytes readable, as far as it has so many. Where the kernel has no memory for that, as it was.
#[inline(always)]
fn pull(buffer: *mut __sk_buff, bytes: u32) -> Frame<__sk_buff> {
    let frame = Frame::of(buffer.cast_const());
    let wanted = if frame.length() < bytes as usize { frame.length() as u32 } else { bytes };
    if frame.readable() >= wanted as usize {
        return frame;
    }
    // SAFETY: the helper checks the length. Pointers into the packet are void afterwards: the frame is made anew.
    unsafe { bpf_skb_pull_data(buffer, wanted) };
    Frame::of(buffer.cast_const())
}

