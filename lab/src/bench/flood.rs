//! Finality under a flood by finality in quiet: one devnet with guards, then one without, each under load; windows with and without
//! the flood take turns.
//!
//! The flood is the same on both, and so is what sending it costs the machine. A window's figure is the 99th percentile over its last
//! seconds of all transactions, those that are not final yet with the age that they have reached: a network that stands still
//! can't look quick. It is then a lower bound.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use types::Params;

use crate::attack::flood::frames::Frames;
use crate::attack::flood::openings::{self, Opening};
use crate::attack::flood::sender::{Flood, Sent};
use crate::attack::flood::{OPENINGS, targets};
use crate::attack::guest::Guest;
use crate::devnet::ground::Ground;
use crate::devnet::nodes::{Network, Part};
use crate::devnet::{self, prepare};
use crate::home::Transport;
use crate::load::tracker::RECENT;
use crate::load::{Load, Plan};
use crate::signals;

const NODES: u16 = 4;
const ACCOUNTS: u32 = 4_000;
/// Transitions are left out: a window is longer than what is looked at in it.
const WINDOW: Duration = RECENT.saturating_add(Duration::from_secs(1));
const TURN: Duration = Duration::from_millis(50);
/// How long a devnet may take to get going.
const START_MAX: Duration = Duration::from_secs(60);
/// How long it may take after a flood until nothing old is open; then the next pair begins all the same.
const RECOVERY_MAX: Duration = Duration::from_secs(20);
/// Nothing older than this is open in a quiet network.
const OLD: Duration = Duration::from_secs(1);
/// How long the end may take: what is open becomes final or is named.
const SETTLE_MAX: Duration = Duration::from_secs(180);

/// How to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where the rows go.
    #[arg(long, default_value = "target/bench/guard-devnet.json")]
    pub output: PathBuf,
    /// Pairs of a quiet and a flooded window, each of four seconds.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub pairs: u16,
    /// Packets a second of the flood, over all nodes.
    #[arg(long, default_value_t = 40_000)]
    pub rate: u32,
    /// Transactions a second.
    #[arg(long, default_value_t = 500)]
    pub tps: u32,
    /// Folder for the devnets; emptied at each start.
    #[arg(long, default_value = "target/bench/devnet")]
    pub dir: PathBuf,
}

/// A figure, as `make bench-guard` writes them.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    runs: usize,
    spread: f64,
}

impl Row {
    /// The median; the spread is the distance of the greatest from the least.
    fn new(name: String, unit: &'static str, mut runs: Vec<f64>) -> Option<Row> {
        runs.sort_by(f64::total_cmp);
        let (least, greatest) = (runs.first()?, runs.last()?);
        let row = Row { name, value: *runs.get(runs.len() / 2)?, unit, runs: runs.len(), spread: greatest - least };
        println!("{:<44} {:>12.3} {:<12} {} runs, spread {:.3}", row.name, row.value, row.unit, row.runs, row.spread);
        Some(row)
    }
}

/// What a window showed.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// 99th percentile of finality, ms.
    p99_ms: f64,
    /// Final transactions a second.
    tps: f64,
    /// What the nodes used, cores.
    cores: f64,
}

/// One pair of windows.
#[derive(Clone, Copy, Debug)]
struct Pair {
    quiet: Window,
    flood: Window,
    sent: Sent,
}

impl Pair {
    /// What a connection that is opened costs its node, µs of CPU: all that the nodes used more than in quiet, the flood's other packets
    /// included. Too little once there are no free cores: then not every one is answered.
    fn opening_us(&self) -> f64 {
        (self.flood.cores - self.quiet.cores) * 1e6 * self.sent.seconds / self.sent.opened as f64
    }
}

/// Measures both devnets.
///
/// # Errors
/// If one can't be run.
pub fn run(options: &Options) -> Result<bool> {
    let openings = Arc::new(openings::make(OPENINGS)?);
    let mut rows = Vec::new();
    for (guarded, name) in [(true, "guarded"), (false, "unguarded")] {
        let (pairs, agree) = devnet(options, &openings, guarded).with_context(|| format!("the {name} devnet"))?;
        if !agree {
            bail!("the nodes of the {name} devnet do not agree");
        }
        let each = |figure: fn(&Pair) -> f64| pairs.iter().map(figure).collect::<Vec<f64>>();
        rows.extend([
            Row::new(format!("finality_p99_flood_over_quiet_{name}"), "ratio", each(|pair| pair.flood.p99_ms / pair.quiet.p99_ms)),
            Row::new(format!("finality_p99_quiet_{name}_ms"), "ms", each(|pair| pair.quiet.p99_ms)),
            Row::new(format!("finality_p99_flood_{name}_ms"), "ms", each(|pair| pair.flood.p99_ms)),
            Row::new(format!("final_quiet_{name}_tps"), "tx/s", each(|pair| pair.quiet.tps)),
            Row::new(format!("final_flood_{name}_tps"), "tx/s", each(|pair| pair.flood.tps)),
            Row::new(format!("nodes_quiet_{name}_cores"), "cores", each(|pair| pair.quiet.cores)),
            Row::new(format!("nodes_flood_{name}_cores"), "cores", each(|pair| pair.flood.cores)),
            Row::new(format!("flood_{name}_rate"), "packets/s", each(|pair| pair.sent.frames as f64 / pair.sent.seconds)),
            Row::new(format!("flood_{name}_cores"), "cores", each(|pair| pair.sent.cpu_seconds / pair.sent.seconds)),
        ]);
        if !guarded {
            rows.push(Row::new("opening_cpu_us".to_owned(), "us", each(Pair::opening_us)));
        }
    }
    let all = rows.iter().all(Option::is_some);
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    if let Some(folder) = options.output.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    crate::files::write_json(&options.output, &rows)?;
    Ok(all)
}

