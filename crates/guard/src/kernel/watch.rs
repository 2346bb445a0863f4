//! Watched ban files: what their lines say is banned, what a line said that is gone is lifted. A file may instead be a *list* as a whole:
//! then each reading takes the place of the last one in one step, however long it is.
//!
//! The *folder* of a file is watched (inotify), so a file that is renamed over, written in place, or made later is noticed. Beside it every
//! [`Watcher::tick`] compares a fingerprint: for file systems without inotify, for links whose target changes, for a lost event.
//! A file that is missing or can't be read changes nothing: an editor that removes and writes again must not lift a thousand bans.

use super::ban_file::{self, Entry};
use crate::{
    Prefix,
    protocol::{ListInfo, TEXT_BYTES_MAX},
};
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Ban files that one guard watches.
pub const FILES_MAX: usize = 16;
/// Bytes of events read at once.
const EVENTS_BYTES: usize = 4096;
/// Bad lines of one reading that are logged one by one.
const TOLD_MAX: usize = 20;

/// A file to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanFile {
    /// Where.
    pub path: PathBuf,
    /// How long a ban of a line without a TTL, or a list, outlives the guard.
    pub ttl: Duration,
    /// Name of the list that the file is put in force as; `None`: each line is a ban of its own.
    pub list: Option<String>,
}

/// What came of a file that is a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It is in force.
    List(ListInfo),
    /// It names nothing, and not for mistakes: its list was taken away.
    Nothing,
}

/// Why a file's list is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotLoaded {
    /// Another list is being read: to be tried again.
    Busy,
    /// In words.
    Refused(String),
}

/// What a watcher does to the guard. A refusal is told in words.
pub trait Sink {
    /// Bans a prefix, or changes its ban.
    fn ban(&mut self, prefix: Prefix, ttl_ms: u64, note: &str) -> Result<(), String>;
    /// Lifts a ban; none to lift is no error.
    fn lift(&mut self, prefix: Prefix) -> Result<(), String>;
    /// Puts a text in force as the list of this name, in the place of what has the name. Lines that are no prefix are left out and counted;
    /// a text of nothing else changes nothing.
    fn load(&mut self, list: &str, ttl_ms: u64, text: File) -> Result<Loaded, NotLoaded>;
    /// Lets a list last so long from now on; false if there is none of this name.
    fn prolong(&mut self, list: &str, ttl_ms: u64) -> Result<bool, String>;
    /// Takes a list away; none to take is no error.
    fn unload(&mut self, list: &str) -> Result<(), String>;
}

/// What tells one content of a path from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

struct Watched {
    file: BanFile,
    name: OsString,
    folder: Option<WatchDescriptor>,
    entries: BTreeMap<Prefix, Entry>,
    /// Of what was read last.
    loaded: Option<Fingerprint>,
    /// At the last tick.
    seen: Option<Fingerprint>,
    /// A reading failed, and that was said.
    told: bool,
    renewed: Instant,
}

/// All watched files.
pub struct Watcher {
    files: Vec<Watched>,
    inotify: Option<Inotify>,
}

impl Watcher {
    /// Watches these files and reads each for the first time.
    pub fn start(files: &[BanFile], sink: &mut dyn Sink) -> Watcher {
        let mut watcher = Watcher { files: Vec::new(), inotify: None };
        watcher.replace(files, sink);
        watcher
    }

    /// Watches these files instead. Those that stay keep what they have said; bans of one that is not named any more are lifted.
    pub fn replace(&mut self, files: &[BanFile], sink: &mut dyn Sink) {
        let mut old = std::mem::take(&mut self.files);
        let inotify = if files.is_empty() {
            None
        } else {
            Inotify::init().map_err(|error| tracing::warn!(%error, "no inotify: ban files are looked at once a second")).ok()
        };
        for file in files.iter().take(FILES_MAX) {
            let kept = old.iter().position(|watched| watched.file == *file).map(|index| old.swap_remove(index));
            let mut watched = kept.unwrap_or_else(|| Watched::new(file.clone()));
            watched.folder = inotify.as_ref().and_then(|inotify| watch_folder(inotify, &watched.file.path));
            self.files.push(watched);
        }
        self.inotify = inotify;
        for index in 0..self.files.len() {
            self.load(index, sink);
        }
        for prefix in old.iter().flat_map(|watched| watched.entries.keys()) {
            self.lift(*prefix, sink);
        }
        for list in old.iter().filter_map(|watched| watched.file.list.as_deref()) {
            let stays = self.files.iter().any(|watched| watched.file.list.as_deref() == Some(list));
            if let Some(Err(message)) = (!stays).then(|| sink.unload(list)) {
                tracing::warn!(list, message, "a list can't be taken away");
            }
        }
    }

