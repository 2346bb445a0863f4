//! Lists in force: each in a slot of `LISTS`, an array of its own inside, pinned beside the other maps as `LIST<slot>`.
//!
//! A new list is complete in memory before one update of the slot puts it in the place of the old one. The bits in front are a
//! superset of both while that happens; those that nobody wants any more are cleared afterwards. The head of the array names the list, so an
//! adopting guard reads all of it back from the pins.

pub mod compile;

use super::{
    bans::Bans,
    clock::{self, Clock},
    sys,
    tables::{TableError, Tables},
};
use crate::{Prefix, protocol::ListInfo};
use compile::{Bits, Compiled, Head};
use kernel_shared::{
    Word,
    abi::LISTS_MAX,
    list::{
        INTERVALS, LINES_MAX, NAME_WORDS, WORD_COUNT4, WORD_COUNT6, WORD_CUT, WORD_EXPIRY, WORD_HITS, WORD_LINES, WORD_NAME,
        WORD_PREFIXES, WORD_SINCE, WORD_SKIPPED,
    },
};
use memmap2::{MmapOptions, MmapRaw};
use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

/// The outer map.
const LISTS: &str = "LISTS";

/// Whether a text can name a list: letters, digits, `-`, `_`, `.`, at most 32.
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 8 * NAME_WORDS as usize && name.bytes().all(allowed)
}

/// A list's array: the descriptor, and its memory.
struct Array {
    fd: OwnedFd,
    memory: MmapRaw,
    words: u32,
    /// Of everything in it: reckoned once, since a list of millions takes a while, and nobody else waits then.
    bits: Bits,
}

fn failed(source: io::Error) -> TableError {
    TableError::Kernel { map: LISTS, source }
}

impl Array {
    fn new(fd: OwnedFd, words: u32) -> Result<Array, TableError> {
        let memory = MmapOptions::new().len(words as usize * 8).map_raw(&fd).map_err(failed)?;
        Ok(Array { fd, memory, words, bits: Bits::default() })
    }

    fn create(words: &[u64]) -> Result<Array, TableError> {
        let count = words.len() as u32;
        let array = Array::new(sys::list_map(count).map_err(failed)?, count)?;
        for (index, word) in (0..count).zip(words) {
            array.word(index, |to| to.store(*word));
        }
        Ok(array.with_bits())
    }

    fn open(pin: &Path) -> Result<Array, TableError> {
        let fd = sys::open_pin(pin, 0).map_err(failed)?;
        let words = sys::map_entries(fd.as_fd()).map_err(failed)?;
        Ok(Array::new(fd, words)?.with_bits())
    }

    fn word<T: Default>(&self, index: u32, with: impl FnOnce(&Word) -> T) -> T {
        if index >= self.words {
            return T::default();
        }
        // SAFETY: in bounds of the mapping and aligned; all access is through `Word`.
        with(unsafe { &*self.memory.as_ptr().cast::<Word>().add(index as usize) })
    }

    fn get(&self, index: u32) -> u64 {
        self.word(index, Word::load)
    }

    fn name(&self) -> String {
        let bytes = (0..NAME_WORDS).flat_map(|index| self.get(WORD_NAME + index).to_le_bytes());
        bytes.take_while(|byte| *byte != 0).map(char::from).collect()
    }

    /// Packets that met it: as the kernel counts them, and those of its earlier readings.
    fn hits(&self) -> u64 {
        self.get(WORD_HITS).wrapping_add(self.get(self.carried()))
    }

    /// The word of the hits of earlier readings: the last, which no program writes.
    fn carried(&self) -> u32 {
        self.words.saturating_sub(1)
    }

    /// Begins with the hits of the one that it takes the place of.
    fn carry(&self, old: &Array) {
        self.word(self.carried(), |carried| carried.store(old.hits()));
    }

