//! Rows as they are measured, and the file they end in.

use serde_json::json;
use std::{fs, path::Path};

/// One figure.
struct Row {
    name: &'static str,
    value: f64,
    unit: &'static str,
    runs: usize,
    spread: f64,
}

/// All figures so far, and what could not be measured.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    missing: Vec<(&'static str, String)>,
}

impl Report {
    /// Adds the median of the runs; the spread is the distance of the greatest from the least.
    pub fn add(&mut self, name: &'static str, unit: &'static str, mut runs: Vec<f64>) {
        runs.sort_by(f64::total_cmp);
        let (Some(least), Some(greatest)) = (runs.first(), runs.last()) else {
            return self.missing.push((name, "no run gave a figure".into()));
        };
        let row = Row { name, value: runs[runs.len() / 2], unit, runs: runs.len(), spread: greatest - least };
        println!("{name:<40} {:>14.3} {unit:<12} {} runs, spread {:.3}", row.value, row.runs, row.spread);
        self.rows.push(row);
    }

    /// Notes that a figure could not be measured, and why.
    pub fn missing(&mut self, name: &'static str, why: &anyhow::Error) {
        println!("{name:<40} could not be measured: {why:#}");
        self.missing.push((name, format!("{why:#}")));
    }

    /// Writes the rows; fails if one is missing.
    pub fn write(&self, output: &Path) -> anyhow::Result<()> {
        let rows = self
            .rows
            .iter()
            .map(|row| json!({ "name": row.name, "value": row.value, "unit": row.unit, "runs": row.runs, "spread": row.spread }));
        if let Some(parent) = output.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(output, serde_json::to_string_pretty(&rows.collect::<Vec<_>>())? + "\n")?;
        anyhow::ensure!(self.missing.is_empty(), "{} figures could not be measured", self.missing.len());
        Ok(())
    }
}
