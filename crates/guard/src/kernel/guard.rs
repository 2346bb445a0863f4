//! One running guard: the tables, the link, and the answers to requests.

mod banning;
mod flowing;
mod group;
pub mod listing;
mod reload;
pub mod saving;
mod start;
mod vitals;

use super::{
    attach::{self, AttachError, Preference},
    bans::{self, Bans},
    budgets,
    clock::{Clock, unix_ms},
    egress::{Egress, EgressError, EgressOptions},
    events::Hub,
    flows::{Budget, Budgets, FlowError, FlowKey, Flows},
    group::Group,
    lists::Lists,
    load::{self, LoadError},
    ports,
    probes::{self, Probes},
    squeeze::{self, SqueezeError},
    state::{State, StateError},
    strikes::Strikes,
    syn_proxy, sys,
    tables::{self, TableError, Tables},
};
use crate::{
    Prefix,
    explain::{self, Explained},
    protocol::{
        BAN_TTL_MS_MAX, BANS_PER_ANSWER, ErrorCode, MapInfo, Protocol, ROWS_PER_ANSWER, Request, Response, SQUEEZE_MS_MAX, Stats,
        TEXT_BYTES_MAX, TRIAL_MS_MAX,
    },
    reader::{self, Maps, ReaderError},
};
use aya::maps::{MapData, RingBuf};
use kernel_shared::{
    Reason,
    abi::{
        SLOT_EVENTS_LOST, SLOT_LATENCY_LAPSED, SLOT_LATENCY_STAMPED, SLOT_SYN_COOKIES_INVALID, SLOT_SYN_COOKIES_SENT,
        SLOT_SYN_COOKIES_VALID, abi_hash,
    },
    control::{Config, Mode, SynProxy, WORD_BEAT_DEADLINE, WORD_CONFIG, WORD_ENFORCE_DEADLINE},
    strangers::Budget as StrangerBudget,
};
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use banning::Wanted;

pub use reload::ReloadError;
pub use start::Prepared;
pub use vitals::{ROWS_SHOWN_MAX, TcpTotals, Vitals};

/// What a guard is told when it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Interface to filter, in this thread's network namespace.
    pub interface: String,
    /// Ports to protect; all others are never touched.
    pub protect: Vec<(Protocol, u16)>,
    /// Protected UDP ports that speak QUIC: strangers' long headers are checked there.
    pub quic: Vec<u16>,
    /// Mode; `None` keeps an adopted one, and is `shadow` for a new one.
    pub mode: Option<Mode>,
    /// Name that tells this guard's pins from others'.
    pub instance: String,
    /// Directory on a bpf file system; the pins' directory is made in it.
    pub bpffs: PathBuf,
    /// XDP mode.
    pub xdp: Preference,
    /// Directory that keeps bans and lists over a reboot; `None` keeps nothing.
    pub state: Option<PathBuf>,
    /// Ranges that no ban may touch.
    pub floor: Vec<Prefix>,
    /// Age of the last heartbeat at which known flows lapse.
    pub heartbeat_timeout: Duration,
    /// Age of what the state says about hits of bans at which it is written again, for nothing but hits.
    pub save_hits_every: Duration,
    /// Whether packets are dropped whose port lies beyond the headers that the filter walks.
    pub drop_unreadable: bool,
    /// Every 2^n-th drop is an event.
    pub event_shift: u8,
    /// Every 2^n-th packet of a flow is stamped for its latency.
    pub latency_shift: u8,
    /// Budgets of flows.
    pub budgets: Budgets,
    /// SYN proxy; `None` keeps an adopted state, and is off for a new guard.
    pub syn_proxy: Option<SynProxy>,
    /// Budgets of strangers; one that is not named keeps its adopted value, and has its default in a new guard.
    pub strangers: Vec<(StrangerBudget, Budget)>,
    /// What keeps the node from dialing special ranges, if anything.
    pub egress: Option<EgressOptions>,
    /// The node's control group, a directory of cgroup2: whose connections the probes see. Nothing is made there. It may come
    /// later, and go and come again.
    pub cgroup: Option<PathBuf>,
}

