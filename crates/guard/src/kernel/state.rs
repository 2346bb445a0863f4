//! What outlives a reboot: bans with their notes, how often a prefix was banned, lists.
//!
//! One file of JSON for the bans, one file a list, each written whole: to a temporary name, synced, renamed, the directory synced. A file that
//! can't be read is moved aside, named in the log, and the guard starts without it.

use super::lists;
use crate::{Prefix, protocol::BanInfo};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Where states lie unless told otherwise; the instance's name is added.
pub const DEFAULT: &str = "/var/lib/ebpf-guard";
/// Version of the formats.
const VERSION: u32 = 1;
/// File of the bans.
const BANS: &str = "bans.json";
/// First bytes of a list's file.
const MAGIC: [u8; 8] = *b"EBGLIST1";
/// Most words of a list's file: two million prefixes in IPv6, and the head.
const WORDS_MAX: u64 = 6 << 20;
/// Most bytes of the bans' file.
const BANS_BYTES_MAX: u64 = 64 << 20;
/// Broken files kept.
const CORRUPT_MAX: u32 = 16;

/// How often a prefix was banned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedStrike {
    /// Whose.
    pub address: Prefix,
    /// Bans in a row.
    pub strikes: u32,
    /// When the last one ends, Unix ms.
    pub until_unix_ms: u64,
}

/// The bans' file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    /// Bans in force.
    pub bans: Vec<BanInfo>,
    /// Repeat offenders.
    pub strikes: Vec<SavedStrike>,
}

impl Saved {
    /// Of bans and strikes.
    pub fn new(bans: Vec<BanInfo>, strikes: Vec<SavedStrike>) -> Saved {
        Saved { version: VERSION, bans, strikes }
    }
}

/// A list's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedList {
    /// Until when, Unix ms.
    pub until_unix_ms: u64,
    /// Its array.
    pub words: Vec<u64>,
}

/// Why a state can't be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path} failed")]
pub struct StateError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A directory of state.
#[derive(Clone, Debug)]
pub struct State(PathBuf);

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_path_buf();
    move |source| StateError { operation, path, source }
}

impl State {
    /// Makes the directory if it is missing; only its owner may look into it.
    pub fn open(directory: &Path) -> Result<State, StateError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(failed("making", directory))?;
        Ok(State(directory.to_path_buf()))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let (target, fresh) = (self.0.join(name), self.0.join(format!("{name}.new")));
        let mut file = File::create(&fresh).map_err(failed("making", &fresh))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("writing", &fresh))?;
        fs::rename(&fresh, &target).map_err(failed("renaming", &fresh))?;
        File::open(&self.0).and_then(|directory| directory.sync_all()).map_err(failed("syncing", &self.0))
    }

    /// Writes the bans.
    pub fn write_bans(&self, saved: &Saved) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(saved).map_err(io::Error::other).map_err(failed("writing", &self.0.join(BANS)))?;
        self.write(BANS, &bytes)
    }

    /// Writes a list.
    pub fn write_list(&self, name: &str, list: &SavedList) -> Result<(), StateError> {
        let mut bytes = Vec::with_capacity(32 + list.words.len() * 8);
        bytes.extend(MAGIC);
        bytes.extend(list.until_unix_ms.to_le_bytes());
        bytes.extend((list.words.len() as u64).to_le_bytes());
        list.words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        let sum = checksum(&bytes);
        bytes.extend(sum.to_le_bytes());
        self.write(&format!("{name}.list"), &bytes)
    }

    /// Removes a list.
    pub fn remove_list(&self, name: &str) -> Result<(), StateError> {
        let path = self.0.join(format!("{name}.list"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing", &path)(error)),
            _ => File::open(&self.0).and_then(|directory| directory.sync_all()).map_err(failed("syncing", &self.0)),
        }
    }

    /// The bans; none if there is no file, or one that can't be read: it is then moved aside.
    pub fn read_bans(&self) -> Saved {
        let path = self.0.join(BANS);
        let parse = |bytes: Vec<u8>| {
            let saved: Saved = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
            if saved.version == VERSION { Ok(saved) } else { Err(format!("version {} is not {VERSION}", saved.version)) }
        };
        self.read(&path, BANS_BYTES_MAX, parse).unwrap_or_default()
    }

    /// The lists.
    pub fn read_lists(&self) -> Vec<SavedList> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().filter_map(Result::ok);
        let lists = entries.filter(|entry| {
            let name = entry.file_name();
            name.to_str().and_then(|name| name.strip_suffix(".list")).is_some_and(lists::is_name)
        });
        lists.filter_map(|entry| self.read(&entry.path(), WORDS_MAX * 8, |bytes| parse_list(&bytes))).collect()
    }

    fn read<T>(&self, path: &Path, max: u64, parse: impl FnOnce(Vec<u8>) -> Result<T, String>) -> Option<T> {
        let read = || {
            if fs::metadata(path)?.len() > max {
                return Err(io::Error::other(format!("longer than {max} bytes")));
            }
            fs::read(path)
        };
        let parsed = match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error.to_string()),
            Ok(bytes) => parse(bytes),
        };
        match parsed {
            Ok(value) => Some(value),
            Err(message) => {
                let aside = set_aside(path);
                tracing::error!(path = %path.display(), message, aside, "state can't be read: going on without it");
                None
            }
        }
    }
}

