//! The egress guard, as a process of the guarded control group meets it.

use crate::{
    scrape::{METRICS, SCRAPE, sample},
    support::{Lab, Running, SUSPECT4, until},
};
use guard::Request;
use nix::mount::MsFlags;
use std::{
    fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Dials `address` by `how` from inside the control group; the system's answer. (Python: the standard library's tools report no error numbers.)
pub const DIAL: &str = r"
import errno, socket, sys
how, address, port = sys.argv[1], sys.argv[2], 9
family = socket.AF_INET6 if ':' in address else socket.AF_INET
dial = socket.socket(family, socket.SOCK_STREAM if how == 'tcp' else socket.SOCK_DGRAM)
dial.setblocking(False)
try:
    dial.sendto(b'x', (address, port)) if how == 'send' else dial.connect((address, port))
    print('OK')
except OSError as error:
    print(errno.errorcode[error.errno])
";

/// A control group in a mount of the test's own, in a laboratory.
pub struct Group {
    pub lab: Lab,
    pub path: PathBuf,
    root: PathBuf,
}

impl Group {
    pub fn new(test: &str) -> Option<Group> {
        let lab = Lab::new(test)?;
        let root = lab.folder.path().join("cgroup2");
        fs::create_dir(&root).unwrap();
        nix::mount::mount(Some("none"), &root, Some("cgroup2"), MsFlags::empty(), None::<&str>).unwrap();
        let path = root.join(format!("ebpf-guard-{test}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Some(Group { lab, path, root })
    }

    /// Takes the group away, as a service manager does with that of a service that has ended.
    fn remove(&self) {
        // Its processes have ended; the kernel may still be letting go of the last.
        until("the control group to empty", || (fs::remove_dir(&self.path).is_ok() || !self.path.exists()).then_some(()));
    }

    /// Makes another group in its place.
    fn make_anew(&self) {
        fs::create_dir(&self.path).unwrap();
    }

    pub fn arguments<'a>(&'a self, extra: &[&'a str]) -> Vec<&'a str> {
        [&["--egress", "--cgroup", self.path.to_str().unwrap()], extra].concat()
    }

    /// What a process in the group is told when it dials.
    pub fn dial(&self, how: &str, address: &str) -> String {
        let members = self.path.join("cgroup.procs");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.lab.inside.path())).args(["python3", "-c", DIAL, how, address]);
        // SAFETY: one write to a file by its path; the child is single-threaded by then, and allocates as any test's child does.
        unsafe { command.pre_exec(move || fs::write(&members, "0")) };
        let output = command.stderr(Stdio::inherit()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.remove();
        let _ = nix::mount::umount(&self.root);
    }
}

#[test]
fn a_node_that_tries_all_the_same_gets_eperm() {
    let Some(group) = Group::new("a_node_that_tries_all_the_same_gets_eperm") else { return };
    let mut guard = group.lab.start(&group.arguments(&["--mode", "enforce", "--egress-allow", "10.77.0.0/24"]));
    for (how, address, range) in [
        ("tcp", "10.0.0.1", "private"),
        ("udp", "192.168.1.1", "private"),
        ("send", "172.16.3.4", "private"),
        ("tcp", "169.254.169.254", "link_local"),
        ("send", "100.64.0.1", "carrier_nat"),
        ("tcp", "203.0.113.7", "documentation"),
        ("tcp", "fd00::1", "private"),
        ("send", "fe80::1", "link_local"),
        ("tcp", "::ffff:10.0.0.1", "private"),
        ("send", "2001:db8::1", "documentation"),
    ] {
        let before = guard.stats().egress.unwrap().ranges[range];
        assert_eq!(group.dial(how, address), "EPERM", "{how} {address}");
        let after = guard.stats().egress.unwrap().ranges[range];
        assert_eq!((after.denied - before.denied, after.would_deny), (1, before.would_deny), "{how} {address}");
    }
    // What is nobody's special range, is allowed, or is one's own machine, is refused by no guard.
    for (how, address) in
        [("tcp", "8.8.8.8"), ("send", "8.8.8.8"), ("tcp", "2606:4700::1111"), ("udp", "127.0.0.1"), ("udp", "::1")]
    {
        assert_ne!(group.dial(how, address), "EPERM", "{how} {address}");
    }
    assert_eq!(group.dial("send", SUSPECT4), "OK");
    assert_ne!(group.dial("tcp", &format!("::ffff:{SUSPECT4}")), "EPERM");
    // A dead guard lets nobody out, and a restarted one goes on counting.
    let denied = guard.stats().egress.unwrap().ranges["private"].denied;
    guard.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(group.dial("tcp", "10.0.0.1"), "EPERM");
    let guard = group.lab.start(&group.arguments(&[]));
    assert_eq!(guard.stats().egress.unwrap().ranges["private"].denied, denied + 1);
    // An adopted guard's list is the new one: 10.77.0.0/24 is not on it.
    assert_eq!(group.dial("send", SUSPECT4), "EPERM");
    drop(guard);
    group.lab.detach();
    assert_ne!(group.dial("tcp", "10.0.0.1"), "EPERM");
}

#[test]
fn shadow_counts_dials_and_refuses_none() {
    let Some(group) = Group::new("shadow_counts_dials_and_refuses_none") else { return };
    let guard = group.lab.start(&group.arguments(&["--egress-no-loopback"]));
    assert_ne!(group.dial("tcp", "10.0.0.1"), "EPERM");
    assert_ne!(group.dial("udp", "127.0.0.1"), "EPERM");
    let ranges = guard.stats().egress.unwrap().ranges;
    assert_eq!((ranges["private"].denied, ranges["private"].would_deny, ranges["loopback"].would_deny), (0, 1, 1));
    guard.ask(&Request::Mode { mode: "enforce".into() });
    assert_eq!(group.dial("udp", "127.0.0.1"), "EPERM");
    guard.ask(&Request::Mode { mode: "off".into() });
    assert_ne!(group.dial("udp", "127.0.0.1"), "EPERM");
    let ranges = guard.stats().egress.unwrap().ranges;
    assert_eq!((ranges["loopback"].denied, ranges["loopback"].would_deny), (1, 1));
}

#[test]
fn a_guard_that_is_no_longer_asked_to_refuses_no_dial() {
    let Some(group) = Group::new("a_guard_that_is_no_longer_asked_to_refuses_no_dial") else { return };
    drop(group.lab.start(&group.arguments(&["--mode", "enforce"])));
    assert_eq!(group.dial("tcp", "10.0.0.1"), "EPERM");
    // Not even the control group is named any more.
    let guard = group.lab.start(&[]);
    for (how, address) in [("tcp", "10.0.0.1"), ("send", "10.0.0.1"), ("tcp", "fd00::1"), ("send", "fd00::1")] {
        assert_ne!(group.dial(how, address), "EPERM", "{how} {address}");
    }
    assert_eq!(guard.stats().egress, None);
}

/// What of a guard's hooks is on the control group: egress guard, TCP's figures, senders of datagrams.
fn hooks(guard: &Running) -> (String, String, bool) {
    let stats = guard.stats();
    let line = |name: &str| stats.probes[name].clone();
    (line("egress"), line("tcp_truth"), stats.latency_udp.source.contains("recvmsg4"))
}

#[test]
fn hooks_follow_the_control_group_to_its_next_life() {
    let Some(group) = Group::new("hooks_follow_the_control_group_to_its_next_life") else { return };
    let guard = group.lab.start(&group.arguments(&["--mode", "enforce", "--metrics", METRICS]));
    let whole = hooks(&guard);
    let (egress, truth, _) = &whole;
    assert_eq!(*egress, format!("connect4, connect6, sendmsg4, sendmsg6 of {}", group.path.display()));
    assert!(truth.starts_with("sock_ops of "), "{truth}");
    assert_eq!(group.dial("tcp", "10.0.0.1"), "EPERM");
    let attached = |probe: &str| sample(&group.lab.http(SCRAPE).2, &format!(r#"ebpf_guard_probe_attached{{probe="{probe}"}}"#));
    assert_eq!((attached("egress"), attached("tcp_truth")), (1.0, 1.0));
    let gone = "none: the control group is gone".to_string();
    for _ in 0..2 {
        group.remove();
        until("the guard to miss the group", || (hooks(&guard) == (gone.clone(), gone.clone(), false)).then_some(()));
        assert_eq!((attached("egress"), attached("tcp_truth")), (0.0, 0.0));
        group.make_anew();
        until("the hooks on the new group", || (hooks(&guard) == whole).then_some(()));
        let before = guard.stats().egress.unwrap().ranges["private"].denied;
        for (how, address) in [("tcp", "10.0.0.1"), ("send", "10.0.0.1"), ("tcp", "fd00::1"), ("send", "fd00::1")] {
            assert_eq!(group.dial(how, address), "EPERM", "{how} {address}");
        }
        assert_eq!(guard.stats().egress.unwrap().ranges["private"].denied, before + 4);
    }
    // A restart between two looks: the group that was missed is not missed.
    group.remove();
    group.make_anew();
    until("a refused dial", || (group.dial("tcp", "10.0.0.1") == "EPERM").then_some(()));
    // What is on the new group is pinned as ever: a dead guard lets nobody out, and a detached one everybody.
    drop(guard);
    assert_eq!(group.dial("tcp", "10.0.0.1"), "EPERM");
    group.lab.detach();
    assert_ne!(group.dial("tcp", "10.0.0.1"), "EPERM");
}

#[test]
fn a_guard_waits_for_a_control_group_that_is_not_there_yet() {
    let Some(group) = Group::new("a_guard_waits_for_a_control_group_that_is_not_there_yet") else { return };
    // An earlier guard's hooks on another group are nobody's wish any more.
    let other = group.path.with_extension("other");
    fs::create_dir(&other).unwrap();
    drop(group.lab.start(&["--mode", "enforce", "--egress", "--cgroup", other.to_str().unwrap()]));
    fs::remove_dir(&other).unwrap();
    group.remove();
    let guard = group.lab.start(&group.arguments(&[]));
    let gone = "none: the control group is gone";
    assert_eq!(hooks(&guard), (gone.to_string(), gone.to_string(), false));
    let log = fs::read_to_string(group.lab.folder.path().join("guard.log")).unwrap();
    assert!(log.contains(&format!("egress: {gone}")) && log.contains(&format!("tcp_truth: {gone}")), "{log}");
    group.make_anew();
    until("a refused dial", || (group.dial("tcp", "10.0.0.1") == "EPERM").then_some(()));
    assert!(hooks(&guard).1.starts_with("sock_ops of "));
}

#[test]
fn what_can_be_no_control_group_is_refused_by_name() {
    let Some(group) = Group::new("what_can_be_no_control_group_is_refused_by_name") else { return };
    let file = group.path.join("cgroup.procs");
    for path in ["/tmp", "/tmp/not/there", "/etc/hostname", file.to_str().unwrap()] {
        let error = group.lab.start_fails(&["--egress", "--cgroup", path]);
        assert!(error.contains(&format!("{path} is no directory of cgroup2")), "{error}");
    }
}