    /// Says everything again, changed or not: what was refused may be taken now.
    pub fn repeat(&mut self, sink: &mut dyn Sink) {
        for index in 0..self.files.len() {
            let watched = &mut self.files[index];
            if watched.file.list.is_some() {
                watched.loaded = None;
                self.load(index, sink);
            } else {
                let standing: Vec<Prefix> = watched.entries.keys().copied().collect();
                self.ban(index, &standing, sink);
            }
        }
    }

    /// Reads the files that have changed since the last call. Does not wait.
    pub fn poll(&mut self, sink: &mut dyn Sink) {
        let Some(inotify) = &mut self.inotify else { return };
        let mut changed = vec![false; self.files.len()];
        let mut buffer = [0; EVENTS_BYTES];
        while let Ok(events) = inotify.read_events(&mut buffer) {
            for event in events {
                let lost = event.mask.contains(EventMask::Q_OVERFLOW);
                for (changed, watched) in changed.iter_mut().zip(&self.files) {
                    *changed |= lost || (watched.folder.as_ref() == Some(&event.wd) && event.name == Some(&watched.name));
                }
            }
        }
        for index in (0..changed.len()).filter(|index| changed[*index]) {
            self.load(index, sink);
        }
    }

    /// Once a second: looks for changes that nobody told of, and renews the bans of lines that stand.
    pub fn tick(&mut self, sink: &mut dyn Sink) {
        for index in 0..self.files.len() {
            let watched = &mut self.files[index];
            let now = fingerprint(&watched.file.path);
            // Twice the same: nobody is in the middle of writing.
            let settled = now == watched.seen && now != watched.loaded && now.is_some();
            watched.seen = now;
            if settled {
                self.load(index, sink);
            }
            self.renew(index, sink);
        }
    }

    /// Bans named by all files together, lists aside.
    pub fn len(&self) -> usize {
        self.files.iter().map(|watched| watched.entries.len()).sum()
    }

    /// Whether no file names a ban.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn load(&mut self, index: usize, sink: &mut dyn Sink) {
        let watched = &mut self.files[index];
        let before = fingerprint(&watched.file.path);
        if before.is_some() && before == watched.loaded {
            return;
        }
        let opened = open(&watched.file.path);
        let text = match watched.file.list.clone() {
            Some(list) => opened.map(|file| {
                let loaded = sink.load(&list, watched.ttl_ms(None), file);
                if loaded != Err(NotLoaded::Busy) {
                    watched.loaded = before;
                    watched.renewed = Instant::now();
                }
                told(&watched.file.path, &list, loaded);
                None
            }),
            None => opened.and_then(read).map(Some),
        };
        match text {
            Err(error) if !watched.told => {
                watched.told = true;
                tracing::warn!(file = %watched.file.path.display(), %error, "a ban file can't be read; what it said last holds");
            }
            Err(_) => {}
            Ok(text) => {
                watched.told = false;
                if let Some(text) = text {
                    // A file that changes while it is read is read again at the next tick.
                    watched.loaded = before;
                    self.take(index, &text, sink);
                }
            }
        }
    }

    /// Takes the text of a file whose lines are bans.
    fn take(&mut self, index: usize, text: &str, sink: &mut dyn Sink) {
        let watched = &mut self.files[index];
        let path = watched.file.path.clone();
        let (entries, bad) = ban_file::parse(text);
        for bad in bad.iter().take(TOLD_MAX) {
            tracing::warn!("{}:{}: {}", path.display(), bad.line, bad.message);
        }
        if bad.len() > TOLD_MAX {
            tracing::warn!(file = %path.display(), more = bad.len() - TOLD_MAX, "further bad lines");
        }
        let difference = ban_file::difference(&watched.entries, &entries);
        watched.entries = entries;
        let (new, gone) = (difference.ban.len(), difference.lift.len());
        let refused = self.ban(index, &difference.ban, sink);
        for prefix in difference.lift {
            self.lift(prefix, sink);
        }
        tracing::info!(file = %path.display(), new, gone, refused, bad = bad.len(), "ban file read");
    }

    /// Bans some of a file's prefixes; how many were refused.
    fn ban(&self, index: usize, prefixes: &[Prefix], sink: &mut dyn Sink) -> usize {
        let watched = &self.files[index];
        let mut refused = 0;
        for (prefix, entry) in prefixes.iter().filter_map(|prefix| Some((prefix, watched.entries.get(prefix)?))) {
            if let Err(message) = sink.ban(*prefix, watched.ttl_ms(entry.ttl_ms), &watched.note(entry)) {
                refused += 1;
                if refused <= TOLD_MAX {
                    tracing::warn!("{}:{}: {message}", watched.file.path.display(), entry.line);
                }
            }
        }
        refused
    }

    /// A line is gone: the ban is lifted, or becomes that of another file that names it too.
    fn lift(&self, prefix: Prefix, sink: &mut dyn Sink) {
        if let Some(index) = self.files.iter().position(|watched| watched.entries.contains_key(&prefix)) {
            self.ban(index, &[prefix], sink);
        } else if let Err(message) = sink.lift(prefix) {
            tracing::warn!(%prefix, message, "a ban can't be lifted");
        }
    }

    /// Bans without a TTL of their own hold as long as their line stands, and a list as long as its file is named: they are renewed at half
    /// of the file's TTL.
    fn renew(&mut self, index: usize, sink: &mut dyn Sink) {
        let watched = &mut self.files[index];
        if watched.renewed.elapsed() < watched.file.ttl / 2 {
            return;
        }
        watched.renewed = Instant::now();
        if let Some(list) = &watched.file.list {
            match sink.prolong(list, watched.ttl_ms(None)) {
                Ok(true) => {}
                // Somebody took it away: like a ban that was lifted by hand, it comes back while the file stands.
                Ok(false) => watched.loaded = None,
                Err(message) => tracing::warn!(list, message, "a list can't be prolonged"),
            }
            return;
        }
        let standing: Vec<Prefix> =
            watched.entries.iter().filter(|(_, entry)| entry.ttl_ms.is_none()).map(|(prefix, _)| *prefix).collect();
        self.ban(index, &standing, sink);
    }
}

