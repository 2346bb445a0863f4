//! Life cycle: death, adoption, foreign programs, detaching, privileges.

use crate::support::{INTERFACE, Lab, MARKER4, SUSPECT4, pins, ready_to};
use guard::Request;
use nix::sys::signal::Signal;
use std::process::Command;
use types::Offence;

#[test]
fn a_killed_guard_leaves_its_filter_and_the_next_one_adopts_it() {
    let Some(lab) = Lab::new("a_killed_guard_leaves_its_filter_and_the_next_one_adopts_it") else { return };
    let mut guard = lab.start(&["--mode", "enforce"]);
    let mut line = lab.line4();
    guard.ban(SUSPECT4, 600_000, Offence::BadSignature);
    let peer = crate::support::flow(MARKER4, 4001, guard::FlowKind::Known, "peer");
    let row = guard.ask(&peer);
    assert_eq!(line.send(5), 0);
    let before = lab.program_id().unwrap();
    guard.signal(Signal::SIGKILL);
    assert_eq!(lab.program_id(), Some(before));
    assert_eq!(line.send(7), 0);
    let guard = lab.start(&[]);
    let stats = guard.stats();
    assert!(stats.adopted);
    assert_eq!((stats.mode.as_str(), stats.xdp_mode.as_str(), stats.bans, stats.flows), ("enforce", "native", 1, 1));
    assert_eq!(stats.dropped["banned_bad_signature"], 12);
    assert_ne!(lab.program_id(), Some(before), "the program is swapped for this binary's");
    // A peer that is announced again goes on counting in its row.
    assert_eq!(guard.ask(&peer), row);
    assert_eq!(line.send(1), 0);
    let stats = guard.stats();
    assert_eq!((stats.dropped["banned_bad_signature"], stats.rows[0].label.as_str(), stats.rows[0].packets), (13, "peer", 3));
    guard.ask(&Request::Unban { address: SUSPECT4.parse().unwrap() });
    assert_eq!(line.send(2), 2);
}

#[test]
fn a_terminated_guard_leaves_its_filter() {
    let Some(lab) = Lab::new("a_terminated_guard_leaves_its_filter") else { return };
    let mut guard = lab.start(&["--mode", "enforce"]);
    guard.ban(SUSPECT4, 600_000, Offence::Manual);
    assert!(guard.signal(Signal::SIGTERM).success());
    assert!(!lab.socket().exists());
    assert_eq!(lab.line4().send(3), 0);
}

/// Whose output nobody reads any more has done what it was asked for; a guard that can't say that it is ready has not.
#[test]
fn only_of_the_standard_output_may_the_reader_be_gone() {
    let Some(lab) = Lab::new("only_of_the_standard_output_may_the_reader_be_gone") else { return };
    let closed = || std::io::pipe().unwrap().1;
    let writer = closed();
    let mut command = lab.command(&["--mode", "enforce"]);
    ready_to(&mut command, &writer);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("writing to --ready-fd"), "{said}");
    let _guard = lab.start(&[]);
    let mut status = Command::new(env!("CARGO_BIN_EXE_ebpf-guard"));
    status.arg("status").arg("--socket").arg(lab.socket()).stdout(closed());
    let output = status.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_link_whose_interface_is_gone_is_not_adopted() {
    let Some(lab) = Lab::new("a_link_whose_interface_is_gone_is_not_adopted") else { return };
    let mut guard = lab.start(&["--mode", "enforce"]);
    guard.signal(Signal::SIGKILL);
    lab.inside.run("ip", &["link", "del", INTERFACE]);
    lab.outside.run("ip", &["link", "add", "out0", "type", "veth", "peer", "name", INTERFACE, "netns", &lab.inside.path()]);
    lab.inside.run("ip", &["link", "set", INTERFACE, "up"]);
    let guard = lab.start(&[]);
    let stats = guard.stats();
    assert_eq!((stats.adopted, stats.xdp_mode.as_str(), stats.mode.as_str()), (false, "native", "enforce"));
    assert!(lab.program_id().is_some());
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    let Some(lab) = Lab::new("a_foreign_program_is_named_and_left_alone") else { return };
    let first = lab.start(&["--mode", "enforce"]);
    let id = lab.program_id().unwrap();
    let error = {
        let socket = lab.folder.path().join("second.sock");
        let socket = socket.to_str().unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ebpf-guard"));
        command.args(["run", "--netns", &lab.inside.path(), "--iface", INTERFACE, "--protect", "tcp/1", "--instance", "second"]);
        command.args(["--socket", socket]).arg("--bpffs").arg(lab.bpffs());
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(error.contains(&format!("'guard' (id {id})")) && error.contains("left alone"), "{error}");
    assert_eq!(lab.program_id(), Some(id));
    assert_eq!(first.stats().mode, "enforce");
    assert_eq!(pins(&lab.bpffs()).len(), 1, "the refused one leaves no pins");
}

#[test]
fn detach_undoes_everything_with_and_without_a_guard() {
    let Some(lab) = Lab::new("detach_undoes_everything_with_and_without_a_guard") else { return };
    for killed in [false, true] {
        let mut guard = lab.start(&["--mode", "enforce"]);
        guard.ban(SUSPECT4, 600_000, Offence::Manual);
        assert_eq!(lab.line4().send(1), 0);
        assert_eq!(pins(&lab.bpffs()).len(), 1);
        if killed {
            guard.signal(Signal::SIGKILL);
        }
        lab.detach();
        if !killed {
            assert!(guard.child.wait().unwrap().success());
        }
        assert_eq!(lab.program_id(), None);
        assert_eq!(pins(&lab.bpffs()), Vec::<String>::new());
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
        assert!(!mounts.contains(lab.bpffs().to_str().unwrap()), "the mount is undone too");
        assert_eq!(lab.line4().send(2), 2);
        lab.detach(); // nothing left to do is no error
    }
}

#[test]
fn a_running_guard_keeps_three_capabilities() {
    let Some(lab) = Lab::new("a_running_guard_keeps_three_capabilities") else { return };
    let guard = lab.start(&[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", guard.child.id())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    // CAP_NET_ADMIN 12, CAP_PERFMON 38, CAP_BPF 39.
    let needed = 1 << 12 | 1 << 38 | 1 << 39;
    assert_eq!((field("CapEff:"), field("CapPrm:"), field("CapBnd:")), (needed, needed, needed));
}

#[test]
fn what_cannot_be_done_is_said() {
    let Some(lab) = Lab::new("what_cannot_be_done_is_said") else { return };
    assert!(lab.start_fails(&["--iface", "nosuch0"]).contains("no interface nosuch0"));
    assert!(lab.start_fails(&["--instance", "a/b"]).contains("no instance name"));
    let _first = lab.start(&[]);
    assert!(lab.start_fails(&[]).contains("another guard answers"));
}
