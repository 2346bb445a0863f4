//! What validators' flows may send: by stake, each from its own share.
//!
//! Shares refill while a test runs, so limits are checked against the time that has really passed.

use crate::support::{Lab, Line, MARKER4, Running, Wire, flow, flow_of, ip, segment};
use guard::{
    ErrorCode, FlowKind, Protocol, Request, Response,
    protocol::{FlowInfo, RowInfo},
};
use kernel_shared::abi::FLOWS_MAX;
use std::{process::Command, time::Instant};

const ACK: u8 = 0x10;
/// Packets a second and at once that all validators share in these tests; a hundredth of each is the least for one.
const TOTAL: (u64, u64) = (40, 1_000);
const BUDGETS: &str = "validators=40/1000,validator_least=1/10";

struct Scene {
    lab: Lab,
    guard: Running,
    wire: Wire,
    line: Line,
    start: Instant,
}

/// The address of validator `id`; its flow comes from the port that [`segment`] names.
fn address(id: u8) -> [u8; 4] {
    [198, 51, 100, id]
}

fn name(id: u8) -> String {
    format!("validator {id}")
}

fn validator(id: u8, stake_ppm: Option<u32>) -> Request {
    let (protocol, class) = (Protocol::Tcp, FlowKind::Floor);
    Request::FlowAdd { protocol, address: address(id).into(), port: 4000, class, label: name(id), stake_ppm }
}

impl Scene {
    /// A guard that knows validators 1, 2, … with these stakes.
    fn new(test: &str, budgets: &str, stakes: &[Option<u32>]) -> Option<Scene> {
        let lab = Lab::new(test)?;
        let guard = lab.start(&["--mode", "enforce", "--budget", budgets]);
        guard.ask(&flow(MARKER4, 4001, FlowKind::Known, "marker"));
        let (wire, line) = (Wire::new(&lab), lab.line4());
        let scene = Scene { lab, guard, wire, line, start: Instant::now() };
        (1..).zip(stakes).for_each(|(id, stake)| drop(scene.guard.ask(&validator(id, *stake))));
        Some(scene)
    }

    /// Sends so many packets that name this source; when this returns, all have been judged.
    fn send(&mut self, source: [u8; 4], count: u32) {
        (0..count).for_each(|_| self.wire.send(&segment(source, ACK)));
        self.line.send(0);
    }

    fn row(&self, label: &str) -> RowInfo {
        self.guard.stats().rows.into_iter().find(|row| row.label == label).unwrap()
    }

    /// Packets of this validator that passed.
    fn passed(&self, id: u8) -> u64 {
        self.row(&name(id)).packets
    }

    fn flows(&self) -> Vec<FlowInfo> {
        match self.guard.ask(&Request::Flows { skip: 0 }) {
            Response::Flows { flows, total } => {
                assert_eq!(flows.len() as u64, total);
                flows
            }
            other => panic!("{other:?}"),
        }
    }

    /// A validator's stake, share a second, and packets at once.
    fn share(&self, id: u8) -> (Option<u32>, Option<u32>, Option<u32>) {
        let flow = self.flows().into_iter().find(|flow| flow.address == std::net::IpAddr::from(address(id))).unwrap();
        (flow.stake_ppm, flow.share, flow.burst)
    }

    /// What a part of the total is at most since the start: what it held, what it has earned, and one packet of rounding.
    fn most(&self, parts: u64) -> u64 {
        let (rate, burst) = TOTAL;
        (burst + rate * (self.start.elapsed().as_secs() + 1)) * parts / 1_000_000 + 1
    }
}

#[test]
fn a_flood_spoofed_from_a_validators_very_flow_costs_that_validator_alone() {
    let test = "a_flood_spoofed_from_a_validators_very_flow_costs_that_validator_alone";
    let stakes = [500_000, 300_000, 200_000].map(Some);
    let Some(mut scene) = Scene::new(test, BUDGETS, &stakes) else { return };
    let known = flow_of(Protocol::Tcp, "203.0.113.9", 4000, FlowKind::Known, "stakeless");
    scene.guard.ask(&known);
    scene.send(address(1), 3_000);
    let first = scene.passed(1);
    assert!((499..=scene.most(500_000)).contains(&first), "{first}");
    assert!(scene.guard.stats().dropped["rate_peer"] >= 3_000 - first);
    // A peer without stake floods its own flow, and strangers from everywhere: nothing of that is a validator's.
    scene.send([203, 0, 113, 9], 3_000);
    (0..200).for_each(|host| scene.wire.send(&segment([192, 0, 2, host], ACK)));
    scene.send(address(2), 299);
    scene.send(address(3), 199);
    assert_eq!((scene.passed(2), scene.passed(3)), (299, 199), "all that is theirs");
    assert_eq!(scene.row(&name(2)).dropped + scene.row(&name(3)).dropped, 0);
}

