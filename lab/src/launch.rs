//! The last step before a node or a guard runs: enter its network namespace, take its socket, give up every right, become it.
//!
//! `ebpf-lab launch` is started by the runner and replaces itself with the program, so the program keeps the pid that the
//! runner knows. A process of its own, not a hook between fork and exec: here memory may be allocated and errors have text.
//! `ip netns exec` would not do, because it mounts a new /sys and hides bpffs, tracefs and cgroups.

use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use caps::{CapSet, CapsHashSet};
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::Mode;
use nix::unistd::{
    AccessFlags, Gid, Pid, Uid, access, dup2_stdin, execve, fexecve, getpid, getppid, setgroups, setresgid, setresuid,
};

/// Where a passed listening socket is expected (sd_listen_fds(3)).
const LISTEN_FD: RawFd = 3;

/// What to become, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Launch {
    /// Dies with this process: its pid, checked against the parent.
    #[arg(long)]
    pub parent: i32,
    /// Network namespace to enter (a file such as /run/netns/NAME).
    #[arg(long)]
    pub netns: Option<PathBuf>,
    /// Control group to enter (a directory of cgroup2).
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
    /// User and group to become, without any capability and any way to get one.
    #[arg(long)]
    pub uid: Option<u32>,
    /// Standard input is a listening socket: pass it on as descriptor 3 with LISTEN_FDS and LISTEN_PID.
    #[arg(long)]
    pub listen: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Becomes the program.
///
/// # Errors
/// Whatever hindered it; on success it does not return.
pub fn launch(launch: &Launch) -> Result<std::convert::Infallible> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).context("unblock signals")?;
    if let Some(path) = &launch.netns {
        let namespace = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .with_context(|| format!("open network namespace {}", path.display()))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", path.display()))?;
    }
    if let Some(path) = &launch.cgroup {
        crate::cgroups::enter(path)?;
    }
    // First of all descriptors, so that no other one of ours can be number 3.
    if launch.listen {
        pass_socket()?;
    }
    let Some(program) = launch.command.first() else { bail!("no program") };
    let path = CString::new(program.as_bytes())?;
    // Opened while still privileged: the build folder may lie below a home that the new user can't enter.
    let binary = open(path.as_c_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("open {}", program.display()))?;
    if let Some(uid) = launch.uid {
        drop_privileges(uid)?;
    }
    // After the change of user, which clears it.
    nix::sys::prctl::set_pdeathsig(Some(Signal::SIGKILL)).context("die with the runner")?;
    if getppid() != Pid::from_raw(launch.parent) {
        bail!("the runner is gone");
    }
    let arguments = launch.command.iter().map(|a| CString::new(a.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let environment = environment(launch.listen)?;
    if access(path.as_c_str(), AccessFlags::X_OK).is_ok() {
        execve(&path, &arguments, &environment)
    } else {
        fexecve(binary, &arguments, &environment)
    }
    .with_context(|| format!("execute {}", program.display()))
}

/// Moves the socket from standard input to descriptor 3 and puts /dev/null in its place.
fn pass_socket() -> Result<()> {
    let socket = std::io::stdin();
    // SAFETY: both descriptors are plain numbers; 3 holds at most a descriptor of ours that is closed on exec, and nothing
    // here uses it afterwards except by that number.
    if unsafe { libc::dup2(socket.as_raw_fd(), LISTEN_FD) } != LISTEN_FD {
        return Err(std::io::Error::last_os_error()).context("pass the socket");
    }
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).context("open /dev/null")?;
    dup2_stdin(&null).context("detach standard input")
}

fn drop_privileges(uid: u32) -> Result<()> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    caps::clear(None, CapSet::Ambient).context("clear ambient capabilities")?;
    for capability in caps::all() {
        // A kernel that does not know a capability has none to drop.
        if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability).with_context(|| format!("drop {capability} from the bounding set"))?;
        }
    }
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).context("clear inheritable capabilities")?;
    setgroups(&[]).context("leave all groups")?;
    setresgid(group, group, group).context("change the group")?;
    setresuid(user, user, user).context("change the user")?;
    caps::set(None, CapSet::Effective, &CapsHashSet::new()).context("clear effective capabilities")?;
    caps::set(None, CapSet::Permitted, &CapsHashSet::new()).context("clear permitted capabilities")?;
    nix::sys::prctl::set_no_new_privs().context("forbid new privileges")
}

/// The environment as it is, with the variables of a passed socket set or removed.
fn environment(listen: bool) -> Result<Vec<CString>> {
    let kept = std::env::vars_os().filter(|(name, _)| !name.as_bytes().starts_with(b"LISTEN_"));
    let mut all = kept.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect::<Vec<_>>();
    if listen {
        all.push(format!("LISTEN_PID={}", getpid()).into_bytes());
        all.push(b"LISTEN_FDS=1".to_vec());
    }
    Ok(all.into_iter().map(CString::new).collect::<Result<_, _>>()?)
}