    /// With the bits of everything in it.
    fn with_bits(mut self) -> Array {
        let mut bits = Bits::default();
        let (count4, count6) = (self.get(WORD_COUNT4) as u32, self.get(WORD_COUNT6) as u32);
        let interval4 = |index| {
            let word = self.get(INTERVALS + index);
            ((word >> 32) as u32, word as u32)
        };
        bits.add4((0..count4.min(self.words)).map(interval4));
        let first6 = INTERVALS.saturating_add(count4);
        let interval6 = |index| (self.get(first6 + index), self.get(first6 + count6 + index));
        bits.add6((0..count6.min(self.words)).map(interval6));
        self.bits = bits;
        self
    }
}

/// The lists in force, by slot.
#[derive(Default)]
pub struct Lists(BTreeMap<u32, Array>);

fn pin(directory: &Path, slot: u32) -> PathBuf {
    directory.join(format!("LIST{slot}"))
}

/// A list made and not yet in force: made without the guard's lock.
pub struct Ready {
    array: Array,
    name: String,
}

impl Ready {
    /// Writes a list into an array of its own.
    pub fn new(compiled: &Compiled, name: &str, since_ms: u64) -> Result<Ready, TableError> {
        // The expiry is written when it comes into force: until then it holds for nobody.
        let array = Array::create(&compiled.words(&Head { name, expiry: 0, since_ms }))?;
        Ok(Ready { array, name: name.to_string() })
    }

    /// A list from words that were saved.
    pub fn restored(words: &[u64]) -> Result<Ready, TableError> {
        let array = Array::create(words)?;
        array.word(WORD_EXPIRY, |word| word.store(0));
        let name = array.name();
        Ok(Ready { array, name })
    }
}

impl Lists {
    /// Takes over what an earlier guard left.
    pub fn adopt(tables: &Tables, directory: &Path) -> Result<Lists, TableError> {
        let mut lists = Lists::default();
        for slot in 0..LISTS_MAX {
            let pin = pin(directory, slot);
            if !pin.exists() {
                // Put in force, and killed before the pin stood: nobody was told that it holds.
                tables.lists.delete(&slot)?;
                continue;
            }
            let array = Array::open(&pin)?;
            // The pin says what holds, should the two differ.
            sys::update(tables.lists.fd(), &slot, &array_fd(&array)).map_err(failed)?;
            lists.0.insert(slot, array);
        }
        Ok(lists)
    }

    /// The bits of all of them.
    pub fn bits(&self) -> Bits {
        let mut bits = Bits::default();
        self.0.values().for_each(|array| bits.join(&array.bits));
        bits
    }

    fn slot(&self, name: &str) -> Option<u32> {
        self.0.iter().find(|(_, array)| array.name() == name).map(|(slot, _)| *slot)
    }

    /// Puts a list in force until `expiry`, in the place of the one with its name if there is one, whose hits it goes on counting.
    pub fn install(
        &mut self,
        tables: &Tables,
        bans: &mut Bans,
        directory: &Path,
        ready: Ready,
        expiry: u64,
    ) -> Result<(), TableError> {
        let free = || (0..LISTS_MAX).find(|slot| !self.0.contains_key(slot));
        let full = TableError::Full { map: LISTS, max: LISTS_MAX as usize };
        let slot = self.slot(&ready.name).or_else(free).ok_or(full)?;
        let mut bits = self.bits();
        bits.join(&ready.array.bits);
        bans.set_listed(tables, bits);
        ready.array.word(WORD_EXPIRY, |word| word.store(expiry));
        if let Some(old) = self.0.get(&slot) {
            // Its own count begins at nothing, also where its words are a copy of the old one's.
            ready.array.word(WORD_HITS, |hits| hits.store(0));
            ready.array.carry(old);
        }
        let (fresh, pin) = (directory.join(format!("LIST{slot}-new")), pin(directory, slot));
        let _ = fs::remove_file(&fresh);
        sys::pin(ready.array.fd.as_fd(), &fresh).map_err(failed)?;
        sys::update(tables.lists.fd(), &slot, &array_fd(&ready.array)).map_err(failed)?;
        fs::rename(&fresh, &pin).map_err(failed)?;
        let Some(old) = self.0.insert(slot, ready.array) else { return Ok(()) };
        bans.set_listed(tables, self.bits());
        // The update of an array of maps returns when no program reads the old list any more: its hits are all there.
        if let Some(new) = self.0.get(&slot) {
            new.carry(&old);
        }
        Ok(())
    }

