//! A start that comes to nothing: what is there stays as it was, and what it left is taken for nothing.

use crate::{
    egress::Group,
    saving::bans,
    support::{Lab, SUSPECT4, pins},
    syncookies::switch,
    upgrade::{age, budgets},
};
use nix::sys::signal::Signal;
use std::{path::Path, process::Command};
use types::Offence;

/// All pins below a directory.
fn tree(root: &Path) -> Vec<String> {
    let named = |directory: String| pins(&root.join(&directory)).into_iter().map(move |pin| format!("{directory}/{pin}"));
    pins(root).into_iter().flat_map(named).collect()
}

#[test]
fn a_guard_that_is_refused_leaves_everything_as_it_was() {
    let Some(group) = Group::new("a_guard_that_is_refused_leaves_everything_as_it_was") else { return };
    let lab = &group.lab;
    let mut guard = lab.start(&group.arguments(&["--mode", "enforce", "--xdp", "native", "--syn-proxy"]));
    guard.signal(Signal::SIGKILL);
    let seen = || (lab.program_id(), switch(lab), group.dial("tcp", "192.168.1.1"), tree(&lab.bpffs()));
    for layout in ["the same layout", "another one"] {
        if layout == "another one" {
            age(lab);
        }
        let before = seen();
        assert!(before.0.is_some() && before.1 == "2" && before.2 == "EPERM", "{before:?}");
        let error = lab.start_fails(&group.arguments(&["--mode", "off", "--xdp", "tcx", "--egress-allow", "192.168.0.0/16"]));
        assert!(error.contains("(native)") && error.contains("ebpf-guard detach"), "{error}");
        assert_eq!(seen(), before, "{layout}");
    }
    let stats = lab.start(&group.arguments(&[])).stats();
    assert_eq!((stats.mode.as_str(), stats.syn_proxy.as_str(), stats.adopted), ("enforce", "on", true));
    lab.detach();
}

#[test]
fn somebody_elses_program_is_refused_before_anything_is_made() {
    let Some(lab) = Lab::new("somebody_elses_program_is_refused_before_anything_is_made") else { return };
    let other = lab.start(&["--instance", "other"]);
    let before = tree(&lab.bpffs());
    let error = lab.start_fails(&[]);
    assert!(error.contains("is not ours"), "{error}");
    assert_eq!(tree(&lab.bpffs()), before);
    drop(other);
}

/// The same command without the right to load a program that looks into memory: maps are made, then the kernel refuses.
fn without_perfmon(command: &Command) -> Command {
    let mut limited = Command::new("setpriv");
    limited.args(["--bounding-set", "-perfmon"]);
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

#[test]
fn maps_of_a_start_that_was_cut_off_are_made_anew() {
    let Some(lab) = Lab::new("maps_of_a_start_that_was_cut_off_are_made_anew") else { return };
    let mut guard = lab.start(&["--mode", "enforce"]);
    guard.ban(SUSPECT4, 600_000, Offence::Replay);
    let (had, wanted) = (bans(&guard), budgets(&guard));
    guard.signal(Signal::SIGTERM);
    lab.detach();
    let output = without_perfmon(&lab.command(&["--mode", "enforce"])).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{error}");
    assert!(tree(&lab.bpffs()).iter().any(|pin| pin.ends_with("/CONTROL")), "it was cut off too early: {error}");
    let guard = lab.start(&[]);
    assert_eq!((guard.stats().mode.as_str(), guard.stats().adopted, budgets(&guard)), ("shadow", false, wanted));
    let told = |bans: Vec<guard::protocol::BanInfo>| bans.into_iter().map(|ban| (ban.address, ban.offence)).collect::<Vec<_>>();
    assert_eq!(told(bans(&guard)), told(had), "what was saved is back");
}
