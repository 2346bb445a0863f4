//! `ebpf-guard run`.

use super::{
    config::Settings,
    reload::{self, Lists},
    values::{self, FromText},
};
use anyhow::Context;
use clap::Args;
use guard::{
    Prefix,
    kernel::{Guard, attach::Preference, caps, events, flows::Budget, ports::Ports, scrape, server, watch::Watcher},
};
use kernel_shared::{
    control::{Mode, SynProxy},
    strangers,
};
use nix::sys::signal::Signal;
use sd_notify::NotifyState;
use std::{
    io::Write,
    net::SocketAddr,
    os::fd::{FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// How often the ring is drained.
const DRAIN_EVERY: Duration = Duration::from_millis(100);
/// How often expired bans and flows are freed.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);

/// Options of `run`. Each wins over its key in the configuration file.
#[derive(Args, Default)]
pub struct Run {
    /// Configuration file; `kill -HUP` or `ebpf-guard reload` reads it again.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Interface to filter.
    #[arg(long, required_unless_present = "config")]
    pub iface: Option<String>,
    /// Ports to protect, e.g. tcp/30303,udp/30303 or udp/8000-8020. All others are never touched. quic/4001 is a UDP port that speaks
    /// QUIC and nothing else: strangers' long headers of unknown versions and undersized Initials are dropped there.
    #[arg(long, required_unless_present = "config", value_delimiter = ',', value_parser = Ports::from_text)]
    pub protect: Vec<Ports>,
    /// off, shadow or enforce. Default: what an adopted guard had, else shadow, which counts and drops nothing.
    #[arg(long, value_parser = Mode::from_text)]
    pub mode: Option<Mode>,
    /// Name that tells this guard's pins from others'. Default: default.
    #[arg(long)]
    pub instance: Option<String>,
    /// Where to listen. Default: /run/ebpf-guard/guard.sock.
    #[arg(long)]
    pub socket: Option<PathBuf>,
    /// Directory of pins; a bpf file system is mounted if there is none. Default: /sys/fs/bpf/ebpf-guard.
    #[arg(long)]
    pub bpffs: Option<PathBuf>,
    /// Directory that keeps bans and lists over restarts and reboots; each instance has its own in it. Default: /var/lib/ebpf-guard.
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// Users beside root, by number or name, that may ban, announce flows and switch modes.
    #[arg(long, value_delimiter = ',', value_parser = values::user)]
    pub allow_uid: Vec<u32>,
    /// Groups, by number or name, that may do the same.
    #[arg(long, value_delimiter = ',', value_parser = values::group)]
    pub allow_group: Vec<u32>,
    /// Network namespace to enter first, e.g. /run/netns/node1.
    #[arg(long)]
    pub netns: Option<PathBuf>,
    /// native, generic, tcx (behind XDP, where the kernel has made a socket buffer of the packet; no SYN proxy), or auto (native, else
    /// generic, else tcx). Default: auto.
    #[arg(long, value_parser = Preference::from_text)]
    pub xdp: Option<Preference>,
    /// Ranges that no ban may touch.
    #[arg(long, value_delimiter = ',')]
    pub floor: Vec<Prefix>,
    /// Budgets of strangers, NAME=RATE/BURST in packets a second and at once, e.g. syn_source=100/200; burst 0 = no limit.
    /// `ebpf-guard budgets` lists the names. Default: what an adopted guard had, else generous ones.
    #[arg(long, value_delimiter = ',', value_parser = values::budget)]
    pub budget: Vec<(strangers::Budget, Budget)>,
    /// Keep the processes of --cgroup from dialing private, link-local, documentation and other special ranges. Follows the mode: shadow only counts.
    #[arg(long, requires = "cgroup")]
    pub egress: bool,
    /// The node's control group, a directory of cgroup2: its TCP connections get figures in `peers`, and --egress guards it. It
    /// may come later, and go and come again with the node's service.
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
    /// Prefixes that may be dialed all the same.
    #[arg(long, value_delimiter = ',', requires = "egress")]
    pub egress_allow: Vec<Prefix>,
    /// Forbid the loopback ranges too: they never leave the host, so they are allowed otherwise.
    #[arg(long, requires = "egress")]
    pub egress_no_loopback: bool,
    /// Answer SYNs above the handshakes' budget with a cookie, so that real clients still get in: off, on (the default of the bare flag), or
    /// all (also above the budgets of one address and network). Sets net.ipv4.tcp_syncookies=2 meanwhile. Default: what an adopted guard had, else off.
    #[arg(long, num_args = 0..=1, default_missing_value = "on", value_parser = SynProxy::from_text)]
    pub syn_proxy: Option<SynProxy>,
    /// Descriptor to write "ready" to once the filter is attached and the socket answers.
    #[arg(long)]
    pub ready_fd: Option<i32>,
    /// Seconds without a heartbeat after which known flows lapse. Default: 30.
    #[arg(long)]
    pub heartbeat_timeout: Option<u64>,
    /// Seconds after which hits of bans are saved, if nothing else about bans is meanwhile. Default: 300.
    #[arg(long)]
    pub save_hits_every: Option<u64>,
    /// Drop packets whose port lies beyond two VLAN tags or four IPv6 extension headers: honest senders make none. Default: true.
    #[arg(long)]
    pub drop_unreadable: Option<bool>,
    /// Every 2^N-th drop of a CPU is told as an event. Default: 6.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=31))]
    pub event_shift: Option<u8>,
    /// Every 2^N-th packet of a flow is measured from its arrival to its reader. Default: 3.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=31))]
    pub latency_shift: Option<u8>,
    /// Address for Prometheus to scrape, e.g. 127.0.0.1:9465, in the guard's network namespace. Default: none.
    #[arg(long)]
    pub metrics: Option<SocketAddr>,
}

impl Run {
    /// No flag but the file.
    pub fn of_file(config: &Path) -> Run {
        Run { config: Some(config.to_path_buf()), ..Run::default() }
    }

    /// Runs until a signal or a request ends it.
    pub fn run(self) -> anyhow::Result<()> {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
        let settings = Settings::read(&self)?;
        let signals = block_signals()?;
        if let Some(path) = &settings.netns {
            enter(path).with_context(|| format!("entering network namespace {}", path.display()))?;
        }
        // Mounts, directories and sockets first: afterwards the right to make them is given up.
        let prepared = Guard::prepare(&settings.options)?;
        let socket = settings.socket.clone();
        let listener = server::listen(&socket).with_context(|| format!("listening on {}", socket.display()))?;
        let scrapes = settings.metrics.map(|address| scrape::listen(address).with_context(|| format!("listening on {address}")));
        let scrapes = scrapes.transpose()?;
        caps::drop_to_needed().context("dropping capabilities")?;
        let hub = Arc::new(events::Hub::default());
        let mut guard = Guard::start(settings.options.clone(), prepared, hub.clone())?;
        guard.degraded().iter().for_each(|line| tracing::warn!("{line}"));
        let mut ring = guard.take_ring()?;
        announce(&mut guard);
        let guard = Mutex::new(guard);
        let loading = Mutex::new(());
        let watcher = Arc::new(Mutex::new(Watcher::start(&settings.ban_files, &mut Lists::new(&guard, &loading))));
        let reads_file = self.config.is_some();
        let ready_fd = self.ready_fd;
        let shared = Arc::new(server::Shared {
            guard,
            hub: hub.clone(),
            access: RwLock::new(settings.access.clone()),
            reload: reload::reloader(self, settings.clone(), watcher.clone()),
            stop: AtomicBool::new(false),
            loading,
            seats: Arc::default(),
        });
        let of_server = shared.clone();
        std::thread::Builder::new().name("guard-server".into()).spawn(move || server::serve(listener, of_server))?;
        if let Some(scrapes) = scrapes {
            scrape::serve(scrapes, shared.clone()).context("starting the metrics endpoint")?;
        }
        if let Some(fd) = ready_fd {
            ready(fd).context("writing to --ready-fd")?;
        }
        tell(&[NotifyState::Ready, NotifyState::Status(&format!("guarding {}", settings.options.interface))]);
        let mut housekept = Instant::now();
        while !shared.stop.load(SeqCst) {
            match signals.arrived(DRAIN_EVERY) {
                Some(Signal::SIGHUP) if reads_file => _ = (shared.reload)(&shared),
                Some(_) => break,
                None => {}
            }
            events::drain(&mut ring, &hub);
            watcher.lock().unwrap_or_else(PoisonError::into_inner).poll(&mut Lists::of(&shared));
            if housekept.elapsed() >= HOUSEKEEPING_EVERY {
                housekept = Instant::now();
                housekeep(&shared, &watcher);
                save(&shared);
            }
        }
        tell(&[NotifyState::Stopping]);
        shared.guard.lock().unwrap_or_else(PoisonError::into_inner).touch_all();
        save(&shared);
        if let Err(error) = shared.guard.lock().unwrap_or_else(PoisonError::into_inner).farewell() {
            tracing::error!(%error, "a budget was not given back");
        }
        // A socket in a directory of somebody else's can't be removed without the rights given up; the next start does it.
        let _ = std::fs::remove_file(&socket);
        tracing::info!("stopping; the filter stays until it is detached");
        Ok(())
    }
}

fn housekeep(shared: &server::Shared, watcher: &Mutex<Watcher>) {
    let done = shared.guard.lock().unwrap_or_else(PoisonError::into_inner).housekeeping();
    watcher.lock().unwrap_or_else(PoisonError::into_inner).tick(&mut Lists::of(shared));
    match done {
        Ok(()) => tell(&[NotifyState::Watchdog]), // a guard that can't keep house is not alive
        Err(error) => tracing::error!(%error, "housekeeping failed"),
    }
}

/// Tells the service manager, if there is one (`NOTIFY_SOCKET`, sd_notify(3)).
fn tell(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager can't be told");
    }
}

/// Writes what has changed, without the guard's lock. What can't be written is tried again, and said each time.
fn save(shared: &server::Shared) {
    let guard = || shared.guard.lock().unwrap_or_else(PoisonError::into_inner);
    let told =
        |error: &dyn std::error::Error| tracing::error!(error = crate::kernel::chain(error), "bans and lists can't be saved");
    let snapshot = guard().snapshot();
    match snapshot {
        Ok(None) => {}
        Ok(Some((state, snapshot))) => {
            let unwritten = snapshot.write(&state);
            unwritten.errors.iter().for_each(|error| told(error));
            guard().take_back(unwritten);
        }
        Err(error) => told(&error),
    }
}

fn announce(guard: &mut Guard) {
    if let (guard::Response::Stats(stats), _) = guard.answer(&guard::Request::Status {}) {
        tracing::info!(
            interface = stats.interface,
            xdp_mode = stats.xdp_mode,
            mode = stats.mode,
            adopted = stats.adopted,
            protect = stats.protect.join(","),
            "guarding"
        );
        if stats.xdp_mode == "none" {
            tracing::warn!(
                interface = stats.interface,
                "this interface takes no program, neither in XDP nor in TCX: nothing is filtered"
            );
        }
    }
}

/// Signals that end the process in order, or have it read its file again. Blocked in every thread, taken by the main loop.
pub(super) struct Signals(nix::sys::signal::SigSet);

/// From here on, in this thread and those that it starts.
pub(super) fn block_signals() -> anyhow::Result<Signals> {
    use nix::sys::signal::SigSet;
    let set: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    set.thread_block()?;
    Ok(Signals(set))
}

impl Signals {
    /// Waits for a signal, at most so long.
    pub(super) fn arrived(&self, wait: Duration) -> Option<Signal> {
        let timeout = libc::timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos() as i64 };
        // SAFETY: the set and the timeout outlive the call.
        let number = unsafe { libc::sigtimedwait(self.0.as_ref(), std::ptr::null_mut(), &timeout) };
        Signal::try_from(number).ok()
    }
}

fn enter(path: &Path) -> anyhow::Result<()> {
    let namespace = std::fs::File::open(path)?;
    nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

fn ready(fd: i32) -> anyhow::Result<()> {
    anyhow::ensure!(fd > 2, "descriptor {fd} is not one to write to");
    // SAFETY: the caller has passed the descriptor on for this; it is closed here.
    let mut file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.write_all(b"ready\n")?;
    Ok(())
}
