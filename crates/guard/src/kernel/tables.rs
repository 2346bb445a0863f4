//! The maps, opened from their pins.

use super::sys;
use kernel_shared::{
    Word,
    abi::{BITS4_WORDS, BITS6_WORDS, HOST_WORDS, PORT_WORDS, PORTS_QUIC, PORTS_UDP, Plain, TCP},
    control,
};
use memmap2::{MmapOptions, MmapRaw};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// All maps, by the names of their pins.
pub const MAPS: [&str; 24] = [
    "CONTROL",
    "PORTS",
    "HOSTS",
    "FLOWS4",
    "FLOWS6",
    "VALIDATORS4",
    "VALIDATORS6",
    "STRANGERS",
    "BANS4",
    "BANS6",
    "RANGES4",
    "RANGES6",
    "LISTS",
    "BITS4",
    "BITS6",
    "COUNTERS",
    "ROWS",
    "LATENCY",
    "LATENCY_ROWS",
    "STAMPS",
    "EVENTS",
    "PROGRAMS",
    "DIVERTED",
    "PRIMED",
];
/// Those that are frozen and handed out for mapping.
pub const FROZEN: [&str; 4] = ["COUNTERS", "ROWS", "LATENCY", "LATENCY_ROWS"];
/// Those that are handed out for read-only look-ups.
pub const READABLE: [&str; 7] = ["CONTROL", "FLOWS4", "FLOWS6", "BANS4", "BANS6", "RANGES4", "RANGES6"];

