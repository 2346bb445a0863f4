//! The swarm and its task: the one place where transports, behaviours and queues are put together.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, SwarmBuilder, identify, noise, ping, tcp, yamux};
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use types::Hello;

use crate::behaviour::Behaviour;
use crate::config::{Config, ConfigError, Limits};
use crate::event::{Counters, Event, Refusal};
use crate::handle::{COMMANDS_MAX, Command, Handle};
use crate::inbox::{Events, channels};
use crate::lane::Shared;
use crate::peers::Peers;

/// Substreams of a connection: the lane's, two for pings, one for identify, and some that are being negotiated.
const SUBSTREAMS_MAX: usize = 16;
/// Substreams of a connection whose protocol is not agreed upon yet.
const NEGOTIATING_MAX: usize = 8;
/// QUIC's windows, what a peer may have us hold unread: two of the largest messages on the lane's stream, a little more in all.
const QUIC_STREAM_BYTES: u32 = 2 * 1024 * 1024;
const QUIC_CONNECTION_BYTES: u32 = 2 * 1024 * 1024 + 256 * 1024;
/// Handler commands and events in flight between the swarm and one connection.
const CONNECTION_EVENTS: usize = 8;

/// How long the end may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why the network did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The configuration can't work.
    #[error("network configuration")]
    Config(#[source] ConfigError),
    /// A transport could not be made.
    #[error("transport: {0}")]
    Transport(String),
    /// An address can't be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Where.
        address: Multiaddr,
        /// What the system says.
        reason: String,
    },
    /// A hello that no peer would read.
    #[error("hello")]
    Hello(#[source] crate::frame::FrameError),
}

#[derive(NetworkBehaviour)]
struct Behaviours {
    // First: it refuses before the others allocate anything.
    lanes: Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// Starts the network within the current Tokio runtime. `hello` is what we say first; its proof, if any, must be bound to
/// `keypair`'s PeerId and to the chain.
///
/// The task ends when [`Handle::shutdown`] is called or the events are dropped.
///
/// # Errors
/// [`SpawnError`]; nothing runs then.
pub fn spawn(config: Config, keypair: Keypair, hello: &Hello) -> Result<(Handle, Events, JoinHandle<()>), SpawnError> {
    config.check().map_err(SpawnError::Config)?;
    let me = keypair.public().to_peer_id();
    let (control, inbox, events) = channels(&config.limits);
    let shared = Shared::new(hello, config.limits.clone(), inbox).map_err(SpawnError::Hello)?;
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let handle = Handle {
        me,
        peers: Arc::new(Peers::default()),
        commands: sender,
        validators: Arc::new(RwLock::new(HashSet::new())),
        counters: Arc::new(Counters::default()),
        shutdown: CancellationToken::new(),
    };
    handle.set_validators(config.validators.iter().copied());
    let Handle { peers, validators, counters, shutdown, .. } = handle.clone();
    let mut lanes = Behaviour::new(me, Arc::new(shared), peers, validators, counters, control.clone());
    for address in config.peers {
        if !lanes.add_target(address.clone()) {
            return Err(SpawnError::Config(ConfigError::TooMany("addresses of one peer", crate::config::TARGET_ADDRESSES_MAX)));
        }
    }
    let mut swarm = build(keypair, lanes, &config.limits)?;
    for address in config.listen {
        let listening = swarm.listen_on(address.clone());
        let listener = listening.map_err(|error| SpawnError::Listen { address, reason: chain(&error) })?;
        swarm.behaviour_mut().lanes.await_listener(listener);
    }
    let task = tokio::spawn({
        let peers = handle.peers.clone();
        async move {
            run(swarm, commands, control, shutdown).await;
            peers.clear();
        }
    });
    Ok((handle, events, task))
}

fn build(keypair: Keypair, lanes: Behaviour, limits: &Limits) -> Result<Swarm<Behaviours>, SpawnError> {
    let muxer = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(SUBSTREAMS_MAX);
        config
    };
    let (timeout, idle) = (limits.dial_timeout, limits.quic_idle_timeout);
    let identify = identify::Config::new("/ebpf-blockchain/1".into(), keypair.public())
        .with_agent_version(concat!("ebpf-node/", env!("CARGO_PKG_VERSION")).into())
        .with_cache_size(0)
        .with_hide_listen_addrs(true);
    let ping = ping::Config::new().with_interval(limits.ping_interval).with_timeout(limits.ping_timeout);
    let behaviours = Behaviours { lanes, identify: identify::Behaviour::new(identify), ping: ping::Behaviour::new(ping) };
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, muxer)
        .map_err(|error| SpawnError::Transport(chain(&error)))?
        .with_quic_config(|mut config| {
            config.handshake_timeout = timeout;
            config.max_idle_timeout = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
            config.keep_alive_interval = idle / 3;
            config.max_concurrent_stream_limit = SUBSTREAMS_MAX as u32;
            config.max_stream_data = QUIC_STREAM_BYTES;
            config.max_connection_data = QUIC_CONNECTION_BYTES;
            config
        })
        .with_behaviour(|_| behaviours)
        .map_err(|error| SpawnError::Transport(chain(&error)))?
        .with_swarm_config(|config| {
            config
                .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
                .with_per_connection_event_buffer_size(CONNECTION_EVENTS)
                // Our handler keeps alive what stands and ends what does not.
                .with_idle_connection_timeout(Duration::ZERO)
        })
        .with_connection_timeout(timeout)
        .build();
    Ok(swarm)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

