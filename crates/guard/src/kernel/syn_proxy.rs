//! What the SYN proxy needs beside its program: a listener that believes in cookies which it has not sent itself.
//!
//! The kernel checks cookies at a listener that answers with cookies, too: `net.ipv4.tcp_syncookies = 2` in its network namespace (IPv6 has
//! the same switch). With 1 it does so only when its own queue is full, and ACKs that the proxy let in would be refused.

use kernel_shared::control::SynProxy;
use std::{fs, io, os::fd::OwnedFd};

/// The switch, of the network namespace of this thread.
pub const SYNCOOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";
/// Its value for always.
const ALWAYS: &str = "2";

fn syncookies() -> io::Result<String> {
    Ok(fs::read_to_string(SYNCOOKIES)?.trim().to_string())
}

/// Sets the switch while the rights for it are there; what stands against it is said by [`possible`].
pub fn prepare() {
    if let Ok(before) = syncookies()
        && before != ALWAYS
        && fs::write(SYNCOOKIES, ALWAYS).is_ok()
    {
        tracing::info!(before, "net.ipv4.tcp_syncookies set to 2 for the SYN proxy; it stays so");
    }
}

/// Whether this state can be taken here; else a message that names what to do.
pub fn possible(state: SynProxy, program: &Result<OwnedFd, String>) -> Result<(), String> {
    if state == SynProxy::Off {
        return Ok(());
    }
    if let Err(reason) = program {
        return Err(reason.clone());
    }
    prepare();
    match syncookies() {
        Ok(value) if value == ALWAYS => Ok(()),
        Ok(value) => Err(format!(
            "net.ipv4.tcp_syncookies is {value} in the listener's network namespace and can't be changed from here; run there: \
             sysctl -w net.ipv4.tcp_syncookies=2"
        )),
        Err(error) => Err(format!("net.ipv4.tcp_syncookies can't be read: {error}")),
    }
}

/// The state that a guard starts with: what was asked for, else what an earlier one had, if it is possible. A guard without its SYN proxy
/// is better than none: it says so and goes on.
pub fn at_start(asked: Option<SynProxy>, kept: SynProxy, program: &Result<OwnedFd, String>) -> SynProxy {
    let state = asked.unwrap_or(kept);
    match possible(state, program) {
        Ok(()) => state,
        Err(message) => {
            tracing::error!("the SYN proxy stays off: {message}");
            SynProxy::Off
        }
    }
}
