//! Steps 6 and 7 on real interfaces: sanity, budgets of strangers, and a validator's own.
//!
//! Budgets refill while a test runs. So limits are checked against the time that has really passed, and never against a clock of the test's.

use crate::support::{Lab, Line, MARKER4, PATIENCE, PORT, Running, SERVER4, SUSPECT4, Wire, flow, ip, segment, until};
use guard::{ErrorCode, FlowKind, Protocol, Request, Response};
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::Instant,
};

const SYN: u8 = 0x02;

/// A line whose marker has a flow, so that no budget touches it.
fn line(lab: &Lab, guard: &Running) -> Line {
    guard.ask(&flow(MARKER4, 4001, FlowKind::Known, "marker"));
    lab.line4()
}

/// At most what the bucket held and what it has earned since.
fn bound(burst: u64, rate: u64, since: Instant) -> u64 {
    burst + rate * (since.elapsed().as_secs() + 1)
}

#[test]
fn a_strangers_datagrams_are_limited_until_the_budget_is_changed() {
    let Some(lab) = Lab::new("a_strangers_datagrams_are_limited_until_the_budget_is_changed") else { return };
    let start = Instant::now();
    let guard = lab.start(&["--mode", "enforce", "--budget", "udp_source=1/4"]);
    let mut line = line(&lab, &guard);
    let arrived = line.send(200) as u64;
    assert!(arrived >= 4 && arrived <= bound(4, 1, start), "{arrived} arrived");
    let stats = guard.stats();
    assert_eq!((stats.dropped["rate_source"], stats.passed["stranger"]), (200 - arrived, arrived));
    guard.ask(&Request::Mode { mode: "shadow".into() });
    assert_eq!(line.send(50), 50);
    assert!(guard.stats().would_drop["rate_source"] > 0);
    guard.ask(&Request::Mode { mode: "enforce".into() });
    guard.ask(&Request::Budget { name: "udp_source".into(), rate: 0, burst: 0, for_ms: None });
    assert_eq!(line.send(200), 200);
}

#[test]
fn a_strangers_handshakes_are_limited() {
    let Some(lab) = Lab::new("a_strangers_handshakes_are_limited") else { return };
    let start = Instant::now();
    let guard = lab.start(&["--mode", "enforce", "--budget", "syn_source=1/5,syn_prefix=1/20,handshakes=1/40"]);
    let (wire, mut line) = (Wire::new(&lab), line(&lab, &guard));
    // One address, then its network, then everybody.
    let mut sent = 0;
    let mut flood = |sources: &mut dyn Iterator<Item = [u8; 4]>| {
        sources.for_each(|source| {
            wire.send(&segment(source, SYN));
            sent += 1;
        });
        line.send(0);
        let stats = guard.stats();
        let dropped = |reason: &str| stats.dropped[reason];
        (dropped("rate_source"), dropped("rate_prefix"), dropped("rate_strangers"))
    };
    let (source, ..) = flood(&mut (0..100).map(|_| [198, 51, 100, 7]));
    assert!(source >= 100 - bound(5, 1, start) && source <= 95, "{source}");
    let (_, prefix, _) = flood(&mut (0..200).map(|host| [198, 51, 100, host]));
    assert!(prefix >= 150, "{prefix}");
    let (_, _, strangers) = flood(&mut (0..200).map(|network| [203, 0, network, 1]));
    assert!(strangers >= 100, "{strangers}");
    let stats = guard.stats();
    let passed = stats.passed["stranger"];
    assert!(passed >= 40 - 1 && passed <= bound(40, 1, start), "{passed}");
    assert_eq!(passed + stats.dropped.values().sum::<u64>(), sent);
}

#[test]
fn a_validator_that_restarts_gets_in_during_a_spoofed_flood() {
    let Some(lab) = Lab::new("a_validator_that_restarts_gets_in_during_a_spoofed_flood") else { return };
    let guard = lab.start(&["--mode", "enforce", "--budget", "syn_prefix=1/20,handshakes=1/10"]);
    let (wire, mut line) = (Wire::new(&lab), line(&lab, &guard));
    let listener = lab.inside.inside(|| TcpListener::bind((SERVER4, PORT)).unwrap());
    guard.ask(&flow(SUSPECT4, 7000, FlowKind::Floor, "validator"));
    // It restarts: its flows are gone, its address is remembered.
    guard.ask(&Request::FlowDel { protocol: Protocol::Udp, address: ip(SUSPECT4), port: 7000 });
    for round in 0..10u8 {
        // From everywhere, and from its own network.
        (0..100).for_each(|host| wire.send(&segment([198, 18 + (round & 1), host, round], SYN)));
        (100..200).for_each(|host| wire.send(&segment([10, 77, 0, host], SYN)));
        line.send(0);
        let before = guard.stats();
        let stream = lab.outside.inside(|| {
            let to = SocketAddr::new(ip(SERVER4), PORT);
            let from: SocketAddr = SocketAddr::new(ip(SUSPECT4), 0);
            connect(from, to)
        });
        drop((stream, listener.accept().unwrap()));
        line.send(0);
        assert_eq!(guard.stats().dropped, before.dropped, "round {round}");
    }
    assert!(guard.stats().dropped["rate_strangers"] >= 1000);
}

