//! The network's members: each a home, a guard and a node.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use types::{GenesisRecord, PublicKey, UnixMs};

use super::Options;
use super::ground::Ground;
use crate::home::{Identity, Place};
use crate::screen::Row;
use crate::state::{FabricState, Node, Phase, State};
use crate::summary::Packets;
use crate::supervise::{Change, Service, Spec};
use crate::{chain, fabric, home, namespace, process};

/// Peers' port inside a namespace.
const P2P_PORT: u16 = 9_000;
/// First API port on the host's loopback; taken ones are passed over.
const API_PORT: u16 = 8_545;
/// Node 1 runs as this uid plus 1, and so on.
const UID_BASE: u32 = 60_000;
const GUARD_READY_MAX: Duration = Duration::from_secs(15);
const GUARD_POLL: Duration = Duration::from_millis(10);
/// What strangers may cost a node here, where all nodes share a few cores: a node's answer to the first flight of a QUIC connection costs 140 µs of
/// CPU (`opening_cpu_us` of `ebpf-lab bench flood --rate 20000`), so the default's 2,000 a second would be a quarter of a core for each.
const BUDGETS: &str = "handshakes=100/200,rest=1000/4000";
/// How long the table waits for a guard's figures.
const STATS_TIMEOUT: Duration = Duration::from_millis(500);

/// Which of a member's two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `ebpf-node`.
    Node,
    /// `ebpf-guard`.
    Guard,
}

/// Something happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// For people.
    pub text: String,
    /// Which member, from 0.
    pub index: usize,
    /// Which process.
    pub part: Part,
    /// Died, or was started again.
    pub died: bool,
}

#[derive(Debug)]
struct Member {
    place: Place,
    netns: Option<PathBuf>,
    uid: Option<u32>,
    listener: Option<TcpListener>,
    node: Option<Service>,
    guard: Option<Service>,
    packets: Packets,
}

/// All members on their ground.
#[derive(Debug)]
pub struct Network {
    /// What runs, for `devnet.json`.
    pub state: State,
    members: Vec<Member>,
    launcher: PathBuf,
    bin_dir: PathBuf,
    restart: bool,
    ground: Ground,
}

impl Network {
    /// Makes homes, keys, genesis, configuration and wires; starts nothing.
    ///
    /// # Errors
    /// If a step fails.
    pub fn build(options: &Options, folder: &Path, ground: Ground) -> Result<Network> {
        let launcher = std::env::current_exe().context("find the own program")?;
        Network::build_with(options, folder, ground, &launcher)
    }

    /// The same with another launcher than this program: tests are programs of their own.
    ///
    /// # Errors
    /// If a step fails.
    pub fn build_with(options: &Options, folder: &Path, ground: Ground, launcher: &Path) -> Result<Network> {
        let bin_dir = options.bin_dir.clone().or_else(|| launcher.parent().map(Path::to_path_buf)).unwrap_or_default();
        let bin_dir = bin_dir.canonicalize().with_context(|| format!("find {}", bin_dir.display()))?;
        let mut members = Vec::new();
        for index in 0..usize::from(options.nodes) {
            members.push(Member::make(index, folder, &ground)?);
        }
        let identities = init_all(&bin_dir.join("ebpf-node"), &members)?;
        let keys: Vec<PublicKey> = identities.iter().map(|identity| identity.validator_key).collect();
        let genesis = chain::genesis(&keys, chain::ACCOUNTS_RESERVED + options.accounts, now())?;
        let state = describe(options, &ground, &genesis, &members, &identities)?;
        let everybody: Vec<(Place, Identity)> = members.iter().map(|member| member.place.clone()).zip(identities).collect();
        for member in &members {
            home::configure(&member.place, &everybody, &genesis, options.transport, member.api_address()?)?;
            if let Some(uid) = member.uid {
                home::give_to(&member.place.home, uid)?;
            }
        }
        let launcher = launcher.to_path_buf();
        Ok(Network { state, members, launcher, bin_dir, restart: !options.no_restart, ground })
    }

