//! The kernel's clock: ticks, as the programs read them.

use super::{
    sys,
    tables::{TableError, Tables},
};
use kernel_shared::control::WORD_CLOCK;
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Translates between ticks and time.
pub struct Clock {
    program: OwnedFd,
    /// Ticks a second (the kernel's HZ).
    hz: u64,
}

impl Clock {
    /// A clock that asks the `clock` program. HZ is the resolution of the coarse clock, which advances once a tick.
    pub fn new(program: OwnedFd) -> io::Result<Clock> {
        let resolution = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)?;
        let ns = Duration::from(resolution).as_nanos().max(1) as u64;
        // A kernel without a coarse clock answers with its fine one: then 1000 is the most that HZ can be.
        Ok(Clock { program, hz: (1_000_000_000 / ns).clamp(1, 1000) })
    }

    /// Ticks a second.
    pub fn hz(&self) -> u64 {
        self.hz
    }

    /// The tick now: runs the program once (some microseconds).
    pub fn now(&self, tables: &Tables) -> Result<u64, TableError> {
        let failed = |source| TableError::Kernel { map: "CONTROL", source };
        sys::test_run(self.program.as_fd(), &[0; 64]).map_err(failed)?;
        tables.control(WORD_CLOCK)
    }

    /// Ticks in a time, rounded up: a ban never ends early.
    pub fn ticks(&self, ms: u64) -> u64 {
        ms.saturating_mul(self.hz).div_ceil(1000)
    }

    /// Milliseconds in ticks.
    pub fn ms(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(1000) / self.hz
    }

    /// Packets a second of a rate in budget units a tick, to the nearest.
    pub fn packets_per_second(&self, units: u32) -> u32 {
        let half = kernel_shared::bucket::UNITS / 2;
        ((units as u64 * self.hz + half) / kernel_shared::bucket::UNITS).min(u32::MAX as u64) as u32
    }

    /// Budget units a tick for a rate of packets a second.
    pub fn rate(&self, packets_per_second: u32) -> u32 {
        (packets_per_second as u64 * kernel_shared::bucket::UNITS / self.hz).clamp(1, u32::MAX as u64) as u32
    }
}

/// Unix time, ms.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}
