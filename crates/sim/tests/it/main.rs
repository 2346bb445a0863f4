//! Seeds, controls, and the proof that equal seeds are equal runs.
#![allow(clippy::unwrap_used)]

mod controls;
mod determinism;
#[cfg(feature = "planted-bugs")]
mod planted;
mod seeds;

use std::collections::BTreeMap;

use sim::{Options, run};

/// Runs seeds; the first violation of each bad one ends the test with the lines that show them again.
fn clean(seeds: std::ops::Range<u64>, options: &Options) -> BTreeMap<&'static str, u64> {
    let mut marks = BTreeMap::new();
    let mut bad = Vec::new();
    for seed in seeds {
        let report = run(seed, options);
        for (mark, count) in &report.marks {
            *marks.entry(*mark).or_default() += count;
        }
        if let Some(broken) = &report.broken {
            bad.push(format!("{}   # {broken}", report.reproduce(options)));
        }
    }
    assert!(bad.is_empty(), "violations:\n{}", bad.join("\n"));
    marks
}