    /// Takes a list away; false if there is none of this name.
    pub fn remove(&mut self, tables: &Tables, bans: &mut Bans, directory: &Path, name: &str) -> Result<bool, TableError> {
        let Some(slot) = self.slot(name) else { return Ok(false) };
        tables.lists.delete(&slot)?;
        fs::remove_file(pin(directory, slot)).map_err(failed)?;
        self.0.remove(&slot);
        bans.set_listed(tables, self.bits());
        Ok(true)
    }

    /// Lets a list hold until `expiry`; false if there is none of this name.
    pub fn prolong(&self, name: &str, expiry: u64) -> bool {
        let array = self.0.values().find(|array| array.name() == name);
        array.map(|array| array.word(WORD_EXPIRY, |word| word.store(expiry))).is_some()
    }

    /// Takes away what has expired: the kernel ignores it already. Their names.
    pub fn expire(&mut self, tables: &Tables, bans: &mut Bans, directory: &Path, now: u64) -> Result<Vec<String>, TableError> {
        let expired: Vec<String> = self.0.values().filter(|array| array.get(WORD_EXPIRY) < now).map(Array::name).collect();
        for name in &expired {
            self.remove(tables, bans, directory, name)?;
        }
        Ok(expired)
    }

    /// What is in force.
    pub fn list(&self, clock: &Clock, now: u64) -> Vec<ListInfo> {
        self.0.values().map(|array| info(array, clock, now)).collect()
    }

    /// One of them.
    pub fn find(&self, name: &str, clock: &Clock, now: u64) -> Option<ListInfo> {
        self.0.values().find(|array| array.name() == name).map(|array| info(array, clock, now))
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.0.values().map(Array::name)
    }

    /// Cuts the floor out of lists that hold some of it: it may have grown since they were loaded. How many they were.
    pub fn cut_floor(&mut self, tables: &Tables, bans: &mut Bans, directory: &Path, floor: &[Prefix]) -> Result<usize, TableError> {
        let mut cut = 0;
        for slot in 0..LISTS_MAX {
            let Some(array) = self.0.get(&slot) else { continue };
            let words: Vec<u64> = (0..array.words).map(|index| array.get(index)).collect();
            let Some(words) = compile::without(&words, floor) else { continue };
            let expiry = array.get(WORD_EXPIRY);
            self.install(tables, bans, directory, Ready::restored(&words)?, expiry)?;
            cut += 1;
        }
        Ok(cut)
    }

    /// The words of one, for keeping.
    pub fn words(&self, name: &str) -> Option<Vec<u64>> {
        let array = self.0.values().find(|array| array.name() == name)?;
        Some((0..array.words).map(|index| array.get(index)).collect())
    }
}

fn array_fd(array: &Array) -> u32 {
    use std::os::fd::AsRawFd;
    array.fd.as_raw_fd() as u32
}

fn info(array: &Array, clock: &Clock, now: u64) -> ListInfo {
    let lines = (0..LINES_MAX).map(|index| array.get(WORD_LINES + index)).take_while(|line| *line != 0);
    ListInfo {
        name: array.name(),
        prefixes: array.get(WORD_PREFIXES),
        since_unix_ms: array.get(WORD_SINCE),
        until_unix_ms: clock::unix_ms().saturating_add(clock.ms(array.get(WORD_EXPIRY).saturating_sub(now))),
        hits: array.hits(),
        skipped: array.get(WORD_SKIPPED),
        skipped_lines: lines.collect(),
        floor_cut: array.get(WORD_CUT),
        bytes: array.words as u64 * 8,
    }
}
