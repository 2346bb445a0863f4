//! `summary.json`: what a run showed. Field names are a contract.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::load::{Counts, Named, Percentiles};

/// The file's name in the devnet's folder.
pub const FILE: &str = "summary.json";

/// Packets of one node, as its guard counted them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packets {
    /// `native`, `generic`, `tcx`, `none`.
    pub xdp_mode: String,
    /// `off`, `shadow`, `enforce`.
    pub mode: String,
    /// Passed on protected ports, by class.
    pub passed: BTreeMap<String, u64>,
    /// Dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// What `shadow` would have dropped, by reason.
    pub would_drop: BTreeMap<String, u64>,
    /// Passed because they are for no protected port.
    pub out_of_scope: u64,
}

/// CPU by whose it is, µs a final transaction; null without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuPerTx {
    /// All validators, user and system, from the first to the last transaction.
    pub validators: Option<f64>,
    /// All guards likewise.
    pub guards: Option<f64>,
    /// The load generator: signing, HTTP, following every node.
    pub generator: Option<f64>,
}

/// How long the start took, from the runner's first step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartMs {
    /// Until the processes were started (keys, genesis, namespaces, guards).
    pub processes: u64,
    /// Until every node's API answered.
    pub running: Option<u64>,
    /// Until every node had a final block.
    pub first_block: Option<u64>,
}

/// The whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Whether all is as it should be: decides the exit code.
    pub ok: bool,
    /// Blocks final on every node.
    pub blocks_finalized: u64,
    /// Whether all nodes had the same block, by hash, at every one of these heights.
    pub agree: bool,
    /// Highest final height by node.
    pub heights: BTreeMap<String, u64>,
    /// Transactions.
    pub transactions: Counts,
    /// Final transactions a second.
    pub committed_tps: f64,
    /// Submit to final on the node that took it.
    pub finality_ms: Percentiles,
    /// CPU.
    pub cpu_us_per_tx: CpuPerTx,
    /// CPU of all node processes from the first to the last sample, in thousandths of a core.
    pub cpu_millicores: u64,
    /// Resident memory at the end, by process.
    pub rss_bytes: BTreeMap<String, u64>,
    /// Packets by node; empty without guards.
    pub packets: BTreeMap<String, Packets>,
    /// Lines of level ERROR in all logs.
    pub log_errors: u64,
    /// The first of them.
    pub log_error_lines: Vec<String>,
    /// How often processes were started again.
    pub restarts: BTreeMap<String, u32>,
    /// Sent again by the generator: its node was gone, or it stayed open for long.
    pub resent: u64,
    /// Requests that a node put off with 429.
    pub put_off: u64,
    /// All that is not as it should be.
    pub named: Vec<Named>,
    /// How long the start took.
    pub start_ms: StartMs,
    /// How long it ran, from the first to the last sample.
    pub seconds: f64,
}

impl Summary {
    /// The rule of the exit code: blocks final on all nodes, all agree, and every transaction final or named with a reason
    /// that is no flaw.
    pub fn judge(&mut self) {
        let counts = &self.transactions;
        let all_named = counts.submitted == counts.r#final + counts.failed + counts.lost;
        let explained = self.named.iter().all(|named| named.explained);
        self.ok = self.blocks_finalized > 0 && self.agree && all_named && explained;
    }

