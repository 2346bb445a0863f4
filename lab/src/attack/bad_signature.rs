//! The loop that makes this product, seen from the attacker's side: handshake, bad signatures, silence; then the TTL ends.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use guard::protocol::{BanInfo, Stats};
use network::{Config, Events, Handle, Keypair};
use types::{AccountKey, Action, Amount, Height, Hello, Message, Nonce, Offence, SignedTransaction, Transaction, WIRE_VERSION};

use super::Options;
use super::guest::Guest;
use super::outside::Outside;
use super::spoof::Spoofer;
use super::story::Story;
use crate::chain;
use crate::namespace;
use crate::state::{Node, Phase, State};

/// The promise: dropped in XDP this soon after the offence.
const DROP_WITHIN: Duration = Duration::from_secs(2);
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const METRICS_MAX: Duration = Duration::from_secs(5);
/// How long a banned attacker may need to be let in after its TTL: its next dial.
const READMIT_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
const SEND_EVERY: Duration = Duration::from_millis(50);
const BAD_TRANSACTIONS: u64 = 16;
/// Heights that they claim to be valid for.
const LIFE: u64 = 1_000;
const SPOOFED_PACKETS: u32 = 200;
/// The reason that the guard counts such drops under.
const REASON: &str = "banned_bad_signature";
/// The metric that shows it.
const METRIC: &str = "ebpf_node_xdp_packets_dropped_total";

/// Runs the attack.
///
/// # Errors
/// If it can't be carried out.
pub fn run(options: &Options) -> Result<bool> {
    let state = State::read(&options.dir)?;
    if state.state != Phase::Running {
        bail!("the devnet in {} is not running", options.dir.display());
    }
    let target = state.nodes.iter().find(|node| node.name == options.target);
    let target = target.with_context(|| format!("no node {} in this devnet", options.target))?;
    if target.guard_socket.is_none() {
        bail!("{} has no guard", target.name);
    }
    let guest = Guest::plug(&state)?;
    let outside = Outside::new()?;
    let mut story = Story::begin(&format!("attack bad-signature on {} ({})", target.name, target.address));
    story.did(&format!("plugged into the fabric as {}, in a namespace of its own", guest.address));
    namespace::within(&guest.netns, || {
        // Every thread and socket of this runtime is born in the namespace.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("start the attacker")?;
        let _entered = runtime.enter();
        runtime.block_on(attack(options, &state, target, guest.address, &outside, &mut story))
    })?;
    Ok(story.end())
}

async fn attack(options: &Options, state: &State, target: &Node, me: Ipv4Addr, outside: &Outside, story: &mut Story) -> Result<()> {
    let (handle, mut events) = dial(state, target)?;
    let peer = connected(&mut events, HANDSHAKE_MAX).await.context("the handshake was not completed")?;
    story.did("completed the handshake as a node that is no validator");
    let before = Watch { dropped: dropped(&stats(target)?), metric: metric(outside, target).await };

    let garbage = Message::Transactions(bad_transactions(state, height_of(outside, target).await?));
    let offence = Instant::now();
    handle.send(peer, &garbage).context("send bad transactions")?;
    story.did(&format!("sent {BAD_TRANSACTIONS} transactions whose signatures do not verify"));
    let dropped = wait_for_drop(&handle, peer, target, &before, &garbage).await?;
    match dropped {
        Some(at) => story.saw(
            at.duration_since(offence) <= DROP_WITHIN,
            &format!("a packet of mine died in XDP ({REASON}) {} ms after the offence", at.duration_since(offence).as_millis()),
        ),
        None => story.saw(false, &format!("no packet of mine was dropped as {REASON} in {} s", DROP_WITHIN.as_secs())),
    }
    let ban = bans(target)?.into_iter().find(|ban| ban.offence == Offence::BadSignature && covers(ban, me));
    match &ban {
        Some(ban) => story.saw(true, &format!("banned: {} for {}, note {:?}", ban.address, ban.offence, ban.note)),
        None => story.saw(false, "the guard lists no ban of my address"),
    }
    let seen = wait_for_metric(outside, target, before.metric).await;
    story.saw(seen, &format!("/metrics of {} counts it under reason=\"{REASON}\"", target.name));

    spoof(state, target, outside, story).await?;
    if options.ttl_wait > 0 {
        let_in_again(options, ban, target, me, &mut events, story).await?;
    }
    handle.shutdown();
    Ok(())
}