/// Connects from an address of ours.
fn connect(from: SocketAddr, to: SocketAddr) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn a_flood_in_a_validators_name_costs_nobody_else() {
    let Some(lab) = Lab::new("a_flood_in_a_validators_name_costs_nobody_else") else { return };
    let start = Instant::now();
    let guard = lab.start(&["--mode", "enforce", "--budget", "validator_handshakes=1/5"]);
    let (wire, mut line) = (Wire::new(&lab), line(&lab, &guard));
    guard.ask(&flow(SUSPECT4, 4000, FlowKind::Floor, "validator"));
    (0..100).for_each(|_| wire.send(&segment([10, 77, 0, 1], SYN)));
    // Its flow lives on, and strangers' handshakes, too.
    assert_eq!(line.send(20), 20);
    (0..20).for_each(|_| wire.send(&segment([198, 51, 100, 7], SYN)));
    line.send(0);
    let stats = guard.stats();
    let source = stats.dropped["rate_source"];
    assert!(source >= 100 - bound(5, 1, start) && source <= 95, "{source}");
    assert_eq!(stats.dropped.values().sum::<u64>(), source);
    assert_eq!((stats.passed["floor"], stats.passed["stranger"]), (20, 120 - source));
    // Banned after its flow has gone, it is not remembered: when the ban ends it is a stranger like others.
    guard.ask(&Request::FlowDel { protocol: Protocol::Udp, address: ip(SUSPECT4), port: 4000 });
    guard.ban(SUSPECT4, 60_000, types::Offence::Equivocation);
    guard.ask(&Request::Unban { address: SUSPECT4.parse().unwrap() });
    (0..20).for_each(|_| wire.send(&segment([10, 77, 0, 1], SYN)));
    line.send(0);
    assert_eq!(guard.stats().dropped["rate_source"], source);
}

#[test]
fn malformed_packets_die_and_quic_is_judged_where_it_is_spoken() {
    let Some(lab) = Lab::new("malformed_packets_die_and_quic_is_judged_where_it_is_spoken") else { return };
    let guard = lab.start(&["--mode", "enforce", "--protect", "quic/9100"]);
    let (wire, mut line) = (Wire::new(&lab), line(&lab, &guard));
    for flags in [0x00, 0x03, 0x29, 0x3f] {
        wire.send(&segment([198, 51, 100, 7], flags));
    }
    for source in [[127, 0, 0, 1], [224, 0, 0, 1], [10, 77, 0, 2]] {
        wire.send(&segment(source, SYN));
    }
    let sender = lab.outside.udp((ip(SUSPECT4), 5000));
    let mut initial = vec![0u8; 1200];
    initial[..5].copy_from_slice(&[0xc0, 0, 0, 0, 1]);
    for (length, port) in [(1200, 9100), (1199, 9100), (1199, PORT)] {
        sender.send_to(&initial[..length], (ip(SERVER4), port)).unwrap();
    }
    line.send(0);
    let stats = guard.stats();
    assert_eq!((stats.dropped["malformed"], stats.passed["stranger"]), (8, 2));
}

#[test]
fn a_packet_is_judged_in_words_and_counted_nowhere() {
    let Some(lab) = Lab::new("a_packet_is_judged_in_words_and_counted_nowhere") else { return };
    let guard = lab.start(&["--mode", "enforce", "--budget", "tcp_source=1/1000"]);
    let judge = |frame: &[u8]| {
        let packet = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        match guard.ask(&Request::TestRun { packet }) {
            Response::Verdict { action, reason, steps, .. } => {
                let last = steps.last().unwrap();
                assert_eq!((last.step as usize, &last.outcome), (steps.len() - 1, &reason));
                (action, reason, last.step)
            }
            other => panic!("{other:?}"),
        }
    };
    let is = |frame: &[u8], action: &str, reason: &str, step: u8| {
        assert_eq!(judge(frame), (action.to_string(), reason.to_string(), step));
    };
    is(&segment([198, 51, 100, 7], SYN), "pass", "stranger", 7);
    is(&segment([198, 51, 100, 7], 0x3f), "drop", "malformed", 6);
    is(&segment([198, 51, 100, 7], SYN)[..20], "pass", "out_of_scope", 1);
    guard.ban("198.51.100.7", 60_000, types::Offence::Replay);
    is(&segment([198, 51, 100, 7], SYN), "drop", "banned_replay", 4);
    guard.ask(&Request::Mode { mode: "shadow".into() });
    is(&segment([198, 51, 100, 7], SYN), "pass", "banned_replay", 4);
    assert_eq!(guard.refusal(&Request::TestRun { packet: "00".into() }).0, ErrorCode::BadRequest);
    let stats = guard.stats();
    assert_eq!(stats.dropped.values().sum::<u64>() + stats.passed["stranger"], 0);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ebpf-guard"))
        .args(["test-run", "--json", "--socket"])
        .arg(lab.socket())
        .args(["--packet", "ffffffffffff0200000000010806"])
        .output()
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((answer["action"].as_str(), answer["steps"][1]["outcome"].as_str()), (Some("pass"), Some("out_of_scope")));
}

