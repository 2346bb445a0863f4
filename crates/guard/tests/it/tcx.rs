//! TCX: where XDP is refused, or where somebody wants it so.

use crate::{
    support::{INTERFACE, Lab, MARKER4, MARKER6, PORT, Running, SERVER4, SERVER6, SUSPECT4, SUSPECT6, pins, until},
    tap::{MAC, PEER, Tap, untagged},
};
use guard::{ErrorCode, Request, kernel::sys};
use kernel_shared::{Reason, golden, inspect};
use nix::sys::signal::Signal;
use std::{collections::BTreeMap, process::Command};
use types::Offence;

/// Programs in TCX on the guarded interface.
fn classifiers(lab: &Lab) -> usize {
    lab.inside.inside(|| sys::tcx_links(nix::net::if_::if_nametoindex(INTERFACE).unwrap()).unwrap().len())
}

fn log(lab: &Lab) -> String {
    std::fs::read_to_string(lab.folder.path().join("guard.log")).unwrap()
}

/// A guard of another instance on an interface of the same lab.
fn second(lab: &Lab, interface: &str, extra: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-guard"));
    command.args(["run", "--netns", &lab.inside.path(), "--iface", interface, "--protect", "tcp/1", "--instance", "second"]);
    command.arg("--socket").arg(lab.folder.path().join("second.sock")).arg("--bpffs").arg(lab.bpffs());
    command.arg("--state").arg(lab.folder.path().join("second")).args(extra).env("NO_COLOR", "1");
    command
}

#[test]
fn in_tcx_the_banned_are_dropped_and_all_is_counted() {
    let Some(lab) = Lab::new("in_tcx_the_banned_are_dropped_and_all_is_counted") else { return };
    let mut guard = lab.start(&["--mode", "enforce", "--xdp", "tcx"]);
    let stats = guard.stats();
    assert_eq!((stats.xdp_mode.as_str(), lab.program_id(), classifiers(&lab)), ("tcx", None, 1));
    assert!(stats.latency_udp.source.starts_with("tcx arrival") && log(&lab).contains("xdp_mode=\"tcx\""), "{}", log(&lab));
    for (suspect, marker, server) in [(SUSPECT4, MARKER4, SERVER4), (SUSPECT6, MARKER6, SERVER6)] {
        let mut line = lab.line(suspect, marker, server);
        assert_eq!(line.send(3), 3);
        guard.ban(suspect, 600_000, Offence::Replay);
        assert_eq!(line.send(5), 0);
    }
    let client = lab.outside.udp((crate::support::ip(MARKER4), 4000));
    client.send_to(&[7; 4000], (SERVER4, PORT)).unwrap();
    assert_eq!(lab.line4().send(1), 0);
    let stats = guard.stats();
    assert_eq!((stats.dropped["banned_replay"], stats.dropped["fragment"], stats.passed["stranger"]), (11, 1, 11));
    assert_eq!(stats.dropped_bytes["banned_replay"], 6 * 49 + 5 * 69, "whole frames");
    // Killed: the filter stays, and the next guard takes it over where it is.
    guard.signal(Signal::SIGKILL);
    assert_eq!((lab.line4().send(2), classifiers(&lab)), (0, 1));
    let guard = lab.start(&[]);
    let stats = guard.stats();
    assert_eq!((stats.adopted, stats.xdp_mode.as_str(), classifiers(&lab)), (true, "tcx", 1));
    assert_eq!((stats.dropped["banned_replay"], lab.line4().send(1)), (13, 0));
    lab.detach();
    assert_eq!((lab.line4().send(2), classifiers(&lab), pins(&lab.bpffs())), (2, 0, vec![]));
}

#[test]
fn a_dead_guard_s_classifier_is_detached_too() {
    let Some(lab) = Lab::new("a_dead_guard_s_classifier_is_detached_too") else { return };
    let mut guard = lab.start(&["--mode", "enforce", "--xdp", "tcx"]);
    guard.ban(SUSPECT4, 600_000, Offence::Replay);
    guard.signal(Signal::SIGKILL);
    assert_eq!(lab.line4().send(1), 0);
    lab.detach();
    assert_eq!((lab.line4().send(1), classifiers(&lab)), (1, 0));
}

