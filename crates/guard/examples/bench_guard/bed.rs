//! Where whole guards are measured: two namespaces, a veth pair between them, a guard at one end.
//!
//! Namespaces have no names and mounts happen in a mount namespace of this process: nothing outlives it.

use anyhow::{Context, ensure};
use guard::{Client, Request};
use nix::{
    mount::MsFlags,
    sched::{CloneFlags, CpuSet, sched_setaffinity, setns, unshare},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    io::Read,
    os::fd::{AsFd, AsRawFd},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command},
};

pub const PORT: u16 = 9000;
pub const OUTSIDE: &str = "10.77.0.1";
pub const INSIDE: &str = "10.77.0.2";
/// The sender's interface.
pub const SENDER: &str = "out0";

/// Gives this process a mount namespace of its own, nothing shared with the host.
pub fn private_mounts() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
    Ok(nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?)
}

/// Keeps a task on one CPU; where there is only one, nothing happens. Pid 0 is this thread.
pub fn pin(pid: i32, cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu % std::thread::available_parallelism()?.get())?;
    Ok(sched_setaffinity(Pid::from_raw(pid), &set)?)
}

/// A network namespace without a name.
pub struct Namespace(File);

impl Namespace {
    fn new() -> anyhow::Result<Namespace> {
        let make = || -> anyhow::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        };
        Ok(Namespace(std::thread::scope(|scope| scope.spawn(make).join().unwrap())?))
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs a program inside; its output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program).args(arguments);
        let output = command.output().with_context(|| format!("running {program}"))?;
        ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Does work on a thread inside: sockets that it makes stay there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let enter = || {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }
}

/// Both ends.
pub struct Bed {
    pub outside: Namespace,
    pub inside: Namespace,
    /// The guarded interface. Its name tells its NAPI thread from others'.
    pub interface: String,
    folder: tempfile::TempDir,
}

impl Bed {
    pub fn new() -> anyhow::Result<Bed> {
        let (outside, inside) = (Namespace::new()?, Namespace::new()?);
        let interface = format!("b{:x}", std::process::id() & 0xfff);
        outside.run("ip", &["link", "add", SENDER, "type", "veth", "peer", "name", &interface, "netns", &inside.path()])?;
        for (namespace, device, address) in [(&outside, SENDER, OUTSIDE), (&inside, &interface, INSIDE)] {
            namespace.run("ip", &["addr", "add", &format!("{address}/24"), "dev", device])?;
            namespace.run("ip", &["link", "set", "lo", "up"])?;
            namespace.run("ip", &["link", "set", device, "up"])?;
        }
        Ok(Bed { outside, inside, interface, folder: tempfile::tempdir()? })
    }

    /// The receiver's packets are worked on by a kernel thread of their own, so that their cost is that thread's CPU time. Its pid.
    pub fn thread_napi(&self) -> anyhow::Result<i32> {
        // A veth has a NAPI only with XDP or GRO: with GRO always.
        self.inside.run("ethtool", &["-K", &self.interface, "gro", "on"])?;
        let sysfs = self.folder.path().join("sys");
        fs::create_dir_all(&sysfs)?;
        self.inside.inside(|| {
            nix::mount::mount(Some("sysfs"), &sysfs, Some("sysfs"), MsFlags::empty(), None::<&str>).context("mounting sysfs")?;
            fs::write(sysfs.join("class/net").join(&self.interface).join("threaded"), "1").context("threading the NAPI")
        })?;
        nix::mount::umount(&sysfs)?;
        let name = format!("napi/{}-", self.interface);
        for entry in fs::read_dir("/proc")?.flatten() {
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if let (true, Some(pid)) = (comm.starts_with(&name), entry.file_name().to_str().and_then(|pid| pid.parse().ok())) {
                return Ok(pid);
            }
        }
        anyhow::bail!("no kernel thread {name}*")
    }

    /// Starts a guard in `enforce` and waits until it says that it is ready.
    pub fn start(&self, program: &Path, extra: &[&str]) -> anyhow::Result<Guard> {
        let (mut reader, writer) = std::io::pipe()?;
        let socket = self.folder.path().join("guard.sock");
        let mut command = Command::new(program);
        command.args(["run", "--netns", &self.inside.path(), "--protect", "tcp/9000,udp/9000", "--mode", "enforce"]);
        command.args(["--xdp", "native", "--instance", "bench", "--iface", &self.interface, "--ready-fd", "3"]);
        command.arg("--socket").arg(&socket).arg("--bpffs").arg(self.folder.path().join("bpf")).args(extra);
        let log = self.folder.path().join("guard.log");
        command.stderr(File::create(&log)?);
        let descriptor = writer.as_raw_fd();
        // SAFETY: dup2 is async-signal-safe.
        unsafe {
            command.pre_exec(move || if libc::dup2(descriptor, 3) < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) });
        }
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        drop(writer);
        let mut word = String::new();
        reader.read_to_string(&mut word)?;
        let guard = Guard { client: Client::connect(&socket), child };
        ensure!(word == "ready\n", "the guard did not start: {}", fs::read_to_string(log).unwrap_or_default());
        Ok(guard)
    }
}

/// A running guard; it is off when this is dropped.
pub struct Guard {
    client: Result<Client, guard::ClientError>,
    child: Child,
}

impl Guard {
    pub fn client(&mut self) -> anyhow::Result<&mut Client> {
        self.client.as_mut().map_err(|error| anyhow::anyhow!("{error}"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A guard that does not answer is killed; its filter goes with the interface.
        if self.client.as_mut().is_ok_and(|client| client.ask(&Request::Detach {}).is_err()) || self.client.is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
