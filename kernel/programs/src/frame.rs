//! Packet memory, as the verifier wants it read: bound check, then one load of the checked width.

use aya_ebpf::{EbpfContext, bindings::xdp_md, programs::XdpContext};
use kernel_shared::Packet;

/// The frame of an XDP context.
#[derive(Clone, Copy)]
pub struct Frame {
    ctx: *const xdp_md,
}

impl Frame {
    pub fn new(ctx: &XdpContext) -> Frame {
        Frame { ctx: ctx.as_ptr() as *const xdp_md }
    }

    // Volatile: else the compiler promotes the two loads to 32-bit arguments of the halves, and the verifier loses the pointers.
    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the context is valid while the program runs.
        unsafe { (&raw const (*self.ctx).data).read_volatile() as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: as above.
        unsafe { (&raw const (*self.ctx).data_end).read_volatile() as usize }
    }

    #[inline(always)]
    fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        let start = self.data();
        if start + offset + size_of::<T>() > self.data_end() {
            return None;
        }
        // SAFETY: the bound was checked. A plain load, though the address is not aligned: the target has no alignment for packet
        // memory, and `read_unaligned` would become a load per byte.
        Some(unsafe { *((start + offset) as *const T) })
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn length(&self) -> usize {
        self.data_end() - self.data()
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