    /// Starts guards, waits until each filters, then starts nodes: no node is ever reachable unguarded.
    ///
    /// # Errors
    /// If a process can't be started, or a guard does not come up.
    pub fn start(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            if let Some(spec) = self.guard_spec(index) {
                let service = Service::start(spec, self.restart)?;
                self.ground.record(service.pid())?;
                self.members[index].guard = Some(service);
            }
        }
        for index in 0..self.members.len() {
            self.wait_for_guard(index)?;
        }
        for index in 0..self.members.len() {
            let spec = self.node_spec(index)?;
            let service = Service::start(spec, self.restart)?;
            self.ground.record(service.pid())?;
            self.members[index].node = Some(service);
        }
        self.note_pids();
        Ok(())
    }

    fn guard_spec(&self, index: usize) -> Option<Spec> {
        let member = &self.members[index];
        let (socket, Ground::Namespaces { bpffs: Some(bpffs), .. }) = (member.place.guard.as_ref()?, &self.ground) else {
            return None;
        };
        let mut command: Vec<OsString> = vec![self.bin_dir.join("ebpf-guard").into(), "run".into()];
        let mut option = |name: &str, value: OsString| command.extend([name.into(), value]);
        option("--netns", member.netns.clone()?.into());
        option("--iface", fabric::INTERFACE.into());
        option("--instance", member.place.name.clone().into());
        option("--bpffs", bpffs.into());
        // Beside the pins: a node's folder is the node's, and the guard has no right to look into it.
        option("--state", bpffs.with_file_name("guards").into());
        option("--socket", socket.into());
        option("--protect", format!("tcp/{P2P_PORT},quic/{P2P_PORT}").into());
        option("--mode", "enforce".into());
        option("--budget", BUDGETS.into());
        if let Some(uid) = member.uid {
            option("--allow-uid", uid.to_string().into());
        }
        if let Some(cgroup) = self.ground.cgroup(&member.place.name) {
            option("--cgroup", cgroup.into());
            option("--egress-allow", fabric::NETWORK.into());
            command.push("--egress".into());
        }
        Some(Spec {
            launcher: self.launcher.clone(),
            command,
            folder: PathBuf::from("/"),
            netns: None,
            cgroup: None,
            uid: None,
            listener: None,
            log: member.log(Part::Guard),
        })
    }

    fn node_spec(&self, index: usize) -> Result<Spec> {
        let member = &self.members[index];
        let listener = member.listener.as_ref().context("no API socket")?;
        Ok(Spec {
            launcher: self.launcher.clone(),
            // Relative: the folders above may be closed to the node's user.
            command: vec![self.bin_dir.join("ebpf-node").into(), "start".into(), "--home".into(), ".".into()],
            folder: member.place.home.clone(),
            netns: member.netns.clone(),
            cgroup: self.ground.cgroup(&member.place.name),
            uid: member.uid,
            listener: Some(listener.try_clone().context("share the API socket")?),
            log: member.log(Part::Node),
        })
    }

    fn wait_for_guard(&mut self, index: usize) -> Result<()> {
        let deadline = Instant::now() + GUARD_READY_MAX;
        let member = &mut self.members[index];
        let Some(service) = &mut member.guard else { return Ok(()) };
        loop {
            if member.place.guard.as_deref().and_then(read_packets).is_some_and(|packets| packets.xdp_mode != "none") {
                break;
            }
            let died = matches!(service.poll(Instant::now())?, Some(Change::Died(_)));
            if died || Instant::now() > deadline {
                bail!("the guard of {} does not come up: {}", member.place.name, last_line(&member.log(Part::Guard)));
            }
            std::thread::sleep(GUARD_POLL);
        }
        Ok(())
    }

    /// Looks at every process; starts again what is due.
    ///
    /// # Errors
    /// If a process can't be started again.
    pub fn poll(&mut self, now: Instant) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for (index, member) in self.members.iter_mut().enumerate() {
            for part in [Part::Guard, Part::Node] {
                let Some(service) = member.service_mut(part) else { continue };
                let change = service.poll(now)?;
                let (pid, restarts) = (service.pid(), service.restarts());
                let name = format!("{} {}", member.place.name, part.as_str());
                let (text, died) = match change {
                    None => continue,
                    Some(Change::Died(status)) => {
                        let log = last_line(&member.log(part));
                        let after = if self.restart { ", starts again in 2 s" } else { ", stays dead (--no-restart)" };
                        let said = if log.is_empty() { String::new() } else { format!("; it said last: {log}") };
                        (format!("{name} died ({status}){after}{said}"), true)
                    }
                    Some(Change::Restarted) => {
                        self.ground.record(pid)?;
                        (format!("{name} started again (pid {pid}, start {})", restarts + 1), false)
                    }
                };
                events.push(Event { text, index, part, died });
            }
        }
        if !events.is_empty() {
            self.note_pids();
        }
        Ok(events)
    }

    fn note_pids(&mut self) {
        for (node, member) in self.state.nodes.iter_mut().zip(&mut self.members) {
            node.node_pid = member.node.as_ref().map_or(0, Service::pid);
            node.guard_pid = member.guard.as_ref().map(Service::pid);
            member.refresh();
            if !member.packets.xdp_mode.is_empty() {
                node.xdp_mode.clone_from(&member.packets.xdp_mode);
            }
        }
    }

    /// The table's rows, with fresh figures of the guards.
    pub fn rows(&mut self) -> Vec<Row> {
        self.members.iter_mut().map(Member::row).collect()
    }

    /// Packets by node; empty without guards.
    pub fn packets(&mut self) -> BTreeMap<String, Packets> {
        let guarded = self.members.iter_mut().filter(|member| member.guard.is_some());
        let refreshed = guarded.map(|member| {
            member.refresh();
            (member.place.name.clone(), member.packets.clone())
        });
        refreshed.collect()
    }

    /// CPU of all nodes and of all guards so far, in µs.
    pub fn cpu_us(&self) -> (u64, u64) {
        let sum = |part: Part| self.members.iter().filter_map(|member| member.service(part)).map(Service::cpu_us).sum();
        (sum(Part::Node), sum(Part::Guard))
    }

    /// Resident memory by process.
    pub fn rss_bytes(&self) -> BTreeMap<String, u64> {
        self.each().filter_map(|(name, service)| Some((name, process::rss_bytes(service.pid())?))).collect()
    }

    /// Restarts by process.
    pub fn restarts(&self) -> BTreeMap<String, u32> {
        self.each().map(|(name, service)| (name, service.restarts())).collect()
    }

    fn each(&self) -> impl Iterator<Item = (String, &Service)> {
        self.members.iter().flat_map(|member| {
            let name = |part: Part| format!("{}/{}", member.place.name, part.as_str());
            [Part::Node, Part::Guard].into_iter().filter_map(move |part| Some((name(part), member.service(part)?)))
        })
    }

    /// All logs.
    pub fn logs(&self) -> Vec<PathBuf> {
        self.members
            .iter()
            .flat_map(|member| [member.log(Part::Node), member.log(Part::Guard)])
            .filter(|log| log.exists())
            .collect()
    }

    /// The pid of the first node, for the first screen.
    pub fn first_pid(&self) -> u32 {
        self.state.nodes.first().map_or(0, |node| node.node_pid)
    }

    /// Stops nodes, then guards: a node is guarded to its last moment.
    pub fn stop(&mut self) {
        for part in [Part::Node, Part::Guard] {
            self.members.iter_mut().filter_map(|member| member.service_mut(part)).for_each(Service::terminate);
            self.members.iter_mut().filter_map(|member| member.service_mut(part)).for_each(Service::finish);
        }
        self.note_pids();
    }
}

