//! The switch that the SYN proxy needs is put back by whoever set it, however the proxy ends.

use crate::{
    support::{INTERFACE, Lab, Running, pins, until},
    upgrade::age,
};
use guard::{
    Request,
    kernel::{attach, syn_proxy},
};
use nix::sys::signal::Signal;
use std::process::Command;

/// The switch in the guarded namespace. A new namespace has 1.
pub fn switch(lab: &Lab) -> String {
    lab.inside.run("cat", &["/proc/sys/net/ipv4/tcp_syncookies"]).trim().to_string()
}

fn proxy(guard: &Running, state: &str) {
    guard.ask(&Request::SynProxy { state: state.into() });
}

/// Runs `ebpf-guard detach` inside the guarded namespace; what it says.
fn detach_inside(lab: &Lab) -> String {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", lab.inside.path())).arg(env!("CARGO_BIN_EXE_ebpf-guard"));
    command.args(["detach", "--instance", "lab"]).arg("--socket").arg(lab.socket()).arg("--bpffs").arg(lab.bpffs());
    let output = command.output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_switch_is_put_back_when_the_proxy_goes_off() {
    let Some(lab) = Lab::new("the_switch_is_put_back_when_the_proxy_goes_off") else { return };
    let mut guard = lab.start(&["--syn-proxy"]);
    assert_eq!(switch(&lab), "2");
    proxy(&guard, "off");
    assert_eq!(switch(&lab), "1");
    proxy(&guard, "all");
    proxy(&guard, "on");
    assert_eq!(switch(&lab), "2");
    // A dead guard's filter goes on answering, and its successor knows what the switch was.
    guard.signal(Signal::SIGKILL);
    assert_eq!(switch(&lab), "2");
    let mut guard = lab.start(&["--syn-proxy=off"]);
    assert_eq!(switch(&lab), "1");
    proxy(&guard, "on");
    // So does one of a newer layout.
    guard.signal(Signal::SIGKILL);
    age(&lab);
    let guard = lab.start(&[]);
    assert_eq!((guard.stats().syn_proxy.as_str(), switch(&lab).as_str()), ("on", "2"));
    lab.detach();
    assert_eq!((switch(&lab).as_str(), pins(&lab.bpffs())), ("1", vec![]));
}

#[test]
fn a_dead_guard_s_switch_is_put_back_where_it_is_and_nowhere_else() {
    let Some(lab) = Lab::new("a_dead_guard_s_switch_is_put_back_where_it_is_and_nowhere_else") else { return };
    lab.inside.run("sysctl", &["-qw", "net.ipv4.tcp_syncookies=0"]);
    lab.start(&["--syn-proxy"]).signal(Signal::SIGKILL);
    assert_eq!((detach_inside(&lab).as_str(), switch(&lab).as_str()), ("", "0"));
    // Its link is of this namespace, and whoever detaches is in another one: that one's switch is not touched.
    lab.start(&["--syn-proxy"]).signal(Signal::SIGKILL);
    let left = lab.outside.inside(|| {
        let left = attach::detach(&lab.bpffs(), "lab").unwrap();
        assert_eq!(std::fs::read_to_string(syn_proxy::SYNCOOKIES).unwrap().trim(), "1");
        left
    });
    assert!(left.len() == 1 && left[0].contains("sysctl -w net.ipv4.tcp_syncookies=0"), "{left:?}");
    assert_eq!(switch(&lab), "2");
    // What somebody set by hand is nobody's to put back.
    let guard = lab.start(&["--syn-proxy"]);
    proxy(&guard, "off");
    assert_eq!(switch(&lab), "2");
    proxy(&guard, "on");
    lab.inside.run("sysctl", &["-qw", "net.ipv4.tcp_syncookies=0"]);
    lab.detach();
    assert_eq!(switch(&lab), "0");
}

#[test]
fn the_last_of_two_instances_puts_the_switch_back() {
    let Some(lab) = Lab::new("the_last_of_two_instances_puts_the_switch_back") else { return };
    lab.inside.run("ip", &["link", "add", "more0", "type", "veth", "peer", "name", "more1"]);
    let first = lab.start(&["--syn-proxy"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-guard"));
    command.args([
        "run",
        "--netns",
        &lab.inside.path(),
        "--iface",
        "more0",
        "--protect",
        "tcp/1",
        "--instance",
        "second",
        "--syn-proxy",
    ]);
    command.arg("--socket").arg(lab.folder.path().join("second.sock")).arg("--bpffs").arg(lab.bpffs());
    command.arg("--state").arg(lab.folder.path().join("second"));
    let mut second = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    until("the second guard", || lab.folder.path().join("second.sock").exists().then_some(()));
    let client = || guard::Client::connect(&lab.folder.path().join("second.sock"));
    until("its answer", || client().is_ok_and(|mut client| client.stats(false).is_ok()).then_some(()));
    proxy(&first, "off");
    assert_eq!(switch(&lab), "2", "the second needs it: {INTERFACE} is not the only one");
    client().unwrap().ask(&Request::SynProxy { state: "off".into() }).unwrap();
    assert_eq!(switch(&lab), "1");
    second.kill().unwrap();
    second.wait().unwrap();
}