impl Watched {
    fn new(file: BanFile) -> Watched {
        let name = file.path.file_name().unwrap_or_default().to_os_string();
        let (entries, renewed) = (BTreeMap::new(), Instant::now());
        Watched { file, name, folder: None, entries, loaded: None, seen: None, told: false, renewed }
    }

    fn ttl_ms(&self, of_line: Option<u64>) -> u64 {
        of_line.unwrap_or(self.file.ttl.as_millis().min(u64::MAX as u128) as u64)
    }

    fn note(&self, entry: &Entry) -> String {
        let name = self.name.to_string_lossy();
        let note = if entry.note.is_empty() { name.into_owned() } else { format!("{name}: {}", entry.note) };
        ban_file::cut(&note, TEXT_BYTES_MAX).to_string()
    }
}

fn watch_folder(inotify: &Inotify, path: &Path) -> Option<WatchDescriptor> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::ONLYDIR;
    let told = |error| tracing::warn!(folder = %folder.display(), %error, "a ban file's folder can't be watched: it is looked at once a second");
    inotify.watches().add(folder, mask).map_err(told).ok()
}

fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let data = std::fs::metadata(path).ok()?;
    Some(Fingerprint {
        device: data.dev(),
        inode: data.ino(),
        size: data.size(),
        modified: (data.mtime(), data.mtime_nsec()),
        changed: (data.ctime(), data.ctime_nsec()),
    })
}

fn open(path: &Path) -> io::Result<File> {
    // A pipe would hold up the guard until somebody writes to it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("this is no regular file"));
    }
    File::open(path)
}

fn read(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    if file.take(ban_file::BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > ban_file::BYTES_MAX {
        return Err(io::Error::other(format!("longer than {} bytes", ban_file::BYTES_MAX)));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Says what came of a file that is a list.
fn told(path: &Path, list: &str, loaded: Result<Loaded, NotLoaded>) {
    let file = path.display();
    match loaded {
        Ok(Loaded::List(info)) => {
            for line in &info.skipped_lines {
                tracing::warn!("{file}:{line}: no prefix: left out");
            }
            let (prefixes, skipped, floor_cut) = (info.prefixes, info.skipped, info.floor_cut);
            tracing::info!(%file, list, prefixes, skipped, floor_cut, "ban file read as a list");
        }
        Ok(Loaded::Nothing) => tracing::info!(%file, list, "this file names nothing: its list is no more"),
        Err(NotLoaded::Busy) => {}
        Err(NotLoaded::Refused(message)) => tracing::warn!(%file, list, message, "a list can't be taken; what it said last holds"),
    }
}

#[cfg(test)]
mod tests;
