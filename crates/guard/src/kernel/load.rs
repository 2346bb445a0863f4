//! Loading the committed object: maps under their pins (or from them), programs, the optional latency probe.

use super::{btf::Btf, sys, tables};
use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupSockAddr, ProgramError, RawTracePoint, SchedClassifier, Xdp},
};
use kernel_shared::abi::{COUNTER_SLOTS, LATENCY_BUCKETS, ROWS_MAX, columns};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// The stripped object, built by `cargo xtask kernel build` and committed.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../objects/guard.o");

/// Why the object could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Maps or object.
    #[error("the kernel object can't be loaded")]
    Object(#[source] Box<aya::EbpfError>),
    /// A program is missing or was refused.
    #[error("program {name} can't be loaded")]
    Program {
        /// Which.
        name: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The object lacks a program: it is not ours.
    #[error("the kernel object has no program {0}")]
    Missing(&'static str),
    /// The number of CPUs can't be read.
    #[error("the number of possible CPUs can't be read")]
    Cpus(#[source] io::Error),
    /// A counter map can't be frozen.
    #[error("map {name} can't be frozen")]
    Freeze {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A program can't be put where the filter calls it.
    #[error("program {name} can't be put behind the filter")]
    TailCall {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A loaded object.
pub struct Loaded {
    /// Keeps the tracepoint links; dropping it takes the latency probe off.
    pub object: Ebpf,
    /// The filter.
    pub guard: OwnedFd,
    /// The verdict as a return value, for test runs.
    pub explain: OwnedFd,
    /// Reads the tick.
    pub clock: OwnedFd,
    /// Answers SYNs; or why this kernel can't.
    pub syn_proxy: Result<OwnedFd, String>,
    /// What the latency probes measure (TCP, UDP), or why not.
    pub latency_sources: [String; 2],
    /// The second of these where nothing tells the sender, as measured from XDP.
    udp_by_call: String,
    /// Where packets are measured from.
    arrival: &'static str,
    /// What tells the sender of a datagram, in the order of [`READERS`]; none if nobody asked for it, or the kernel refused it.
    readers: Vec<OwnedFd>,
    /// Their links to the control group; without pins, since nothing is measured while no guard runs.
    reader_links: Vec<OwnedFd>,
}

/// Programs that tell the sender of a datagram, and their attach types (`enum bpf_attach_type`).
const READERS: [(&str, u32); 2] = [("datagram4", 19), ("datagram6", 20)];

/// What the latency of UDP ends with where nothing tells the sender.
const UDP_CALL: &str = "return of the receiving call (sock_recv_length)";
/// And where something does.
const UDP_BY_SENDER: &str = "xdp arrival to the receiving call's naming of the sender (recvmsg4, recvmsg6 of the control group)";
/// Where a packet's way is measured from.
const IN_XDP: &str = "xdp arrival";
const IN_TCX: &str = "tcx arrival";

impl Loaded {
    /// The filter for TCX: loaded only where it is needed, since checking it takes the kernel as long as all other programs together.
    pub fn tcx(&mut self) -> Result<OwnedFd, LoadError> {
        let name = "guard_tcx";
        let failed = |source: ProgramError| LoadError::Program { name, source: Box::new(source) };
        let program = self.object.program_mut(name).ok_or(LoadError::Missing(name))?;
        let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
        program.load().map_err(failed)?;
        let fd = program.fd().map_err(failed)?;
        fd.as_fd().try_clone_to_owned().map_err(|error| failed(ProgramError::IOError(error)))
    }

    /// Says that the filter is in TCX: it has no SYN proxy there, and packets arrive later.
    pub fn in_tcx(&mut self) {
        self.syn_proxy = Err("the SYN proxy answers from XDP, and this interface is filtered in TCX".to_string());
        self.arrival = IN_TCX;
        for source in &mut self.latency_sources {
            *source = source.replace(IN_XDP, IN_TCX);
        }
    }
}

/// Number of possible CPUs: the arrays' stride.
pub fn cpus() -> Result<u32, LoadError> {
    aya::util::nr_cpus().map(|count| count as u32).map_err(|(_, error)| LoadError::Cpus(error))
}

/// Names of the probe's globals, and where BTF has their values.
const OFFSETS: [(&str, &str, &[&str]); 13] = [
    ("SKB_HEAD", "sk_buff", &["head"]),
    ("SKB_NETWORK", "sk_buff", &["network_header"]),
    ("SKB_TRANSPORT", "sk_buff", &["transport_header"]),
    ("SKB_PROTOCOL", "sk_buff", &["protocol"]),
    ("SKB_CB", "sk_buff", &["cb"]),
    ("SK_NUM", "sock", &["__sk_common", "skc_num"]),
    ("SK_NET", "sock", &["__sk_common", "skc_net"]),
    ("SK_FAMILY", "sock", &["__sk_common", "skc_family"]),
    ("SK_REMOTE_PORT", "sock", &["__sk_common", "skc_dport"]),
    ("SK_REMOTE4", "sock", &["__sk_common", "skc_daddr"]),
    ("SK_REMOTE6", "sock", &["__sk_common", "skc_v6_daddr"]),
    ("SK_PROTOCOL", "sock", &["sk_protocol"]),
    ("NET_INUM", "net", &["ns", "inum"]),
];

fn offsets() -> Result<Vec<(&'static str, u32)>, String> {
    let data = std::fs::read(super::btf::VMLINUX).map_err(|_| "none: this kernel has no BTF".to_string())?;
    let btf = Btf::parse(data).ok_or("none: this kernel's BTF can't be read")?;
    let find = |(global, structure, path): &(&'static str, &str, &[&str])| {
        let missing = || format!("none: this kernel has no field {structure}.{}", path.join("."));
        btf.offset(structure, path).map(|offset| (*global, offset)).ok_or_else(missing)
    };
    OFFSETS.iter().map(find).collect()
}

/// Loads the object with its maps pinned in `directory`; maps that are pinned there already are taken over. Counters are
/// not frozen yet.
pub fn load(directory: &Path) -> Result<Loaded, LoadError> {
    let columns = columns(cpus()?);
    // The namespace of this thread: what the UDP probe compares sockets with.
    let netns = std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.ino() as u32);
    let offsets = offsets();
    let mut loader = EbpfLoader::new();
    loader.override_global("COLUMNS", &columns, true).override_global("NETNS", &netns, true);
    loader.map_max_entries("COUNTERS", COUNTER_SLOTS * columns);
    loader.map_max_entries("ROWS", ROWS_MAX * columns);
    loader.map_max_entries("LATENCY", 2 * LATENCY_BUCKETS * columns);
    for name in tables::MAPS {
        loader.map_pin_path(name, directory.join(name));
    }
    for (name, offset) in offsets.iter().flatten() {
        loader.override_global(name, offset, true);
    }
    let mut object = loader.load(OBJECT).map_err(|error| LoadError::Object(Box::new(error)))?;
    let guard = load_xdp(&mut object, "guard")?;
    let explain = load_xdp(&mut object, "explain")?;
    let clock = load_xdp(&mut object, "clock")?;
    let syn_proxy = load_xdp(&mut object, "syn_proxy").map_err(|error| {
        let reason = anyhow::Error::from(error).root_cause().to_string();
        format!("this kernel has no SYN proxy (Linux 6.0 or later is needed): {reason}")
    });
    if let Ok(program) = &syn_proxy {
        let set = sys::open_pin(&directory.join("PROGRAMS"), 0)
            .and_then(|map| sys::update(map.as_fd(), &0u32, &(program.as_raw_fd() as u32)));
        set.map_err(|source| LoadError::TailCall { name: "syn_proxy", source })?;
    }
    let mut probe = |program, tracepoint, source: &str| match &offsets {
        Err(reason) => reason.clone(),
        Ok(_) => match attach_probe(&mut object, program, tracepoint) {
            Ok(()) => source.to_string(),
            Err(error) => format!("none: tracepoint {tracepoint} can't be used: {error}"),
        },
    };
    let latency_sources: [String; 2] = [
        probe("read_tcp", "skb_copy_datagram_iovec", "xdp arrival to copy into the reader's memory (skb_copy_datagram_iovec)"),
        probe("read_udp", "sock_recv_length", &format!("xdp arrival to the {UDP_CALL}, of unconnected sockets a lower bound")),
    ];
    let [_, udp_by_call] = latency_sources.clone();
    let (arrival, readers, reader_links) = (IN_XDP, Vec::new(), Vec::new());
    Ok(Loaded { object, guard, explain, clock, syn_proxy, latency_sources, udp_by_call, arrival, readers, reader_links })
}

impl Loaded {
    /// Loads what tells the sender of each datagram, for [`Loaded::name_senders`].
    pub fn load_readers(&mut self) {
        let loaded: Result<_, _> = READERS.iter().map(|(name, _)| load_reader(&mut self.object, name)).collect();
        self.readers = loaded.unwrap_or_else(|error| {
            tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "datagrams are not measured by their sender");
            Vec::new()
        });
    }

    /// Has the control group's processes tell the sender of each datagram that they read, and those of no other group any more;
    /// whether they do. Where they can't, or there is no group, stamps of UDP lie by port, and the line of that latency says so.
    pub fn name_senders(&mut self, group: Option<&std::fs::File>) -> bool {
        let attach = |group: &std::fs::File| {
            let link =
                |((_, attach_type), program): (&(_, u32), &OwnedFd)| sys::link_cgroup(program.as_fd(), group.as_fd(), *attach_type);
            READERS.iter().zip(&self.readers).map(link).collect::<io::Result<Vec<OwnedFd>>>()
        };
        self.reader_links = group.map_or(Ok(Vec::new()), attach).unwrap_or_else(|error| {
            tracing::warn!(%error, "datagrams are not measured by their sender");
            Vec::new()
        });
        let told = !self.reader_links.is_empty();
        let [_, source] = &mut self.latency_sources;
        *source = match (told, self.udp_by_call.starts_with("none")) {
            (false, _) => self.udp_by_call.clone(),
            (true, true) => UDP_BY_SENDER.to_string(),
            (true, false) => format!("{UDP_BY_SENDER}; of a connected socket to the {UDP_CALL}"),
        };
        *source = source.replace(IN_XDP, self.arrival);
        told
    }
}

fn load_reader(object: &mut Ebpf, name: &'static str) -> Result<OwnedFd, LoadError> {
    let failed = |source: ProgramError| LoadError::Program { name, source: Box::new(source) };
    let program: &mut CgroupSockAddr = object.program_mut(name).ok_or(LoadError::Missing(name))?.try_into().map_err(failed)?;
    program.load().map_err(failed)?;
    let fd = program.fd().map_err(failed)?;
    fd.as_fd().try_clone_to_owned().map_err(|error| failed(ProgramError::IOError(error)))
}

/// Freezes the counters: from now on they can be mapped, and written by programs only. What is frozen already is left alone.
pub fn freeze(directory: &Path) -> Result<(), LoadError> {
    tables::FROZEN.into_iter().try_for_each(|name| {
        let frozen = sys::open_pin(&directory.join(name), 0).and_then(|fd| sys::freeze(fd.as_fd()));
        frozen.map_err(|source| LoadError::Freeze { name, source })
    })
}

/// Loads one of the object's programs for benchmarks; a guard never does.
pub fn load_bench(object: &mut Ebpf, name: &'static str) -> Result<OwnedFd, LoadError> {
    load_xdp(object, name)
}

fn load_xdp(object: &mut Ebpf, name: &'static str) -> Result<OwnedFd, LoadError> {
    let failed = |source: ProgramError| LoadError::Program { name, source: Box::new(source) };
    let program: &mut Xdp = object.program_mut(name).ok_or(LoadError::Missing(name))?.try_into().map_err(failed)?;
    program.load().map_err(failed)?;
    let fd = program.fd().map_err(failed)?;
    fd.as_fd().try_clone_to_owned().map_err(|error| failed(ProgramError::IOError(error)))
}

fn attach_probe(object: &mut Ebpf, name: &'static str, tracepoint: &str) -> Result<(), LoadError> {
    let failed = |source: ProgramError| LoadError::Program { name, source: Box::new(source) };
    let program: &mut RawTracePoint = object.program_mut(name).ok_or(LoadError::Missing(name))?.try_into().map_err(failed)?;
    program.load().map_err(failed)?;
    program.attach(tracepoint).map_err(failed)?;
    Ok(())
}
