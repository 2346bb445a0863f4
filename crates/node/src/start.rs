//! The task tree, built in one place.
//!
//! ```text
//! main          waits for a signal or for the core thread's end
//! ├─ core       replica, signer, journal (OS thread)
//! ├─ storage    writes and reads of RocksDB (OS thread)
//! ├─ verify-N   transactions' signatures (OS threads, lower priority)
//! ├─ guard-link flows, bans, the beat (OS thread)
//! └─ tokio      network, API (2 workers)
//! ```

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use api::metrics::Metrics;
use libp2p::identity::Keypair;
use replica::Replica;
use signer::Signer;
use signer::file::FileDisk;
use storage::Storage;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use types::{Hello, ProofOfValidator, WIRE_VERSION};

use crate::backend::NodeBackend;
use crate::config::{Config, LogFormat};
use crate::core::{self, Core, Ended, Inputs, Parts};
use crate::evidence::EvidenceStore;
use crate::guard_link::GuardLink;
use crate::store::{self, StoreThread};
use crate::verify::Pool;
use crate::{boot, home};

/// Threads of the runtime: the network and the API wait more than they work.
const RUNTIME_WORKERS: usize = 2;

/// Runs a node until SIGINT or SIGTERM.
///
/// # Errors
/// If it can't start, or had to stop.
pub fn start(config: Config) -> Result<()> {
    logging(&config)?;
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_WORKERS).enable_all().build()?;
    let (Running { stop, network, network_task }, inputs, core) = assemble(&config, started, &runtime)?;
    let handle = runtime.handle().clone();
    let (ended, wait) = oneshot::channel();
    let thread = std::thread::Builder::new().name("core".into()).spawn(move || {
        let _ = ended.send(core.run(&handle, inputs));
    })?;
    tracing::info!(name = config.name, startup_ms = started.elapsed().as_millis() as u64, "started");
    let ended = runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut wait = wait;
        let mut stop = Some(stop);
        loop {
            tokio::select! {
                ended = &mut wait => return anyhow::Ok(ended.ok()),
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::info!("stopping");
            drop(stop.take());
        }
    })?;
    let _ = thread.join();
    // Its farewell has an end of its own. Without it the runtime would take the sockets from under it, and peers would miss us seconds later only.
    network.shutdown();
    if let Err(error) = runtime.block_on(network_task) {
        tracing::error!(%error, "the network did not end in order");
    }
    runtime.shutdown_background();
    match ended {
        Some(Ended::Asked) => Ok(()),
        Some(Ended::Fatal(reason)) => {
            tracing::error!(reason, "the node had to stop");
            bail!("{reason}")
        }
        None => bail!("the core thread ended without a word"),
    }
}

/// What the main thread keeps.
struct Running {
    /// Dropped to stop.
    stop: oneshot::Sender<()>,
    network: network::Handle,
    /// Ends after a farewell to the peers.
    network_task: tokio::task::JoinHandle<()>,
}

fn logging(config: &Config) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log_level).context("log.level")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = match config.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    done.map_err(|error| anyhow::anyhow!("log: {error}"))
}

fn open_signer(config: &Config) -> Result<Option<(Signer<FileDisk>, Vec<signer::Record>)>> {
    let Some(path) = &config.validator_key else { return Ok(None) };
    let key = signer::key::load(path).with_context(|| format!("validator.key {}", path.display()))?;
    let journal = config.data_dir.join("journal");
    let disk = FileDisk::open(&journal).with_context(|| format!("the signer's journal {}", journal.display()))?;
    Signer::open(key, disk).with_context(|| format!("the signer's journal {}", journal.display())).map(Some)
}

fn hello(chain: types::ChainId, keypair: &Keypair, signer: Option<&Signer<FileDisk>>) -> Result<Hello> {
    let peer_id = keypair.public().to_peer_id().to_bytes();
    let proof = signer.map(|signer| {
        let signature = signer.sign_plain(signer::Plain::Handshake { chain, peer_id: &peer_id })?;
        anyhow::Ok(ProofOfValidator { key: signer.public(), signature })
    });
    Ok(Hello { version: WIRE_VERSION, chain, validator: proof.transpose()? })
}

fn network_config(config: &Config, validators: Vec<types::PublicKey>) -> Result<network::Config> {
    let parse = |key: &'static str, texts: &[String]| {
        let parsed = texts.iter().map(|text| text.parse().with_context(|| format!("{key}: {text}")));
        parsed.collect::<Result<Vec<_>>>()
    };
    Ok(network::Config {
        listen: parse("network.listen", &config.listen)?,
        peers: parse("network.peers", &config.peers)?,
        validators,
        limits: config.limits.clone(),
    })
}

