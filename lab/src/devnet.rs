//! `ebpf-lab devnet`: a network of validators on this machine, each in a network namespace behind its own guard, with load.
//!
//! - [`ground`]: what the machine allows: namespaces and BPF, or loopback;
//! - [`nodes`]: homes, guards, nodes;
//! - this file: options, the loop that watches it all, and the end.

pub mod ground;
pub mod nodes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use types::Params;

use crate::home::Transport;
use crate::load::{Load, Plan};
use crate::screen::Screen;
use crate::state::{Phase, State};
use crate::summary::{CpuPerTx, StartMs, Summary};
use crate::{chain, fabric, signals};

use ground::Ground;
use nodes::{Network, Part};

/// Marks a folder that the runner made and may empty.
const MARKER: &str = ".ebpf-devnet";
const TURN: Duration = Duration::from_millis(50);
const DRAW_EVERY: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Validators.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=fabric::NODES_MAX as i64))]
    pub nodes: u16,
    /// Seconds of load, then a summary; without it until Ctrl-C.
    #[arg(long)]
    pub duration: Option<u64>,
    /// Transactions a second; 0 for an idle network.
    #[arg(long, default_value_t = 100)]
    pub tps: u32,
    /// Print nothing but the summary, as JSON.
    #[arg(long)]
    pub json: bool,
    /// Run without the kernel guard.
    #[arg(long)]
    pub no_guard: bool,
    /// Leave dead what dies.
    #[arg(long)]
    pub no_restart: bool,
    /// Chooses senders, recipients and amounts of the load.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Accounts that the load uses.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub accounts: u32,
    /// Folder for homes, logs, devnet.json and summary.json; emptied at the start.
    #[arg(long, default_value = "target/devnet")]
    pub dir: PathBuf,
    /// What nodes dial.
    #[arg(long, value_enum, default_value = "tcp")]
    pub transport: Transport,
    /// Stay on loopback even where namespaces are allowed.
    #[arg(long)]
    pub loopback: bool,
    /// Folder that holds ebpf-node and ebpf-guard; the default is this program's own.
    #[arg(long)]
    pub bin_dir: Option<PathBuf>,
}

/// Runs it. True if the summary says that all is well (without a duration: also if the end was asked for).
///
/// # Errors
/// If it can't be started.
pub fn run(options: &Options) -> Result<bool> {
    signals::install()?;
    let start = Instant::now();
    let folder = prepare(&options.dir)?;
    let mut screen = Screen::new(options.json);
    let ground = Ground::lay(options)?;
    if let Some(limits) = ground.limits() {
        screen.say(&limits);
    }
    let mut network = Network::build(options, &folder, ground)?;
    let mut devnet = Devnet { options, folder: &folder, start, screen, start_ms: StartMs::default(), base: None };
    let summary = devnet.live(&mut network);
    network.stop();
    let mut summary = summary?;
    network.state.state = Phase::Stopped;
    network.state.write(&folder)?;
    for log in network.logs() {
        summary.log_errors += crate::summary::count_errors(&log, &mut summary.log_error_lines);
    }
    summary.judge();
    crate::files::write_json(&folder.join(crate::summary::FILE), &summary)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&summary).context("encode the summary")?);
    } else {
        devnet.screen.say(&summary.render());
    }
    Ok(summary.ok)
}

/// The folder, emptied of what an earlier run left; never touches a folder that holds somebody else's files.
pub(crate) fn prepare(dir: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    let folder = dir.canonicalize().with_context(|| format!("find {}", dir.display()))?;
    let marker = folder.join(MARKER);
    let mut entries = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    if !marker.exists() && entries.next().is_some() {
        bail!("{} is not empty and no devnet's folder; choose another with --dir", folder.display());
    }
    if let Ok(state) = State::read(&folder)
        && state.state != Phase::Stopped
        && is_runner(state.runner_pid)
    {
        bail!("a devnet runs in {} already (pid {}); choose another folder with --dir", folder.display(), state.runner_pid);
    }
    std::fs::write(&marker, "Made by ebpf-lab devnet, which empties this folder at each start.\n")
        .with_context(|| format!("write {}", marker.display()))?;
    for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?.flatten() {
        let path = entry.path();
        if path == marker {
            continue;
        }
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(folder)
}

fn is_runner(pid: u32) -> bool {
    pid != std::process::id()
        && std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| argument == b"devnet"))
}

/// CPU at the first sample, to count from.
#[derive(Clone, Copy, Debug)]
struct Base {
    at: Instant,
    nodes_us: u64,
    guards_us: u64,
}

struct Devnet<'a> {
    options: &'a Options,
    folder: &'a Path,
    start: Instant,
    screen: Screen,
    start_ms: StartMs,
    base: Option<Base>,
}

