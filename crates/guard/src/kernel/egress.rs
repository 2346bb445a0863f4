//! The egress guard: programs on a control group that keep its processes from dialing special ranges.
//!
//! The links are pinned beside the filter's: a dead guard leaves them in place, a restarted one takes them over, `detach` undoes them.
//! They end with the control group; a running guard puts the programs on the next one.

use super::{bpffs, group::GONE, load, sys, tables};
use crate::{
    Prefix,
    protocol::{EgressCount, EgressInfo},
};
use aya::{
    EbpfLoader,
    programs::{CgroupSockAddr, ProgramError},
};
use kernel_shared::{
    Word,
    abi::{EGRESS_ALLOWED_MAX, Range4, Range6},
    egress::{OUTCOMES, RANGES, Range},
};
use memmap2::{MmapOptions, MmapRaw};
use std::{
    fs::File,
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../objects/egress.o");
/// Maps of this object that are pinned; `CONTROL` is the filter's.
const MAPS: [&str; 4] = ["CONTROL", "EGRESS4", "EGRESS6", "EGRESS"];
/// Programs and their attach types (`enum bpf_attach_type`).
const HOOKS: [(&str, u32); 4] = [("connect4", 10), ("connect6", 11), ("sendmsg4", 14), ("sendmsg6", 15)];

/// What to guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressOptions {
    /// The node's control group (version 2).
    pub cgroup: PathBuf,
    /// Prefixes that may be dialed all the same.
    pub allow: Vec<Prefix>,
    /// Whether the loopback ranges may be dialed.
    pub loopback: bool,
}

/// Why there is no egress guard.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// No control group of version 2.
    #[error("{0} is no directory of cgroup2")]
    Group(PathBuf),
    /// Too many prefixes.
    #[error("at most {EGRESS_ALLOWED_MAX} prefixes of a family can be allowed")]
    TooMany,
    /// The object.
    #[error("the egress guard's object can't be loaded")]
    Object(#[source] Box<aya::EbpfError>),
    /// A program.
    #[error("egress program {name} can't be loaded")]
    Program {
        /// Which.
        name: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A link, pin or map.
    #[error("{operation} failed")]
    Io {
        /// What.
        operation: String,
        /// Why.
        source: io::Error,
    },
}

fn failed(operation: impl Into<String>) -> impl FnOnce(io::Error) -> EgressError {
    let operation = operation.into();
    move |source| EgressError::Io { operation, source }
}

/// A running egress guard.
pub struct Egress {
    options: EgressOptions,
    counters: MmapRaw,
    cpus: usize,
    /// In the order of [`HOOKS`].
    programs: Vec<OwnedFd>,
    /// Held so that a hook stays even if somebody removes its pin by hand.
    links: Vec<OwnedFd>,
    line: String,
}

impl Egress {
    /// Loads, or takes over the maps that an earlier guard left in `directory`. The filter's maps must be pinned already.
    pub fn load(options: EgressOptions, directory: &Path) -> Result<Egress, EgressError> {
        let cpus = load::cpus().map_err(|error| failed("counting CPUs")(io::Error::other(error)))?;
        let slots = RANGES * OUTCOMES * cpus;
        let mut loader = EbpfLoader::new();
        loader.override_global("CPUS", &cpus, true).map_max_entries("EGRESS", slots);
        for name in MAPS {
            loader.map_pin_path(name, directory.join(name));
        }
        let mut object = loader.load(OBJECT).map_err(|error| EgressError::Object(Box::new(error)))?;
        allow(&options, directory)?;
        let counters = sys::open_pin(&directory.join("EGRESS"), 0).map_err(failed("opening EGRESS"))?;
        sys::freeze(counters.as_fd()).map_err(failed("freezing EGRESS"))?;
        let memory = MmapOptions::new().len(slots as usize * size_of::<Word>()).map_raw_read_only(&counters);
        let counters = memory.map_err(failed("mapping EGRESS"))?;
        let programs = HOOKS.iter().map(|(name, _)| load(&mut object, name)).collect::<Result<_, _>>()?;
        Ok(Egress { options, counters, cpus: cpus as usize, programs, links: Vec::new(), line: GONE.to_string() })
    }

    /// Attaches to this control group, or takes over what an earlier guard attached to it and pinned in `directory` or in one of
    /// `older`; what is on another group is taken off. `None`: there is no group, and nothing to attach to. Called again after an
    /// error it does what is left.
    pub fn hook(&mut self, group: Option<&File>, directory: &Path, older: &[PathBuf]) -> Result<(), EgressError> {
        self.links.clear();
        let hooked = match group {
            Some(group) => self.attach(group, directory, older).map(|()| self.attached()),
            None => remove(directory).map(|()| GONE.to_string()),
        };
        self.line = hooked.as_ref().map_or_else(|error| format!("none: {}", super::chain(error)), String::clone);
        hooked.map(drop)
    }

    fn attach(&mut self, group: &File, directory: &Path, older: &[PathBuf]) -> Result<(), EgressError> {
        let identity = group.metadata().map_err(failed("reading the control group"))?.ino();
        for ((name, attach_type), program) in HOOKS.into_iter().zip(&self.programs) {
            let pin = pin(directory, name);
            let candidates = std::iter::once(directory).chain(older.iter().map(PathBuf::as_path));
            self.links.push(match adopt(program.as_fd(), identity, candidates, name, &pin)? {
                Some(link) => link,
                None => {
                    let link = sys::link_cgroup(program.as_fd(), group.as_fd(), attach_type)
                        .map_err(failed(format!("attaching {name}")))?;
                    sys::pin(link.as_fd(), &pin).map_err(failed(format!("pinning {name}")))?;
                    link
                }
            });
        }
        Ok(())
    }

    fn attached(&self) -> String {
        format!("{} of {}", HOOKS.map(|(name, _)| name).join(", "), self.options.cgroup.display())
    }

    /// What it is attached to, or `none: …` with the reason.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Counts by range, zeros included.
    pub fn info(&self) -> EgressInfo {
        let count = |range: Range, outcome: u32| {
            let first = (range as u32 * OUTCOMES + outcome) as usize * self.cpus;
            (first..first + self.cpus).filter_map(|index| self.word(index)).map(Word::load).fold(0, u64::wrapping_add)
        };
        let of = |range: Range| (range.as_str().to_string(), EgressCount { denied: count(range, 0), would_deny: count(range, 1) });
        EgressInfo {
            cgroup: self.options.cgroup.display().to_string(),
            allowed: self.options.allow.clone(),
            loopback: self.options.loopback,
            ranges: Range::ALL.into_iter().map(of).collect(),
        }
    }

    fn word(&self, index: usize) -> Option<&Word> {
        if index >= (RANGES * OUTCOMES) as usize * self.cpus {
            return None;
        }
        // SAFETY: in bounds of the mapping and aligned; it is read through `Word` only.
        Some(unsafe { &*self.counters.as_ptr().cast::<Word>().add(index) })
    }
}

/// Takes off what an earlier guard of this instance left: nobody asks for it any more, and dials are refused no longer.
pub fn remove(directory: &Path) -> Result<(), EgressError> {
    HOOKS.iter().try_for_each(|(name, _)| bpffs::remove_link(&pin(directory, name)).map_err(failed(format!("detaching {name}"))))
}

fn pin(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("link-{name}"))
}

