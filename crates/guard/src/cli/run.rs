//! `ebpf-guard run`.

use anyhow::Context;
use clap::Args;
use guard::{
    Prefix, Protocol,
    kernel::{
        Guard, Options,
        attach::Preference,
        bpffs, caps,
        egress::EgressOptions,
        events,
        flows::{Budget, Budgets},
        server,
    },
};
use kernel_shared::{
    control::{Mode, SynProxy},
    strangers,
};
use std::{
    io::Write,
    os::fd::{FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// How often the ring is drained.
const DRAIN_EVERY: Duration = Duration::from_millis(100);
/// How often expired bans and flows are freed.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);

/// Options of `run`.
#[derive(Args)]
pub struct Run {
    /// Interface to filter.
    #[arg(long)]
    iface: String,
    /// Ports to protect, e.g. tcp/30303,udp/30303. All others are never touched. quic/4001 is a UDP port that speaks QUIC and nothing else:
    /// strangers' long headers of unknown versions and undersized Initials are dropped there.
    #[arg(long, required = true, value_delimiter = ',', value_parser = port)]
    protect: Vec<Port>,
    /// off, shadow or enforce. Default: what an adopted guard had, else shadow, which counts and drops nothing.
    #[arg(long, value_parser = mode)]
    mode: Option<Mode>,
    /// Name that tells this guard's pins from others'.
    #[arg(long, default_value = "default")]
    instance: String,
    /// Where to listen.
    #[arg(long, default_value = "/run/ebpf-guard/guard.sock")]
    socket: PathBuf,
    /// Directory of pins; a bpf file system is mounted if there is none.
    #[arg(long, default_value = bpffs::DEFAULT)]
    bpffs: PathBuf,
    /// Uids beside root that may ban, announce flows and switch modes.
    #[arg(long, value_delimiter = ',')]
    allow_uid: Vec<u32>,
    /// Network namespace to enter first, e.g. /run/netns/node1.
    #[arg(long)]
    netns: Option<PathBuf>,
    /// native, generic, or auto (native, else generic).
    #[arg(long, default_value = "auto", value_parser = preference)]
    xdp: Preference,
    /// Ranges that no ban may touch.
    #[arg(long, value_delimiter = ',')]
    floor: Vec<Prefix>,
    /// Budgets of strangers, NAME=RATE/BURST in packets a second and at once, e.g. syn_source=100/200; burst 0 = no limit.
    /// `ebpf-guard budgets` lists the names. Default: what an adopted guard had, else generous ones.
    #[arg(long, value_delimiter = ',', value_parser = budget)]
    budget: Vec<(strangers::Budget, Budget)>,
    /// Keep the processes of --cgroup from dialing private, link-local, documentation and other special ranges. Follows the mode: shadow only counts.
    #[arg(long, requires = "cgroup")]
    egress: bool,
    /// The node's control group, a directory of cgroup2: its TCP connections get figures in `peers`, and --egress guards it.
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// Prefixes that may be dialed all the same.
    #[arg(long, value_delimiter = ',', requires = "egress")]
    egress_allow: Vec<Prefix>,
    /// Forbid the loopback ranges too: they never leave the host, so they are allowed otherwise.
    #[arg(long, requires = "egress")]
    egress_no_loopback: bool,
    /// Answer SYNs above the handshakes' budget with a cookie, so that real clients still get in: off, on (the default of the bare flag), or
    /// all (also above the budgets of one address and network). Sets net.ipv4.tcp_syncookies=2. Default: what an adopted guard had, else off.
    #[arg(long, num_args = 0..=1, default_missing_value = "on", value_parser = syn_proxy)]
    syn_proxy: Option<SynProxy>,
    /// Descriptor to write "ready" to once the filter is attached and the socket answers.
    #[arg(long)]
    ready_fd: Option<i32>,
    /// Seconds without a heartbeat after which known flows lapse.
    #[arg(long, default_value_t = 30)]
    heartbeat_timeout: u64,
    /// Every 2^N-th drop of a CPU is told as an event.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(0..=31))]
    event_shift: u8,
    /// Every 2^N-th packet of a flow is measured from its arrival to its reader.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=31))]
    latency_shift: u8,
}

impl Run {
    /// Runs until a signal or a request ends it.
    pub fn run(self) -> anyhow::Result<()> {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
        let signals = block_signals()?;
        if let Some(path) = &self.netns {
            enter(path).with_context(|| format!("entering network namespace {}", path.display()))?;
        }
        let (allow, loopback) = (self.egress_allow, !self.egress_no_loopback);
        let egress = self.cgroup.clone().filter(|_| self.egress).map(|cgroup| EgressOptions { cgroup, allow, loopback });
        let options = Options {
            interface: self.iface,
            protect: self.protect.iter().map(|port| (port.protocol, port.number)).collect(),
            quic: self.protect.iter().filter(|port| port.quic).map(|port| port.number).collect(),
            mode: self.mode,
            instance: self.instance,
            bpffs: self.bpffs,
            xdp: self.xdp,
            floor: self.floor,
            heartbeat_timeout: Duration::from_secs(self.heartbeat_timeout),
            event_shift: self.event_shift,
            latency_shift: self.latency_shift,
            budgets: Budgets::default(),
            strangers: self.budget,
            egress,
            cgroup: self.cgroup,
            syn_proxy: self.syn_proxy,
        };
        // Mounts, directories and the socket first: afterwards the right to make them is given up.
        let prepared = Guard::prepare(&options)?;
        let listener = server::listen(&self.socket).with_context(|| format!("listening on {}", self.socket.display()))?;
        caps::drop_to_needed().context("dropping capabilities")?;
        let hub = Arc::new(events::Hub::default());
        let mut guard = Guard::start(options, prepared, hub.clone())?;
        guard.degraded().iter().for_each(|line| tracing::warn!("{line}"));
        let mut ring = guard.take_ring()?;
        announce(&mut guard);
        let shared = Arc::new(server::Shared {
            guard: Mutex::new(guard),
            hub: hub.clone(),
            allowed: self.allow_uid,
            stop: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
        });
        let of_server = shared.clone();
        std::thread::Builder::new().name("guard-server".into()).spawn(move || server::serve(listener, of_server))?;
        if let Some(fd) = self.ready_fd {
            ready(fd).context("writing to --ready-fd")?;
        }
        let mut housekept = Instant::now();
        while !shared.stop.load(SeqCst) && !signals.arrived(DRAIN_EVERY) {
            events::drain(&mut ring, &hub);
            if housekept.elapsed() >= HOUSEKEEPING_EVERY {
                housekept = Instant::now();
                let mut guard = shared.guard.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = guard.housekeeping() {
                    tracing::error!(%error, "housekeeping failed");
                }
            }
        }
        if let Err(error) = shared.guard.lock().unwrap_or_else(PoisonError::into_inner).farewell() {
            tracing::error!(%error, "a budget was not given back");
        }
        // A socket in a directory of somebody else's can't be removed without the rights given up; the next start does it.
        let _ = std::fs::remove_file(&self.socket);
        tracing::info!("stopping; the filter stays until it is detached");
        Ok(())
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
            tracing::warn!(interface = stats.interface, "this interface takes no XDP program: nothing is filtered");
        }
    }
}

/// Signals that end the process in order. Blocked in every thread, taken by the main loop.
struct Signals(nix::sys::signal::SigSet);

fn block_signals() -> anyhow::Result<Signals> {
    use nix::sys::signal::{SigSet, Signal};
    let set: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    set.thread_block()?;
    Ok(Signals(set))
}

impl Signals {
    /// Waits for a signal, at most so long.
    fn arrived(&self, wait: Duration) -> bool {
        let timeout = libc::timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos() as i64 };
        // SAFETY: the set and the timeout outlive the call.
        unsafe { libc::sigtimedwait(self.0.as_ref(), std::ptr::null_mut(), &timeout) > 0 }
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

/// A port to protect.
#[derive(Clone, Copy)]
struct Port {
    protocol: Protocol,
    number: u16,
    /// It speaks QUIC and nothing else.
    quic: bool,
}

fn port(text: &str) -> Result<Port, String> {
    let (protocol, number) = text.split_once('/').ok_or("a port is tcp/NUMBER, udp/NUMBER or quic/NUMBER")?;
    let (protocol, quic) = match protocol {
        "tcp" => (Protocol::Tcp, false),
        "udp" => (Protocol::Udp, false),
        "quic" => (Protocol::Udp, true),
        _ => return Err(format!("'{protocol}' is neither tcp nor udp nor quic")),
    };
    let number: u16 = number.parse().map_err(|_| format!("'{number}' is no port"))?;
    Ok(Port { protocol, number, quic })
}

fn budget(text: &str) -> Result<(strangers::Budget, Budget), String> {
    let parts = text.split_once('=').and_then(|(name, value)| Some((name, value.split_once('/')?)));
    let (name, (rate, burst)) = parts.ok_or("a budget is NAME=RATE/BURST")?;
    let budget = strangers::Budget::from_name(name).ok_or_else(|| format!("'{name}' is no budget"))?;
    let number = |text: &str| text.parse::<u32>().map_err(|_| format!("'{text}' is no number of packets"));
    let (rate, burst) = (number(rate)?, number(burst)?);
    match guard::kernel::budgets::refusal(rate, burst) {
        Some(message) => Err(message),
        None => Ok((budget, Budget { rate, burst })),
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    Mode::from_name(text).ok_or_else(|| "a mode is off, shadow or enforce".to_string())
}

fn syn_proxy(text: &str) -> Result<SynProxy, String> {
    SynProxy::from_name(text).ok_or_else(|| "the SYN proxy is off, on or all".to_string())
}

fn preference(text: &str) -> Result<Preference, String> {
    match text {
        "auto" => Ok(Preference::Auto),
        "native" => Ok(Preference::Native),
        "generic" => Ok(Preference::Generic),
        _ => Err("an XDP mode is native, generic or auto".to_string()),
    }
}
