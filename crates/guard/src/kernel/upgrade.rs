//! Taking over from a guard of another layout: its rows are copied into new maps while its program still judges, then one update of the
//! link puts the new program over the new maps in its place, and what was counted in between is added.
//!
//! In this order, so that a crash at any point loses nothing: new maps are filled; the link is pinned beside them; its program is swapped; no
//! old program runs any more; the old counters' last state is written into the new ones' last column, which no program writes; the new
//! counters are frozen; the old pins go. A link that is pinned beside maps says that they are complete, frozen counters say that they are final.

use super::{
    bpffs, syn_proxy,
    sys::{self, Bytes},
    tables,
};
use kernel_shared::{
    abi::{CounterCell, LISTS_MAX, LatencyCell, RowCell},
    control::WORDS,
    layout::{self, Kind, PIN, ROWS, Rows},
};
use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

/// Maps of today's layout that fill themselves again: from the options, from what is copied, or with the next packets.
const TRANSIENT: [&str; 12] =
    ["PORTS", "HOSTS", "BITS4", "BITS6", "STAMPS", "EVENTS", "PROGRAMS", "DIVERTED", "PRIMED", "DROP_PORTS", "EGRESS4", "EGRESS6"];

/// Which tables of a guard that starts hold what an earlier one knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The first so many words of the control array: mode, budgets, the salt of strangers' rows. 0 = it is new.
    pub words: u32,
    /// All bans.
    pub bans: bool,
    /// Lists.
    pub lists: bool,
}

impl Kept {
    /// All of them: adopted maps; or none: new ones.
    pub const fn all(kept: bool) -> Kept {
        Kept { words: if kept { WORDS } else { 0 }, bans: kept, lists: kept }
    }
}

/// Why a map is not taken over; words for the log.
type Reason = String;

/// A directory of another layout to take over from.
pub struct Upgrade {
    from: PathBuf,
    /// Versions of its rows, by map.
    versions: BTreeMap<&'static str, u32>,
}

impl Upgrade {
    /// What there is to take over: the one among `older` that filters, else the last. `None` if there is none.
    pub fn find(older: &[PathBuf]) -> Option<Upgrade> {
        let linked = |directory: &PathBuf| directory.join("link").exists();
        let from = older.iter().find(|older| linked(older)).or(older.last())?.clone();
        let versions = versions(&from);
        Some(Upgrade { from, versions })
    }

    /// The start has failed: links, and what a switch of the system's was, lie where they lay before.
    pub fn give_back(&self, directory: &Path) {
        let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        for entry in entries.filter(|entry| bpffs::outlives_maps(&entry.file_name())) {
            if let Err(error) = fs::rename(entry.path(), self.from.join(entry.file_name())) {
                tracing::warn!(pin = %entry.path().display(), %error, "not given back to the other layout");
            }
        }
    }

    /// Copies what is understood into the new maps of `directory`, counters as they are by now, and says what was not.
    pub fn fill(&self, directory: &Path) -> Kept {
        let (mut copied, mut left) = (Vec::new(), Vec::new());
        for rows in &ROWS {
            match self.copy(rows, directory) {
                Ok(count) => copied.push((rows.map, count)),
                Err(reason) => left.push((rows.map.to_string(), reason)),
            }
        }
        left.extend(self.unknown().into_iter().map(|name| (name, "it begins anew".to_string())));
        let names: Vec<String> = copied.iter().map(|(map, count)| format!("{map} {count}")).collect();
        tracing::info!(from = %self.from.display(), copied = names.join(", "), "another layout's rows taken over");
        for (map, reason) in &left {
            tracing::warn!(map, reason, "not taken over from the other layout");
        }
        let kept = |wanted: &[&str]| wanted.iter().all(|map| copied.iter().any(|(name, _)| name == map));
        let words = copied.iter().find(|(name, _)| *name == "CONTROL").map_or(0, |(_, words)| *words);
        let words = u32::try_from(words).unwrap_or(WORDS);
        Kept { words, bans: kept(&["BANS4", "BANS6", "RANGES4", "RANGES6"]), lists: kept(&["LISTS"]) }
    }

    /// Once the new program judges: adds what the old one has counted since, unless that is done already.
    pub fn finish(&self, directory: &Path) -> io::Result<()> {
        let counters = sys::open_pin(&directory.join("COUNTERS"), 0)?;
        if sys::is_frozen(counters.as_fd())? {
            return Ok(());
        }
        if let Err(error) = sys::wait_for_programs() {
            tracing::warn!(%error, "the old program may still run: the counts of its last packets may be missing");
        }
        for rows in &ROWS {
            // What does not fit was said when the tables were filled.
            if let (Kind::Columns(count), Ok(pair)) = (rows.kind, self.pair(rows, directory)) {
                pair.columns(rows, count).map_err(|reason| io::Error::other(format!("{}: {reason}", rows.map)))?;
            }
        }
        Ok(())
    }

