//! `ebpf-sim`: runs seeds of the simulated world and names each failure in one line that shows it again.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use clap::Parser;
use sim::{Options, Provoke, Report, run};

/// Runs seeds of the simulated world: chaos, healing, then agreement, validity, liveness and silence are judged.
#[derive(Parser)]
#[command(name = "ebpf-sim", version)]
struct Arguments {
    /// One seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Many: FROM..TO.
    #[arg(long, value_parser = range)]
    seeds: Option<(u64, u64)>,
    /// How many validators; 4 or 7 by the seed if not given.
    #[arg(long, value_parser = clap::value_parser!(u8).range(4..=32))]
    nodes: Option<u8>,
    /// Runs at once.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Print every event.
    #[arg(long)]
    verbose: bool,
    /// The control: a third of the weight or more is Byzantine. Forks are counted and judged by the evidence against them.
    #[arg(long)]
    over_third: bool,
    /// Shape worlds in which a planted bug would show.
    #[arg(long, value_parser = provoke)]
    provoke: Option<Provoke>,
    /// Let honest nodes break a rule.
    #[cfg(feature = "planted-bugs")]
    #[arg(long, value_parser = bug)]
    bug: Option<sim::Bug>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("FROM..TO")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    let (from, to) = (number(from)?, number(to)?);
    if from < to { Ok((from, to)) } else { Err("FROM must be below TO".to_owned()) }
}

fn provoke(text: &str) -> Result<Provoke, String> {
    match text {
        "second-parent" => Ok(Provoke::SecondParent),
        "crashes" => Ok(Provoke::Crashes),
        "lateness" => Ok(Provoke::Lateness),
        _ => Err("second-parent, crashes or lateness".to_owned()),
    }
}

#[cfg(feature = "planted-bugs")]
fn bug(text: &str) -> Result<sim::Bug, String> {
    match text {
        "no-gap-check" => Ok(sim::Bug::NoGapCheck),
        "nullify-and-finalize" => Ok(sim::Bug::NullifyAndFinalize),
        "vote-before-journal" => Ok(sim::Bug::VoteBeforeJournal),
        "early-cut" => Ok(sim::Bug::EarlyCut),
        _ => Err("no-gap-check, nullify-and-finalize, vote-before-journal or early-cut".to_owned()),
    }
}

/// Figures over all runs.
#[derive(Default, serde::Serialize)]
struct Summary {
    seeds: u64,
    failures: u64,
    forks: u64,
    forks_convicted: u64,
    events: u64,
    messages: u64,
    heights: u64,
    live_ms_max: u64,
    marks: BTreeMap<&'static str, u64>,
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.failures += u64::from(report.broken.is_some());
        self.forks += u64::from(report.forked);
        self.forks_convicted += u64::from(report.forked && report.guilty_third && !report.honest_guilty);
        self.events += report.events;
        self.messages += report.messages;
        self.heights += report.height.0;
        self.live_ms_max = self.live_ms_max.max(report.live_ms);
        for (mark, count) in &report.marks {
            *self.marks.entry(mark).or_default() += count;
        }
    }
}

/// Runs all seeds on some threads and hands over each report.
fn run_all(from: u64, to: u64, jobs: u64, options: &Options, mut each: impl FnMut(Report)) {
    let next = AtomicU64::new(from);
    std::thread::scope(|scope| {
        let (sender, reports) = mpsc::sync_channel(64);
        for _ in 0..jobs.clamp(1, 256) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to || sender.send(run(seed, options)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        reports.into_iter().for_each(&mut each);
    });
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        nodes: arguments.nodes.map(usize::from),
        verbose: arguments.verbose,
        over_third: arguments.over_third,
        provoke: arguments.provoke,
        #[cfg(feature = "planted-bugs")]
        bug: arguments.bug,
    };
    let (from, to) = match (arguments.seed, arguments.seeds) {
        (Some(seed), _) => (seed, seed.saturating_add(1)),
        (None, Some(range)) => range,
        (None, None) => (0, 100),
    };
    let jobs = if arguments.verbose { 1 } else { arguments.jobs };
    let begun = Instant::now();
    let mut summary = Summary::default();
    run_all(from, to, jobs, &options, |report| {
        if let Some(broken) = &report.broken {
            println!("{}   # {broken}", report.reproduce(&options));
        }
        if to - from == 1 {
            println!("seed {} trace {} height {} live {} ms", report.seed, report.trace, report.height, report.live_ms);
        }
        summary.add(&report);
    });
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&summary).unwrap_or_default());
    } else {
        print_summary(&summary, begun.elapsed().as_secs_f64());
    }
    let failed = if arguments.over_third { summary.forks != summary.forks_convicted } else { summary.failures > 0 };
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn print_summary(summary: &Summary, seconds: f64) {
    println!(
        "{} seeds in {seconds:.1} s: {} failures, {} forks ({} convicted), {} events, {} messages, {} heights, slowest heal {} ms",
        summary.seeds,
        summary.failures,
        summary.forks,
        summary.forks_convicted,
        summary.events,
        summary.messages,
        summary.heights,
        summary.live_ms_max
    );
    for (mark, count) in &summary.marks {
        println!("  {count:>9}  {mark}");
    }
}