impl Part {
    const fn as_str(self) -> &'static str {
        match self {
            Part::Node => "node",
            Part::Guard => "guard",
        }
    }
}

impl Member {
    fn make(index: usize, folder: &Path, ground: &Ground) -> Result<Member> {
        let name = format!("node{}", index + 1);
        let listener = api_listener(index)?;
        let (address, netns, uid) = match ground {
            Ground::Namespaces { fabric, .. } => {
                let address = fabric::node_address(index);
                let namespace = fabric.plug(&name, address)?;
                let uid = UID_BASE + 1 + u32::try_from(index).context("too many nodes")?;
                (SocketAddr::from((address, P2P_PORT)), Some(namespace::path(&namespace)), Some(uid))
            }
            Ground::Loopback { .. } => (SocketAddr::from((Ipv4Addr::LOCALHOST, loopback_port(index)?)), None, None),
        };
        let home = folder.join(&name);
        let place = Place { home, address, guard: ground.guard_socket(&name), name };
        Ok(Member { place, netns, uid, listener: Some(listener), node: None, guard: None, packets: Packets::default() })
    }

    fn api_address(&self) -> Result<SocketAddr> {
        self.listener.as_ref().context("no API socket")?.local_addr().context("address of the API socket")
    }

    fn log(&self, part: Part) -> PathBuf {
        self.place.home.join(format!("{}.log", part.as_str()))
    }

    fn service(&self, part: Part) -> Option<&Service> {
        match part {
            Part::Node => self.node.as_ref(),
            Part::Guard => self.guard.as_ref(),
        }
    }

    fn service_mut(&mut self, part: Part) -> Option<&mut Service> {
        match part {
            Part::Node => self.node.as_mut(),
            Part::Guard => self.guard.as_mut(),
        }
    }

