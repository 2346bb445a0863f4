//! A word that the kernel program, all CPUs and user space share.

use core::cell::UnsafeCell;

/// 64 bits that others read and write at the same time: each access is one whole load or store, and nothing more is promised.
///
/// Natively a relaxed atomic. LLVM's BPF backend can't select atomic stores, so in the kernel it is a volatile access, which is
/// what the kernel itself uses for this (`READ_ONCE`, `WRITE_ONCE`).
#[repr(transparent)]
#[derive(Default)]
pub struct Word(UnsafeCell<u64>);

// SAFETY: every access is a single aligned 64-bit load or store.
unsafe impl Sync for Word {}

impl Word {
    /// A word with this value.
    pub const fn new(value: u64) -> Word {
        Word(UnsafeCell::new(value))
    }

    /// Reads it.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        #[cfg(target_arch = "bpf")]
        // SAFETY: the pointer is valid and aligned; the load is one instruction.
        return unsafe { self.0.get().read_volatile() };
        #[cfg(not(target_arch = "bpf"))]
        // SAFETY: the pointer is valid and aligned, and all accesses of this process are atomic.
        return unsafe { core::sync::atomic::AtomicU64::from_ptr(self.0.get()) }.load(core::sync::atomic::Ordering::Relaxed);
    }

    /// Writes it.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        #[cfg(target_arch = "bpf")]
        // SAFETY: as in `load`.
        unsafe {
            self.0.get().write_volatile(value)
        }
        #[cfg(not(target_arch = "bpf"))]
        // SAFETY: as in `load`.
        unsafe { core::sync::atomic::AtomicU64::from_ptr(self.0.get()) }.store(value, core::sync::atomic::Ordering::Relaxed);
    }

    /// Adds by a load and a store; the sum. Exact while one CPU writes the word; of several that race, one addition may be lost.
    #[inline(always)]
    pub fn add(&self, amount: u64) -> u64 {
        let sum = self.load().wrapping_add(amount);
        self.store(sum);
        sum
    }
}

impl core::fmt::Debug for Word {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.load().fmt(f)
    }
}
