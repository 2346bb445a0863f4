//! Packet memory, as the verifier wants it read: bound check, then one load of the checked width.

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_md,
    helpers::bpf_get_prandom_u32,
    programs::XdpContext,
};
use kernel_shared::Packet;

/// Where a program's context says that its frame lies.
pub trait Bounds {
    /// First byte.
    fn data(context: *const Self) -> *const u32;
    /// First byte behind the last.
    fn data_end(context: *const Self) -> *const u32;
    /// Bytes of the frame, if there are more than lie in between.
    fn length(_context: *const Self) -> Option<usize> {
        None
    }
}

impl Bounds for xdp_md {
    #[inline(always)]
    fn data(context: *const xdp_md) -> *const u32 {
        // SAFETY: no more than the field's address is taken; the context is valid while the program runs.
        unsafe { &raw const (*context).data }
    }
    #[inline(always)]
    fn data_end(context: *const xdp_md) -> *const u32 {
        // SAFETY: as above.
        unsafe { &raw const (*context).data_end }
    }
}

/// The frame of a context: of XDP, or of a socket buffer on its way in.
///
/// The loads from the context are volatile. The first: else the compiler moves it around as the 32-bit value that it is in C, and
/// the verifier loses the pointer that it becomes. The end: else the compiler leaves out checks that earlier ones imply, which the verifier
/// can't follow when the address was computed anew.
pub struct Frame<C> {
    start: usize,
    ctx: *const C,
}

impl Frame<xdp_md> {
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Frame<xdp_md> {
        Frame::of(ctx.as_ptr() as *const xdp_md)
    }
}

impl<C: Bounds> Frame<C> {
    #[inline(always)]
    pub fn of(ctx: *const C) -> Frame<C> {
        // SAFETY: the context is valid while the program runs.
        Frame { start: unsafe { C::data(ctx).read_volatile() as usize }, ctx }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as above.
        unsafe { C::data_end(self.ctx).read_volatile() as usize }
    }

    /// Bytes that can be read.
    #[inline(always)]
    pub fn readable(&self) -> usize {
        self.end() - self.start
    }

    #[inline(always)]
    fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        if self.start + offset + size_of::<T>() > self.end() {
            return None;
        }
        // SAFETY: the bound was checked. A plain load, though the address is not aligned: the target has no alignment for packet
        // memory, and `read_unaligned` would become a load per byte.
        Some(unsafe { *((self.start + offset) as *const T) })
    }
}

impl<C: Bounds> Packet for Frame<C> {
    #[inline(always)]
    fn length(&self) -> usize {
        C::length(self.ctx).unwrap_or(self.readable())
    }
    #[inline(always)]
    fn be16(&self, offset: usize) -> Option<u16> {
        self.read::<u16>(offset).map(u16::from_be)
    }
    #[inline(always)]
    fn raw32(&self, offset: usize) -> Option<u32> {
        self.read(offset)
    }
    #[inline(always)]
    fn raw64(&self, offset: usize) -> Option<u64> {
        self.read(offset)
    }
}

/// Gives an untagged IPv4 frame one of 2²⁰ sources, at random: 16.0.0.0 to 79.255.255.255, spread over the whole of it.
#[inline(always)]
pub fn spoof(ctx: &XdpContext) {
    let source = ctx.data() + 26;
    if source + 4 > ctx.data_end() {
        return;
    }
    // SAFETY: a helper without arguments.
    let number = unsafe { bpf_get_prandom_u32() } & 0xf_ffff;
    let spread = number.wrapping_mul(0x9E37_79B1);
    let address = spread >> 8 | (16 + (spread & 63)) << 24;
    // SAFETY: the bound was checked.
    unsafe { *(source as *mut u32) = address.to_be() };
}
