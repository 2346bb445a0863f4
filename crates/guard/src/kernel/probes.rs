//! The probes: programs that tell what the kernel knows. Each is optional. One that the kernel refuses is a line and a metric
//! (`probes` of `stats`), never a failed start.
//!
//! Programs of a cgroup are attached by pinned links: like the filter they outlive this process, and the next one takes them
//! over. They end with the cgroup; [`Probes::hook`] puts them on the next one.

use super::{
    bpffs,
    btf::Btf,
    drop_ports::{self, DropPorts},
    egress::{self, EgressError},
    group::GONE,
    sys,
};
use crate::protocol::Protocol;
use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError},
};
use kernel_shared::abi::{COUNTER_SLOTS, columns};
use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The stripped object, built by `cargo xtask kernel build` and committed.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../objects/probes.o");

/// The maps of the object, by the names of their pins: the first four are the filter's.
const MAPS: [&str; 7] = ["PORTS", "FLOWS4", "FLOWS6", "COUNTERS", "TRUTH", "KERNEL_DROPS", drop_ports::MAP];
/// Those that are frozen and handed out for mapping.
pub const FROZEN: [&str; 2] = crate::reader::PROBES;

/// `BPF_CGROUP_SOCK_OPS`.
const ATTACH_SOCK_OPS: u32 = 3;

/// Name of the program of connections, of its line, and of its link's pin.
const TCP_TRUTH: &str = "tcp_truth";
/// Name of the line of the kernel's drops.
const KERNEL_DROPS: &str = "kernel_drops";
/// The line where nothing is wrong and nobody asked.
const NO_CGROUP: &str = "off: no --cgroup was given";

/// Names of the globals, and where BTF has their values.
const OFFSETS: [(&str, &str, &[&str]); 9] = [
    ("SKB_HEAD", "sk_buff", &["head"]),
    ("SKB_NETWORK", "sk_buff", &["network_header"]),
    ("SKB_PROTOCOL", "sk_buff", &["protocol"]),
    ("SKB_DEV", "sk_buff", &["dev"]),
    ("SKB_SK", "sk_buff", &["sk"]),
    ("DEV_NET", "net_device", &["nd_net"]),
    ("SK_NET", "sock", &["__sk_common", "skc_net"]),
    ("NET_INUM", "net", &["ns", "inum"]),
    ("ICSK_RTO", "inet_connection_sock", &["icsk_rto"]),
];