    /// Takes over one map. How many rows there were.
    fn copy(&self, rows: &Rows, directory: &Path) -> Result<u64, Reason> {
        if rows.kind == Kind::Lists {
            self.known(rows)?;
            return self.lists(directory);
        }
        let pair = self.pair(rows, directory)?;
        match rows.kind {
            Kind::Entries => pair.entries(usize::MAX),
            Kind::Words => pair.entries(bytes(&pair.new)?.shape().entries as usize),
            Kind::Array(count) => pair.entries(count as usize),
            Kind::Columns(count) => pair.columns(rows, count),
            Kind::Lists => Ok(0),
        }
    }

    /// Whether rows of their version are known.
    fn known(&self, rows: &Rows) -> Result<(), Reason> {
        match self.versions.get(rows.map) {
            Some(version) if *version != rows.version => {
                Err(format!("its rows are of version {version}, known is {}", rows.version))
            }
            _ => Ok(()),
        }
    }

    /// An old map and ours, if rows of the one fit into the other.
    fn pair(&self, rows: &Rows, directory: &Path) -> Result<Pair, Reason> {
        self.known(rows)?;
        let (old, new) = (open(&self.from, rows.map)?, open(directory, rows.map)?);
        let (was, is) = (bytes(&old)?.shape(), bytes(&new)?.shape());
        if (was.kind, was.key, was.value) != (is.kind, rows.key, rows.value) {
            let shape = |kind, key, value| format!("kind {kind}, keys of {key} bytes, values of {value}");
            let (was, wanted) = (shape(was.kind, was.key, was.value), shape(is.kind, rows.key, rows.value));
            return Err(format!("it is of {was}; known is {wanted}"));
        }
        match rows.kind {
            Kind::Array(count) if was.entries != count => Err(format!("it has {} rows, known are {count}", was.entries)),
            // Ours has a column more than there are CPUs. So may the old one, or it has none of what was carried over.
            Kind::Columns(count) if ![is.entries, is.entries - count].contains(&was.entries) => {
                Err(format!("it has {} cells; known are {}, or {count} less", was.entries, is.entries))
            }
            _ => Ok(Pair { old, new }),
        }
    }

    /// Takes over the arrays of lists as they are: both programs read the same memory until the old one is gone.
    fn lists(&self, directory: &Path) -> Result<u64, Reason> {
        let outer = open(directory, "LISTS")?;
        let mut taken = 0;
        for slot in 0..LISTS_MAX {
            let name = format!("LIST{slot}");
            if !self.from.join(&name).exists() {
                continue;
            }
            let array = open(&self.from, &name)?;
            // The kernel refuses an array that is laid out otherwise.
            let put = sys::update(outer.as_fd(), &slot, &(array.as_raw_fd() as u32));
            put.and_then(|()| sys::pin(array.as_fd(), &directory.join(&name))).map_err(told)?;
            taken += 1;
        }
        Ok(taken)
    }

    /// Maps of the old directory that we know nothing about, or that keep counts of their own which nobody carries over.
    fn unknown(&self) -> Vec<String> {
        let names = fs::read_dir(&self.from).into_iter().flatten().filter_map(Result::ok);
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let known = |name: &str| {
            let of_rows =
                ROWS.iter().any(|rows| rows.map == name) || TRANSIENT.contains(&name) || [PIN, syn_proxy::PIN].contains(&name);
            of_rows || name.starts_with("link") || (name.starts_with("LIST") && name != "LISTS")
        };
        names.filter(|name| !known(name)).collect()
    }
}

/// Writes the versions of our rows beside our maps.
pub fn describe(directory: &Path) -> io::Result<()> {
    if directory.join(PIN).exists() {
        return Ok(());
    }
    let map = sys::list_map(ROWS.len() as u32)?;
    for (index, rows) in (0u32..).zip(&ROWS) {
        sys::update(map.as_fd(), &index, &u64::from(rows.version))?;
    }
    sys::pin(map.as_fd(), &directory.join(PIN))
}

/// The versions of a directory's rows. Rows that it does not name are of the first.
fn versions(directory: &Path) -> BTreeMap<&'static str, u32> {
    let map = sys::open_pin(&directory.join(PIN), sys::READ_ONLY);
    let version = |index: u32| match &map {
        Ok(map) => sys::lookup::<u32, u64>(map.as_fd(), &index).ok().flatten().and_then(|version| u32::try_from(version).ok()),
        Err(_) => None,
    };
    (0u32..)
        .zip(&layout::ROWS)
        .map(|(index, rows)| (rows.map, version(index).filter(|version| *version != 0).unwrap_or(1)))
        .collect()
}

fn told(error: io::Error) -> Reason {
    error.to_string()
}

fn open(directory: &Path, name: &str) -> Result<OwnedFd, Reason> {
    sys::open_pin(&directory.join(name), 0).map_err(|error| format!("{name} can't be opened: {error}"))
}