#[test]
fn saturated_validators_send_in_proportion_to_their_stakes() {
    let test = "saturated_validators_send_in_proportion_to_their_stakes";
    let stakes = [400_000, 300_000, 200_000, 100_000];
    let Some(mut scene) = Scene::new(test, BUDGETS, &stakes.map(Some)) else { return };
    for _ in 0..5 {
        (1..=4).for_each(|id| scene.send(address(id), 400));
    }
    let passed: Vec<u64> = (1..=4).map(|id| scene.passed(id)).collect();
    for (passed, parts) in passed.iter().zip(stakes.map(u64::from)) {
        let held = TOTAL.1 * parts / 1_000_000;
        assert!((held - 1..=scene.most(parts)).contains(passed), "{passed} of {parts} parts");
    }
    assert!(passed.is_sorted_by(|more, less| more > less), "{passed:?}");
}

#[test]
fn a_new_stake_changes_the_share_and_not_the_tokens() {
    let test = "a_new_stake_changes_the_share_and_not_the_tokens";
    let Some(mut scene) = Scene::new(test, BUDGETS, &[Some(500_000), Some(500_000)]) else { return };
    assert_eq!(scene.share(1), (Some(500_000), Some(20), Some(500)));
    scene.send(address(1), 1_000);
    scene.send(address(2), 100);
    let before = scene.passed(1);
    // An epoch later the first has nearly all. It is as dry as it was: what it gets is what it earns.
    let changed = Instant::now();
    scene.guard.ask(&validator(2, Some(100_000)));
    scene.guard.ask(&validator(1, Some(900_000)));
    assert_eq!((scene.share(1), scene.share(2)), ((Some(900_000), Some(36), Some(900)), (Some(100_000), Some(4), Some(100))));
    scene.send(address(1), 1_000);
    let earned = scene.passed(1) - before;
    // It was dry when its packets before ended; since then it has earned at most its share.
    assert!(earned <= 36 * (scene.start.elapsed().as_secs() + 1), "{earned} since {:?}", changed.elapsed());
    // The second had 400 tokens left: its new depth holds 100 of them.
    scene.send(address(2), 1_000);
    let second = scene.passed(2) - 100;
    assert!((99..=100 + 4 * (changed.elapsed().as_secs() + 1)).contains(&second), "{second}");
    // No stake is an equal share; one that is no stake is refused, and so is one that nobody has.
    scene.guard.ask(&validator(3, None));
    assert_eq!(scene.share(3).0, None);
    for (class, stake_ppm) in [(FlowKind::Floor, 0), (FlowKind::Floor, 1_000_001), (FlowKind::Known, 1)] {
        let Request::FlowAdd { protocol, address, port, label, .. } = validator(4, None) else { unreachable!() };
        let (code, _) =
            scene.guard.refusal(&Request::FlowAdd { protocol, address, port, class, label, stake_ppm: Some(stake_ppm) });
        assert!(matches!(code, ErrorCode::Limit | ErrorCode::BadRequest), "{code:?}");
    }
}

