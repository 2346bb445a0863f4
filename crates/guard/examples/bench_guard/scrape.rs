//! What it costs an unprivileged reader to read the counters of 10,000 peers.

use anyhow::ensure;
use guard::kernel::{load, tables};
use kernel_shared::abi::{ROWS_MAX, RowCell, columns};
use memmap2::MmapOptions;
use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    path::Path,
};

const RUNS: usize = 11;
const PEERS: u32 = 10_000;

/// An array like the guard's `ROWS`, every word of it a one.
fn rows(columns: u32) -> anyhow::Result<OwnedFd> {
    const MAP_CREATE: libc::c_long = 0;
    const TYPE_ARRAY: u32 = 2;
    const MMAPABLE: u32 = 1 << 10;
    // bpf(2): type, key, value, entries, flags.
    let attribute: [u32; 5] = [TYPE_ARRAY, 4, size_of::<RowCell>() as u32, ROWS_MAX * columns, MMAPABLE];
    // SAFETY: the kernel reads exactly the size it is told, from an array of that size.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, attribute.as_ptr(), size_of_val(&attribute)) };
    ensure!(fd >= 0, "making an array: {}", io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let words = ROWS_MAX as usize * columns as usize * size_of::<RowCell>() / 8;
    // SAFETY: nobody else has this memory.
    let mut memory = unsafe { MmapOptions::new().len(words * 8).map_mut(&fd)? };
    for word in memory.chunks_exact_mut(8) {
        word.copy_from_slice(&1u64.to_ne_bytes());
    }
    Ok(fd)
}

fn thread_ms() -> f64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec() as f64 * 1e3 + time.tv_nsec() as f64 / 1e6
}

/// CPU of one scrape, ms. The guard has fewer rows than that, so there are as many arrays as it takes: each row read is another one,
/// by the guard's own reader.
pub fn runs(pins: &Path) -> anyhow::Result<Vec<f64>> {
    let cpus = load::cpus()?;
    let columns = columns(cpus);
    let open = |name| tables::open_for_others(pins, name);
    let (counters, latency) = (open("COUNTERS")?, open("LATENCY")?);
    let arrays: Vec<OwnedFd> = (0..PEERS.div_ceil(ROWS_MAX)).map(|_| rows(columns)).collect::<anyhow::Result<_>>()?;
    let maps = arrays.iter().map(|array| guard::Maps::from_descriptors(&counters, array, &latency, cpus));
    let maps: Vec<guard::Maps> = maps.collect::<Result<_, _>>()?;
    let once = || {
        let start = thread_ms();
        let mut sum = 0;
        for peer in 0..PEERS {
            let row = maps[(peer / ROWS_MAX) as usize].row(peer % ROWS_MAX, 1);
            sum += row.packets + row.bytes + row.dropped + row.would_drop;
        }
        let spent = thread_ms() - start;
        assert_eq!(std::hint::black_box(sum), u64::from(4 * PEERS * columns));
        spent
    };
    Ok((0..RUNS).map(|_| once()).collect())
}
