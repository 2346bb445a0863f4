//! Modes, attach modes, events.

use crate::support::{INTERFACE, Lab, SERVER4, SUSPECT4, until};
use guard::{ErrorCode, Request};
use types::Offence;

#[test]
fn a_veth_is_guarded_in_native_mode() {
    let Some(lab) = Lab::new("a_veth_is_guarded_in_native_mode") else { return };
    let guard = lab.start(&[]);
    let stats = guard.stats();
    assert_eq!((stats.xdp_mode.as_str(), stats.mode.as_str(), stats.adopted), ("native", "shadow", false));
    assert_eq!((stats.interface.as_str(), stats.instance.as_str()), (INTERFACE, "lab"));
    let link = lab.inside.run("ip", &["-d", "link", "show", INTERFACE]);
    assert!(link.contains("prog/xdp id") && link.contains("name guard") && !link.contains("xdpgeneric"), "{link}");
}

#[test]
fn an_interface_without_native_mode_falls_back_to_generic_and_says_so() {
    let Some(lab) = Lab::new("an_interface_without_native_mode_falls_back_to_generic_and_says_so") else { return };
    let guard = lab.start(&["--iface", "lo"]);
    assert_eq!(guard.stats().xdp_mode, "generic");
    assert!(lab.inside.run("ip", &["-d", "link", "show", "lo"]).contains("xdpgeneric"));
    drop(guard);
    let error = lab.start_fails(&["--iface", "lo", "--xdp", "native", "--instance", "other"]);
    assert!(error.contains("already has an XDP program"), "{error}");
}

#[test]
fn shadow_counts_what_it_would_drop_and_drops_nothing() {
    let Some(lab) = Lab::new("shadow_counts_what_it_would_drop_and_drops_nothing") else { return };
    let guard = lab.start(&[]);
    guard.ban(SUSPECT4, 60_000, Offence::BadSignature);
    let mut line = lab.line4();
    assert_eq!(line.send(6), 6);
    let stats = guard.stats();
    assert_eq!((stats.would_drop["banned_bad_signature"], stats.dropped["banned_bad_signature"]), (6, 0));
    assert_eq!(stats.passed["stranger"], 7);
    guard.ask(&Request::Mode { mode: "enforce".into() });
    assert_eq!(line.send(2), 0);
    guard.ask(&Request::Mode { mode: "off".into() });
    assert_eq!(line.send(2), 2);
    let stats = guard.stats();
    assert_eq!((stats.would_drop["banned_bad_signature"], stats.dropped["banned_bad_signature"]), (6, 2));
    assert!(stats.off >= 3);
    assert_eq!(guard.refusal(&Request::Mode { mode: "on".into() }).0, ErrorCode::BadRequest);
}

#[test]
fn ports_that_are_not_protected_are_never_touched() {
    let Some(lab) = Lab::new("ports_that_are_not_protected_are_never_touched") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    guard.ban(SUSPECT4, 60_000, Offence::BadSignature);
    let server = lab.inside.udp((crate::support::ip(SERVER4), 2222));
    let client = lab.outside.udp((crate::support::ip(SUSPECT4), 4000));
    client.send_to(b"ssh", (SERVER4, 2222)).unwrap();
    assert_eq!(server.recv_from(&mut [0; 8]).unwrap().0, 3);
    let echo = lab.outside.run("ping", &["-c", "1", "-W", "5", "-I", SUSPECT4, SERVER4]);
    assert!(echo.contains("1 received"), "{echo}");
    assert_eq!(guard.stats().dropped.values().sum::<u64>(), 0);
}

#[test]
fn fragments_to_a_protected_port_are_dropped() {
    let Some(lab) = Lab::new("fragments_to_a_protected_port_are_dropped") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let client = lab.outside.udp((crate::support::ip(SUSPECT4), 4000));
    // 4,000 bytes do not fit the MTU of 1,500: one first fragment and two later ones.
    client.send_to(&[7; 4000], (SERVER4, crate::support::PORT)).unwrap();
    assert_eq!(lab.line(crate::support::SUSPECT6, crate::support::MARKER6, crate::support::SERVER6).send(1), 1);
    assert_eq!(guard.stats().dropped["fragment"], 1);
}

#[test]
fn drops_are_told_to_subscribers() {
    let Some(lab) = Lab::new("drops_are_told_to_subscribers") else { return };
    let guard = lab.start(&["--mode", "enforce", "--event-shift", "0"]);
    let mut subscriber = guard.client();
    subscriber.subscribe().unwrap();
    guard.ban(SUSPECT4, 60_000, Offence::Equivocation);
    assert_eq!(lab.line4().send(2), 0);
    for _ in 0..2 {
        let event = subscriber.event().unwrap();
        assert_eq!((event.address, event.port, event.local_port), (crate::support::ip(SUSPECT4), 4000, crate::support::PORT));
        assert_eq!((event.reason.as_str(), event.protocol.as_str(), event.dropped), ("banned_equivocation", "udp", true));
        assert_eq!(event.stands_for, 1);
    }
    assert_eq!(guard.stats().events_lost, 0);
}

#[test]
fn a_trial_of_enforce_ends_by_itself_unless_it_is_confirmed() {
    let Some(lab) = Lab::new("a_trial_of_enforce_ends_by_itself_unless_it_is_confirmed") else { return };
    let mut guard = lab.start(&[]);
    let mut line = lab.line4();
    guard.ban(SUSPECT4, 600_000, Offence::Manual);
    assert_eq!(line.send(2), 2);
    guard.ask(&Request::Enforce { for_ms: 60_000 });
    assert_eq!(line.send(2), 0);
    guard.ask(&Request::Enforce { for_ms: 1 });
    until("the end of the trial", || (line.send(1) == 1).then_some(()));
    until("the mode to follow", || (guard.stats().mode == "shadow").then_some(()));
    assert_eq!(guard.refusal(&Request::Confirm {}).0, ErrorCode::NotFound);
    assert_eq!(guard.refusal(&Request::Enforce { for_ms: 0 }).0, ErrorCode::Limit);
    guard.ask(&Request::Enforce { for_ms: 60_000 });
    guard.ask(&Request::Confirm {});
    assert_eq!(line.send(2), 0);
    // A dead guard can't revert anything: the kernel does.
    guard.ask(&Request::Enforce { for_ms: 300 });
    guard.signal(nix::sys::signal::Signal::SIGKILL);
    until("the end of the trial without a guard", || (line.send(1) == 1).then_some(()));
}