    /// Asks the guard; a dead one leaves the figures as they were.
    fn refresh(&mut self) {
        if let Some(packets) = self.place.guard.as_deref().and_then(read_packets) {
            self.packets = packets;
        }
    }

    fn row(&mut self) -> Row {
        self.refresh();
        let dead = |service: &Option<Service>| service.as_ref().is_some_and(|service| service.pid() == 0);
        let status = match (dead(&self.node), dead(&self.guard)) {
            (false, false) => "up",
            (true, false) => "node down",
            (false, true) => "guard down",
            (true, true) => "node and guard down",
        };
        Row {
            name: self.place.name.clone(),
            xdp_mode: if self.packets.xdp_mode.is_empty() { "-".to_owned() } else { self.packets.xdp_mode.clone() },
            passed: self.packets.passed.values().sum::<u64>() + self.packets.out_of_scope,
            dropped: self.packets.dropped.values().sum(),
            status: status.to_owned(),
        }
    }
}

fn read_packets(socket: &Path) -> Option<Packets> {
    let mut client = guard::Client::connect(socket).ok()?;
    client.set_timeout(Some(STATS_TIMEOUT)).ok()?;
    let stats = client.stats(false).ok()?;
    Some(Packets {
        xdp_mode: stats.xdp_mode,
        mode: stats.mode,
        passed: stats.passed,
        dropped: stats.dropped,
        would_drop: stats.would_drop,
        out_of_scope: stats.out_of_scope,
    })
}

fn init_all(program: &Path, members: &[Member]) -> Result<Vec<Identity>> {
    std::thread::scope(|scope| {
        let tasks: Vec<_> = members.iter().map(|member| scope.spawn(move || home::init(program, &member.place.home))).collect();
        tasks.into_iter().map(|task| task.join().map_err(|_| anyhow::anyhow!("init panicked"))?).collect()
    })
}

fn describe(
    options: &Options,
    ground: &Ground,
    genesis: &GenesisRecord,
    members: &[Member],
    identities: &[Identity],
) -> Result<State> {
    let node = |(member, identity): (&Member, &Identity)| {
        Ok(Node {
            name: member.place.name.clone(),
            namespace: member.netns.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()),
            address: member.place.address.ip(),
            p2p_port: member.place.address.port(),
            api_url: format!("http://{}", member.api_address()?),
            peer_id: identity.peer_id.clone(),
            validator_key: identity.validator_key,
            node_pid: 0,
            guard_pid: None,
            guard_socket: member.place.guard.clone(),
            data_dir: member.place.home.join("data"),
            xdp_mode: "none".to_owned(),
            interface: member.netns.is_some().then(|| fabric::INTERFACE.to_owned()),
            log: member.log(Part::Node),
        })
    };
    let fabric = match ground {
        Ground::Namespaces { fabric, run_dir, .. } => {
            Some(FabricState { namespace: fabric.namespace(), bridge: fabric::BRIDGE.to_owned(), prefix: run_dir.prefix() })
        }
        Ground::Loopback { .. } => None,
    };
    Ok(State {
        state: Phase::Starting,
        chain_id: genesis.chain_id(),
        runner_pid: std::process::id(),
        accounts: chain::ACCOUNTS_RESERVED + options.accounts,
        nodes: members.iter().zip(identities).map(node).collect::<Result<_>>()?,
        fabric,
    })
}

/// A listening socket on the host's loopback, at the node's usual port or any.
fn api_listener(index: usize) -> Result<TcpListener> {
    let usual = API_PORT.saturating_add(u16::try_from(index).context("too many nodes")?);
    TcpListener::bind((Ipv4Addr::LOCALHOST, usual))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("open an API socket on loopback")
}

/// A port that is free for TCP and UDP now. The node binds it a moment later; should somebody be faster, it says so.
fn loopback_port(index: usize) -> Result<u16> {
    let usual = P2P_PORT.saturating_add(u16::try_from(index).context("too many nodes")?);
    let free = |port: u16| {
        let address = SocketAddr::from((IpAddr::from(Ipv4Addr::LOCALHOST), port));
        let tcp = TcpListener::bind(address).ok()?;
        let port = tcp.local_addr().ok()?.port();
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_| port)
    };
    free(usual).or_else(|| (0..16).find_map(|_| free(0))).context("no free port on loopback")
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The last line of a log, shortened.
fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().last().unwrap_or_default().chars().take(300).collect()
}