fn bytes(map: &OwnedFd) -> Result<Bytes<'_>, Reason> {
    Bytes::new(map.as_fd()).map_err(told)
}

/// An old map and ours; rows of the one fit into the other.
struct Pair {
    old: OwnedFd,
    new: OwnedFd,
}

impl Pair {
    /// Copies entries, at most so many.
    fn entries(&self, max: usize) -> Result<u64, Reason> {
        let (old, new) = (bytes(&self.old)?, bytes(&self.new)?);
        let mut key = old.next(None).map_err(told)?;
        let mut copied = 0;
        while let Some(present) = key.filter(|_| copied < max) {
            if let Some(value) = old.get(&present).map_err(told)? {
                new.set(&present, &value).map_err(|error| format!("{copied} rows, then: {error}"))?;
                copied += 1;
            }
            key = old.next(Some(&present)).map_err(told)?;
        }
        Ok(copied as u64)
    }

    /// Sums the columns of each row into the new map's last one.
    fn columns(&self, rows: &Rows, count: u32) -> Result<u64, Reason> {
        let (old, new) = (bytes(&self.old)?, bytes(&self.new)?);
        let (had, has) = (old.shape().entries / count, new.shape().entries / count);
        let mut summed = 0;
        for row in 0..count {
            let cell = |column: u32| old.get(&(row * had + column).to_ne_bytes()).map_err(told);
            let cells: Vec<Vec<u8>> = (0..had).filter_map(|column| cell(column).transpose()).collect::<Result<_, Reason>>()?;
            let sum = sum(rows, &cells);
            if sum.iter().any(|word| *word != 0) {
                let value: Vec<u8> = sum.into_iter().flat_map(u64::to_ne_bytes).collect();
                new.set(&(row * has + has - 1).to_ne_bytes(), &value).map_err(told)?;
                summed += 1;
            }
        }
        Ok(summed)
    }
}

/// The sum of cells, in words. Cells of a peer's row count if they are of its newest owner, as for every reader.
fn sum(rows: &Rows, cells: &[Vec<u8>]) -> Vec<u64> {
    let words = |cell: &Vec<u8>| cell.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect::<Vec<u64>>();
    let cells: Vec<Vec<u64>> = cells.iter().map(words).collect();
    let owned = rows.value as usize == size_of::<RowCell>();
    let generation = cells.iter().filter_map(|cell| cell.first()).max().copied().unwrap_or(0);
    let counts = cells.iter().filter(|cell| !owned || cell.first() == Some(&generation));
    let mut sum = vec![0u64; rows.value as usize / 8];
    for cell in counts {
        for (index, (total, word)) in sum.iter_mut().zip(cell).enumerate() {
            *total = match (owned, index) {
                (true, 0) => generation,
                (true, LAST) => (*total).max(*word),
                _ => total.wrapping_add(*word),
            };
        }
    }
    sum
}

/// Word of a row's cell that is the tick of its last packet, and no count.
const LAST: usize = std::mem::offset_of!(RowCell, last) / 8;
const _: () = assert!(std::mem::offset_of!(RowCell, generation) == 0 && size_of::<RowCell>() != size_of::<CounterCell>());
const _: () = assert!(size_of::<RowCell>() != size_of::<LatencyCell>() && tables::FROZEN.len() == 4);

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(words: [u64; 8]) -> Vec<u8> {
        words.into_iter().flat_map(u64::to_ne_bytes).collect()
    }

    fn rows(map: &str) -> &'static Rows {
        ROWS.iter().find(|rows| rows.map == map).unwrap()
    }

    #[test]
    fn a_row_s_cells_count_for_its_newest_owner_only() {
        let cells = [cell([7, 10, 100, 1, 2, 50, 0, 0]), cell([6, 99, 99, 99, 99, 99, 0, 0]), cell([7, 5, 50, 0, 1, 40, 0, 0])];
        assert_eq!(sum(rows("ROWS"), &cells), [7, 15, 150, 1, 3, 50, 0, 0]);
        assert_eq!(sum(rows("ROWS"), &[]), [0; 8]);
    }

    #[test]
    fn counters_are_summed() {
        let cells = [[3u64.to_ne_bytes(), 180u64.to_ne_bytes()].concat(), [4u64.to_ne_bytes(), 240u64.to_ne_bytes()].concat()];
        assert_eq!(sum(rows("COUNTERS"), &cells), [7, 420]);
    }

    #[test]
    fn rows_of_versions_stay_where_they_are() {
        let names: Vec<&str> = ROWS.iter().map(|rows| rows.map).collect();
        assert_eq!(names[..3], ["CONTROL", "FLOWS4", "FLOWS6"]);
        assert!(names.iter().all(|name| tables::MAPS.contains(name)));
        let transient = TRANSIENT[..9].iter().all(|name| tables::MAPS.contains(name) && !names.contains(name));
        assert!(transient && names.len() + 9 == tables::MAPS.len(), "a map that is neither copied nor transient");
    }
}
