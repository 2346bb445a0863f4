//! One long-lived process: started, watched, started again after a pause, stopped.

use std::ffi::OsString;
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process;

/// How long a dead process stays dead.
pub const RESTART_AFTER: Duration = Duration::from_secs(2);
/// How long a process may take to end after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(5);
const STOP_POLL: Duration = Duration::from_millis(10);

/// How a process is started.
#[derive(Debug)]
pub struct Spec {
    /// The binary of `ebpf-lab`, which becomes the program (see [`crate::launch`]).
    pub launcher: PathBuf,
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Its working folder.
    pub folder: PathBuf,
    /// Network namespace to enter.
    pub netns: Option<PathBuf>,
    /// Control group to enter.
    pub cgroup: Option<PathBuf>,
    /// User to become, without capabilities.
    pub uid: Option<u32>,
    /// A socket that the runner holds open over restarts and passes on.
    pub listener: Option<TcpListener>,
    /// Where its output goes; appended.
    pub log: PathBuf,
}

/// What a look at a service found.
#[derive(Debug)]
pub enum Change {
    /// It ended; it is started again after the pause, if wanted.
    Died(ExitStatus),
    /// It was started again.
    Restarted,
}

/// A process with its history. Dropping it kills it.
#[derive(Debug)]
pub struct Service {
    spec: Spec,
    restart: bool,
    child: Option<Child>,
    restart_at: Option<Instant>,
    restarts: u32,
    cpu_us_before: u64,
    cpu_us_seen: u64,
}

impl Service {
    /// Starts it. `restart`: whether it is started again whenever it ends.
    ///
    /// The kernel kills it when the calling *thread* ends, so this and [`Service::poll`] belong on the main thread.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(spec: Spec, restart: bool) -> Result<Service> {
        let mut service = Service { spec, restart, child: None, restart_at: None, restarts: 0, cpu_us_before: 0, cpu_us_seen: 0 };
        service.spawn()?;
        Ok(service)
    }

    /// Its pid, 0 while it is dead.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// How often it was started again.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// User and system time of all its lives, in µs, as far as [`Service::poll`] saw them.
    pub fn cpu_us(&self) -> u64 {
        self.cpu_us_before + self.cpu_us_seen
    }

    /// Looks whether it died, and starts it again when its pause is over.
    ///
    /// # Errors
    /// If it can't be started again.
    pub fn poll(&mut self, now: Instant) -> Result<Option<Change>> {
        if let Some(child) = &mut self.child {
            if let Some(cpu) = process::cpu_us(child.id()) {
                self.cpu_us_seen = cpu;
            }
            let Some(status) = child.try_wait().context("watch a process")? else { return Ok(None) };
            self.child = None;
            self.cpu_us_before += std::mem::take(&mut self.cpu_us_seen);
            self.restart_at = self.restart.then(|| now + RESTART_AFTER);
            return Ok(Some(Change::Died(status)));
        }
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_at = None;
            self.restarts += 1;
            self.spawn()?;
            return Ok(Some(Change::Restarted));
        }
        Ok(None)
    }

    fn spawn(&mut self) -> Result<()> {
        let spec = &self.spec;
        let log = File::options().create(true).append(true).open(&spec.log);
        let log = log.with_context(|| format!("open {}", spec.log.display()))?;
        let mut command = Command::new(&spec.launcher);
        command.arg("launch").arg("--parent").arg(std::process::id().to_string());
        if let Some(netns) = &spec.netns {
            command.arg("--netns").arg(netns);
        }
        if let Some(cgroup) = &spec.cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        if let Some(uid) = spec.uid {
            command.arg("--uid").arg(uid.to_string());
        }
        command.stdin(Stdio::null());
        if let Some(listener) = &spec.listener {
            command.arg("--listen").stdin(OwnedFd::from(listener.try_clone().context("pass the socket")?));
        }
        command.arg("--").args(&spec.command).current_dir(&spec.folder);
        command.stdout(log.try_clone().context("share the log")?).stderr(log);
        // Logs are read by programs.
        command.env("NO_COLOR", "1");
        // A group of its own: Ctrl-C in the terminal reaches the runner alone, which then stops the rest in order.
        command.process_group(0);
        let what = || format!("start {}", spec.command.first().map(|p| p.display().to_string()).unwrap_or_default());
        self.child = Some(command.spawn().with_context(what)?);
        Ok(())
    }

    /// Asks it to end; see [`Service::finish`].
    pub fn terminate(&mut self) {
        self.restart = false;
        self.restart_at = None;
        if let Some(child) = &self.child {
            process::terminate(child.id());
        }
    }

    /// Waits for its end after [`Service::terminate`], and kills it when it takes too long.
    pub fn finish(&mut self) {
        let deadline = Instant::now() + STOP_GRACE;
        while let Some(child) = &mut self.child {
            if let Some(cpu) = process::cpu_us(child.id()) {
                self.cpu_us_seen = cpu;
            }
            match child.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(STOP_POLL),
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    self.child = None;
                }
                Ok(Some(_)) | Err(_) => self.child = None,
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
