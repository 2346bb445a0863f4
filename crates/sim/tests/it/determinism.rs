//! Equal seeds give equal hashes over everything that happened, in one process and in the next; other seeds others.

use std::collections::BTreeSet;
use std::process::Command;

use sim::{Options, run};

#[test]
fn equal_seeds_equal_traces() {
    let options = Options::default();
    let mut traces = BTreeSet::new();
    for seed in 0..12 {
        let (one, two) = (run(seed, &options), run(seed, &options));
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_eq!((one.events, one.messages, one.height), (two.events, two.messages, two.height), "seed {seed}");
        traces.insert(one.trace);
    }
    assert_eq!(traces.len(), 12, "different seeds differ");
}

#[test]
fn a_fresh_process_sees_the_same() {
    for seed in [3u64, 17] {
        let here = run(seed, &Options::default()).trace.to_string();
        let output = Command::new(env!("CARGO_BIN_EXE_ebpf-sim")).args(["--seed", &seed.to_string()]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        assert!(text.contains(&format!("seed {seed} trace {here} ")), "{text}");
    }
}
