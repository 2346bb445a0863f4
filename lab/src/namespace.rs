//! Network namespaces: a named one that we made, and work done inside it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};

/// Where iproute2 keeps the names.
const NAMES: &str = "/run/netns";

/// The file that stands for a named namespace.
pub fn path(name: &str) -> PathBuf {
    Path::new(NAMES).join(name)
}

/// All names that begin with `prefix`.
pub fn list(prefix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(NAMES) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.starts_with(prefix));
    names.sort();
    names
}

/// Makes a namespace with its loopback up.
///
/// # Errors
/// What `ip` says.
pub fn create(name: &str) -> Result<()> {
    ip(None, &format!("netns add {name}"))?;
    within(&path(name), quiet_defaults)?;
    ip(Some(name), "link set lo up")
}

/// Removes a namespace after killing what still runs in it (all of that is ours: nobody else knows the name).
///
/// # Errors
/// What `ip` says.
pub fn delete(name: &str) -> Result<()> {
    let pids = Command::new("ip").args(["netns", "pids", name]).output().context("run ip netns pids")?;
    let own = std::process::id();
    for pid in String::from_utf8_lossy(&pids.stdout).lines().filter_map(|line| line.trim().parse::<u32>().ok()) {
        if pid != own {
            crate::process::kill(pid);
        }
    }
    ip(None, &format!("netns delete {name}"))
}

/// Runs commands of `ip -batch`, one a line, in a namespace or on the host.
///
/// # Errors
/// What `ip` says.
pub fn ip(namespace: Option<&str>, commands: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("run ip (package iproute2)")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes()).context("write to ip")?;
    }
    let output = child.wait_with_output().context("wait for ip")?;
    if !output.status.success() {
        bail!("ip {}: {}\n{commands}", namespace.unwrap_or("on the host"), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Does work on a thread that has entered the namespace; sockets made there belong to it for ever.
///
/// # Errors
/// If it can't be entered, or what the work says.
pub fn within<T: Send>(namespace: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = File::open(namespace).with_context(|| format!("open {}", namespace.display()))?;
    let inside = || {
        setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", namespace.display()))?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(inside).join())
        .map_err(|_| anyhow::anyhow!("the work inside {} panicked", namespace.display()))?
}

/// Whether this process may make network namespaces.
pub fn allowed() -> bool {
    std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok()).join().unwrap_or(false)
}

/// IPv6 addresses are usable at once, and bridged frames stay out of the host's packet filter hooks, where a forward policy
/// of `drop` would cut the fabric.
fn quiet_defaults() -> Result<()> {
    for (key, value) in [
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/bridge/bridge-nf-call-iptables", "0"),
        ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ] {
        let file = Path::new("/proc/sys").join(key);
        if file.exists() {
            std::fs::write(&file, value).with_context(|| format!("write {}", file.display()))?;
        }
    }
    Ok(())
}