fn dial(state: &State, target: &Node) -> Result<(Handle, Events)> {
    let address = format!("/ip4/{}/tcp/{}/p2p/{}", target.address, target.p2p_port, target.peer_id);
    let mut config = Config { peers: vec![address.parse().context("the target's address")?], ..Config::default() };
    // An impatient attacker: it tries again every second.
    (config.limits.backoff_min, config.limits.backoff_max) = (Duration::from_millis(200), Duration::from_secs(1));
    config.limits.dial_timeout = Duration::from_secs(1);
    let hello = Hello { version: WIRE_VERSION, chain: state.chain_id, validator: None };
    let (handle, events, _task) =
        network::spawn(config, Keypair::generate_ed25519(), &hello).context("start the attacker's network")?;
    Ok((handle, events))
}

async fn connected(events: &mut Events, within: Duration) -> Option<u64> {
    let wait = async {
        loop {
            match events.recv().await {
                Some(network::Event::Connected(connected)) => return Some(connected.peer),
                Some(_) => {}
                None => return None,
            }
        }
    };
    tokio::time::timeout(within, wait).await.ok().flatten()
}

/// Well-formed transfers of a funded account that would be taken at this height, but for one flipped bit of the signature.
fn bad_transactions(state: &State, height: Height) -> Vec<SignedTransaction> {
    let key = AccountKey::development(0);
    let transfer = |nonce: u64| {
        let transaction = Transaction {
            chain: state.chain_id,
            sender: key.public(),
            nonce: Nonce(nonce),
            expiry: height.plus(LIFE),
            action: Action::Transfer { to: chain::account_address(1), amount: Amount(1), memo: Vec::new() },
        };
        let mut signed = transaction.sign(&key);
        signed.signature.0[8] ^= 1;
        signed
    };
    (0..BAD_TRANSACTIONS).map(transfer).collect()
}