async fn run(
    mut swarm: Swarm<Behaviours>,
    mut commands: mpsc::Receiver<Command>,
    control: mpsc::Sender<Event>,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = control.closed() => break,
            Some(command) = commands.recv() => on_command(&mut swarm.behaviour_mut().lanes, command),
            event = swarm.select_next_some() => on_event(swarm.behaviour_mut(), event),
        }
    }
    farewell(&mut swarm).await;
    tracing::debug!("network ended");
}

fn on_command(lanes: &mut Behaviour, command: Command) {
    match command {
        Command::Dial(address) => {
            if !lanes.add_target(address.clone()) {
                tracing::warn!(%address, "too many peers or addresses to keep connected with; address dropped");
            }
        }
        Command::Limit { peer_id, address, period } => lanes.limit(peer_id, address, period),
    }
}

/// Closes all connections, so that the other ends know at once: a QUIC connection that only falls silent is missed after seconds.
async fn farewell(swarm: &mut Swarm<Behaviours>) {
    let peers: Vec<PeerId> = swarm.connected_peers().copied().collect();
    for peer_id in peers {
        _ = swarm.disconnect_peer_id(peer_id);
    }
    let closed = async {
        while swarm.connected_peers().next().is_some() {
            swarm.select_next_some().await;
        }
    };
    _ = tokio::time::timeout(FAREWELL, closed).await;
}

fn on_event(behaviours: &mut Behaviours, event: SwarmEvent<BehavioursEvent>) {
    let lanes = &mut behaviours.lanes;
    match event {
        SwarmEvent::NewListenAddr { address, .. } => lanes.emit(Event::Listening(address)),
        SwarmEvent::Behaviour(BehavioursEvent::Ping(ping::Event { connection, result, .. })) => match result {
            Ok(rtt) => lanes.measured(connection, rtt),
            Err(ping::Failure::Timeout) => lanes.close(connection, Some(Refusal::Timeout)),
            // Not to speak ping, or to break its stream, is no reason: what is dead for us is what does not answer.
            Err(error) => tracing::debug!(%connection, %error, "ping failed"),
        },
        SwarmEvent::Behaviour(BehavioursEvent::Identify(identify::Event::Received { connection_id, info, .. })) => {
            lanes.named(connection_id, &info.agent_version);
        }
        SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener"),
        SwarmEvent::ListenerClosed { addresses, reason, .. } => tracing::error!(?addresses, ?reason, "listener closed"),
        _ => {}
    }
}