/// Why a guard can't start.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The name is no instance name.
    #[error("'{0}' is no instance name: letters, digits, '-', '_', '.', at most 64")]
    Instance(String),
    /// The pins' directory can't be made.
    #[error("{path} can't be used for pins")]
    Directory {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The filter can't be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A map.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The egress guard.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// Counters can't be mapped.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// The clock can't be read.
    #[error("the kernel's clock can't be read")]
    Clock(#[source] io::Error),
    /// The directory of state can't be made.
    #[error(transparent)]
    State(#[from] StateError),
    /// Two wishes that exclude each other.
    #[error("the SYN proxy answers from XDP: it can't be had with --xdp tcx")]
    ProxyInTcx,
    /// There is no random salt to be had.
    #[error("the salt of strangers' rows can't be drawn")]
    Salt(#[source] io::Error),
    /// The event ring can't be opened.
    #[error("the event ring can't be opened")]
    Ring(#[source] Box<aya::maps::MapError>),
}

/// A request that was refused.
struct Refusal {
    code: ErrorCode,
    message: String,
}

impl From<TableError> for Refusal {
    fn from(error: TableError) -> Refusal {
        let code = if matches!(error, TableError::Full { .. }) { ErrorCode::Full } else { ErrorCode::Kernel };
        Refusal { code, message: error.to_string() }
    }
}

impl From<SqueezeError> for Refusal {
    fn from(error: SqueezeError) -> Refusal {
        match error {
            SqueezeError::Table(error) => error.into(),
            error => Refusal { code: ErrorCode::Limit, message: error.to_string() },
        }
    }
}

impl From<FlowError> for Refusal {
    fn from(error: FlowError) -> Refusal {
        match error {
            FlowError::Table(error) => error.into(),
            error => Refusal { code: ErrorCode::Limit, message: error.to_string() },
        }
    }
}

fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

/// Descriptors that go beside an answer.
pub type Descriptors = Vec<OwnedFd>;

/// A running guard.
pub struct Guard {
    options: Options,
    directory: PathBuf,
    object: load::Loaded,
    probes: Probes,
    /// Held so that the filter stays even if somebody removes the pin by hand.
    _link: Option<OwnedFd>,
    tables: Tables,
    counters: Maps,
    clock: Clock,
    bans: Bans,
    lists: Lists,
    strikes: Strikes,
    state: Option<State>,
    changed: saving::Changed,
    hits: saving::Hits,
    flows: Flows,
    hub: Arc<Hub>,
    egress: Option<Egress>,
    group: Option<Group>,
    cpus: u32,
    ifindex: u32,
    adopted: bool,
    started_unix_ms: u64,
    last_beat: Option<Instant>,
}

impl Guard {
    /// The event ring; once.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>, GuardError> {
        let map = self.object.object.take_map("EVENTS").ok_or(LoadError::Missing("EVENTS"))?;
        RingBuf::try_from(map).map_err(|error| GuardError::Ring(Box::new(error)))
    }

    /// What this kernel refused: one line each.
    pub fn degraded(&self) -> Vec<String> {
        let latency = self.object.latency_sources.iter().map(|source| ("packet latency".to_string(), source.clone()));
        let missing = latency.chain(self.attachments()).filter(|(_, line)| line.starts_with("none"));
        missing.map(|(what, line)| format!("{what}: {line}")).collect()
    }

    /// Once a second: frees what has expired (the kernel ignores it already), and looks after the control group.
    pub fn housekeeping(&mut self) -> Result<(), TableError> {
        self.end_trial()?;
        self.follow_group()?;
        let now = self.clock.now(&self.tables)?;
        squeeze::expire(&self.tables, now)?;
        for prefix in self.bans.expire(&self.tables, now)? {
            self.changed.bans = true;
            tracing::info!(%prefix, "ban expired");
        }
        for name in self.lists.expire(&self.tables, &mut self.bans, &self.directory, now)? {
            tracing::info!(name, "list expired");
            self.changed.lists.insert(name);
        }
        self.flows.expire(&self.tables, &self.clock, now)
    }

    /// Takes the filter off and removes all pins. The guard is of no use afterwards.
    pub fn detach(&mut self) -> Result<(), AttachError> {
        (self._link, self.egress, self.group) = (None, None, None);
        for left in attach::detach(&self.options.bpffs, &self.options.instance)? {
            tracing::warn!("{left}");
        }
        Ok(())
    }

    /// Answers a request. `ListLoad`, `Events`, `Reload` and `Shutdown` are the server's business.
    pub fn answer(&mut self, request: &Request) -> (Response, Descriptors) {
        match self.handle(request) {
            Ok(answer) => answer,
            Err(Refusal { code, message }) => (Response::Error { code, message }, Vec::new()),
        }
    }

    fn handle(&mut self, request: &Request) -> Result<(Response, Descriptors), Refusal> {
        let response = match request {
            Request::Status {} => Response::Stats(Box::new(self.stats(None)?)),
            Request::Stats { from } => Response::Stats(Box::new(self.stats(Some(*from))?)),
            Request::Bans { skip } => self.show_bans(*skip)?,
            Request::Ban { address, ttl_ms, offence, note, escalate } => {
                let wanted = Wanted { prefix: address.widened(), ttl_ms: *ttl_ms, offence: *offence, note };
                self.ban(wanted, *escalate)?
            }
            Request::Unban { address } => match self.bans.remove(&self.tables, &address.widened())? {
                true => {
                    self.changed.bans = true;
                    Response::Done {}
                }
                false => return refuse(ErrorCode::NotFound, format!("{} is not banned", address.widened())),
            },
            Request::FlowAdd { protocol, address, port, class, label, stake_ppm } => {
                self.flow_add(FlowKey::new(*protocol, *address, *port), *class, label, *stake_ppm)?
            }
            Request::Flows { skip } => self.show_flows(*skip),
            Request::FlowDel { protocol, address, port } => {
                match self.flows.remove(&self.tables, &FlowKey::new(*protocol, *address, *port))? {
                    true => Response::Done {},
                    false => return refuse(ErrorCode::NotFound, "no such flow"),
                }
            }
            Request::FlowsClear {} => {
                self.flows.clear(&self.tables)?;
                Response::Done {}
            }
            Request::Mode { mode } => self.set_mode(mode)?,
            Request::Enforce { for_ms } => self.enforce_for(*for_ms)?,
            Request::Confirm {} => self.confirm()?,
            Request::SynProxy { state } => self.set_syn_proxy(state)?,
            Request::Budgets {} => Response::Budgets { budgets: budgets::list(&self.tables, &self.clock)? },
            Request::Budget { name, rate, burst, for_ms } => {
                self.set_budget(name, Budget { rate: *rate, burst: *burst }, *for_ms)?
            }
            Request::TestRun { packet } => self.test_run(packet)?,
            Request::Heartbeat {} => {
                let timeout = self.clock.ticks(self.options.heartbeat_timeout.as_millis() as u64);
                let deadline = self.clock.now(&self.tables)?.saturating_add(timeout);
                self.tables.set_control(WORD_BEAT_DEADLINE, deadline)?;
                self.last_beat = Some(Instant::now());
                Response::Done {}
            }
            Request::Maps {} => return self.maps(),
            Request::Detach {} => match self.detach() {
                Ok(()) => Response::Done {},
                Err(error) => return refuse(ErrorCode::Kernel, error.to_string()),
            },
            Request::ListDrop { name } => self.drop_list(name)?,
            Request::Lists {} => self.show_lists()?,
            Request::ListLoad { .. } | Request::Events {} | Request::Shutdown {} | Request::Reload {} => Response::Done {},
        };
        Ok((response, Vec::new()))
    }

    fn set_mode(&mut self, name: &str) -> Result<Response, Refusal> {
        let Some(mode) = Mode::from_name(name) else {
            return refuse(ErrorCode::BadRequest, "mode is off, shadow or enforce");
        };
        self.write_mode(mode, 0)?;
        tracing::info!(mode = mode.as_str(), "mode switched");
        Ok(Response::Done {})
    }

    fn set_syn_proxy(&mut self, name: &str) -> Result<Response, Refusal> {
        let Some(state) = SynProxy::from_name(name) else {
            return refuse(ErrorCode::BadRequest, "the SYN proxy is off, on or all");
        };
        if let Err(message) = syn_proxy::possible(state, &self.object.syn_proxy, &self.directory) {
            return refuse(ErrorCode::Kernel, message);
        }
        let word = Config::from_word(self.tables.control(WORD_CONFIG)?).with_syn_proxy(state).word();
        self.tables.set_control(WORD_CONFIG, word)?;
        if state == SynProxy::Off {
            syn_proxy::restore(&self.directory);
        }
        tracing::info!(state = state.as_str(), "SYN proxy switched");
        Ok(Response::Done {})
    }

    /// Writes a mode and the tick on which `enforce` ends (0 = never). The deadline is in the kernel before the mode that needs it.
    fn write_mode(&self, mode: Mode, deadline: u64) -> Result<(), TableError> {
        self.tables.set_control(WORD_ENFORCE_DEADLINE, deadline)?;
        let word = Config::from_word(self.tables.control(WORD_CONFIG)?).with_mode(mode).word();
        self.tables.set_control(WORD_CONFIG, word)
    }

    fn enforce_for(&mut self, for_ms: u64) -> Result<Response, Refusal> {
        if for_ms == 0 || for_ms > TRIAL_MS_MAX {
            return refuse(ErrorCode::Limit, format!("a trial lasts 1 to {TRIAL_MS_MAX} ms"));
        }
        let deadline = self.clock.now(&self.tables)?.saturating_add(self.clock.ticks(for_ms));
        self.write_mode(Mode::Enforce, deadline)?;
        tracing::info!(for_ms, "enforcing on trial");
        Ok(Response::Done {})
    }

    fn confirm(&mut self) -> Result<Response, Refusal> {
        self.end_trial()?;
        if self.tables.control(WORD_ENFORCE_DEADLINE)? == 0 {
            return refuse(ErrorCode::NotFound, "there is no trial to confirm: it is over, or none was begun");
        }
        self.write_mode(Mode::Enforce, 0)?;
        tracing::info!("enforcing from now on");
        Ok(Response::Done {})
    }

    /// Back to shadow when a trial is over: the kernel has stopped dropping already.
    fn end_trial(&self) -> Result<(), TableError> {
        let deadline = self.tables.control(WORD_ENFORCE_DEADLINE)?;
        if deadline != 0 && self.clock.now(&self.tables)? > deadline {
            self.write_mode(Mode::Shadow, 0)?;
            tracing::warn!("the trial of enforce was not confirmed: back to shadow");
        }
        Ok(())
    }

    fn set_budget(&mut self, name: &str, value: Budget, for_ms: Option<u64>) -> Result<Response, Refusal> {
        let Budget { rate, burst } = value;
        let Some(budget) = StrangerBudget::from_name(name) else {
            let names: Vec<&str> = StrangerBudget::ALL.into_iter().map(StrangerBudget::as_str).collect();
            return refuse(ErrorCode::BadRequest, format!("a budget is one of {}", names.join(", ")));
        };
        if let Some(message) = budgets::refusal(rate, burst) {
            return refuse(ErrorCode::Limit, message);
        }
        match for_ms {
            Some(_) if matches!(budget, StrangerBudget::Validators | StrangerBudget::ValidatorLeast) => {
                return refuse(ErrorCode::Limit, "what validators are guaranteed is not made smaller for a while");
            }
            Some(for_ms) => {
                if for_ms == 0 || for_ms > SQUEEZE_MS_MAX {
                    return refuse(ErrorCode::Limit, format!("a budget is smaller for 1 to {SQUEEZE_MS_MAX} ms"));
                }
                let until = self.clock.now(&self.tables)?.saturating_add(self.clock.ticks(for_ms));
                squeeze::begin(&self.tables, &self.clock, budget, value, until)?;
            }
            None => {
                squeeze::forget(&self.tables, budget)?;
                budgets::write(&self.tables, &self.clock, budget, value)?;
                self.flows.rebalance(&self.tables)?;
            }
        }
        tracing::info!(budget = budget.as_str(), rate, burst, for_ms, "budget set");
        Ok(Response::Done {})
    }

    /// The guard ends and its filter stays: gives back what nobody would give back without it.
    pub fn farewell(&self) -> Result<(), TableError> {
        squeeze::end(&self.tables)
    }

    fn test_run(&self, packet: &str) -> Result<Response, Refusal> {
        let Some(frame) = explain::packet(packet) else {
            let (min, max) = (explain::PACKET_BYTES_MIN, explain::PACKET_BYTES_MAX);
            return refuse(ErrorCode::BadRequest, format!("a packet is {min} to {max} bytes in hexadecimal"));
        };
        let word = match sys::test_run(self.object.explain.as_fd(), &frame) {
            Ok(word) => word,
            Err(error) => return refuse(ErrorCode::Kernel, format!("the test run failed: {error}")),
        };
        let Some(explained) = Explained::decode(word) else {
            return refuse(ErrorCode::Kernel, format!("the program answered {word:#x}, which is no verdict"));
        };
        let mode = Config::from_word(self.tables.control(WORD_CONFIG)?).mode();
        let drop = explained.drop && mode == Mode::Enforce;
        Ok(Response::Verdict {
            action: if drop { "drop" } else { "pass" }.to_string(),
            mode: mode.as_str().to_string(),
            reason: explained.reason.as_str().to_string(),
            class: explained.class.as_str().to_string(),
            version: explained.version,
            protocol: explained.protocol,
            steps: explained.steps(),
        })
    }

    fn maps(&self) -> Result<(Response, Descriptors), Refusal> {
        let mapped: BTreeMap<&str, usize> = reader::mapped_bytes(self.cpus).into();
        let mut maps = Vec::new();
        let mut descriptors = Vec::new();
        let of_probes = probes::FROZEN.into_iter().filter(|name| self.directory.join(name).exists());
        for name in tables::FROZEN.into_iter().chain(tables::READABLE).chain(of_probes) {
            match tables::open_for_others(&self.directory, name) {
                Ok(fd) => descriptors.push(fd),
                Err(error) => return refuse(ErrorCode::Kernel, format!("{name} can't be opened: {error}")),
            }
            let bytes = mapped.get(name).copied().unwrap_or(0) as u64;
            maps.push(MapInfo { name: name.to_string(), mappable: bytes > 0, bytes });
        }
        let abi_hash = format!("{:016x}", abi_hash(self.cpus));
        Ok((Response::Maps { maps, cpus: self.cpus, abi_hash }, descriptors))
    }

    /// All counters, with a page of rows from this one on, if any.
    fn stats(&self, rows_from: Option<u32>) -> Result<Stats, Refusal> {
        let config = Config::from_word(self.tables.control(WORD_CONFIG)?);
        let mode = config.mode();
        let label = |reason: Reason| reason.as_str().to_string();
        let passed = self.counters.passed().into_iter().map(|(class, count)| (class.to_string(), count.packets));
        let dropped = || Reason::ALL.into_iter().filter(|reason| reason.is_drop());
        let [tcp, udp] = &self.object.latency_sources;
        Ok(Stats {
            mode: mode.as_str().to_string(),
            xdp_mode: attach::way(self.ifindex, self._link.as_ref().map(AsFd::as_fd)).to_string(),
            interface: self.options.interface.clone(),
            ifindex: self.ifindex,
            instance: self.options.instance.clone(),
            abi_hash: format!("{:016x}", abi_hash(self.cpus)),
            started_unix_ms: self.started_unix_ms,
            adopted: self.adopted,
            heartbeat_age_ms: self.last_beat.map(|beat| beat.elapsed().as_millis() as u64),
            protect: ports::summary(&self.options.protect),
            passed: passed.collect(),
            out_of_scope: self.counters.reason(Reason::OutOfScope).packets,
            unreadable: self.counters.reason(Reason::Unreadable).packets,
            off: self.counters.reason(Reason::Off).packets,
            dropped: dropped().map(|reason| (label(reason), self.counters.reason(reason).packets)).collect(),
            dropped_bytes: dropped().map(|reason| (label(reason), self.counters.reason(reason).bytes)).collect(),
            would_drop: dropped().map(|reason| (label(reason), self.counters.would_drop(reason).packets)).collect(),
            events_lost: self.counters.slot(SLOT_EVENTS_LOST).packets,
            events_unread: self.hub.unread(),
            syn_proxy: config.syn_proxy().as_str().to_string(),
            syn_cookies_sent: self.counters.slot(SLOT_SYN_COOKIES_SENT).packets,
            syn_cookies_valid: self.counters.slot(SLOT_SYN_COOKIES_VALID).packets,
            syn_cookies_invalid: self.counters.slot(SLOT_SYN_COOKIES_INVALID).packets,
            bans: self.bans.len() as u64,
            flows: self.flows.len() as u64,
            shares: self.flows.shares(&self.clock),
            latency_stamped: self.counters.slot(SLOT_LATENCY_STAMPED).packets,
            latency_lapsed: self.counters.slot(SLOT_LATENCY_LAPSED).packets,
            latency_tcp: self.counters.latency(0, tcp),
            latency_udp: self.counters.latency(1, udp),
            egress: self.egress.as_ref().map(Egress::info),
            probes: self.attachments(),
            kernel_drops: self.counters.kernel_drops().into_iter().map(|(slot, n)| (self.probes.reason(slot), n)).collect(),
            rows: rows_from.map_or_else(Vec::new, |from| self.flows.list(&self.counters, from, ROWS_PER_ANSWER)),
        })
    }
}
