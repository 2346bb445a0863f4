//! The guard's figures: `bench_guard FILE GUARD` measures them and writes rows `{name, value, unit, runs, spread}`. Needs root.
//! GUARD is the `ebpf-guard` to start where a whole guard is measured. Names of sections behind it (`micro`, `flood`, `rtt`) leave out the others.
//!
//! - [`micro`]: nanoseconds a packet by the kernel's own timer, against a bare drop, xdp-filter, and pipelines built the usual way;
//! - [`scrape`]: what reading the counters costs;
//! - [`flood`]: dropped packets per CPU-second on a veth, against nftables and iptables;
//! - [`rtt`]: a TCP round trip with a whole guard and without;
//! - below them: [`peers`] (programs to compare with), [`bed`] (namespaces, a guard process), [`report`] (rows, the table, the file).
//!
//! What a row is must be measured side by side: a ratio is of two runs one right after the other, the value is the median of the ratios.
#![allow(clippy::unwrap_used, missing_docs)]

mod bed;
mod flood;
mod micro;
mod peers;
mod report;
mod rtt;
mod scrape;

use report::Report;
use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(output), Some(guard)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: bench_guard FILE GUARD");
    };
    bed::private_mounts()?;
    let mut report = Report::default();
    let sections: Vec<PathBuf> = arguments.collect();
    let wanted = |name: &str| sections.is_empty() || sections.iter().any(|section| section.as_os_str() == name);
    if wanted("micro") {
        micro::measure(&mut report);
    }
    if wanted("flood") {
        flood::measure(&mut report, &guard);
    }
    if wanted("rtt") {
        rtt::measure(&mut report, &guard);
    }
    report.write(&output)
}
