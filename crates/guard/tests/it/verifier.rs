//! The verifier's budget: instructions processed for every program of every object, against the committed `objects/verifier.lock`.
//!
//! A program that needs a fifth more than it did is a program that somebody should look at: the verifier walks paths, so one more
//! branch in the wrong place multiplies, and what loads here may be refused by an older kernel. `cargo xtask kernel budget`
//! writes the file anew; the change is then seen in review.

use crate::support::privileged;
use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Growth that fails, percent.
const GROWTH_MAX: u64 = 20;
/// Growth that fails on another series of kernels than the file was written on: its verifier prunes otherwise.
const GROWTH_MAX_ELSEWHERE: u64 = 100;
/// Set by `cargo xtask kernel budget`: write instead of compare.
const WRITE: &str = "EBPF_VERIFIER_BUDGET_WRITE";

const HEADER: &str = "# Instructions that the kernel's verifier processed for each program of each object.\n\
# Written by `cargo xtask kernel budget`, checked by crates/guard/tests/it/verifier.rs: a fifth more fails.\n\n";

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Budget {
    /// Release of the kernel that counted.
    kernel: String,
    /// By object, then by program.
    object: BTreeMap<String, BTreeMap<String, u64>>,
}

fn objects() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("objects")
}

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim().to_string()
}

/// `6.18` of `6.18.44-something`.
fn series(release: &str) -> &str {
    let mut dots = release.match_indices('.').map(|(at, _)| at);
    dots.nth(1).map_or(release, |at| &release[..at])
}

/// Loads one program of any of the kinds that the objects hold.
fn load(name: &str, program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => panic!("{name} is of a kind that this test does not load yet: add it"),
    }
}

/// What every program of an object costs the verifier.
fn count(path: &Path) -> BTreeMap<String, u64> {
    let bytes = std::fs::read(path).unwrap();
    // The objects' own constants, not this machine's: the counts then depend on the kernel alone.
    let mut object: Ebpf = EbpfLoader::new().load(&bytes).unwrap();
    let mut counts = BTreeMap::new();
    for (name, program) in object.programs_mut() {
        if let Err(error) = load(name, program) {
            panic!("{}: {name} can't be loaded: {error:?}", path.display());
        }
        let count = program.info().unwrap().verified_instruction_count();
        counts.insert(name.to_string(), count.expect("kernels since 5.16 tell the count").into());
    }
    counts
}

fn measure() -> Budget {
    let mut object = BTreeMap::new();
    for entry in std::fs::read_dir(objects()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "o") {
            object.insert(path.file_name().unwrap().to_string_lossy().into_owned(), count(&path));
        }
    }
    Budget { kernel: release(), object }
}

/// What is wrong with these counts, a line each.
fn complaints(budget: &Budget, measured: &Budget) -> Vec<String> {
    let growth_max = if series(&budget.kernel) == series(&measured.kernel) { GROWTH_MAX } else { GROWTH_MAX_ELSEWHERE };
    let mut complaints = Vec::new();
    for (object, programs) in &measured.object {
        let known = budget.object.get(object);
        for (program, count) in programs {
            match known.and_then(|known| known.get(program)) {
                None => complaints.push(format!("{object}: {program} has no budget; it needs {count} instructions")),
                Some(old) if count * 100 > old * (100 + growth_max) => {
                    complaints.push(format!("{object}: {program} needs {count} instructions, {old} were agreed (+{growth_max} %)"))
                }
                Some(_) => {}
            }
        }
        let gone = known.into_iter().flatten().filter(|(program, _)| !programs.contains_key(*program));
        complaints.extend(gone.map(|(program, _)| format!("{object}: {program} has a budget, and there is no such program")));
    }
    complaints
}

#[test]
fn every_program_stays_within_its_verifier_budget() {
    if !privileged("every_program_stays_within_its_verifier_budget") {
        return;
    }
    let file = objects().join("verifier.lock");
    let measured = measure();
    assert!(measured.object.values().map(BTreeMap::len).sum::<usize>() > 0);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&file, format!("{HEADER}{}", toml::to_string(&measured).unwrap())).unwrap();
        return;
    }
    let budget: Budget = toml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let complaints = complaints(&budget, &measured);
    assert!(complaints.is_empty(), "{}\nif that is meant, run: cargo xtask kernel budget", complaints.join("\n"));
}

#[test]
fn a_fifth_more_is_too_much_and_strangers_are_named() {
    let budget = |kernel: &str, counts: &[(&str, u64)]| Budget {
        kernel: kernel.to_string(),
        object: [("guard.o".to_string(), counts.iter().map(|(name, count)| (name.to_string(), *count)).collect())].into(),
    };
    let agreed = budget("6.18.44-x", &[("guard", 1000), ("clock", 10)]);
    let lines = |kernel: &str, counts| complaints(&agreed, &budget(kernel, counts)).len();
    assert_eq!(lines("6.18.9", &[("guard", 1200), ("clock", 12)]), 0);
    assert_eq!(lines("6.18.9", &[("guard", 1201), ("clock", 13)]), 2);
    assert_eq!(lines("6.1.0", &[("guard", 1201), ("clock", 20)]), 0);
    assert_eq!(lines("6.1.0", &[("guard", 2001), ("clock", 20)]), 1);
    assert_eq!(lines("6.18.44", &[("guard", 1), ("clock", 1), ("new", 1)]), 1);
    assert_eq!(lines("6.18.44", &[("guard", 1)]), 1);
    assert_eq!((series("6.18.44-fc"), series("6.1-rc3")), ("6.18", "6.1-rc3"));
}