/// Why a probe is not there.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("the object has no program of this name")]
    Missing,
    #[error("the kernel refused the program: {0}")]
    Program(#[from] ProgramError),
    #[error("{0}")]
    Link(#[from] EgressError),
    #[error("{operation}: {source}")]
    Io { operation: &'static str, source: io::Error },
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> ProbeError {
    move |source| ProbeError::Io { operation, source }
}

/// The probes of a running guard.
#[derive(Default)]
pub struct Probes {
    /// Keeps the tracepoint; `None` if the object can't be loaded.
    _object: Option<Ebpf>,
    /// The program of connections and the control group's path, if somebody asked for it and the kernel takes it.
    truth: Option<(OwnedFd, PathBuf)>,
    /// Held so that it stays even if somebody removes its pin by hand.
    _link: Option<OwnedFd>,
    lines: BTreeMap<&'static str, String>,
    reasons: BTreeMap<u32, String>,
    /// By what ports drops are told apart; `None` without the object.
    pub ports: Option<DropPorts>,
}

impl Probes {
    /// Loads what it can, and attaches what needs no control group. `directory` holds the pins of the filter's maps; `hz` is the
    /// kernel's ticks a second; `cgroup` is the path of the control group for [`Probes::hook`]; `protect` are the ports that the
    /// kernel's drops are told apart by.
    pub fn start(directory: &Path, (hz, cpus): (u64, u32), cgroup: Option<&Path>, protect: &[(Protocol, u16)]) -> Probes {
        let mut probes = Probes::default();
        let btf = fs::read(super::btf::VMLINUX).ok().and_then(Btf::parse);
        let mut object = match load(directory, (hz, cpus), btf.as_ref()) {
            Ok(object) => object,
            Err(reason) => {
                for name in [KERNEL_DROPS, TCP_TRUTH] {
                    probes.lines.insert(name, format!("none: {reason}"));
                }
                return probes;
            }
        };
        let ports = DropPorts::open(directory, protect);
        let attached = match &ports {
            Ok(_) => kernel_drops(&mut object, btf.as_ref()),
            Err(error) => Err(error.to_string()),
        };
        probes.ports = ports.ok();
        probes.lines.insert(KERNEL_DROPS, line(attached.map(|()| "tracepoint kfree_skb".to_string())));
        probes.reasons = btf.map(|btf| reasons(&btf)).unwrap_or_default();
        let waiting = match cgroup.map(|path| load_truth(&mut object).map(|program| (program, path.to_path_buf()))) {
            Some(loaded) => loaded.map_err(|error| error.to_string()).map(|truth| {
                probes.truth = Some(truth);
                GONE.to_string()
            }),
            None => {
                // An earlier guard of this instance may have had a control group.
                let removed = bpffs::remove_link(&pin(directory));
                removed.map(|()| NO_CGROUP.to_string()).map_err(|error| format!("a stale link can't be removed: {error}"))
            }
        };
        probes.lines.insert(TCP_TRUTH, line(waiting));
        probes._object = Some(object);
        probes
    }

    /// Attaches the program of connections to this control group, or takes over what an earlier guard attached to it and pinned
    /// in `directory` or in one of `older`. `None`: there is no group. Whether nothing is left to be tried; the program's line
    /// says what came of it.
    pub fn hook(&mut self, group: Option<&fs::File>, directory: &Path, older: &[PathBuf]) -> bool {
        let Some((program, path)) = &self.truth else { return true };
        self._link = None;
        let attached = match group {
            Some(group) => attach_truth(program, group, directory, older).map(|link| {
                self._link = Some(link);
                format!("sock_ops of {}", path.display())
            }),
            None => bpffs::remove_link(&pin(directory)).map(|()| GONE.to_string()).map_err(failed("removing a stale link")),
        };
        let done = attached.is_ok();
        self.lines.insert(TCP_TRUTH, line(attached.map_err(|error| error.to_string())));
        done
    }

    /// Whether TCP's connections are heard of.
    pub fn hears_tcp(&self) -> bool {
        self.lines.get(TCP_TRUTH).is_some_and(|line| !is_missing(line))
    }

    /// How each probe is attached, or `off: …` where nobody asked, or `none: …` with what went wrong.
    pub fn lines(&self) -> BTreeMap<String, String> {
        self.lines.iter().map(|(name, line)| (name.to_string(), line.clone())).collect()
    }

    /// The name of a drop reason in this kernel, without its prefix: `NO_SOCKET`; `other` for what is none of the core's.
    pub fn reason(&self, number: u32) -> String {
        match self.reasons.get(&number) {
            Some(name) => name.clone(),
            None if number < kernel_shared::drops::REASONS_MAX => format!("REASON_{number}"),
            None => "other".to_string(),
        }
    }
}

/// Whether a line says that a probe is not there.
pub fn is_missing(line: &str) -> bool {
    line.starts_with("none") || is_off(line)
}

/// Whether it is not there because nobody asked for it.
pub fn is_off(line: &str) -> bool {
    line.starts_with("off")
}

fn line(attached: Result<String, String>) -> String {
    attached.unwrap_or_else(|reason| format!("none: {reason}"))
}

fn reasons(btf: &Btf) -> BTreeMap<u32, String> {
    let known = btf.values("skb_drop_reason").into_iter().filter(|(number, _)| *number < kernel_shared::drops::REASONS_MAX);
    known.map(|(number, name)| (number, name.trim_start_matches("SKB_DROP_REASON_").to_string())).collect()
}

/// Loads the object with its maps at their pins. Constants that this kernel does not have stay 0: what needs them is left out.
fn load(directory: &Path, (hz, cpus): (u64, u32), btf: Option<&Btf>) -> Result<Ebpf, String> {
    let netns = fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.ino() as u32);
    let hz = hz as u32;
    let found = |(global, structure, path): &(&'static str, &str, &[&str])| Some((*global, btf?.offset(structure, path)?));
    let offsets: Vec<(&str, u32)> = OFFSETS.iter().filter_map(found).collect();
    let mut loader = EbpfLoader::new();
    let columns = columns(cpus);
    loader.override_global("NETNS", &netns, true).override_global("HZ", &hz, true).override_global("COLUMNS", &columns, true);
    loader.map_max_entries("COUNTERS", COUNTER_SLOTS * columns);
    for (name, offset) in &offsets {
        loader.override_global(name, offset, true);
    }
    for name in MAPS {
        loader.map_pin_path(name, directory.join(name));
    }
    let object = loader.load(OBJECT).map_err(|error| format!("the probes' object can't be loaded: {error}"))?;
    for name in FROZEN {
        let frozen = sys::open_pin(&directory.join(name), 0).and_then(|fd| sys::freeze(fd.as_fd()));
        frozen.map_err(|error| format!("map {name} can't be frozen: {error}"))?;
    }
    Ok(object)
}

/// Attaches the tracepoint of drops, if this kernel has what it reads.
fn kernel_drops(object: &mut Ebpf, btf: Option<&Btf>) -> Result<(), String> {
    let btf = btf.ok_or("this kernel has no BTF")?;
    let missing = OFFSETS.iter().find(|(global, structure, path)| *global != "ICSK_RTO" && btf.offset(structure, path).is_none());
    if let Some((_, structure, path)) = missing {
        return Err(format!("this kernel has no field {structure}.{}", path.join(".")));
    }
    if btf.argument("kfree_skb", "skb_drop_reason") != Some(2) {
        return Err("this kernel's kfree_skb does not tell its reason as the third argument".to_string());
    }
    let attach = |object: &mut Ebpf| match object.program_mut("kernel_drop") {
        Some(Program::RawTracePoint(program)) => {
            program.load()?;
            program.attach("kfree_skb")?;
            Ok(())
        }
        _ => Err(ProbeError::Missing),
    };
    attach(object).map_err(|error| error.to_string())
}

/// Loads the program of connections.
fn load_truth(object: &mut Ebpf) -> Result<OwnedFd, ProbeError> {
    let Some(Program::SockOps(program)) = object.program_mut(TCP_TRUTH) else { return Err(ProbeError::Missing) };
    program.load()?;
    program.fd()?.as_fd().try_clone_to_owned().map_err(failed("keeping the program"))
}

/// Attaches it to the control group, or swaps it into the link that an earlier guard left there.
fn attach_truth(program: &OwnedFd, group: &fs::File, directory: &Path, older: &[PathBuf]) -> Result<OwnedFd, ProbeError> {
    let identity = group.metadata().map_err(failed("reading the control group"))?.ino();
    let pin = pin(directory);
    let candidates = std::iter::once(directory).chain(older.iter().map(PathBuf::as_path));
    if let Some(link) = egress::adopt(program.as_fd(), identity, candidates, TCP_TRUTH, &pin)? {
        return Ok(link);
    }
    let link = sys::link_cgroup(program.as_fd(), group.as_fd(), ATTACH_SOCK_OPS).map_err(failed("attaching"))?;
    sys::pin(link.as_fd(), &pin).map_err(failed("pinning the link"))?;
    Ok(link)
}

fn pin(directory: &Path) -> PathBuf {
    directory.join(format!("link-{TCP_TRUTH}"))
}
