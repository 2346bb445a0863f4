//! The guard as a service: a real systemd is process 1 over the system's own files, and the unit does what the guide says.

use crate::{
    egress::{DIAL, Group},
    support::{INTERFACE, SUSPECT4, skip, within},
};
use guard::{Client, protocol::Stats};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

/// How long a boot may take before the test fails. Nothing is measured with it.
const PATIENCE: Duration = Duration::from_secs(300);
const SYSTEMD: &str = "/lib/systemd/systemd";

fn eventually<T>(what: &str, attempt: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, attempt)
}

/// A booted system in the laboratory's guarded namespace. It ends with its first process.
struct Machine {
    /// `unshare`, which waits for process 1 and dies with it.
    launcher: Child,
    /// Process 1, as seen from here.
    init: u32,
    group: Group,
}

impl Machine {
    fn boot(test: &str) -> Option<Machine> {
        let group = Group::new(test)?;
        if !Path::new(SYSTEMD).exists() {
            skip(test, "no systemd");
            return None;
        }
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machine");
        let folder = group.lab.folder.path().join("machine");
        fs::create_dir(&folder).unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", group.lab.inside.path()));
        command.args([
            "unshare",
            "--mount",
            "--propagation=private",
            "--pid",
            "--cgroup",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
        ]);
        command
            .arg(tests.join("boot.sh"))
            .arg(folder)
            .arg(env!("CARGO_BIN_EXE_ebpf-guard"))
            .arg(tests.join("../../../../packaging"));
        let members = group.path.join("cgroup.procs");
        // SAFETY: one write to a file by its path; the child is single-threaded by then, and allocates as any test's child does.
        unsafe { command.pre_exec(move || fs::write(&members, "0")) };
        let mut launcher = command.stdin(Stdio::null()).spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", launcher.id());
        let init = eventually("process 1", || {
            assert!(launcher.try_wait().unwrap().is_none(), "the machine did not boot");
            let text = fs::read_to_string(&children).unwrap_or_default();
            let pid = text.split_whitespace().next()?.parse().ok()?;
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "systemd").then_some(pid)
        });
        let machine = Machine { launcher, init, group };
        eventually("systemd's socket", || machine.file("/run/systemd/private").exists().then_some(()));
        Some(machine)
    }

    /// A file of the machine's, from outside.
    fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid", "--net", "--cgroup", "--root", "--wd=/"]);
        command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null()).output().unwrap()
    }

    /// Runs what must succeed; what it prints.
    fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.journal());
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    }

    fn journal(&self) -> String {
        let output = self.run(&["journalctl", "--no-pager", "--output=cat", "--unit=ebpf-guard"]);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts the service; returns once the guard has said that it is ready.
    fn start(&self) {
        let said = self.must(&["systemctl", "start", "ebpf-guard"]);
        assert_eq!((said.as_str(), self.property("ActiveState").as_str()), ("", "active"), "{}", self.journal());
    }

    /// A property of the service.
    fn property(&self, name: &str) -> String {
        self.must(&["systemctl", "show", "--value", "--property", name, "ebpf-guard"])
    }

    fn client(&self) -> Client {
        Client::connect(&self.file("/run/ebpf-guard/guard.sock")).unwrap_or_else(|error| panic!("{error:?}\n{}", self.journal()))
    }

    fn stats(&self) -> Stats {
        self.client().stats(false).unwrap()
    }

    /// Writes the configuration file: these lines, and the interface.
    fn configure(&self, lines: &str) {
        fs::write(self.file("/etc/ebpf-guard/guard.toml"), format!("interface = '{INTERFACE}'\n{lines}\n")).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
        // All its processes have got their signal; the kernel lets go of the groups as they end.
        eventually("the machine's control groups to empty", || remove_below(&self.group.path).then_some(()));
    }
}

/// Removes the control groups below this one; false while there are processes in them.
fn remove_below(group: &Path) -> bool {
    let entries = fs::read_dir(group).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).all(|path| remove_below(&path) && fs::remove_dir(&path).is_ok())
}

