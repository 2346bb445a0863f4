//! What a runner holds outside its own folder, and how a later runner finds and removes it: /run/ebpf-devnet/NUMBER.
//!
//! The folder's lock is held for as long as the runner lives, whatever ends it. Who gets the lock of a folder that exists has
//! found a dead runner's leftovers: processes (by pid and start time), namespaces (by prefix), a BPF file system, sockets.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::process::Identity;
use crate::{cgroups, fabric};

const ROOT: &str = "/run/ebpf-devnet";
const RUNNERS_MAX: u32 = 64;
const PROCESSES: &str = "processes.json";
const BPFFS: &str = "bpffs";
const CGROUPS: &str = "cgroups";

/// A runner's number with all that goes by it. Dropping it removes everything.
#[derive(Debug)]
pub struct RunDir {
    number: u32,
    // Held, never read: closing it gives the number back.
    _lock: File,
    processes: Vec<Identity>,
}

impl RunDir {
    /// Takes the lowest free number, after removing what dead runners left.
    ///
    /// # Errors
    /// If no number is free, or leftovers can't be removed.
    pub fn claim() -> Result<RunDir> {
        DirBuilder::new().recursive(true).mode(0o755).create(ROOT).with_context(|| format!("make {ROOT}"))?;
        for number in (1..=RUNNERS_MAX).filter(|number| folder(*number).exists()) {
            if let Some(lock) = lock(number)? {
                clean(number);
                drop(lock);
            }
        }
        for number in 1..=RUNNERS_MAX {
            if let Some(lock) = lock(number)? {
                // Namespaces may outlive their folder (a /run that was emptied).
                clean(number);
                DirBuilder::new()
                    .mode(0o755)
                    .create(folder(number))
                    .with_context(|| format!("make {}", folder(number).display()))?;
                return Ok(RunDir { number, _lock: lock, processes: Vec::new() });
            }
        }
        bail!("{RUNNERS_MAX} devnets run already")
    }

    /// The prefix of all names of namespaces: `ebpf-devnet-1`.
    pub fn prefix(&self) -> String {
        prefix(self.number)
    }

    /// The guard's socket of a node.
    pub fn socket(&self, node: &str) -> PathBuf {
        folder(self.number).join(format!("{node}.sock"))
    }

    /// Mounts the runner's own BPF file system; the guards' pins live and die with it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn mount_bpffs(&self) -> Result<PathBuf> {
        let path = folder(self.number).join(BPFFS);
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("make {}", path.display()))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("bpf"), &path, Some("bpf"), flags, Some("mode=0700")).context("mount a BPF file system")?;
        mount(None::<&str>, &path, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>).context("make the BPF file system private")?;
        Ok(path)
    }

    /// Mounts a cgroup2 file system of the runner's own; the group that holds the nodes' groups.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn mount_cgroups(&self) -> Result<PathBuf> {
        cgroups::mount_at(&folder(self.number).join(CGROUPS), &self.prefix())
    }

    /// Writes down a process, so that a later runner can end it if this one can't.
    ///
    /// # Errors
    /// If the record can't be written.
    pub fn record(&mut self, pid: u32) -> Result<()> {
        self.processes.retain(Identity::is_alive);
        self.processes.extend(Identity::of(pid));
        crate::files::write_json(&folder(self.number).join(PROCESSES), &self.processes)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        for problem in clean(self.number) {
            eprintln!("ebpf-lab: could not clean up: {problem:#}");
        }
        let _ = std::fs::remove_file(lock_file(self.number));
        // Only succeeds for the last runner.
        let _ = std::fs::remove_dir(ROOT);
    }
}

fn prefix(number: u32) -> String {
    format!("ebpf-devnet-{number}")
}

fn folder(number: u32) -> PathBuf {
    Path::new(ROOT).join(number.to_string())
}

fn lock_file(number: u32) -> PathBuf {
    Path::new(ROOT).join(format!("{number}.lock"))
}

/// The lock of a number, unless a living runner holds it.
fn lock(number: u32) -> Result<Option<File>> {
    let path = lock_file(number);
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
        // Its last holder may have removed the file between our opening and our locking it.
        let ours = file.metadata().with_context(|| format!("look at {}", path.display()))?.ino();
        if std::fs::metadata(&path).is_ok_and(|there| there.ino() == ours) {
            return Ok(Some(file));
        }
    }
}

/// Removes all that goes by a number, whose lock the caller holds; returns what could not be removed.
fn clean(number: u32) -> Vec<anyhow::Error> {
    let folder = folder(number);
    let recorded = std::fs::read(folder.join(PROCESSES)).ok();
    let processes: Vec<Identity> = recorded.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    processes.iter().for_each(Identity::kill);
    let mut problems = fabric::delete_all(&prefix(number));
    problems.extend(cgroups::remove(&folder.join(CGROUPS).join(prefix(number))).err());
    for mounted in [folder.join(CGROUPS), folder.join(BPFFS)] {
        while is_mounted(&mounted) {
            if let Err(error) = umount2(&mounted, MntFlags::MNT_DETACH) {
                problems.push(anyhow::Error::new(error).context(format!("unmount {}", mounted.display())));
                return problems;
            }
        }
    }
    if folder.exists()
        && let Err(error) = std::fs::remove_dir_all(&folder)
    {
        problems.push(anyhow::Error::new(error).context(format!("remove {}", folder.display())));
    }
    problems
}

fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == path))
}
