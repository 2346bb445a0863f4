//! `cargo xtask bench-guard`: the guard's figures, measured on this machine, into `target/bench/guard.json`.
//!
//! What is measured is in `crates/guard/examples/bench_guard/` (programs, veth pairs) and `lab/src/bench/` (a devnet); both need root
//! and load programs, so they are not linked into this tool. Here: building them, and the table of what was promised.

use anyhow::{Context, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

const OUTPUT: &str = "target/bench/guard.json";

/// Options of `bench-guard`.
#[derive(Args)]
pub struct Options {
    /// Leave out the devnets under flood, which take minutes.
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Serialize, Deserialize)]
struct Row {
    name: String,
    value: f64,
    unit: String,
    runs: usize,
    spread: f64,
}

/// What a figure has to be, and ought to be.
struct Promise {
    name: &'static str,
    /// Great values are good ones.
    at_least: bool,
    must: f64,
    aim: f64,
}

const fn at_most(name: &'static str, must: f64, aim: f64) -> Promise {
    Promise { name, at_least: false, must, aim }
}

const fn at_least(name: &'static str, must: f64, aim: f64) -> Promise {
    Promise { name, at_least: true, must, aim }
}

/// Figures of one machine by itself.
const PROMISES: [Promise; 8] = [
    at_most("pipeline_over_bare_drop", 3.0, 2.5),
    at_most("spoofed_million_over_constant", 4.0, 3.0),
    at_most("pipeline_over_xdp_filter", 0.7, 0.6),
    at_least("lpm_first_over_pipeline_spoofed", 5.0, 6.0),
    at_least("lru_first_over_pipeline_spoofed", 5.0, 6.0),
    at_least("drops_per_cpu_over_nft_ingress", 3.0, 4.0),
    at_most("tcp_rtt_guarded_over_bare", 1.10, 1.05),
    at_most("scrape_10k_peers_cpu_ms", 1.0, 0.1),
];

/// Figures of a devnet.
const DEVNET_PROMISES: [Promise; 1] = [at_most("finality_p99_flood_over_quiet_guarded", 1.5, 1.2)];

/// Builds and runs the benchmarks. Fails if a figure could not be measured; a promise that is not kept is only said.
pub fn run(options: &Options, root: &Path) -> anyhow::Result<()> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(PathBuf::from(folder)));
    let programs = target.join("debug");
    let output = root.join(OUTPUT);
    let part = output.with_file_name("guard-devnet.json");
    // Rows of an earlier run are none of this one's.
    for old in [&output, &part] {
        fs::remove_file(old).or_else(ignore_missing).with_context(|| format!("removing {}", old.display()))?;
    }
    cargo(root, &["build", "--quiet", "--package", "guard", "--bins", "--example", "bench_guard"])?;
    let mut measured = Command::new(programs.join("examples/bench_guard"))
        .arg(&output)
        .arg(programs.join("ebpf-guard"))
        .status()
        .context("running the benchmark")?
        .success();
    ensure!(output.exists(), "the benchmark failed: it needs root, and a kernel that loads XDP programs");
    let mut rows = read(&output)?;
    let mut promises: Vec<&Promise> = PROMISES.iter().collect();
    if !options.quick {
        // As the Makefile does: features unify once, and nothing is compiled twice.
        cargo(root, &["build", "--quiet", "--workspace", "--bins"])?;
        let status = Command::new(programs.join("ebpf-lab")).args(["bench", "flood", "--output"]).arg(&part).status();
        measured &= status.context("running the devnets")?.success();
        if part.exists() {
            rows.extend(read(&part)?);
        }
        promises.extend(&DEVNET_PROMISES);
        fs::write(&output, serde_json::to_string_pretty(&rows)? + "\n")?;
    }
    println!("\n{}{OUTPUT} written", table(&promises, &rows));
    ensure!(measured, "not every figure could be measured: see above");
    Ok(())
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn cargo(root: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).current_dir(root).args(arguments).arg("--locked").status().context("running cargo")?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<Row>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} can't be read", path.display()))
}

/// Promised and seen, for people.
fn table(promises: &[&Promise], rows: &[Row]) -> String {
    let mut text = format!("{:<40} {:>9} {:>8} {:>8}  verdict\n", "figure", "value", "must", "aim");
    for promise in promises {
        let value = rows.iter().find(|row| row.name == promise.name).map(|row| row.value);
        let shown = value.map_or_else(|| "-".to_string(), |value| format!("{value:.3}"));
        let sign = if promise.at_least { '≥' } else { '≤' };
        let (must, aim) = (format!("{sign} {}", promise.must), format!("{sign} {}", promise.aim));
        text += &format!("{:<40} {shown:>9} {must:>8} {aim:>8}  {}\n", promise.name, promise.verdict(value));
    }
    text
}

impl Promise {
    fn verdict(&self, value: Option<f64>) -> &'static str {
        let kept = |value: f64, bound: f64| if self.at_least { value >= bound } else { value <= bound };
        match value {
            None => "not measured",
            Some(value) if kept(value, self.aim) => "met, and the aim",
            Some(value) if kept(value, self.must) => "met",
            Some(_) => "NOT MET",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_on_its_own_side_of_the_bound() {
        let check = |promise: Promise, value: Option<f64>, expect: &str| assert_eq!(promise.verdict(value), expect);
        check(at_most("a", 1.5, 1.2), Some(1.6), "NOT MET");
        check(at_most("a", 1.5, 1.2), Some(1.5), "met");
        check(at_most("a", 1.5, 1.2), Some(1.1), "met, and the aim");
        check(at_least("a", 3.0, 4.0), Some(2.9), "NOT MET");
        check(at_least("a", 3.0, 4.0), Some(3.5), "met");
        check(at_least("a", 3.0, 4.0), Some(4.0), "met, and the aim");
        check(at_least("a", 3.0, 4.0), None, "not measured");
    }

    #[test]
    fn the_table_names_what_is_missing() {
        let row = Row { name: "pipeline_over_bare_drop".into(), value: 2.2, unit: "ratio".into(), runs: 9, spread: 0.1 };
        let text = table(&[&PROMISES[0], &PROMISES[1]], &[row]);
        assert!(text.contains("2.200") && text.contains("not measured"), "{text}");
    }
}