/// One devnet from start to end; whether its nodes agreed.
fn devnet(options: &Options, openings: &Arc<Vec<Opening>>, guarded: bool) -> Result<(Vec<Pair>, bool)> {
    let plan = devnet::Options {
        nodes: NODES,
        duration: None,
        tps: options.tps,
        json: true,
        no_guard: !guarded,
        no_restart: false,
        seed: 1,
        accounts: ACCOUNTS,
        dir: options.dir.clone(),
        transport: Transport::Tcp,
        loopback: false,
        bin_dir: None,
    };
    let folder = prepare(&plan.dir)?;
    let ground = Ground::lay(&plan)?;
    if let Ground::Loopback { why } = &ground {
        bail!("a flood needs namespaces: {why}");
    }
    let mut network = Network::build(&plan, &folder, ground)?;
    let measured = Running::start(&mut network, &plan, &folder).and_then(|running| running.measure(options, openings));
    network.stop();
    measured
}

/// A devnet under load.
struct Running<'a> {
    network: &'a mut Network,
    load: Load,
}

impl<'a> Running<'a> {
    fn start(network: &'a mut Network, options: &devnet::Options, folder: &Path) -> Result<Running<'a>> {
        network.start()?;
        network.state.write(folder)?;
        let load = Load::start(Plan {
            chain: network.state.chain_id,
            params: Params::default(),
            nodes: network.state.nodes.iter().map(|node| (node.name.clone(), node.api_url.clone())).collect(),
            accounts: options.accounts,
            tps: options.tps,
            seed: options.seed,
            duration: None,
        })?;
        Ok(Running { network, load })
    }

    fn measure(mut self, options: &Options, openings: &Arc<Vec<Opening>>) -> Result<(Vec<Pair>, bool)> {
        if !self.wait(START_MAX, |running| running.load.view().committed > 0)? {
            bail!("nothing becomes final");
        }
        let guest = Guest::plug(&self.network.state)?;
        let targets = targets(&self.network.state, "all")?;
        let mut pairs = Vec::new();
        for pair in 0..options.pairs {
            self.wait(RECOVERY_MAX, |running| running.load.view().oldest_open < OLD)?;
            let quiet = self.window()?;
            let frames = Frames::new(targets.clone(), Arc::clone(openings), pair.into());
            let flooding = Flood::start(&guest.netns, frames, options.rate, WINDOW * 2)?;
            let window = self.window();
            let sent = flooding.stop()?;
            let flood = window?;
            eprintln!("  pair {}: p99 {} ms in quiet, {} ms under {} packets", pair + 1, quiet.p99_ms, flood.p99_ms, sent.frames);
            pairs.push(Pair { quiet, flood, sent });
        }
        drop(guest);
        self.load.stop();
        if !self.wait(SETTLE_MAX, |running| running.load.is_finished())? {
            bail!("the load does not end");
        }
        let outcome = self.load.finish()?;
        Ok((pairs, outcome.agree && outcome.height_common > 0))
    }

    /// Lets one window pass.
    fn window(&mut self) -> Result<Window> {
        let (start, before, cpu_before) = (Instant::now(), self.load.view().committed, self.network.cpu_us().0);
        self.wait(WINDOW, |_| false)?;
        let (seconds, view) = (start.elapsed().as_secs_f64(), self.load.view());
        let p99 = view.honest_p99_ms.context("no transaction was on its way")?;
        let cores = self.network.cpu_us().0.saturating_sub(cpu_before) as f64 / 1e6 / seconds;
        Ok(Window { p99_ms: p99.max(1) as f64, tps: (view.committed - before) as f64 / seconds, cores })
    }

    /// Looks after the processes until something is seen (true), or for so long.
    fn wait(&mut self, at_most: Duration, seen: impl Fn(&Running<'_>) -> bool) -> Result<bool> {
        let end = Instant::now() + at_most;
        loop {
            let now = Instant::now();
            for event in self.network.poll(now)? {
                eprintln!("  {}", event.text);
                if event.part == Part::Node && event.died {
                    self.load.node_died(event.index);
                }
            }
            if seen(self) {
                return Ok(true);
            }
            if signals::asked_to_stop() {
                bail!("asked to stop");
            }
            if now >= end {
                return Ok(false);
            }
            std::thread::sleep(TURN);
        }
    }
}
