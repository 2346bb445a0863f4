//! What the machine allows. A network of namespaces needs root; a guard needs BPF besides. Without them the same network runs
//! on loopback and says in one line what it can't see.

use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::unistd::Uid;

use super::Options;
use crate::fabric::Fabric;
use crate::namespace;
use crate::run_dir::RunDir;

/// Where the network stands. Dropping it takes it down.
#[derive(Debug)]
pub enum Ground {
    /// Namespaces on a bridge.
    Namespaces {
        /// The wires.
        fabric: Fabric,
        /// The guards' BPF file system; none without guards.
        bpffs: Option<PathBuf>,
        /// The group that holds the nodes' control groups, or why there is none.
        cgroups: std::result::Result<PathBuf, String>,
        /// What goes by this runner's number.
        run_dir: RunDir,
    },
    /// Plain processes of one user.
    Loopback {
        /// Why not namespaces.
        why: &'static str,
    },
}

impl Ground {
    /// Takes the best ground that is allowed and asked for.
    ///
    /// # Errors
    /// If what is allowed does not work.
    pub fn lay(options: &Options) -> Result<Ground> {
        if let Some(why) = refusal(options) {
            return Ok(Ground::Loopback { why });
        }
        let run_dir = RunDir::claim()?;
        let bpffs = if options.no_guard { None } else { Some(run_dir.mount_bpffs()?) };
        let cgroups = if options.no_guard {
            Err("--no-guard".to_owned())
        } else {
            run_dir.mount_cgroups().map_err(|error| format!("{error:#}"))
        };
        let fabric = Fabric::create(&run_dir.prefix())?;
        Ok(Ground::Namespaces { fabric, bpffs, cgroups, run_dir })
    }

    /// What this network can't see or do, in one line.
    pub fn limits(&self) -> Option<String> {
        match self {
            Ground::Loopback { why } => Some(format!(
                "  {why}: nodes run on loopback, without namespaces and kernel guard; packets are neither filtered nor counted"
            )),
            Ground::Namespaces { bpffs: None, .. } => {
                Some("  --no-guard: packets are neither filtered nor counted, offenders are only disconnected".to_owned())
            }
            Ground::Namespaces { cgroups: Err(why), .. } => Some(format!("  no control groups ({why}): no egress guard")),
            Ground::Namespaces { bpffs: Some(_), .. } => None,
        }
    }

    /// The control group of a node, made on first asking; none where there are none.
    pub fn cgroup(&self, node: &str) -> Option<PathBuf> {
        let Ground::Namespaces { cgroups: Ok(all), .. } = self else { return None };
        let path = all.join(node);
        crate::cgroups::create(&path).ok().map(|()| path)
    }

    /// The guard's socket of a node, where there are guards.
    pub fn guard_socket(&self, node: &str) -> Option<PathBuf> {
        match self {
            Ground::Namespaces { bpffs: Some(_), run_dir, .. } => Some(run_dir.socket(node)),
            _ => None,
        }
    }

    /// Notes a process for a later runner to end.
    ///
    /// # Errors
    /// If the record can't be written.
    pub fn record(&mut self, pid: u32) -> Result<()> {
        match self {
            Ground::Namespaces { run_dir, .. } => run_dir.record(pid),
            // There the kernel alone ends what a dead runner left (see `launch`).
            Ground::Loopback { .. } => Ok(()),
        }
    }
}

fn refusal(options: &Options) -> Option<&'static str> {
    if options.loopback {
        Some("--loopback")
    } else if !Uid::effective().is_root() {
        Some("no root")
    } else if !has_program("ip") {
        Some("no ip command (apt-get install iproute2)")
    } else if !namespace::allowed() {
        Some("network namespaces are refused")
    } else if !options.no_guard && !bpf_allowed() {
        Some("BPF is refused")
    } else {
        None
    }
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(name).is_file())
}

/// Whether this process may make a BPF map: the least that any guard needs.
fn bpf_allowed() -> bool {
    const BPF_MAP_CREATE: libc::c_long = 0;
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    // bpf(2): map type, key size, value size, most entries; the kernel takes what is left out as zero.
    let attributes: [u32; 4] = [BPF_MAP_TYPE_ARRAY, 4, 4, 1];
    // SAFETY: the kernel reads exactly the size it is told, from an array of that size.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attributes.as_ptr(), size_of_val(&attributes)) };
    if fd < 0 {
        return false;
    }
    // SAFETY: the descriptor was just made for us.
    unsafe { libc::close(fd as libc::c_int) };
    true
}