fn load(object: &mut aya::Ebpf, name: &'static str) -> Result<OwnedFd, EgressError> {
    let refused = |source: ProgramError| EgressError::Program { name, source: Box::new(source) };
    let program = object.program_mut(name).ok_or_else(|| failed(format!("finding {name}"))(io::ErrorKind::NotFound.into()))?;
    let program: &mut CgroupSockAddr = program.try_into().map_err(refused)?;
    program.load().map_err(refused)?;
    let fd = program.fd().map_err(refused)?;
    fd.as_fd().try_clone_to_owned().map_err(failed(format!("keeping {name}")))
}

/// Takes over the first pinned link of this hook that belongs to this control group; others of ours are detached.
pub(super) fn adopt<'a>(
    program: BorrowedFd<'_>,
    group: u64,
    directories: impl Iterator<Item = &'a Path>,
    name: &str,
    pin: &Path,
) -> Result<Option<OwnedFd>, EgressError> {
    for directory in directories {
        let left = directory.join(format!("link-{name}"));
        if !left.exists() {
            continue;
        }
        let link = sys::open_pin(&left, 0).map_err(failed(format!("opening {}", left.display())))?;
        let same = sys::link_cgroup_id(link.as_fd()).map_err(failed("reading a link"))? == group;
        if same && sys::link_update(link.as_fd(), program).is_ok() {
            if left != pin {
                std::fs::rename(&left, pin).map_err(failed("moving a link's pin"))?;
            }
            return Ok(Some(link));
        }
        bpffs::remove_link(&left).map_err(failed("removing a stale link"))?;
    }
    Ok(None)
}

/// Writes the allowed prefixes; those of an adopted guard that are not wanted any more go.
fn allow(options: &EgressOptions, directory: &Path) -> Result<(), EgressError> {
    let parse = |text: &str| text.parse::<Prefix>().map_err(|error| failed("naming the loopback")(io::Error::other(error)));
    let mut wanted = options.allow.clone();
    if options.loopback {
        wanted.extend([parse("127.0.0.0/8")?, parse("::1/128")?]);
    }
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for prefix in &wanted {
        match prefix.address() {
            IpAddr::V4(address) => {
                let octets = address.octets();
                four.push(Range4 { length: prefix.length() as u32, address: u32::from_ne_bytes(octets) });
                // A v6 socket dials it in its mapped form.
                six.push(Range6 { length: prefix.length() as u32 + 96, address: address.to_ipv6_mapped().octets() });
            }
            IpAddr::V6(address) => six.push(Range6 { length: prefix.length() as u32, address: address.octets() }),
        }
    }
    replace(directory, "EGRESS4", &four)?;
    replace(directory, "EGRESS6", &six)
}

fn replace<K: kernel_shared::abi::Plain + Ord>(directory: &Path, name: &'static str, wanted: &[K]) -> Result<(), EgressError> {
    let max = EGRESS_ALLOWED_MAX as usize;
    let distinct: std::collections::BTreeSet<&K> = wanted.iter().collect();
    if distinct.len() > max {
        return Err(EgressError::TooMany);
    }
    let table = tables::Table::open(directory, name).map_err(|error| failed(format!("opening {name}"))(io::Error::other(error)))?;
    let refused = |error| failed(format!("writing {name}"))(io::Error::other(error));
    for old in table.keys::<K>(max).map_err(refused)? {
        if !distinct.contains(&old) {
            table.delete(&old).map_err(refused)?;
        }
    }
    distinct.into_iter().try_for_each(|key| table.set(key, &1u8, max).map_err(refused))
}