/// The capabilities in effect, as bits.
fn capabilities(machine: &Machine, pid: &str) -> u64 {
    let status = fs::read_to_string(machine.file(&format!("/proc/{pid}/status"))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn the_service_does_what_the_guide_says() {
    let Some(machine) = Machine::boot("the_service_does_what_the_guide_says") else { return };
    let lab = &machine.group.lab;
    machine.configure("protect = ['udp/9000']\nmode = 'enforce'");
    machine.start();
    let stats = machine.stats();
    assert_eq!((stats.mode.as_str(), stats.xdp_mode.as_str(), stats.interface.as_str()), ("enforce", "native", INTERFACE));
    let pid = machine.property("MainPID");
    assert_eq!(machine.must(&["ps", "-o", "user=", "-p", &pid]), "ebpf-guard");
    assert_eq!(capabilities(&machine, &pid), 1 << 12 | 1 << 38 | 1 << 39, "net_admin, perfmon, bpf");

    machine.must(&["ebpf-guard", "ban", SUSPECT4, "--ttl", "1h", "--note", "test"]);
    let mut line = lab.line4();
    assert_eq!(line.send(3), 0);

    // A reload takes what is good, and says no to what is not.
    machine.configure("protect = ['udp/9000', 'tcp/9001']\nmode = 'enforce'");
    machine.must(&["systemctl", "reload", "ebpf-guard"]);
    assert_eq!(machine.stats().protect, ["tcp/9001", "udp/9000"]);
    machine.configure("protect = ['udp/9000']\ninstance = 'other'");
    assert!(!machine.run(&["systemctl", "reload", "ebpf-guard"]).status.success());
    assert!(machine.journal().contains("instance"), "{}", machine.journal());
    assert_eq!(machine.property("ActiveState"), "active");
    machine.configure("protect = ['udp/9000']\nmode = 'enforce'");

    // Killed, it comes back and takes over; nobody got through meanwhile.
    machine.must(&["systemctl", "kill", "--signal=KILL", "ebpf-guard"]);
    assert_eq!(line.send(3), 0);
    // Both in one answer: between two the first may have ended, and the next not begun.
    eventually("the next guard", || {
        let state = machine.must(&["systemctl", "show", "--property=ActiveState,MainPID", "ebpf-guard"]);
        let of_the_dead = |line: &str| [pid.as_str(), "0"].iter().any(|dead| line == format!("MainPID={dead}"));
        (state.contains("ActiveState=active") && !state.lines().any(of_the_dead)).then_some(())
    });
    let stats = machine.stats();
    assert!(stats.adopted && stats.bans == 1, "{stats:?}");
    assert_eq!(line.send(1), 0);

    // Stopped, it leaves its filter; detached, nothing.
    machine.must(&["systemctl", "stop", "ebpf-guard"]);
    assert_eq!((line.send(3), lab.program_id().is_some()), (0, true));
    machine.must(&["ebpf-guard", "detach"]);
    assert_eq!((line.send(3), lab.program_id()), (3, None));
    // Bans were saved by the service's own user, in its own directory.
    machine.start();
    assert_eq!(machine.client().bans().unwrap().len(), 1);
    assert_eq!(line.send(3), 0);
    machine.must(&["systemctl", "stop", "ebpf-guard"]);
    machine.must(&["ebpf-guard", "detach"]);
}

/// The node's service starts after the guard's, and starts again, each time in a control group of its own.
#[test]
fn the_service_follows_the_nodes_control_group() {
    let Some(machine) = Machine::boot("the_service_follows_the_nodes_control_group") else { return };
    let unit = "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=sleep infinity\n";
    fs::write(machine.file("/etc/systemd/system/node.service"), unit).unwrap();
    let path = "/sys/fs/cgroup/system.slice/node.service";
    machine.configure(&format!("protect = ['udp/9000']\nmode = 'enforce'\ncgroup = '{path}'\n[egress]"));
    machine.start();
    let probes = || machine.stats().probes;
    let gone = |line: &String| line == "none: the control group is gone";
    for _ in 0..2 {
        eventually("the node's absence to be told", || (gone(&probes()["egress"]) && gone(&probes()["tcp_truth"])).then_some(()));
        machine.must(&["systemctl", "start", "node"]);
        eventually("hooks on the node's group", || {
            let attached = |line: &String| line.ends_with(&format!(" of {path}"));
            (attached(&probes()["egress"]) && attached(&probes()["tcp_truth"])).then_some(())
        });
        let dial = "echo $$ > $0/cgroup.procs && exec python3 -c \"$1\" tcp 10.0.0.1";
        assert_eq!(machine.must(&["sh", "-c", dial, path, DIAL]), "EPERM");
        machine.must(&["systemctl", "stop", "node"]);
    }
    machine.must(&["systemctl", "stop", "ebpf-guard"]);
    machine.must(&["ebpf-guard", "detach"]);
}