/// What can go wrong with a map.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The map is full; nothing was changed.
    #[error("{map} is full ({max} entries)")]
    Full {
        /// Which.
        map: &'static str,
        /// How many it holds.
        max: usize,
    },
    /// The kernel refused.
    #[error("the kernel refused an operation on {map}")]
    Kernel {
        /// Which.
        map: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// An open map.
pub struct Table {
    name: &'static str,
    fd: OwnedFd,
}

impl Table {
    /// Opens a pin.
    pub fn open(directory: &Path, name: &'static str) -> Result<Table, TableError> {
        let fd = sys::open_pin(&directory.join(name), 0).map_err(|source| TableError::Kernel { map: name, source })?;
        Ok(Table { name, fd })
    }

    fn failed(&self, source: io::Error) -> TableError {
        TableError::Kernel { map: self.name, source }
    }

    /// Looks a key up.
    pub fn get<K: Plain, V: Plain>(&self, key: &K) -> Result<Option<V>, TableError> {
        sys::lookup(self.fd.as_fd(), key).map_err(|source| self.failed(source))
    }

    /// Inserts or replaces; `max` names the limit if the map is full.
    pub fn set<K: Plain, V: Plain>(&self, key: &K, value: &V, max: usize) -> Result<(), TableError> {
        sys::update(self.fd.as_fd(), key, value).map_err(|source| match source.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => TableError::Full { map: self.name, max },
            _ => self.failed(source),
        })
    }

    /// Deletes; false if there was nothing.
    pub fn delete<K: Plain>(&self, key: &K) -> Result<bool, TableError> {
        sys::delete(self.fd.as_fd(), key).map_err(|source| self.failed(source))
    }

    /// All keys, at most `max`.
    pub fn keys<K: Plain>(&self, max: usize) -> Result<Vec<K>, TableError> {
        sys::keys(self.fd.as_fd(), max).map_err(|source| self.failed(source))
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A bitmap, mapped for writing: setting a bit is a store, not a system call.
pub struct Bitmap {
    memory: MmapRaw,
    words: u32,
}

impl Bitmap {
    fn new(table: &Table, words: u32) -> Result<Bitmap, TableError> {
        let memory = MmapOptions::new().len(words as usize * 8).map_raw(&table.fd).map_err(|source| table.failed(source))?;
        Ok(Bitmap { memory, words })
    }

    fn word(&self, index: u32) -> Option<&Word> {
        if index >= self.words {
            return None;
        }
        // SAFETY: in bounds of the mapping and aligned; all access is through `Word`.
        Some(unsafe { &*self.memory.as_ptr().cast::<Word>().add(index as usize) })
    }

    /// Sets or clears a bit. This process is the only writer.
    pub fn write(&self, word: u32, mask: u64, on: bool) {
        if let Some(word) = self.word(word) {
            let old = word.load();
            word.store(if on { old | mask } else { old & !mask });
        }
    }

    /// Sets the bits of `wanted`, then clears all others: no moment lacks one that was and stays wanted.
    pub fn replace(&self, wanted: impl Fn(u32) -> u64) {
        for index in 0..self.words {
            if let Some(word) = self.word(index) {
                let wanted = wanted(index);
                if word.load() != wanted {
                    word.store(wanted);
                }
            }
        }
    }

    /// Clears every word that `keep` doesn't want.
    pub fn retain(&self, keep: impl Fn(u32) -> u64) {
        for index in 0..self.words {
            if let Some(word) = self.word(index) {
                let wanted = keep(index);
                if word.load() & !wanted != 0 {
                    word.store(wanted);
                }
            }
        }
    }
}

/// The maps that user space writes.
pub struct Tables {
    control: Table,
    ports: Table,
    /// Flows, v4.
    pub flows4: Table,
    /// Flows, v6.
    pub flows6: Table,
    /// Validators' addresses, v4.
    pub validators4: Table,
    /// Validators' addresses, v6.
    pub validators6: Table,
    /// Exact bans, v4.
    pub bans4: Table,
    /// Bans of /64s, v6.
    pub bans6: Table,
    /// Banned ranges, v4.
    pub ranges4: Table,
    /// Banned ranges, v6.
    pub ranges6: Table,
    /// Lists: an array for each slot.
    pub lists: Table,
    /// Bits of hosts with flows or validators' budgets.
    pub hosts: Bitmap,
    /// Bits of banned /24s.
    pub bits4: Bitmap,
    /// Bits of banned /48s.
    pub bits6: Bitmap,
}

impl Tables {
    /// Opens the pins of a directory.
    pub fn open(directory: &Path) -> Result<Tables, TableError> {
        let open = |name| Table::open(directory, name);
        Ok(Tables {
            control: open("CONTROL")?,
            ports: open("PORTS")?,
            flows4: open("FLOWS4")?,
            flows6: open("FLOWS6")?,
            validators4: open("VALIDATORS4")?,
            validators6: open("VALIDATORS6")?,
            bans4: open("BANS4")?,
            bans6: open("BANS6")?,
            ranges4: open("RANGES4")?,
            ranges6: open("RANGES6")?,
            lists: open("LISTS")?,
            hosts: Bitmap::new(&open("HOSTS")?, HOST_WORDS)?,
            bits4: Bitmap::new(&open("BITS4")?, BITS4_WORDS)?,
            bits6: Bitmap::new(&open("BITS6")?, BITS6_WORDS)?,
        })
    }

    /// A word of the control array.
    pub fn control(&self, word: u32) -> Result<u64, TableError> {
        Ok(self.control.get(&word)?.unwrap_or(0))
    }

    /// Writes a word of the control array.
    pub fn set_control(&self, word: u32, value: u64) -> Result<(), TableError> {
        self.control.set(&word, &value, control::WORDS as usize)
    }

    /// Writes the protected ports (protocol number, port) and those of UDP that speak QUIC. Every word is written, so an older list is
    /// gone afterwards.
    pub fn set_ports(&self, ports: &[(u8, u16)], quic: &[u16]) -> Result<(), TableError> {
        let mut words = vec![0u64; PORT_WORDS as usize];
        let of = |protocol: u8| if protocol == TCP { 0 } else { PORTS_UDP };
        let protected = ports.iter().map(|(protocol, port)| (of(*protocol), *port));
        for (first, port) in protected.chain(quic.iter().map(|port| (PORTS_QUIC, *port))) {
            words[first as usize + (port >> 6) as usize] |= 1 << (port & 63);
        }
        words.iter().enumerate().try_for_each(|(index, word)| self.ports.set(&(index as u32), word, PORT_WORDS as usize))
    }
}

/// Opens a map's pin for handing out.
pub fn open_for_others(directory: &Path, name: &str) -> io::Result<OwnedFd> {
    let frozen = FROZEN.contains(&name) || super::probes::FROZEN.contains(&name);
    let flags = if frozen { 0 } else { sys::READ_ONLY };
    sys::open_pin(&directory.join(name), flags)
}