    /// For people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let counts = &self.transactions;
        let verdict = if self.ok { "all well" } else { "NOT WELL" };
        writeln!(out, "\n{verdict} after {:.0} s", self.seconds)?;
        let agree = if self.agree { "the same on all nodes, by hash at every height" } else { "NODES DISAGREE" };
        writeln!(out, "  blocks        {} final, {agree}", self.blocks_finalized)?;
        writeln!(
            out,
            "  transactions  {} submitted, {} final, {} failed, {} lost; {:.0} a second",
            counts.submitted, counts.r#final, counts.failed, counts.lost, self.committed_tps
        )?;
        let ms = &self.finality_ms;
        writeln!(out, "  finality      p50 {} ms, p90 {} ms, p99 {} ms, max {} ms", ms.p50, ms.p90, ms.p99, ms.max)?;
        let cpu = &self.cpu_us_per_tx;
        if let (Some(validators), Some(generator)) = (cpu.validators, cpu.generator) {
            writeln!(
                out,
                "  cpu           {validators:.0} µs a transaction in all validators, {generator:.0} µs in the generator"
            )?;
        }
        writeln!(out, "                {:.1} % of a core in all nodes and guards", self.cpu_millicores as f64 / 10.0)?;
        for (name, packets) in &self.packets {
            let passed: u64 = packets.passed.values().sum();
            let dropped: u64 = packets.dropped.values().sum();
            let mode = if packets.xdp_mode.is_empty() { "no answer" } else { packets.xdp_mode.as_str() };
            let others = packets.out_of_scope;
            writeln!(
                out,
                "  packets       {name}: {passed} passed to protected ports, {others} to others, {dropped} dropped ({mode})"
            )?;
        }
        let restarts: u32 = self.restarts.values().sum();
        writeln!(out, "  errors        {} in the logs, {restarts} restarts", self.log_errors)?;
        for named in self.named.iter().take(NAMED_SHOWN) {
            writeln!(out, "  {}: {}", named.what, named.reason)?;
        }
        if self.named.len() > NAMED_SHOWN {
            writeln!(out, "  … {} more in {FILE}", self.named.len() - NAMED_SHOWN)?;
        }
        for line in &self.log_error_lines {
            writeln!(out, "  log: {line}")?;
        }
        Ok(())
    }
}

const NAMED_SHOWN: usize = 8;
const ERROR_LINES_MAX: usize = 5;
const ERROR_LINE_CHARS_MAX: usize = 300;

/// Counts the lines of level ERROR in a log, JSON or text, and keeps the first few over all logs.
pub fn count_errors(log: &Path, kept: &mut Vec<String>) -> u64 {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let name = log.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut count = 0;
    for line in text.lines().filter(|line| is_error(line)) {
        count += 1;
        if kept.len() < ERROR_LINES_MAX {
            kept.push(format!("{name}: {}", line.chars().take(ERROR_LINE_CHARS_MAX).collect::<String>()));
        }
    }
    count
}

/// A panic is an error, whoever prints it.
fn is_error(line: &str) -> bool {
    match serde_json::from_str::<serde_json::Value>(line) {
        Ok(value) => value.get("level").and_then(|level| level.as_str()).is_some_and(|level| level.eq_ignore_ascii_case("error")),
        Err(_) => line.split_whitespace().take(3).any(|word| word == "ERROR") || line.contains("panicked at"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_lines_are_found_in_both_formats() {
        let check = |line: &str, expect: bool| assert_eq!(is_error(line), expect, "{line}");
        check(r#"{"timestamp":"t","level":"ERROR","fields":{"message":"m"}}"#, true);
        check(r#"{"timestamp":"t","level":"INFO","fields":{"message":"no ERROR here"}}"#, false);
        check("2026-11-25T13:00:00Z ERROR guard: x", true);
        check("2026-11-25T13:00:00Z  INFO guard: said ERROR", false);
        check("thread 'main' panicked at src/main.rs:1:1:", true);
    }

    #[test]
    fn the_verdict_needs_blocks_agreement_and_reasons() {
        let good = Summary {
            blocks_finalized: 9,
            agree: true,
            transactions: Counts { submitted: 5, r#final: 5, failed: 0, lost: 0 },
            ..Summary::default()
        };
        let check = |change: &dyn Fn(&mut Summary), expect: bool| {
            let mut summary = good.clone();
            change(&mut summary);
            summary.judge();
            assert_eq!(summary.ok, expect, "{summary:?}");
        };
        let named = |explained| Named { what: "x".into(), reason: "y".into(), explained };
        check(&|_| {}, true);
        check(&|s| s.blocks_finalized = 0, false);
        check(&|s| s.agree = false, false);
        check(&|s| s.transactions.r#final = 4, false);
        check(&|s| (s.transactions.r#final, s.transactions.lost, s.named) = (4, 1, vec![named(true)]), true);
        check(&|s| (s.transactions.r#final, s.transactions.lost, s.named) = (4, 1, vec![named(false)]), false);
    }
}