fn assemble(config: &Config, started: Instant, runtime: &tokio::runtime::Runtime) -> Result<(Running, Inputs, Core)> {
    std::fs::create_dir_all(&config.data_dir).with_context(|| format!("data_dir {}", config.data_dir.display()))?;
    let genesis = home::read_genesis(&config.genesis)?;
    let storage = Arc::new(Storage::open(&config.data_dir.join("db"), storage::Options::default(), &genesis).context("storage")?);
    let keypair = home::load_network_key(&config.network_key)?;
    let signer = open_signer(config)?;
    let hello = hello(storage.chain(), &keypair, signer.as_ref().map(|(signer, _)| signer))?;
    let boot = boot::read(&storage)?;
    let validators: Vec<_> = boot.epochs.last().unwrap_or(&genesis.epochs[0]).validators.iter().map(|v| v.key).collect();
    let validator_key = signer.as_ref().map(|(signer, _)| signer.public());
    let alone = validators.len() == 1 && validator_key == validators.first().copied();
    tracing::info!(chain = %storage.chain(), height = %storage.progress().tip.height, "storage is open");

    let _in_runtime = runtime.enter();
    let (network, events, network_task) =
        network::spawn(network_config(config, validators)?, keypair.clone(), &hello).context("starting the network")?;
    let replica = Replica::new(replica_config(config)?, boot, signer, core::tick(started), core::unix_ms()).context("recovery")?;

    let (replies, reply_inputs) = store::replies();
    let store = StoreThread::start(Arc::clone(&storage), replies)?;
    let (verdicts, verdict_inputs) = mpsc::channel(core::VERDICTS_MAX);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let pool = Pool::start(if cores > 2 { cores - 1 } else { cores })?;
    let metrics = Arc::new(Metrics::new());
    let guard = Arc::new(GuardLink::start(&config.guard, Box::new(network.clone()), Arc::clone(&metrics))?);
    let evidence = EvidenceStore::open(&config.data_dir.join("evidence"))?;
    let view = Arc::clone(guard.view());
    let parts = Parts {
        replica,
        network: network.clone(),
        store,
        pool,
        guard,
        metrics: Arc::clone(&metrics),
        evidence,
        verdicts,
        started,
        alone,
    };
    let (core, handle, commands) = Core::new(parts);
    let running = network.clone();
    let backend = NodeBackend {
        name: config.name.clone(),
        peer_id: keypair.public().to_peer_id().to_string(),
        validator_key,
        storage,
        core: handle,
        network,
        guard: view,
        metrics,
        started,
    };
    serve(config, Arc::new(backend), runtime)?;
    let (stop, stopped) = oneshot::channel();
    let inputs = Inputs { network: events, replies: reply_inputs, verdicts: verdict_inputs, commands, stop: stopped };
    Ok((Running { stop, network: running, network_task }, inputs, core))
}

fn serve(config: &Config, backend: Arc<NodeBackend>, runtime: &tokio::runtime::Runtime) -> Result<()> {
    let limits = api::Config::default();
    let listener = runtime.block_on(api::listener(config.api_listen)).context("api.listen")?;
    tracing::info!(address = %listener.local_addr()?, "API");
    let router = api::router(backend, &limits);
    runtime.spawn(api::serve(listener, router, limits, std::future::pending()));
    Ok(())
}

fn replica_config(config: &Config) -> Result<replica::Config> {
    let timing = &config.consensus;
    let made = replica::Config {
        resend_ms: timing.resend_ms,
        consensus: consensus::Config {
            leader_timeout_ms: timing.leader_timeout_ms,
            view_timeout_ms: timing.view_timeout_ms,
            idle_interval_ms: timing.idle_interval_ms,
            resend_ms: timing.resend_ms,
            block_interval_min_ms: timing.block_interval_min_ms,
            ..consensus::Config::default()
        },
        mempool: mempool::Config {
            transactions_max: config.mempool.transactions_max,
            bytes_max: config.mempool.bytes_max,
            batch_delay_ms: config.mempool.batch_delay_ms,
            ..mempool::Config::default()
        },
        ..replica::Config::default()
    };
    made.consensus.check().context("consensus")?;
    made.mempool.check().context("mempool")?;
    Ok(made)
}