#[test]
fn budgets_are_listed_and_survive_an_adoption() {
    let Some(lab) = Lab::new("budgets_are_listed_and_survive_an_adoption") else { return };
    let mut guard = lab.start(&["--budget", "tcp_source=1000/2000"]);
    guard.ask(&Request::Budget { name: "handshakes".into(), rate: 500, burst: 700, for_ms: None });
    assert_eq!(
        guard.refusal(&Request::Budget { name: "handshake".into(), rate: 1, burst: 1, for_ms: None }).0,
        ErrorCode::BadRequest
    );
    assert_eq!(guard.refusal(&Request::Budget { name: "rest".into(), rate: 0, burst: 1, for_ms: None }).0, ErrorCode::Limit);
    let list = |guard: &Running| match guard.ask(&Request::Budgets {}) {
        Response::Budgets { budgets } => budgets,
        other => panic!("{other:?}"),
    };
    let before = list(&guard);
    let find = |name: &str| before.iter().find(|budget| budget.name == name).map(|budget| (budget.rate, budget.burst)).unwrap();
    assert_eq!((find("tcp_source"), find("handshakes"), find("syn_source")), ((1000, 2000), (500, 700), (100, 200)));
    guard.signal(nix::sys::signal::Signal::SIGKILL);
    let guard = lab.start(&["--budget", "syn_source=50/60"]);
    let after = list(&guard);
    let changed: Vec<_> = after.iter().zip(&before).filter(|(after, before)| after != before).map(|(after, _)| after).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!((changed[0].name.as_str(), changed[0].rate, changed[0].burst), ("syn_source", 50, 60));
}

fn budget_of(guard: &Running, name: &str) -> (u32, u32) {
    let Response::Budgets { budgets } = guard.ask(&Request::Budgets {}) else { panic!("budgets") };
    budgets.iter().find(|budget| budget.name == name).map(|budget| (budget.rate, budget.burst)).unwrap()
}

/// A budget that is smaller for a while is given back: by its time, by the guard's end, and by the next guard after a SIGKILL.
#[test]
fn a_budget_for_a_while_is_given_back() {
    let Some(lab) = Lab::new("a_budget_for_a_while_is_given_back") else { return };
    let mut guard = lab.start(&[]);
    let before = budget_of(&guard, "handshakes");
    let squeeze = |name: &str, rate, burst, for_ms| Request::Budget { name: name.into(), rate, burst, for_ms: Some(for_ms) };
    guard.ask(&squeeze("handshakes", 500, 700, 60_000));
    assert_eq!(budget_of(&guard, "handshakes"), (500, 700));
    guard.ask(&squeeze("handshakes", 500, 700, 1));
    until("the budget is given back", || (budget_of(&guard, "handshakes") == before).then_some(()));

    // Only smaller, within bounds, one at a time; again moves the end and keeps what is given back.
    guard.ask(&squeeze("handshakes", before.0 + 1, before.1, 60_000));
    assert_eq!(budget_of(&guard, "handshakes"), before);
    assert_eq!(guard.refusal(&squeeze("handshakes", 99, 700, 60_000)).0, ErrorCode::Limit);
    assert_eq!(guard.refusal(&squeeze("handshakes", 500, 700, 0)).0, ErrorCode::Limit);
    assert_eq!(guard.refusal(&squeeze("handshakes", 500, 700, 600_001)).0, ErrorCode::Limit);
    guard.ask(&squeeze("handshakes", 500, 700, 60_000));
    guard.ask(&squeeze("handshakes", 400, 600, 60_000));
    assert_eq!(guard.refusal(&squeeze("rest", 500, 700, 60_000)).0, ErrorCode::Limit);
    guard.signal(nix::sys::signal::Signal::SIGKILL);
    let mut guard = lab.start(&[]);
    assert_eq!(budget_of(&guard, "handshakes"), before, "after a SIGKILL");
    guard.ask(&squeeze("handshakes", 500, 700, 60_000));
    guard.signal(nix::sys::signal::Signal::SIGTERM);
    let guard = lab.start(&[]);
    assert_eq!(budget_of(&guard, "handshakes"), before, "after an orderly end");

    // What is set for good meanwhile is not given back.
    guard.ask(&squeeze("handshakes", 500, 700, 60_000));
    guard.ask(&Request::Budget { name: "handshakes".into(), rate: 900, burst: 901, for_ms: None });
    guard.ask(&squeeze("rest", 500, 700, 60_000));
    assert_eq!(budget_of(&guard, "handshakes"), (900, 901));
}