/// A port of a bridge takes no XDP program while the bridge itself has one: both modes are refused, and nobody's program is in the way.
#[test]
fn where_xdp_is_refused_the_filter_is_in_tcx() {
    let Some(lab) = Lab::new("where_xdp_is_refused_the_filter_is_in_tcx") else { return };
    for arguments in [
        &["link", "add", "br0", "type", "bridge"][..],
        &["link", "set", INTERFACE, "master", "br0"],
        &["addr", "flush", "dev", INTERFACE],
        &["addr", "add", &format!("{SERVER4}/24"), "dev", "br0"],
        &["link", "set", "br0", "up"],
    ] {
        lab.inside.run("ip", arguments);
    }
    let mut upper = second(&lab, "br0", &["--mode", "off"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    until("the bridge's own filter", || lab.inside.run("ip", &["-d", "link", "show", "br0"]).contains("xdpgeneric").then_some(()));
    let guard = lab.start(&["--mode", "enforce"]);
    assert_eq!((guard.stats().xdp_mode.as_str(), lab.program_id(), classifiers(&lab)), ("tcx", None, 1));
    let log = log(&lab);
    assert!(log.contains("native: File exists") && log.contains("generic: File exists"), "{log}");
    let mut line = lab.line4();
    assert_eq!(line.send(2), 2);
    guard.ban(SUSPECT4, 600_000, Offence::Replay);
    assert_eq!((line.send(4), guard.stats().dropped["banned_replay"]), (0, 4));
    upper.kill().unwrap();
    upper.wait().unwrap();
}

#[test]
fn beside_a_foreign_program_tcx_has_to_be_asked_for() {
    let Some(lab) = Lab::new("beside_a_foreign_program_tcx_has_to_be_asked_for") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let id = lab.program_id().unwrap();
    let output = second(&lab, INTERFACE, &[]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains(&format!("'guard' (id {id})")), "{error}");
    assert_eq!(classifiers(&lab), 0);
    drop(guard);
    // The other way round: ours beside that one, since somebody said so; it is named all the same.
    let mut first = second(&lab, INTERFACE, &["--xdp", "tcx"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    until("the second filter", || (classifiers(&lab) == 1).then_some(()));
    assert_eq!(lab.program_id(), Some(id));
    first.kill().unwrap();
    let log = String::from_utf8(first.wait_with_output().unwrap().stderr).unwrap();
    assert!(log.contains("an XDP program that is not ours") && log.contains(&format!("id={id}")), "{log}");
}

#[test]
fn what_tcx_cannot_do_is_refused() {
    let Some(lab) = Lab::new("what_tcx_cannot_do_is_refused") else { return };
    assert!(lab.start_fails(&["--xdp", "tcx", "--syn-proxy"]).contains("it can't be had with --xdp tcx"));
    assert_eq!(classifiers(&lab), 0);
    let mut guard: Running = lab.start(&["--xdp", "tcx"]);
    let (code, message) = guard.refusal(&Request::SynProxy { state: "on".into() });
    assert!(code == ErrorCode::Kernel && message.contains("this interface is filtered in TCX"), "{message}");
    guard.signal(Signal::SIGKILL);
    // A filter that is there is not moved, and not left for a moment either.
    let error = lab.start_fails(&["--xdp", "native"]);
    assert!(error.contains("(tcx)") && error.contains("ebpf-guard detach"), "{error}");
    assert_eq!((classifiers(&lab), lab.program_id()), (1, None));
}

#[test]
fn packets_without_an_ethernet_header_are_not_guessed_at() {
    let Some(lab) = Lab::new("packets_without_an_ethernet_header_are_not_guessed_at") else { return };
    lab.inside.run("ip", &["tuntap", "add", "dev", "tun0", "mode", "tun"]);
    let error = lab.start_fails(&["--iface", "tun0"]);
    assert!(error.contains("no Ethernet header (hardware type 65534)"), "{error}");
}

/// The kernel takes the outermost VLAN tag off before TCX: what is left gets the verdict that the filter in XDP would give it.
#[test]
fn tagged_frames_are_judged_by_what_is_inside() {
    let Some((lab, mut tap)) = Tap::lab("tagged_frames_are_judged_by_what_is_inside") else { return };
    let guard = lab.start(&["--mode", "enforce", "--xdp", "tcx"]);
    guard.ban("10.77.4.9", 600_000, Offence::BadSignature);
    guard.ban("2001:db8:4:7::9", 600_000, Offence::BadSignature);
    let model = golden::model();
    // Golden sender 4 is banned, in the model as here.
    let banned = |case: &golden::Case| [", banned,", "banned behind three tags"].iter().any(|part| case.name.contains(part));
    let tagged = |case: &golden::Case| matches!(case.frame[12..14], [0x81, 0x00] | [0x88, 0xa8]);
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for case in golden::cases().iter().filter(|case| banned(case) && tagged(case) && case.frame.len() <= 1500) {
        let Some(frame) = untagged(&case.frame) else { continue };
        *expected.entry(inspect(&frame[..], &model).reason().as_str()).or_default() += 1;
        tap.write(&case.frame);
    }
    assert!(expected["banned_bad_signature"] >= 10, "{expected:?}");
    for reason in [Reason::BannedBadSignature, Reason::Fragment] {
        let wanted = expected.get(reason.as_str()).copied().unwrap_or(0);
        until(reason.as_str(), || (guard.stats().dropped[reason.as_str()] == wanted).then_some(()));
    }
}

/// A frame of more than a page of which the kernel shows a program the Ethernet header and no more, until it asks.
#[test]
fn headers_that_lie_in_pages_are_read() {
    const IFF_VNET_HDR: i16 = 0x4000;
    const LINEAR: u16 = 14;
    let Some((lab, mut tap)) = Tap::lab_with("headers_that_lie_in_pages_are_read", IFF_VNET_HDR) else { return };
    let guard = lab.start(&["--mode", "enforce", "--xdp", "tcx"]);
    guard.ban("10.77.0.7", 600_000, Offence::Replay);
    guard.ban("2001:db8:7::/64", 600_000, Offence::Rate);
    let udp = |payload: u16| {
        let length = (payload + 8).to_be_bytes();
        [&4000u16.to_be_bytes()[..], &PORT.to_be_bytes(), &length, &[0, 0], &vec![7; payload.into()]].concat()
    };
    let ethernet = |kind: [u8; 2]| [&MAC[..], &PEER[..], &kind[..]].concat();
    let header = [&[0, 0][..], &LINEAR.to_ne_bytes(), &[0; 6]].concat();
    let total = 20 + 8 + 5000u16;
    let ip4 = [&[0x45, 0][..], &total.to_be_bytes(), &[0, 1, 0x40, 0, 64, 17, 0, 0, 10, 77, 0, 7, 10, 77, 0, 2]].concat();
    tap.write(&[header.clone(), ethernet([0x08, 0]), ip4, udp(5000)].concat());
    until("the v4 datagram", || (guard.stats().dropped["banned_replay"] == 1).then_some(()));
    // Two extension headers of 2,048 bytes each stand before the port.
    let extension = |next: u8| [&[next, 255][..], &[0; 2046]].concat();
    let length = (2 * 2048 + 8 + 5000u16).to_be_bytes();
    let source = "2001:db8:7::7".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let target = SERVER6.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let ip6 = [&[0x60, 0, 0, 0][..], &length, &[60, 64], &source, &target].concat();
    tap.write(&[header, ethernet([0x86, 0xdd]), ip6, extension(60), extension(17), udp(5000)].concat());
    until("the v6 datagram", || (guard.stats().dropped["banned_rate"] == 1).then_some(()));
}
