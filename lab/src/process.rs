//! What /proc says about a process or a thread, and ending one.

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// A process that can't be mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// The pid.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of /proc/PID/stat).
    pub start: u64,
}

impl Identity {
    /// Of a living process.
    pub fn of(pid: u32) -> Option<Identity> {
        let stat = stat(&format!("/proc/{pid}/stat"))?;
        Some(Identity { pid, start: stat.start })
    }

    /// Whether this very process is still there (a zombie is not).
    pub fn is_alive(&self) -> bool {
        stat(&format!("/proc/{}/stat", self.pid)).is_some_and(|stat| stat.start == self.start && stat.state != 'Z')
    }

    /// Kills it, if it is still this very process.
    pub fn kill(&self) {
        if self.is_alive() {
            kill(self.pid);
        }
    }
}

/// Sends SIGKILL. A pid that is gone is what was wanted.
pub fn kill(pid: u32) {
    signal(pid, Signal::SIGKILL);
}

/// Sends SIGTERM.
pub fn terminate(pid: u32) {
    signal(pid, Signal::SIGTERM);
}

fn signal(pid: u32, signal: Signal) {
    if let Ok(pid @ 1..) = i32::try_from(pid) {
        let _ = send(Pid::from_raw(pid), signal);
    }
}

struct Stat {
    state: char,
    cpu_ticks: u64,
    start: u64,
}

/// Reads a stat file (proc(5)): the command's name, in brackets, may hold spaces and brackets, so fields count from its end.
fn stat(path: &str) -> Option<Stat> {
    let text = std::fs::read_to_string(path).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    Some(Stat { state: fields.first()?.chars().next()?, cpu_ticks: number(11)? + number(12)?, start: number(19)? })
}

/// User and system time of a process so far, in µs; `None` if it is gone. Resolution: one clock tick, usually 10 ms.
pub fn cpu_us(pid: u32) -> Option<u64> {
    stat(&format!("/proc/{pid}/stat")).map(|stat| ticks_us(stat.cpu_ticks))
}

/// User and system time of the calling thread so far, in µs.
pub fn thread_cpu_us() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000
    })
}

/// Resident memory of a process in bytes; `None` if it is gone.
pub fn rss_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4_096);
    Some(pages * u64::try_from(page).unwrap_or(4_096))
}

fn ticks_us(ticks: u64) -> u64 {
    let hz = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|hz| u64::try_from(hz).ok()).filter(|hz| *hz > 0).unwrap_or(100);
    ticks * 1_000_000 / hz
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_seen() {
        let own = std::process::id();
        let identity = Identity::of(own).unwrap();
        assert!(identity.is_alive());
        assert!(!Identity { start: identity.start + 1, ..identity }.is_alive());
        assert!(cpu_us(own).is_some() && rss_bytes(own).unwrap() > 100_000 && thread_cpu_us() > 0);
    }

    #[test]
    fn a_dead_process_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let identity = Identity::of(child.id());
        child.wait().unwrap();
        assert!(identity.is_none_or(|identity| !identity.is_alive()));
        assert_eq!(rss_bytes(child.id()), None);
    }
}