/// Moves a broken file to the first free `.corrupt-N`; where there is none, it is left. Where it went.
fn set_aside(path: &Path) -> String {
    let aside = |number: u32| {
        let mut name = path.as_os_str().to_os_string();
        name.push(format!(".corrupt-{number}"));
        PathBuf::from(name)
    };
    let free = (1..=CORRUPT_MAX).map(aside).find(|path| !path.exists());
    match free.map(|aside| fs::rename(path, &aside).map(|()| aside)) {
        Some(Ok(aside)) => aside.display().to_string(),
        Some(Err(error)) => format!("left in place: {error}"),
        None => format!("left in place: there are {CORRUPT_MAX} broken ones already"),
    }
}

/// FNV-1a over the bytes: tells a torn file, not a forged one.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01b3))
}

fn parse_list(bytes: &[u8]) -> Result<SavedList, String> {
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or("too short")?;
    let (magic, rest) = body.split_first_chunk::<8>().ok_or("too short")?;
    let (until, rest) = rest.split_first_chunk::<8>().ok_or("too short")?;
    let (count, rest) = rest.split_first_chunk::<8>().ok_or("too short")?;
    let (words, odd) = rest.as_chunks::<8>();
    if *magic != MAGIC || u64::from_le_bytes(*sum) != checksum(body) {
        return Err("no list, or a torn one".to_string());
    }
    if !odd.is_empty() || u64::from_le_bytes(*count) != words.len() as u64 {
        return Err("of another length than it says".to_string());
    }
    let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    lists::compile::check(&words)?;
    Ok(SavedList { until_unix_ms: u64::from_le_bytes(*until), words })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::lists::compile::{self, Head};
    use types::Offence;

    fn list() -> SavedList {
        let compiled = compile::read("10.0.0.0/8\n2001:db8::/32\n".as_bytes(), false, &[]).unwrap();
        SavedList { until_unix_ms: 7, words: compiled.words(&Head { name: "a", expiry: 3, since_ms: 5 }) }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("deep/er")).unwrap();
        assert_eq!((state.read_bans(), state.read_lists()), (Saved::default(), vec![]));
        let ban = BanInfo {
            address: "10.0.0.1".parse().unwrap(),
            offence: Offence::Replay,
            since_unix_ms: 1,
            until_unix_ms: 2,
            hits: 3,
            note: "it said so".into(),
        };
        let saved = Saved::new(vec![ban], vec![SavedStrike { address: "10.0.0.1".parse().unwrap(), strikes: 2, until_unix_ms: 2 }]);
        state.write_bans(&saved).unwrap();
        state.write_list("a", &list()).unwrap();
        assert_eq!((state.read_bans(), state.read_lists()), (saved, vec![list()]));
        state.remove_list("a").unwrap();
        state.remove_list("a").unwrap();
        assert_eq!(state.read_lists(), []);
    }

    #[test]
    fn a_broken_file_is_moved_aside_at_every_length() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        state.write_list("a", &list()).unwrap();
        let path = folder.path().join("a.list");
        let whole = fs::read(&path).unwrap();
        for length in [0, 7, 24, 32, whole.len() / 2, whole.len() - 1] {
            assert!(parse_list(whole.get(..length).unwrap()).is_err(), "{length}");
        }
        fs::write(&path, whole.get(..100).unwrap()).unwrap();
        fs::write(folder.path().join(BANS), b"{\"version\":1,\"bans\":[{\"addr").unwrap();
        assert_eq!((state.read_bans(), state.read_lists()), (Saved::default(), vec![]));
        assert!(folder.path().join("a.list.corrupt-1").exists() && folder.path().join("bans.json.corrupt-1").exists());
        assert!(!path.exists());
    }

    #[test]
    fn a_list_whose_counts_lie_is_refused() {
        let good = list();
        for (index, value) in [(2, u64::MAX), (3, 1 << 21), (2, 0), (40, 9)] {
            let mut words = good.words.clone();
            words[index] = value;
            assert!(compile::check(&words).is_err(), "{index}");
        }
        assert!(compile::check(&good.words).is_ok());
    }
}
