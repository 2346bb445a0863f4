//! Counters read from the kernel's memory: plain loads from mapped, frozen arrays.
//!
//! The guard hands the descriptors over (SCM_RIGHTS). The arrays are frozen: user space can map them for reading only,
//! the kernel programs go on writing. Nobody can zero a counter, so a row that gets a new owner is told apart by its generation.

use crate::{
    protocol::{LatencyInfo, MapInfo},
    truth::{self, TcpTruth},
};
use kernel_shared::{
    REASON_SLOTS, Reason, Word,
    abi::{
        COUNTER_SLOTS, CounterCell, LATENCY_BUCKETS, LatencyCell, Plain, ROW_LATENCY_LOG2_MIN, ROWS_MAX, RowCell, RowLatency,
        SLOT_WOULD_DROP, abi_hash, columns,
    },
    drops,
    truth::TruthCell,
};
use memmap2::{MmapOptions, MmapRaw};
use std::{collections::BTreeMap, io, os::fd::OwnedFd};

/// Why the maps can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// The guard speaks another layout than this reader.
    #[error("the guard's map layout is {theirs}, this reader knows {ours}")]
    Abi {
        /// The guard's.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// A map is missing or too small.
    #[error("map {0} is missing or too small")]
    Missing(&'static str),
    /// A map can't be mapped.
    #[error("map {name} can't be mapped")]
    Map {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A mapped array of cells.
struct Cells<T> {
    memory: MmapRaw,
    count: usize,
    cell: std::marker::PhantomData<T>,
}

impl<T: Plain> Cells<T> {
    fn new(name: &'static str, fd: &OwnedFd, count: usize) -> Result<Cells<T>, ReaderError> {
        let memory = MmapOptions::new()
            .len(count * size_of::<T>())
            .map_raw_read_only(fd)
            .map_err(|source| ReaderError::Map { name, source })?;
        Ok(Cells { memory, count, cell: std::marker::PhantomData })
    }

    fn get(&self, index: usize) -> Option<&T> {
        if index >= self.count {
            return None;
        }
        // SAFETY: in bounds of the mapping, aligned (the mapping is page-aligned and cells are arrays of u64), any bytes are valid,
        // and cells are read through `Word` only.
        Some(unsafe { &*self.memory.as_ptr().cast::<T>().add(index) })
    }
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One row's counters, summed over its columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCount {
    /// Packets passed.
    pub packets: u64,
    /// Bytes passed.
    pub bytes: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets that `enforce` would have dropped.
    pub would_drop: u64,
}

/// Arrays of the probes: each is there unless the kernel refused it.
pub const PROBES: [&str; 2] = ["TRUTH", "KERNEL_DROPS"];

/// The counters of one guard, mapped.
pub struct Maps {
    /// One a CPU, and one of what older layouts had counted.
    columns: usize,
    counters: Cells<CounterCell>,
    rows: Cells<RowCell>,
    latency: Cells<LatencyCell>,
    row_latency: Option<Cells<RowLatency>>,
    truth: Option<Cells<TruthCell>>,
    kernel_drops: Option<Cells<Word>>,
}

/// Bytes to map for each array, given the number of CPUs. The probes' arrays are not per CPU.
pub const fn mapped_bytes(cpus: u32) -> [(&'static str, usize); 6] {
    let columns = columns(cpus) as usize;
    [
        ("COUNTERS", COUNTER_SLOTS as usize * columns * size_of::<CounterCell>()),
        ("ROWS", ROWS_MAX as usize * columns * size_of::<RowCell>()),
        ("LATENCY", 2 * LATENCY_BUCKETS as usize * columns * size_of::<LatencyCell>()),
        ("LATENCY_ROWS", ROWS_MAX as usize * size_of::<RowLatency>()),
        ("TRUTH", ROWS_MAX as usize * size_of::<TruthCell>()),
        ("KERNEL_DROPS", drops::SLOTS as usize * size_of::<Word>()),
    ]
}

impl Maps {
    /// Maps the arrays. `infos` and `descriptors` in the same order, as `maps` answers.
    pub fn new(infos: Vec<MapInfo>, descriptors: Vec<OwnedFd>, cpus: u32, hash: &str) -> Result<Maps, ReaderError> {
        let ours = format!("{:016x}", abi_hash(cpus));
        if hash != ours {
            return Err(ReaderError::Abi { theirs: hash.chars().take(32).collect(), ours });
        }
        let find = |name: &'static str| {
            let position = infos.iter().position(|info| info.name == name && info.mappable);
            position.and_then(|position| descriptors.get(position)).ok_or(ReaderError::Missing(name))
        };
        let mut maps = Maps::from_descriptors(find("COUNTERS")?, find("ROWS")?, find("LATENCY")?, cpus)?;
        for name in PROBES.into_iter().chain(["LATENCY_ROWS"]) {
            if let Ok(fd) = find(name) {
                maps.add(name, fd)?;
            }
        }
        Ok(maps)
    }

    /// Maps `LATENCY_ROWS`, or one of the probes' arrays ([`PROBES`]; a guard whose kernel refused the probes has none).
    pub fn add(&mut self, name: &'static str, fd: &OwnedFd) -> Result<(), ReaderError> {
        match name {
            "LATENCY_ROWS" => self.row_latency = Some(Cells::new(name, fd, ROWS_MAX as usize)?),
            "TRUTH" => self.truth = Some(Cells::new(name, fd, ROWS_MAX as usize)?),
            "KERNEL_DROPS" => self.kernel_drops = Some(Cells::new(name, fd, drops::SLOTS as usize)?),
            _ => return Err(ReaderError::Missing(name)),
        }
        Ok(())
    }

    /// Maps three known descriptors.
    pub fn from_descriptors(counters: &OwnedFd, rows: &OwnedFd, latency: &OwnedFd, cpus: u32) -> Result<Maps, ReaderError> {
        let columns = columns(cpus) as usize;
        Ok(Maps {
            columns,
            counters: Cells::new("COUNTERS", counters, COUNTER_SLOTS as usize * columns)?,
            rows: Cells::new("ROWS", rows, ROWS_MAX as usize * columns)?,
            latency: Cells::new("LATENCY", latency, 2 * LATENCY_BUCKETS as usize * columns)?,
            row_latency: None,
            truth: None,
            kernel_drops: None,
        })
    }

    /// A counter slot, summed over its columns.
    pub fn slot(&self, slot: u32) -> Count {
        let first = slot as usize * self.columns;
        let cells = (first..first + self.columns).filter_map(|index| self.counters.get(index));
        cells.fold(Count::default(), |sum, cell| Count {
            packets: sum.packets.wrapping_add(cell.packets.load()),
            bytes: sum.bytes.wrapping_add(cell.bytes.load()),
        })
    }

    /// What ended with this reason.
    pub fn reason(&self, reason: Reason) -> Count {
        self.slot(reason as u32)
    }

    /// What `enforce` would have dropped for this reason.
    pub fn would_drop(&self, reason: Reason) -> Count {
        debug_assert!((reason as u32) < REASON_SLOTS);
        self.slot(SLOT_WOULD_DROP + reason as u32)
    }

    /// Packets dropped, by label of the reason, zeros included: a series that appears only with its first drop can't be rated.
    pub fn dropped(&self) -> BTreeMap<&'static str, Count> {
        Reason::ALL.into_iter().filter(|reason| reason.is_drop()).map(|reason| (reason.as_str(), self.reason(reason))).collect()
    }

    /// Packets passed on protected ports, by class.
    pub fn passed(&self) -> BTreeMap<&'static str, Count> {
        let classes = [Reason::Floor, Reason::Known, Reason::Dialing, Reason::Stranger];
        classes.into_iter().map(|class| (class.as_str(), self.reason(class))).collect()
    }

    /// A row's counters under this generation; cells of an older owner are left out.
    pub fn row(&self, row: u32, generation: u32) -> RowCount {
        let mut sum = RowCount::default();
        for cell in self.row_cells(row).filter(|cell| cell.generation.load() == generation as u64) {
            let add = |total: &mut u64, word: &Word| *total = total.wrapping_add(word.load());
            add(&mut sum.packets, &cell.packets);
            add(&mut sum.bytes, &cell.bytes);
            add(&mut sum.dropped, &cell.dropped);
            add(&mut sum.would_drop, &cell.would_drop);
        }
        sum
    }

    /// What the kernel's TCP knows about the connection of a row under this generation. `None`: nothing is visible. The guard was given no
    /// cgroup, or the peer speaks QUIC, or its connection has not been heard of since its flow was announced. Plain loads, no system call.
    pub fn truth(&self, row: u32, generation: u32) -> Option<TcpTruth> {
        truth::read(self.truth.as_ref()?.get(row as usize)?, generation)
    }

    /// Latencies of a row's packets under this generation: bucket n counts [2^n, 2^(n+1)) ns, trailing zeros are left out. The histogram begins
    /// at 2^10 ns, with all below, and ends at 2^40 ns, with all above.
    pub fn row_latency(&self, row: u32, generation: u32) -> Vec<u64> {
        let cell = self.row_latency.as_ref().and_then(|cells| cells.get(row as usize));
        let Some(cell) = cell.filter(|cell| cell.generation.load() == generation as u64) else { return Vec::new() };
        let below = (0..ROW_LATENCY_LOG2_MIN).map(|_| 0);
        let mut buckets: Vec<u64> = below.chain(cell.buckets.iter().map(Word::load)).collect();
        buckets.truncate(buckets.iter().rposition(|count| *count != 0).map_or(0, |last| last + 1));
        buckets
    }

    /// Packets on protected ports that the kernel's stack dropped, by number of the reason (`enum skb_drop_reason`; the last slot is all
    /// that have none), zeros left out.
    pub fn kernel_drops(&self) -> Vec<(u32, u64)> {
        let of = |reason| (0..=drops::PORT_OTHER).map(|port| self.kernel_drop(port, reason)).fold(0, u64::wrapping_add);
        (0..drops::REASONS).map(|reason| (reason, of(reason))).filter(|(_, count)| *count > 0).collect()
    }

    /// The same by slot of the port (the guard knows its names), then by reason.
    pub fn kernel_drops_by_port(&self) -> Vec<(u32, u32, u64)> {
        let all = (0..=drops::PORT_OTHER).flat_map(|port| (0..drops::REASONS).map(move |reason| (port, reason)));
        let counts = all.map(|(port, reason)| (port, reason, self.kernel_drop(port, reason)));
        counts.filter(|(_, _, count)| *count > 0).collect()
    }

    fn kernel_drop(&self, port: u32, reason: u32) -> u64 {
        let cell = self.kernel_drops.as_ref().and_then(|cells| cells.get(drops::cell(port, reason) as usize));
        cell.map_or(0, Word::load)
    }

    /// The highest generation that any cell of any row has seen.
    pub fn generation_max(&self) -> u32 {
        let generations = (0..ROWS_MAX).flat_map(|row| self.row_cells(row)).map(|cell| cell.generation.load());
        generations.max().unwrap_or(0).min(u32::MAX as u64) as u32
    }

    fn row_cells(&self, row: u32) -> impl Iterator<Item = &RowCell> {
        let first = row as usize * self.columns;
        (first..first + self.columns).filter_map(|index| self.rows.get(index))
    }

    /// A latency histogram: 0 TCP, 1 UDP.
    pub fn latency(&self, histogram: u32, source: &str) -> LatencyInfo {
        let bucket = |bucket: u32| {
            let first = (histogram * LATENCY_BUCKETS + bucket) as usize * self.columns;
            (first..first + self.columns).filter_map(|index| self.latency.get(index)).map(|cell| cell.count.load()).sum()
        };
        let mut buckets: Vec<u64> = (0..LATENCY_BUCKETS).map(bucket).collect();
        let used = buckets.iter().rposition(|count| *count != 0).map_or(0, |last| last + 1);
        buckets.truncate(used);
        LatencyInfo { source: source.to_string(), count: buckets.iter().sum(), buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Offence;

    #[test]
    fn every_offence_has_its_drop_reason() {
        for offence in Offence::ALL {
            assert_eq!(Reason::banned(offence as u32).as_str(), format!("banned_{}", offence.as_str()));
        }
    }

    #[test]
    fn a_foreign_layout_is_refused() {
        assert!(matches!(Maps::new(vec![], vec![], 2, "0123"), Err(ReaderError::Abi { .. })));
        let hash = format!("{:016x}", abi_hash(2));
        assert!(matches!(Maps::new(vec![], vec![], 2, &hash), Err(ReaderError::Missing("COUNTERS"))));
    }
}
