//! Packet memory, as the verifier wants it read: bound check, then one load of the checked width.

use aya_ebpf::programs::XdpContext;
use kernel_shared::Packet;

/// The frame of an XDP context.
pub struct Frame<'a> {
    ctx: &'a XdpContext,
}

impl<'a> Frame<'a> {
    pub fn new(ctx: &'a XdpContext) -> Frame<'a> {
        Frame { ctx }
    }

    #[inline(always)]
    fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        let start = self.ctx.data();
        if start + offset + size_of::<T>() > self.ctx.data_end() {
            return None;
        }
        // SAFETY: the bound was checked. A plain load, though the address is not aligned: the target has no alignment for packet
        // memory, and `read_unaligned` would become a load per byte.
        Some(unsafe { *((start + offset) as *const T) })
    }
}

impl Packet for Frame<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
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
