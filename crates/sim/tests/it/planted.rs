//! Rules that are broken on purpose must be found; the same worlds are clean with the rules in place.

use sim::{Bug, Options, run};

use crate::clean;

/// Worlds in which a bug is looked for.
const SEEDS: u64 = 60;

fn is_found(bug: Bug, signs: &[&str]) {
    let planted = Options { bug: Some(bug), provoke: Some(bug.provoked_by()), ..Options::default() };
    let seen = |broken: &str| signs.iter().any(|sign| broken.starts_with(sign));
    let found = (0..SEEDS).map(|seed| run(seed, &planted)).find(|report| report.broken.as_deref().is_some_and(seen));
    let found = found.unwrap_or_else(|| panic!("{bug:?} is not found in {SEEDS} seeds"));
    // The very world that shows it is clean without it.
    clean(found.seed..found.seed + 1, &Options { bug: None, ..planted });
}

#[test]
fn no_gap_check_forks() {
    is_found(Bug::NoGapCheck, &["FORK", "FATAL"]);
}

#[test]
fn nullify_and_finalize_convicts() {
    is_found(Bug::NullifyAndFinalize, &["DOUBLE", "ACCUSED"]);
}

#[test]
fn vote_before_journal_convicts() {
    is_found(Bug::VoteBeforeJournal, &["DOUBLE", "ACCUSED"]);
}

#[test]
fn early_cut_convicts() {
    is_found(Bug::EarlyCut, &["DOUBLE", "ACCUSED"]);
}
