//! What the SYN proxy needs beside its program: a listener that believes in cookies which it has not sent itself.
//!
//! The kernel checks cookies at a listener that answers with cookies, too: `net.ipv4.tcp_syncookies = 2` in its network namespace (IPv6 has
//! the same switch). With 1 it does so only when its own queue is full, and ACKs that the proxy let in would be refused.
//!
//! What the switch was before is pinned beside the maps: a pin ends where the switch does, with the machine's uptime. It is put back when the proxy
//! goes off or the guard is detached, unless another instance's proxy needs it still, or somebody else has moved it since.

use super::{bpffs, sys};
use kernel_shared::control::SynProxy;
use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Name of the pinned array that says what the switch was: its value, and the inode of its network namespace.
pub const PIN: &str = "SYNCOOKIES";

/// The switch, of the network namespace of this thread.
pub const SYNCOOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";
/// Its name for `sysctl`.
pub const NAME: &str = "net.ipv4.tcp_syncookies";
/// Its value for always.
const ALWAYS: &str = "2";

fn syncookies() -> io::Result<String> {
    Ok(fs::read_to_string(SYNCOOKIES)?.trim().to_string())
}

fn netns() -> io::Result<u64> {
    fs::metadata("/proc/thread-self/ns/net").map(|metadata| metadata.ino())
}

/// What the switch of a network namespace was before a guard set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    value: u64,
    netns: u64,
}

impl Former {
    /// As it is remembered beside these maps; `None` if that guard has not set it.
    pub fn read(directory: &Path) -> Option<Former> {
        let map = sys::open_pin(&directory.join(PIN), sys::READ_ONLY).ok()?;
        let word = |index: u32| sys::lookup::<u32, u64>(map.as_fd(), &index).ok().flatten();
        Some(Former { value: word(0)?, netns: word(1)? })
    }

    fn write(self, directory: &Path) -> io::Result<()> {
        let map = sys::list_map(2)?;
        sys::update(map.as_fd(), &0u32, &self.value)?;
        sys::update(map.as_fd(), &1u32, &self.netns)?;
        sys::pin(map.as_fd(), &directory.join(PIN))
    }

    /// Puts it back. `root`: where all instances have their pins; this one's must be gone.
    pub fn restore(self, root: &Path) -> Result<(), String> {
        let value = self.value;
        if netns().ok() != Some(self.netns) {
            return Err(format!(
                "it stays 2 in the guard's network namespace, where this is not; run there: sysctl -w {NAME}={value}"
            ));
        }
        if others(root, Path::new("")).any(|other| other.netns == self.netns) || syncookies().ok().as_deref() != Some(ALWAYS) {
            return Ok(());
        }
        fs::write(SYNCOOKIES, value.to_string()).map_err(|error| format!("it stays 2 ({error}); run: sysctl -w {NAME}={value}"))?;
        tracing::info!(value, "{NAME} is as it was before the SYN proxy");
        Ok(())
    }
}

/// What all guards but the one of this directory remember.
fn others(root: &Path, directory: &Path) -> impl Iterator<Item = Former> {
    let entries = fs::read_dir(root).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let others: Vec<PathBuf> = entries.filter(|path| path != directory).collect();
    others.into_iter().filter_map(|path| Former::read(&path))
}

/// Sets the switch while the rights for it are there, and remembers beside these maps what it was; what stands against it is said by
/// [`possible`].
pub fn prepare(directory: &Path) {
    let (Ok(before), Ok(netns)) = (syncookies(), netns()) else { return };
    let known = Former::read(directory).is_some();
    if before == ALWAYS {
        // Set by another instance's guard? Whoever is the last puts it back.
        if let Some(former) = others(bpffs::root(directory), directory).find(|former| former.netns == netns && !known) {
            remember(former, directory);
        }
        return;
    }
    // Remembered first: who is cut off in between has done no harm.
    if let (false, Ok(value)) = (known, before.parse()) {
        remember(Former { value, netns }, directory);
    }
    match fs::write(SYNCOOKIES, ALWAYS) {
        Ok(()) => tracing::info!(before, "{NAME} set to 2 for the SYN proxy"),
        Err(_) => drop(fs::remove_file(directory.join(PIN))),
    }
}

fn remember(former: Former, directory: &Path) {
    if let Err(error) = former.write(directory) {
        tracing::warn!(%error, value = former.value, "what {NAME} was can't be remembered: it will stay 2");
    }
}

/// The proxy is off: puts the switch back, if this guard has set it.
pub fn restore(directory: &Path) {
    let Some(former) = Former::read(directory) else { return };
    let removed = fs::remove_file(directory.join(PIN)).map_err(|error| error.to_string());
    if let Err(message) = removed.and_then(|()| former.restore(bpffs::root(directory))) {
        tracing::warn!("{NAME}: {message}");
    }
}

/// Takes over what guards of other layouts remember.
pub fn take_over(older: &[PathBuf], directory: &Path) {
    let pin = directory.join(PIN);
    for left in older.iter().map(|older| older.join(PIN)).filter(|left| left.exists()) {
        if let Err(error) = fs::rename(&left, &pin) {
            tracing::warn!(%error, "what {NAME} was is not known any more: it will stay 2");
        }
    }
}

/// Whether this state can be taken here; else a message that names what to do.
pub fn possible(state: SynProxy, program: &Result<OwnedFd, String>, directory: &Path) -> Result<(), String> {
    if state == SynProxy::Off {
        return Ok(());
    }
    if let Err(reason) = program {
        return Err(reason.clone());
    }
    prepare(directory);
    match syncookies() {
        Ok(value) if value == ALWAYS => Ok(()),
        Ok(value) => Err(format!(
            "{NAME} is {value} in the listener's network namespace and can't be changed from here; run there: \
             sysctl -w {NAME}=2"
        )),
        Err(error) => Err(format!("{NAME} can't be read: {error}")),
    }
}

/// The state that a guard starts with: what was asked for, else what an earlier one had, if it is possible. A guard without its SYN proxy
/// is better than none: it says so and goes on.
pub fn at_start(asked: Option<SynProxy>, kept: SynProxy, program: &Result<OwnedFd, String>, directory: &Path) -> SynProxy {
    let state = asked.unwrap_or(kept);
    let state = match possible(state, program, directory) {
        Ok(()) => state,
        Err(message) => {
            tracing::error!("the SYN proxy stays off: {message}");
            SynProxy::Off
        }
    };
    if state == SynProxy::Off {
        restore(directory);
    }
    state
}
