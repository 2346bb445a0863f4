//! What is kept on disk: restored when a guard starts, written when it has changed.

use super::{Guard, TableError};
use crate::kernel::{
    bans::Bans,
    clock::{Clock, unix_ms},
    lists::{Lists, Ready},
    state::{Saved, SavedList, State, StateError},
    strikes::Strikes,
    tables::Tables,
    upgrade::Kept,
};
use std::{collections::BTreeSet, path::Path, time::Instant};

/// What changed since it was written last.
#[derive(Default)]
pub(super) struct Changed {
    pub(super) bans: bool,
    pub(super) lists: BTreeSet<String>,
}

/// What the state says about hits of bans.
pub(super) struct Hits {
    written: Instant,
    sum: u64,
}

impl Default for Hits {
    fn default() -> Hits {
        Hits { written: Instant::now(), sum: 0 }
    }
}

/// What has to be written; taken under the guard's lock, written without it.
pub struct Snapshot {
    bans: Option<Saved>,
    /// `None` removes the list's file.
    lists: Vec<(String, Option<SavedList>)>,
}

/// What could not be written: it has changed still.
#[derive(Default)]
pub struct Unwritten {
    changed: Changed,
    /// Why, one error a file; empty: all is written.
    pub errors: Vec<StateError>,
}

impl Snapshot {
    /// Writes each of its files, whatever comes of the others.
    pub fn write(&self, state: &State) -> Unwritten {
        let mut unwritten = Unwritten::default();
        if let Some(Err(error)) = self.bans.as_ref().map(|bans| state.write_bans(bans)) {
            unwritten.changed.bans = true;
            unwritten.errors.push(error);
        }
        for (name, list) in &self.lists {
            let written = match list {
                Some(list) => state.write_list(name, list),
                None => state.remove_list(name),
            };
            if let Err(error) = written {
                unwritten.changed.lists.insert(name.clone());
                unwritten.errors.push(error);
            }
        }
        unwritten
    }
}

/// The tick on which something ends, or `None` if it is over.
fn expiry(until_unix_ms: u64, clock: &Clock, now: u64) -> Option<u64> {
    let left = until_unix_ms.checked_sub(unix_ms()).filter(|left| *left > 0)?;
    Some(now.saturating_add(clock.ticks(left)))
}

/// Brings back what was saved. Of adopted maps the kernel's own bans are the truth, and only their notes come from the file; into new maps all
/// comes that has not ended yet.
pub(super) fn restore(
    state: &State,
    kept: Kept,
    tables: &Tables,
    clock: &Clock,
    (bans, lists): (&mut Bans, &mut Lists),
    directory: &Path,
) -> Result<Strikes, TableError> {
    let saved = state.read_bans();
    let now = clock.now(tables)?;
    let mut restored = 0u32;
    for ban in &saved.bans {
        if kept.bans {
            bans.set_note(&ban.address, &ban.note);
        } else if let Some(expiry) = expiry(ban.until_unix_ms, clock, now) {
            match bans.restore(tables, ban, expiry) {
                Ok(()) => restored += 1,
                Err(error) => tracing::error!(prefix = %ban.address, %error, "a saved ban can't be restored"),
            }
        }
    }
    if !kept.lists {
        for list in state.read_lists() {
            let Some(expiry) = expiry(list.until_unix_ms, clock, now) else { continue };
            let installed = Ready::restored(&list.words).and_then(|ready| lists.install(tables, bans, directory, ready, expiry));
            match installed {
                Ok(()) => restored += 1,
                Err(error) => tracing::error!(%error, "a saved list can't be restored"),
            }
        }
    }
    if restored > 0 {
        tracing::info!(restored, "bans and lists restored from the state");
    }
    Ok(Strikes::restore(&saved.strikes))
}

impl Guard {
    /// What changed since the last time, for writing; `None` if nothing did, or nothing is kept. An error takes nothing.
    pub fn snapshot(&mut self) -> Result<Option<(State, Snapshot)>, TableError> {
        let Some(state) = self.state.clone() else { return Ok(None) };
        let old = self.hits.written.elapsed() >= self.options.save_hits_every;
        if !self.changed.bans && self.changed.lists.is_empty() && !old {
            return Ok(None);
        }
        let now = self.clock.now(&self.tables)?;
        let bans = if self.changed.bans || old { self.save_bans(now, self.changed.bans)? } else { None };
        let lists = std::mem::take(&mut self.changed).lists;
        let list = |name: String| {
            let saved = self.lists.find(&name, &self.clock, now).zip(self.lists.words(&name));
            let saved = saved.map(|(info, words)| SavedList { until_unix_ms: info.until_unix_ms, words });
            (name, saved)
        };
        let lists: Vec<_> = lists.into_iter().map(list).collect();
        Ok((bans.is_some() || !lists.is_empty()).then_some((state, Snapshot { bans, lists })))
    }

    /// All bans; `None` if only hits may have changed, and have not.
    fn save_bans(&mut self, now: u64, changed: bool) -> Result<Option<Saved>, TableError> {
        let bans = self.bans.list(&self.tables, &self.clock, now)?;
        let hits = Hits { written: Instant::now(), sum: bans.iter().map(|ban| ban.hits).sum() };
        let before = std::mem::replace(&mut self.hits, hits).sum;
        Ok((changed || before != self.hits.sum).then(|| Saved::new(bans, self.strikes.save())))
    }

    /// Takes back what could not be written: the next snapshot has it again, as it is then; a list that is gone by its name.
    pub fn take_back(&mut self, unwritten: Unwritten) {
        self.changed.bans |= unwritten.changed.bans;
        self.changed.lists.extend(unwritten.changed.lists);
    }

    /// Says that everything has to be written again: hits, too, when a guard ends.
    pub fn touch_all(&mut self) {
        self.changed.bans = true;
        self.changed.lists.extend(self.lists.names());
    }
}
