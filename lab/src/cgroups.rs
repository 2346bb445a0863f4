//! A control group for each node (cgroup2), so that its guard knows which sockets are the node's. The runner mounts a cgroup2 of its own: where the
//! system has one it is the same tree, and where it has none, as in many containers, there is one now.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

/// How long the kernel may take to let go of killed processes.
const EMPTY_MAX: Duration = Duration::from_secs(5);
const EMPTY_POLL: Duration = Duration::from_millis(20);

/// Mounts cgroup2 at `path` and makes the group that holds the nodes' groups; its path.
///
/// # Errors
/// If the kernel refuses.
pub fn mount_at(path: &Path, name: &str) -> Result<PathBuf> {
    DirBuilder::new().mode(0o755).create(path).with_context(|| format!("make {}", path.display()))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), path, Some("cgroup2"), flags, None::<&str>).context("mount a cgroup2 file system")?;
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>).context("make the cgroup2 file system private")?;
    let all = path.join(name);
    create(&all)?;
    Ok(all)
}

/// Makes a group; one that is there is taken.
///
/// # Errors
/// If the kernel refuses.
pub fn create(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("make {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Puts this process into a group.
///
/// # Errors
/// If the kernel refuses.
pub fn enter(path: &Path) -> Result<()> {
    fs::write(path.join("cgroup.procs"), "0").with_context(|| format!("enter {}", path.display()))
}

/// Kills what is left in a group and in those within it, and removes them. One that is not there is what was wanted.
///
/// # Errors
/// If something stays.
pub fn remove(all: &Path) -> Result<()> {
    if !all.exists() {
        return Ok(());
    }
    // Since Linux 5.14; older kernels have nothing alive in here by now, either.
    let _ = fs::write(all.join("cgroup.kill"), "1");
    let within: Vec<PathBuf> = fs::read_dir(all)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    let deadline = Instant::now() + EMPTY_MAX;
    for group in within.iter().chain([&all.to_path_buf()]) {
        while let Err(error) = fs::remove_dir(group) {
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("remove {}", group.display()));
            }
            std::thread::sleep(EMPTY_POLL);
        }
    }
    Ok(())
}