/// A flow that the table has no room for changes nothing, not even the stake that its validator's other flow has.
#[test]
fn a_refused_flow_leaves_its_validators_stake_alone() {
    let test = "a_refused_flow_leaves_its_validators_stake_alone";
    let Some(scene) = Scene::new(test, BUDGETS, &[Some(500_000), Some(500_000)]) else { return };
    let mut client = scene.guard.client();
    let mut crowd = 1..FLOWS_MAX as u16 - 2; // with two validators and the marker the table is full
    crowd
        .try_for_each(|port| client.ask(&flow_of(Protocol::Udp, "203.0.113.9", port, FlowKind::Known, "crowd")).map(drop))
        .unwrap();
    let told = |scene: &Scene| match scene.guard.ask(&Request::Flows { skip: 0 }) {
        Response::Flows { flows, .. } => flows.into_iter().take(2).map(|flow| (flow.stake_ppm, flow.share)).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let had = vec![(Some(500_000), Some(20)); 2];
    assert_eq!(told(&scene), had);
    let Request::FlowAdd { protocol, address, class, label, .. } = validator(1, None) else { unreachable!() };
    let second = Request::FlowAdd { protocol, address, port: 4001, class, label, stake_ppm: Some(100_000) };
    assert_eq!(scene.guard.refusal(&second).0, ErrorCode::Full);
    assert_eq!(told(&scene), had);
    assert_eq!(
        scene.guard.ask(&Request::FlowDel { protocol: Protocol::Udp, address: ip("203.0.113.9"), port: 1 }),
        Response::Done {}
    );
    assert!(matches!(scene.guard.ask(&second), Response::Flow { .. }));
    assert_eq!(told(&scene), [(Some(100_000), Some(4)); 2]);
}

#[test]
fn the_least_is_everybodys_and_shares_survive_a_killed_guard() {
    let test = "the_least_is_everybodys_and_shares_survive_a_killed_guard";
    let Some(mut scene) = Scene::new(test, BUDGETS, &[Some(999_000), Some(1_000)]) else { return };
    assert_eq!((scene.share(1).1, scene.share(2)), (Some(39), (Some(1_000), Some(1), Some(10))));
    let shares = scene.guard.stats().shares;
    assert_eq!((shares.validators, shares.rate, shares.least), (2, Some(40), Some(1)));
    // The budgets change live, and every flow with them.
    scene.guard.ask(&Request::Budget { name: "validator_least".into(), rate: 10, burst: 100, for_ms: None });
    assert_eq!((scene.share(1).1, scene.share(2)), (Some(30), (Some(1_000), Some(10), Some(100))));
    let squeeze = Request::Budget { name: "validators".into(), rate: 1_000, burst: 1_000, for_ms: Some(1_000) };
    assert_eq!(scene.guard.refusal(&squeeze).0, ErrorCode::Limit);
    scene.guard.signal(nix::sys::signal::Signal::SIGKILL);
    scene.guard = scene.lab.start(&["--mode", "enforce"]);
    assert_eq!((scene.share(1).1, scene.share(2)), (Some(30), (Some(1_000), Some(10), Some(100))));
    let output =
        Command::new(env!("CARGO_BIN_EXE_ebpf-guard")).arg("flows").arg("--json").arg("--socket").arg(scene.lab.socket()).output();
    let shown: Vec<FlowInfo> = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(shown, scene.flows());
    // Without a total there is no limit.
    scene.guard.ask(&Request::Budget { name: "validators".into(), rate: 0, burst: 0, for_ms: None });
    assert_eq!(scene.share(2), (Some(1_000), None, None));
    let shares = scene.guard.stats().shares;
    assert_eq!((shares.validators, shares.rate, shares.least), (2, None, None));
    let output = Command::new(env!("CARGO_BIN_EXE_ebpf-guard")).arg("status").arg("--socket").arg(scene.lab.socket()).output();
    let status = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(status.contains("2 validators, without limit\n"), "{status}");
    scene.guard.ask(&validator(2, Some(1_000)));
    scene.send(address(2), 2_000);
    assert_eq!(scene.passed(2), 2_000);
}

/// Over QUIC a peer is dialed at the address and port that its flow has.
#[test]
fn dialing_a_peer_that_is_connected_changes_nothing() {
    let Some(scene) = Scene::new("dialing_a_peer_that_is_connected_changes_nothing", BUDGETS, &[]) else { return };
    let ask = |id, class, label: &str, stake_ppm| {
        let (protocol, address, label) = (Protocol::Udp, address(id).into(), label.to_string());
        scene.guard.ask(&Request::FlowAdd { protocol, address, port: 9000, class, label, stake_ppm })
    };
    let peers = [(1, FlowKind::Floor, Some(500_000)), (2, FlowKind::Known, None), (3, FlowKind::Dialed, Some(250_000))];
    let rows = peers.map(|(id, class, stake_ppm)| ask(id, class, &name(id), stake_ppm));
    let before = scene.flows();
    for ((id, ..), row) in peers.into_iter().zip(rows) {
        assert!(matches!(row, Response::Flow { row: Some(_), .. }), "{row:?}");
        assert_eq!(ask(id, FlowKind::Dialing, "", None), row);
    }
    assert_eq!(scene.flows(), before);
    // Nobody's flow is dialed as ever, and becomes what its peer proves to be.
    let class = || scene.flows().into_iter().find(|flow| flow.address == std::net::IpAddr::from(address(4))).map(|flow| flow.class);
    ask(4, FlowKind::Dialing, "", None);
    assert_eq!(class(), Some(FlowKind::Dialing));
    ask(4, FlowKind::Known, &name(4), None);
    assert_eq!(class(), Some(FlowKind::Known));
}