impl Devnet<'_> {
    fn live(&mut self, network: &mut Network) -> Result<Summary> {
        network.start()?;
        self.start_ms.processes = self.elapsed_ms();
        network.state.write(self.folder)?;
        let load = Load::start(Plan {
            chain: network.state.chain_id,
            params: Params::default(),
            nodes: network.state.nodes.iter().map(|node| (node.name.clone(), node.api_url.clone())).collect(),
            accounts: self.options.accounts,
            tps: self.options.tps,
            seed: self.options.seed,
            duration: self.options.duration.map(Duration::from_secs),
        })?;
        self.greet(network);
        self.watch(network, &load)?;
        network.state.state = Phase::Stopping;
        network.state.write(self.folder)?;
        let rows = network.rows();
        self.screen.draw(&load.view(), &rows);
        self.summarize(network, load)
    }

    /// Looks at everything until the load has its outcome.
    fn watch(&mut self, network: &mut Network, load: &Load) -> Result<()> {
        let mut next_draw = Instant::now();
        let mut stopping = false;
        while !load.is_finished() {
            let now = Instant::now();
            let events = network.poll(now)?;
            for event in &events {
                self.screen.say(&format!("  {}", event.text));
                if event.part == Part::Node && event.died {
                    load.node_died(event.index);
                }
            }
            if !events.is_empty() {
                network.state.write(self.folder)?;
            }
            self.note_progress(network, load)?;
            if signals::asked_to_stop() && !stopping {
                stopping = true;
                load.stop();
            }
            if now >= next_draw {
                next_draw = now + DRAW_EVERY;
                let rows = network.rows();
                self.screen.draw(&load.view(), &rows);
            }
            std::thread::sleep(TURN);
        }
        Ok(())
    }

    fn note_progress(&mut self, network: &mut Network, load: &Load) -> Result<()> {
        if self.start_ms.first_block.is_some() && self.base.is_some() {
            return Ok(());
        }
        let view = load.view();
        if self.start_ms.running.is_none() && view.nodes.iter().all(|node| node.answers) {
            self.start_ms.running = Some(self.elapsed_ms());
            network.state.state = Phase::Running;
            network.state.write(self.folder)?;
        }
        if self.start_ms.first_block.is_none() && view.nodes.iter().all(|node| node.height > 0) {
            self.start_ms.first_block = Some(self.elapsed_ms());
            self.screen.say(&format!("  first block final on all nodes {} ms after the start", self.elapsed_ms()));
        }
        if self.base.is_none() && view.sending {
            let (nodes_us, guards_us) = network.cpu_us();
            self.base = Some(Base { at: Instant::now(), nodes_us, guards_us });
        }
        Ok(())
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The first screen: what there is, and what to try next.
    fn greet(&mut self, network: &Network) {
        let state = &network.state;
        let program = std::env::current_exe().ok();
        let bin = program.as_deref().and_then(Path::parent).map(relative).unwrap_or_default();
        let mut text = format!("\n  chain {}\n\n", state.chain_id);
        for node in &state.nodes {
            let place = node.namespace.as_deref().unwrap_or("loopback");
            text += &format!("  {}  {}   {}:{} in {place}\n", node.name, node.api_url, node.address, node.p2p_port);
        }
        text += "\n  funded test accounts (anybody can spend from them)\n";
        for index in 0..3 {
            text += &format!("  dev:{index}  {}\n", chain::account_address(index));
        }
        text += &format!(
            "  … dev:{} with {} each; the load uses those from dev:{}\n\n  try next\n",
            chain::ACCOUNTS_RESERVED + self.options.accounts - 1,
            chain::OPENING_BALANCE,
            chain::ACCOUNTS_RESERVED
        );
        let url = state.nodes.first().map(|node| node.api_url.clone()).unwrap_or_default();
        text += &format!("  {bin}/ebpf-node tx send --api {url} --from dev:0 --to dev:1 --amount 5\n");
        text += &format!("  {bin}/ebpf-lab attack bad-signature --dir {}\n", relative(self.folder));
        text += &format!("  kill -9 {}   # a validator: the others go on, it comes back and catches up\n", network.first_pid());
        self.screen.say(&text);
    }

    fn summarize(&mut self, network: &mut Network, load: Load) -> Result<Summary> {
        let (nodes_us, guards_us) = network.cpu_us();
        let rss_bytes = network.rss_bytes();
        let packets = network.packets();
        let restarts = network.restarts();
        let outcome = load.finish()?;
        let names = network.state.nodes.iter().map(|node| node.name.clone());
        let base = self.base.unwrap_or(Base { at: self.start, nodes_us: 0, guards_us: 0 });
        let seconds = base.at.elapsed().as_secs_f64();
        let per_tx = |us: u64| (outcome.transactions.r#final > 0).then(|| us as f64 / outcome.transactions.r#final as f64);
        let (nodes_us, guards_us) = (nodes_us.saturating_sub(base.nodes_us), guards_us.saturating_sub(base.guards_us));
        Ok(Summary {
            blocks_finalized: outcome.height_common,
            agree: outcome.agree,
            heights: names.zip(outcome.heights.iter().copied()).collect::<BTreeMap<_, _>>(),
            transactions: outcome.transactions,
            committed_tps: outcome.committed_tps,
            finality_ms: outcome.finality_ms,
            cpu_us_per_tx: CpuPerTx { validators: per_tx(nodes_us), guards: per_tx(guards_us), generator: per_tx(outcome.cpu_us) },
            cpu_millicores: if seconds > 0.0 { ((nodes_us + guards_us) as f64 / seconds / 1_000.0) as u64 } else { 0 },
            rss_bytes,
            packets,
            restarts,
            resent: outcome.resent,
            put_off: outcome.put_off,
            named: outcome.named,
            start_ms: self.start_ms,
            seconds,
            ..Summary::default()
        })
    }
}

/// A path as a person in the current folder would type it.
fn relative(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(&here) {
        Ok(inside) => Path::new(".").join(inside).display().to_string(),
        Err(_) => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_folders_are_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let strange = dir.path().join("home");
        std::fs::create_dir(&strange).unwrap();
        std::fs::write(strange.join("letter"), "dear").unwrap();
        assert!(prepare(&strange).is_err());
        assert!(strange.join("letter").exists());

        let own = dir.path().join("devnet");
        let folder = prepare(&own).unwrap();
        std::fs::create_dir(folder.join("node1")).unwrap();
        std::fs::write(folder.join("node1").join("log"), "x").unwrap();
        prepare(&own).unwrap();
        assert!(!folder.join("node1").exists());
    }
}
