//! How a guard starts: what it loads or takes over, and in which order. Tables are complete before the first packet is judged by them.

use super::{Guard, GuardError, Options, saving};
use crate::{
    kernel::{
        attach::{self, Preference},
        bans::Bans,
        bpffs, budgets,
        clock::{Clock, unix_ms},
        egress::{self, Egress, EgressError},
        events::Hub,
        flows::Flows,
        group::{Group, Seen},
        lists::Lists,
        load::{self, Loaded},
        probes::{self, Probes},
        squeeze,
        state::State,
        strikes::Strikes,
        syn_proxy,
        sys::{self, Hook},
        tables::{self, TableError, Tables},
        upgrade::{self, Kept, Upgrade},
    },
    reader::Maps,
};
use kernel_shared::{
    abi::abi_hash,
    control::{Config, Mode, SynProxy, WORD_CONFIG, WORD_ENFORCE_DEADLINE, WORD_SALT},
    strangers::Budget as StrangerBudget,
};
use std::{
    io::{self, Read},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What [`Guard::prepare`] made and saw.
pub struct Prepared {
    directory: PathBuf,
    /// Directories that earlier guards of this instance left, of other layouts than ours.
    older: Vec<PathBuf>,
    present: Option<(u32, String)>,
    group: Option<Group>,
    state: Option<State>,
}

/// What the tables hold, as this process keeps it in mind.
struct Records {
    bans: Bans,
    lists: Lists,
    flows: Flows,
    strikes: Strikes,
}

impl Guard {
    /// Makes the directory of pins and looks who is on the interface: the steps that need more rights than the rest of a start.
    pub fn prepare(options: &Options) -> Result<Prepared, GuardError> {
        if !bpffs::is_instance_name(&options.instance) {
            return Err(GuardError::Instance(options.instance.clone()));
        }
        let proxied = !matches!(options.syn_proxy, None | Some(SynProxy::Off));
        if proxied && options.xdp == Preference::Tcx {
            return Err(GuardError::ProxyInTcx);
        }
        let directory = bpffs::directory(&options.bpffs, &options.instance, abi_hash(load::cpus()?));
        let failed = |source| GuardError::Directory { path: directory.clone(), source };
        bpffs::ensure(&options.bpffs).map_err(failed)?;
        let present = attach::present(&options.interface)?;
        let older = older(options, &directory)?;
        // Until here nothing is changed: a guard that is refused leaves the one that is there as it was.
        attach::check(&options.interface, options.xdp, &directory, &older, present.as_ref())?;
        let group = options.cgroup.as_deref().map(Group::new).transpose()?;
        std::fs::create_dir_all(&directory).map_err(failed)?;
        if proxied {
            syn_proxy::prepare(&directory);
        }
        let state = options.state.as_deref().map(State::open).transpose()?;
        Ok(Prepared { directory, older, present, group, state })
    }

    /// Loads or adopts, writes the configuration, attaches.
    pub fn start(options: Options, prepared: Prepared, hub: Arc<Hub>) -> Result<Guard, GuardError> {
        let Prepared { directory, older, present, mut group, state } = prepared;
        let ifindex = attach::ifindex(&options.interface)?;
        let cpus = load::cpus()?;
        let failed = |source| GuardError::Directory { path: directory.clone(), source };
        let complete = complete(&directory).map_err(failed)?;
        if !complete {
            bpffs::forget_maps(&directory).map_err(failed)?;
        }
        let upgrade = Upgrade::find(&older);
        let mut object = load::load(&directory)?;
        upgrade::describe(&directory).map_err(failed)?;
        let kept = match &upgrade {
            Some(upgrade) if !complete => upgrade.fill(&directory),
            _ => Kept::all(complete),
        };
        let tables = Tables::open(&directory)?;
        let counters = map_counters(&directory, cpus)?;
        let clock = Clock::new(object.clock.try_clone().map_err(GuardError::Clock)?).map_err(GuardError::Clock)?;
        let Records { bans, lists, mut flows, strikes } =
            records(&options, kept, state.as_ref(), (&tables, &counters, &clock), &directory)?;
        syn_proxy::take_over(&older, &directory);
        let there = present_group(group.as_ref())?;
        let hooked = there.as_ref().map(|(group, _)| group);
        if group.is_some() {
            object.load_readers();
        }
        let by_flow = object.name_senders(hooked);
        configure(&options, kept, &tables, &clock, (&object, by_flow), &directory)?;
        flows.rebalance(&tables)?;
        let mut egress = options.egress.clone().map(|wanted| Egress::load(wanted, &directory)).transpose()?;
        if let Some(egress) = &mut egress {
            egress.hook(hooked, &directory, &older)?;
        }
        let attached = match attach::attach(&mut object, &options.interface, options.xdp, &directory, &older, present.as_ref()) {
            Ok(attached) => attached,
            Err(error) => {
                if !complete {
                    match &upgrade {
                        Some(upgrade) => upgrade.give_back(&directory),
                        None => syn_proxy::restore(&directory),
                    }
                    let _ = bpffs::remove(&directory); // what this start has made is of no use to anybody
                }
                return Err(error.into());
            }
        };
        if egress.is_none() {
            egress::remove(&directory)?;
        }
        if attached.hook == Some(Hook::Tcx) {
            object.in_tcx();
            forgo_proxy(&tables, &object, &directory)?;
        }
        let mut probes = Probes::start(&directory, (clock.hz(), cpus), options.cgroup.as_deref(), &options.protect);
        let heard = probes.hook(hooked, &directory, &older);
        if let Some(group) = &mut group {
            group.set_hooked(there.map(|(_, id)| if heard { id } else { 0 }));
        }
        if let Some(upgrade) = &upgrade {
            upgrade.finish(&directory).map_err(failed)?;
        }
        load::freeze(&directory)?;
        let counters = map_probes(counters, &directory)?;
        for other in &older {
            let failed = |source| GuardError::Directory { path: other.clone(), source };
            bpffs::remove(other).map_err(failed)?;
        }
        Ok(Guard {
            options,
            directory,
            object,
            probes,
            _link: attached.link,
            tables,
            counters,
            clock,
            bans,
            lists,
            strikes,
            state,
            changed: saving::Changed::default(),
            hits: saving::Hits::default(),
            flows,
            hub,
            egress,
            group,
            cpus,
            ifindex,
            adopted: attached.adopted,
            started_unix_ms: unix_ms(),
            last_beat: None,
        })
    }
}

/// The control group that is at its path, by its directory and its id.
fn present_group(group: Option<&Group>) -> Result<Option<(std::fs::File, u64)>, EgressError> {
    let opening = |source| EgressError::Io { operation: "opening the control group".to_string(), source };
    match group.map(Group::look).transpose().map_err(opening)? {
        Some(Seen::Other(directory, id)) => Ok(Some((directory, id))),
        None | Some(Seen::Same | Seen::Gone) => Ok(None),
    }
}

/// Whether the maps of a directory are those of a guard that has started: a link lies beside them, or, where no program could be attached,
/// their counters are frozen. Others are of a start that was cut off, and hold neither all bans nor budgets.
fn complete(directory: &Path) -> io::Result<bool> {
    if directory.join("link").exists() {
        return Ok(true);
    }
    match sys::open_pin(&directory.join("COUNTERS"), 0) {
        Ok(counters) => sys::is_frozen(counters.as_fd()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Directories that earlier guards of this instance left, of other layouts than ours.
fn older(options: &Options, directory: &Path) -> Result<Vec<PathBuf>, GuardError> {
    let found = bpffs::directories(&options.bpffs, &options.instance)
        .map_err(|source| GuardError::Directory { path: options.bpffs.clone(), source })?;
    Ok(found.into_iter().filter(|other| other != directory).collect())
}

/// Reads the tables back, adds what was saved, and takes what is floor out of both.
fn records(
    options: &Options,
    kept: Kept,
    state: Option<&State>,
    (tables, counters, clock): (&Tables, &Maps, &Clock),
    directory: &Path,
) -> Result<Records, GuardError> {
    let mut lists = Lists::adopt(tables, directory)?;
    let mut bans = Bans::adopt(tables, lists.bits())?;
    let flows = Flows::adopt(tables, counters)?;
    let strikes = match state {
        Some(state) => saving::restore(state, kept, tables, clock, (&mut bans, &mut lists), directory)?,
        None => Strikes::default(),
    };
    if lists.cut_floor(tables, &mut bans, directory, &options.floor)? > 0 {
        tracing::warn!("lists touched the floor: it was cut out of them");
    }
    for prefix in bans.prefixes().copied().collect::<Vec<_>>() {
        if options.floor.iter().any(|range| range.overlaps(&prefix)) {
            tracing::warn!(%prefix, "an adopted ban touches the floor: lifted");
            bans.remove(tables, &prefix)?;
        }
    }
    Ok(Records { bans, lists, flows, strikes })
}

/// Ports, budgets, and the configuration word.
fn configure(
    options: &Options,
    kept: Kept,
    tables: &Tables,
    clock: &Clock,
    (object, by_flow): (&Loaded, bool),
    directory: &Path,
) -> Result<(), GuardError> {
    let ports: Vec<(u8, u16)> = options.protect.iter().map(|(protocol, port)| (protocol.number(), *port)).collect();
    tables.set_ports(&ports, &options.quic)?;
    squeeze::end(tables)?;
    write_budgets(options, kept.words, tables, clock)?;
    let was = Config::from_word(tables.control(WORD_CONFIG)?);
    let mode = options.mode.unwrap_or(if kept.words > 0 { was.mode() } else { Mode::Shadow });
    let sampled = Config::new(mode).with_event_shift(options.event_shift).with_latency_shift(options.latency_shift);
    let config =
        sampled.with_loopback(options.interface == "lo").with_udp_by_flow(by_flow).with_drop_unreadable(options.drop_unreadable);
    let config = config.with_syn_proxy(syn_proxy::at_start(options.syn_proxy, was.syn_proxy(), &object.syn_proxy, directory));
    if options.mode.is_some() {
        tables.set_control(WORD_ENFORCE_DEADLINE, 0)?;
    }
    tables.set_control(WORD_CONFIG, config.word())?;
    Ok(())
}

/// Takes the SYN proxy out of the configuration word: the filter came to be where it has none.
fn forgo_proxy(tables: &Tables, object: &Loaded, directory: &Path) -> Result<(), TableError> {
    let config = Config::from_word(tables.control(WORD_CONFIG)?);
    let state = syn_proxy::at_start(None, config.syn_proxy(), &object.syn_proxy, directory);
    tables.set_control(WORD_CONFIG, config.with_syn_proxy(state).word())
}

/// Budgets that were named, or that the kept words have no place for; and for a new guard the salt of strangers' rows.
fn write_budgets(options: &Options, kept_words: u32, tables: &Tables, clock: &Clock) -> Result<(), GuardError> {
    if kept_words == 0 {
        let mut salt = [0; 8];
        std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut salt)).map_err(GuardError::Salt)?;
        tables.set_control(WORD_SALT, u64::from_ne_bytes(salt))?;
    }
    for budget in StrangerBudget::ALL {
        let named = options.strangers.iter().rev().find(|(named, _)| *named == budget).map(|(_, value)| *value);
        if let Some(value) = named.or((budget.word() >= kept_words).then(|| budgets::default(budget))) {
            budgets::write(tables, clock, budget, value)?;
        }
    }
    Ok(())
}

/// Maps the rows' latencies, and the probes' arrays where there are any.
fn map_probes(mut counters: Maps, directory: &Path) -> Result<Maps, GuardError> {
    for name in probes::FROZEN.into_iter().chain(["LATENCY_ROWS"]) {
        if let Ok(fd) = tables::open_for_others(directory, name) {
            counters.add(name, &fd)?;
        }
    }
    Ok(counters)
}

fn map_counters(directory: &Path, cpus: u32) -> Result<Maps, GuardError> {
    let open = |name: &'static str| {
        tables::open_for_others(directory, name).map_err(|source| GuardError::Table(TableError::Kernel { map: name, source }))
    };
    Ok(Maps::from_descriptors(&open("COUNTERS")?, &open("ROWS")?, &open("LATENCY")?, cpus)?)
}