/// Goes on sending, as attackers do, until the guard counts a drop.
async fn wait_for_drop(handle: &Handle, peer: u64, target: &Node, before: &Watch, garbage: &Message) -> Result<Option<Instant>> {
    let deadline = Instant::now() + 2 * DROP_WITHIN;
    let mut next_send = Instant::now() + SEND_EVERY;
    while Instant::now() < deadline {
        if dropped(&stats(target)?) > before.dropped {
            return Ok(Some(Instant::now()));
        }
        if Instant::now() >= next_send {
            next_send = Instant::now() + SEND_EVERY;
            // Once the node has closed the connection this fails; what then meets the guard are the kernel's and the
            // dialler's own packets.
            let _ = handle.send(peer, garbage);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(None)
}

/// Packets "from" every other validator's address: nobody may be banned for what somebody else wrote on an envelope.
async fn spoof(state: &State, target: &Node, outside: &Outside, story: &mut Story) -> Result<()> {
    let IpAddr::V4(to) = target.address else { bail!("the fabric is IPv4") };
    let to = SocketAddrV4::new(to, target.p2p_port);
    let victims: Vec<Ipv4Addr> = state.nodes.iter().filter(|node| node.name != target.name).filter_map(v4).collect();
    let peers = peers_of(outside, target).await;
    let before = total(&stats(target)?);
    let spoofer = Spoofer::open()?;
    for index in 0..SPOOFED_PACKETS {
        for victim in &victims {
            // Garbage that looks like a QUIC packet, and garbage in an alleged TCP stream.
            let from = SocketAddrV4::new(*victim, target.p2p_port);
            spoofer.udp(from, to, &[&[0xc0][..], &[0x5a; 40]].concat())?;
            spoofer.tcp(from, to, index.wrapping_mul(0x0101_0101), &[0x5a; 40])?;
        }
    }
    let sent = u64::from(SPOOFED_PACKETS) * 2 * victims.len() as u64;
    story.did(&format!("sent {sent} packets that claim to come from the {} other validators", victims.len()));
    // All of them have met the guard when its counters have moved by as many.
    let deadline = Instant::now() + METRICS_MAX;
    while total(&stats(target)?) < before + sent && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
    let banned: BTreeSet<String> = bans(target)?
        .iter()
        .filter(|ban| victims.iter().any(|victim| covers(ban, *victim)))
        .map(|ban| ban.address.to_string())
        .collect();
    story.saw(
        banned.is_empty(),
        &format!("banned validators: {}", if banned.is_empty() { "none".to_owned() } else { format!("{banned:?}") }),
    );
    let after = peers_of(outside, target).await;
    story.saw(after >= peers, &format!("{} still has its {peers} validator peers ({after})", target.name));
    Ok(())
}

async fn let_in_again(
    options: &Options,
    ban: Option<BanInfo>,
    target: &Node,
    me: Ipv4Addr,
    events: &mut Events,
    story: &mut Story,
) -> Result<()> {
    let Some(ban) = ban else { return Ok(()) };
    let left = Duration::from_millis(ban.until_unix_ms.saturating_sub(unix_ms()));
    if left > Duration::from_secs(options.ttl_wait) {
        story.did(&format!("the ban lasts another {} s: more than --ttl-wait", left.as_secs()));
        return Ok(());
    }
    story.did(&format!("the ban ends in {} s; dialling all the while", left.as_secs()));
    let early = tokio::select! {
        early = connected(events, left.saturating_sub(POLL)) => early,
        () = stop_asked() => bail!("stopped"),
    };
    // A ban may be renewed by what is sent while it lasts; ask again how long it runs.
    let still = bans(target)?.into_iter().find(|ban| covers(ban, me));
    let renewed = still.map(|ban| ban.until_unix_ms.saturating_sub(unix_ms())).unwrap_or(0);
    story.saw(early.is_none(), "was not let in before the ban's end");
    let wait = READMIT_MAX + Duration::from_millis(renewed);
    let again = match early {
        Some(peer) => Some(peer),
        None => connected(events, wait).await,
    };
    story.saw(again.is_some(), "was let in again when the ban ended");
    Ok(())
}

async fn stop_asked() {
    while !crate::signals::asked_to_stop() {
        tokio::time::sleep(POLL).await;
    }
}

/// The counters that the attack must move.
struct Watch {
    dropped: u64,
    metric: f64,
}

/// What /metrics of a node counts under the reason; 0 if it does not answer.
async fn metric(outside: &Outside, target: &Node) -> f64 {
    let text = outside.get(&format!("{}/metrics", target.api_url)).await.unwrap_or_default();
    sample(&text, METRIC, REASON)
}

/// The sample of a metric with a reason in an exposition.
fn sample(text: &str, metric: &str, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    let line = text.lines().find(|line| line.starts_with(metric) && line.contains(&label));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

async fn wait_for_metric(outside: &Outside, target: &Node, before: f64) -> bool {
    let deadline = Instant::now() + METRICS_MAX;
    while Instant::now() < deadline {
        if metric(outside, target).await > before {
            return true;
        }
        tokio::time::sleep(POLL).await;
    }
    false
}

pub(super) async fn height_of(outside: &Outside, target: &Node) -> Result<Height> {
    let text = outside.get(&format!("{}/api/v1/node/info", target.api_url)).await?;
    let info: api::info::NodeInfo = serde_json::from_str(&text).context("node info")?;
    Ok(info.height)
}

async fn peers_of(outside: &Outside, target: &Node) -> usize {
    let text = outside.get(&format!("{}/api/v1/network/peers", target.api_url)).await.unwrap_or_default();
    let peers: Vec<api::info::PeerInfo> = serde_json::from_str(&text).unwrap_or_default();
    peers.iter().filter(|peer| peer.validator.is_some()).count()
}

fn dropped(stats: &Stats) -> u64 {
    stats.dropped.get(REASON).copied().unwrap_or(0)
}

fn total(stats: &Stats) -> u64 {
    stats.passed.values().sum::<u64>() + stats.dropped.values().sum::<u64>()
}

fn client(target: &Node) -> Result<guard::Client> {
    let socket = target.guard_socket.as_deref().context("no guard")?;
    guard::Client::connect(socket).with_context(|| format!("the guard of {}", target.name))
}

fn stats(target: &Node) -> Result<Stats> {
    client(target)?.stats(false).context("ask for the guard's counters")
}

fn bans(target: &Node) -> Result<Vec<BanInfo>> {
    client(target)?.bans().context("ask for the bans")
}

fn covers(ban: &BanInfo, address: Ipv4Addr) -> bool {
    ban.address.contains(IpAddr::V4(address))
}

fn v4(node: &Node) -> Option<Ipv4Addr> {
    match node.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_reason() {
        let text = "# TYPE x counter\n\
            ebpf_node_xdp_packets_dropped_total{reason=\"banned_rate\"} 9\n\
            ebpf_node_xdp_packets_dropped_total{reason=\"banned_bad_signature\"} 12\n";
        assert_eq!(sample(text, METRIC, REASON), 12.0);
        assert_eq!(sample(text, METRIC, "banned_replay"), 0.0);
    }
}
