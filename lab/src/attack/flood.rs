//! A flood on a running devnet: strangers' packets from random sources and from a validator's address, at every node at once or at one.
//!
//! - [`openings`]: genuine first flights of QUIC connections;
//! - [`frames`]: all that is sent;
//! - [`sender`]: how it is sent, at a rate.

pub mod frames;
pub mod openings;
pub mod sender;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::guest::Guest;
use super::outside::Outside;
use super::story::Story;
use crate::state::{Node, Phase, State};
use crate::{fabric, namespace, signals};
use frames::{Frames, Target};
use sender::Flood;

/// Nothing is flooded for longer.
const SECONDS_MAX: u64 = 120;
const RATE_MAX: u32 = 1_000_000;
const POLL: Duration = Duration::from_millis(20);
/// How long a node may need for its next final block after the flood.
const NEXT_BLOCK_MAX: Duration = Duration::from_secs(30);
/// Connections that are opened, over and over: more than a node has time for before it forgets the first.
pub const OPENINGS: usize = 10_000;
/// Chooses sources and ports.
const SEED: u64 = 1;

/// Whom, how much, how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The node to flood, or `all`.
    #[arg(long, default_value = "all")]
    pub target: String,
    /// Packets a second, over all targets.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=RATE_MAX as i64))]
    pub rate: u32,
    /// Seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub seconds: u64,
    /// The devnet's folder.
    #[arg(long, default_value = "target/devnet")]
    pub dir: PathBuf,
}

/// Runs the attack.
///
/// # Errors
/// If it can't be carried out.
pub fn run(options: &Options) -> Result<bool> {
    let state = State::read(&options.dir)?;
    if state.state != Phase::Running {
        bail!("the devnet in {} is not running", options.dir.display());
    }
    let targets = targets(&state, &options.target)?;
    let guest = Guest::plug(&state)?;
    let watched: Vec<&Node> =
        state.nodes.iter().filter(|node| targets.iter().any(|target| node.address == target.address)).collect();
    let mut story = Story::begin(&format!("attack flood on {} at {} packets a second", options.target, options.rate));
    story.did(&format!("plugged into the fabric as {}, in a namespace of its own", guest.address));
    let watch = Watch::new()?;
    let before: Vec<_> = watched.iter().map(|node| dropped(node)).collect::<Result<_>>()?;
    let openings = Arc::new(openings::make(OPENINGS)?);
    story.did(&format!("made the first flights of {OPENINGS} QUIC connections"));
    let frames = Frames::new(targets, openings, SEED);
    let flood = Flood::start(&guest.netns, frames, options.rate, Duration::from_secs(options.seconds))?;
    while !flood.is_over() && !signals::asked_to_stop() {
        std::thread::sleep(POLL);
    }
    let sent = flood.stop()?;
    story.did(&format!(
        "sent {} packets in {:.1} s: first flights, SYNs, segments and datagrams from random addresses, every {}th from a validator's",
        sent.frames,
        sent.seconds,
        frames::VALIDATOR_EVERY
    ));
    story.did(&format!("{:.2} s of CPU went into sending them", sent.cpu_seconds));
    for (node, before) in watched.iter().zip(before) {
        match (before, dropped(node)?) {
            (Some(before), Some(after)) => tell_drops(&mut story, node, &before, &after),
            _ => story.did(&format!("{} has no guard: all of it met its stack", node.name)),
        }
    }
    for node in &watched {
        let next = watch.next_block(node);
        story.saw(next.is_ok(), &next.unwrap_or_else(|error| format!("{}: {error:#}", node.name)));
    }
    Ok(story.end())
}

/// What the nodes of a devnet are, to a flood. `name` is a node's, or `all`.
///
/// # Errors
/// If there is no such node, or no fabric.
pub fn targets(state: &State, name: &str) -> Result<Vec<Target>> {
    let mut found = Vec::new();
    for (index, node) in state.nodes.iter().enumerate().filter(|(_, node)| name == "all" || node.name == name) {
        let namespace = node.namespace.as_ref().context("this devnet runs on loopback: there is no fabric to flood")?;
        let other = &state.nodes[(index + 1) % state.nodes.len()];
        found.push(Target {
            hardware: hardware_address(namespace)?,
            address: ipv4(node)?,
            port: node.p2p_port,
            validator: ipv4(other)?,
        });
    }
    if found.is_empty() {
        bail!("no node {name} in this devnet");
    }
    Ok(found)
}

fn ipv4(node: &Node) -> Result<Ipv4Addr> {
    match node.address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => bail!("{} is at {address}: the flood speaks IPv4", node.name),
    }
}

fn hardware_address(namespace: &str) -> Result<[u8; 6]> {
    namespace::within(&namespace::path(namespace), || {
        let mut links = nix::ifaddrs::getifaddrs().context("list interfaces")?;
        let link = links.find_map(|link| {
            let address = link.address.filter(|_| link.interface_name == fabric::INTERFACE)?;
            address.as_link_addr()?.addr()
        });
        link.with_context(|| format!("no {} in {namespace}", fabric::INTERFACE))
    })
}

/// Drops so far, by reason; none without a guard.
fn dropped(node: &Node) -> Result<Option<BTreeMap<String, u64>>> {
    let Some(socket) = &node.guard_socket else { return Ok(None) };
    let mut client = guard::Client::connect(socket).with_context(|| format!("ask the guard of {}", node.name))?;
    Ok(Some(client.stats(false).with_context(|| format!("ask the guard of {}", node.name))?.dropped))
}

fn tell_drops(story: &mut Story, node: &Node, before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) {
    let new = |(reason, count): (&String, &u64)| {
        let more = count.saturating_sub(before.get(reason).copied().unwrap_or(0));
        (more > 0).then(|| (reason.clone(), more))
    };
    let reasons: Vec<(String, u64)> = after.iter().filter_map(new).collect();
    let listed: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let by_rate = reasons.iter().any(|(reason, _)| reason.starts_with("rate_"));
    story.saw(by_rate, &format!("{} dropped in XDP: {}", node.name, listed.join(", ")));
}

/// The nodes' heights, from the host.
struct Watch {
    outside: Outside,
    runtime: tokio::runtime::Runtime,
}

impl Watch {
    fn new() -> Result<Watch> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the observer")?;
        Ok(Watch { outside: Outside::new()?, runtime })
    }

    /// Waits for a final block that was not there when it was asked.
    fn next_block(&self, node: &Node) -> Result<String> {
        self.runtime.block_on(async {
            let wait = async {
                let first = loop {
                    match super::bad_signature::height_of(&self.outside, node).await {
                        Ok(height) => break height,
                        Err(_) => tokio::time::sleep(POLL).await,
                    }
                };
                while !super::bad_signature::height_of(&self.outside, node).await.is_ok_and(|height| height > first) {
                    tokio::time::sleep(POLL).await;
                }
                format!("{} goes on: a block is final above height {}", node.name, first.0)
            };
            tokio::time::timeout(NEXT_BLOCK_MAX, wait).await.context("no final block any more")
        })
    }
}
