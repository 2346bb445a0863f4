//! What the node asks of its guard, and of its network, for each kind of order.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use api::TcpInfo;
use api::metrics::Metrics;
use guard::protocol::{FlowKind, Request};
use kernel_shared::truth::TruthCell;
use network::{LaneInfo, Link, PeerId, PeerInfo, Transport};
use node::config::Config;
use node::guard_link::{Culprit, Flow, GuardLink, Order, Streams};
use node::peer_figures::{peer_info, tcp};
use types::{Lane, Offence};

use crate::fake_guard::{FakeGuard, GENERATION, ROW};
use crate::process::{cli, edit};

/// What the network was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Disconnect(u64),
    Limit(PeerId, IpAddr, Duration),
}

struct Recorder(Sender<Told>);

impl Streams for Recorder {
    fn disconnect(&self, peer: u64) {
        self.0.send(Told::Disconnect(peer)).unwrap();
    }

    fn limit(&self, peer_id: PeerId, address: IpAddr, period: Duration) {
        self.0.send(Told::Limit(peer_id, address, period)).unwrap();
    }
}

struct Scene {
    link: GuardLink,
    guard: FakeGuard,
    told: Receiver<Told>,
    metrics: Arc<Metrics>,
    markers: u16,
}

/// A link with the configuration of a fresh home, changed.
fn scene(folder: &Path, changes: &[(&str, &str)]) -> Scene {
    let home = folder.join("home").display().to_string();
    assert!(cli(&["init", "--home", &home]).status.success());
    let guard = FakeGuard::start(folder);
    edit(&home, &[("# socket = \"/run/ebpf-guard/guard.sock\"", &format!("socket = {:?}", guard.socket.display().to_string()))]);
    edit(&home, changes);
    let config = Config::load(Path::new(&home)).unwrap();
    let (sender, told) = channel();
    let metrics = Arc::new(Metrics::new());
    let link = GuardLink::start(&config.guard, Box::new(Recorder(sender)), Arc::clone(&metrics)).unwrap();
    Scene { link, guard, told, metrics, markers: 0 }
}

impl Scene {
    /// All that was asked for the orders so far: they are carried out in their order.
    fn asked(&mut self) -> Vec<Request> {
        self.markers += 1;
        self.link.order(Order::Admitted(flow(self.markers, None)));
        let (mut asked, marker) = (Vec::new(), self.markers);
        self.guard.until(|request| match request {
            Request::FlowAdd { port, .. } if port == marker => Some(()),
            other => {
                asked.push(other);
                None
            }
        });
        asked
    }

    fn told(&self) -> Vec<Told> {
        self.told.try_iter().collect()
    }
}

fn flow(port: u16, stake_ppm: Option<u32>) -> Flow {
    Flow { address: ([10, 0, 0, 1], port).into(), udp: false, dialed: false, label: "peer".into(), stake_ppm }
}

fn culprit(peer: u64) -> Culprit {
    Culprit { peer: Some(peer), peer_id: PeerId::random(), address: [10, 0, 0, 7].into(), validator: false, shared: false }
}

fn offence(culprit: Culprit, offence: Offence) -> Order {
    Order::Offence { culprit, offence, detail: "a note" }
}

fn bans(asked: &[Request]) -> Vec<(String, u64, Offence)> {
    let ban = |request: &Request| match request {
        Request::Ban { address, ttl_ms, offence, note, .. } => {
            assert_eq!(note, "a note");
            Some((address.to_string(), *ttl_ms, *offence))
        }
        _ => None,
    };
    asked.iter().filter_map(ban).collect()
}

#[test]
fn a_stranger_is_banned_a_validator_disconnected_and_a_neighbour_limited() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = scene(folder.path(), &[]);
    scene.link.order(offence(culprit(1), Offence::BadSignature));
    assert_eq!(bans(&scene.asked()), [("10.0.0.7/32".to_owned(), 60_000, Offence::BadSignature)]);
    assert_eq!(scene.told(), [Told::Disconnect(1)]);

    scene.link.order(offence(Culprit { validator: true, shared: true, ..culprit(2) }, Offence::Equivocation));
    assert_eq!(scene.asked(), []);
    assert_eq!(scene.told(), [Told::Disconnect(2)]);

    let neighbour = Culprit { shared: true, address: [10, 0, 0, 8].into(), ..culprit(3) };
    scene.link.order(offence(neighbour, Offence::BadSignature));
    assert_eq!(scene.asked(), []);
    assert_eq!(scene.told(), [Told::Limit(neighbour.peer_id, neighbour.address, Duration::from_secs(60))]);
    assert_eq!(scene.metrics.peers_limited.get(), 1);

    // One that fell already has no handle, and is banned all the same.
    scene.link.order(offence(Culprit { peer: None, address: [10, 0, 0, 9].into(), ..culprit(0) }, Offence::BadSignature));
    assert_eq!(bans(&scene.asked()).len(), 1);
    assert_eq!(scene.told(), []);
}

/// Each offence that the node may report, with its default: how many lead to a ban.
#[test]
fn every_offence_has_its_own_weight() {
    let folder = tempfile::tempdir().unwrap();
    let changes = [
        ("half_life = \"60s\"", "half_life = \"24h\""),
        ("[guard.offences.rate]\npoints = 10", "[guard.offences.rate]\npoints = 50"),
        ("[guard.offences.oversize]\npoints = 50", "[guard.offences.oversize]\npoints = 0"),
        ("ttl_max = \"1h\"", "ttl_max = \"90s\""),
    ];
    let mut scene = scene(folder.path(), &changes);
    let cases = [
        (Offence::BadSignature, Some(1)),
        (Offence::Equivocation, Some(1)),
        (Offence::Malformed, Some(2)),
        (Offence::InvalidBlock, Some(2)),
        (Offence::Oversize, None),
        (Offence::Replay, Some(10)),
        (Offence::Rate, Some(2)),
    ];
    for (n, (kind, expect)) in cases.into_iter().enumerate() {
        let guilty = Culprit { address: [10, 0, 1, n as u8].into(), ..culprit(n as u64) };
        // Points fade while the test runs, a little: one more than the sum needs, where the sum is of many.
        let reports = expect.map_or(50, |count| if count > 1 { count + 1 } else { 1 });
        (0..reports).for_each(|_| scene.link.order(offence(guilty, kind)));
        let found = bans(&scene.asked());
        assert_eq!(found.len(), usize::from(expect.is_some()), "{kind}: {found:?}");
    }
    // The second ban would be twice as long, but not above the longest.
    let again = Culprit { address: [10, 0, 1, 0].into(), ..culprit(99) };
    scene.link.order(offence(again, Offence::BadSignature));
    assert_eq!(bans(&scene.asked()), [("10.0.1.0/32".to_owned(), 90_000, Offence::BadSignature)]);
}

#[test]
fn flows_have_the_class_of_their_peer_and_a_flood_squeezes() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = scene(folder.path(), &[("for = \"30s\"", "for = \"20s\""), ("burst = 1000", "burst = 900")]);
    let flows = |asked: &[Request]| -> Vec<(FlowKind, Option<u32>)> {
        let flow = |request: &Request| match request {
            Request::FlowAdd { class, stake_ppm, .. } => Some((*class, *stake_ppm)),
            _ => None,
        };
        asked.iter().filter_map(flow).collect()
    };
    let dialed = |stake_ppm| Flow { dialed: true, ..flow(9000, stake_ppm) };
    for flow in [flow(9000, Some(250_000)), flow(9000, None), dialed(Some(250_000)), dialed(None)] {
        scene.link.order(Order::Admitted(flow));
    }
    let stake = Some(250_000);
    let expect = [(FlowKind::Floor, stake), (FlowKind::Known, None), (FlowKind::Dialed, stake), (FlowKind::Dialed, None)];
    assert_eq!(flows(&scene.asked()), expect);
    scene.link.order(Order::Flood);
    let squeeze = Request::Budget { name: "handshakes".into(), rate: 500, burst: 900, for_ms: Some(20_000) };
    assert_eq!(scene.asked(), [squeeze]);
    assert_eq!(scene.metrics.handshake_budget_squeezes.get(), 1);
    assert_eq!(scene.told(), []);
}

/// A guard takes over the flows that it had, with no end: those of peers that left meanwhile are the node's to withdraw.
#[test]
fn flows_of_peers_that_left_while_the_guard_was_away_are_withdrawn() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = scene(folder.path(), &[]);
    let gone = |port| Request::FlowDel { protocol: guard::Protocol::Tcp, address: [10, 0, 0, 1].into(), port };
    let stays = flow(9_003, None);
    for flow in [flow(9_001, Some(250_000)), flow(9_002, None), stays.clone()] {
        scene.link.order(Order::Admitted(flow));
    }
    scene.link.order(Order::Gone(flow(9_002, None)));
    assert_eq!(scene.asked().last(), Some(&gone(9_002)));
    scene.guard.go_away();
    scene.link.order(Order::Gone(flow(9_001, Some(250_000))));
    // One that came and went unseen is nothing to the guard.
    scene.link.order(Order::Admitted(flow(9_004, None)));
    scene.link.order(Order::Gone(flow(9_004, None)));
    // All that is carried out before the guard is back.
    scene.link.order(offence(Culprit { validator: true, ..culprit(1) }, Offence::Equivocation));
    assert_eq!(scene.told.recv().unwrap(), Told::Disconnect(1));
    scene.guard.come_back();
    // First what has left is withdrawn, then what is there is announced anew, the marker of before among it.
    assert_eq!(scene.guard.next(), gone(9_001));
    let ports = [scene.guard.next(), scene.guard.next()].map(|request| match request {
        Request::FlowAdd { port, .. } => port,
        other => panic!("{other:?}"),
    });
    assert_eq!(ports, [scene.markers, stays.address.port()]);
    // And no more than once.
    assert_eq!(scene.asked(), []);
}

/// The guard counts what comes to protected ports: of a peer whom we dialled over TCP it has the kernel's figures, and no count is not 0.
#[test]
fn packets_of_a_dialled_peer_are_not_visible() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = scene(folder.path(), &[]);
    let peer_id = PeerId::random();
    scene.link.order(Order::Admitted(Flow { dialed: true, label: peer_id.to_string(), ..flow(9000, None) }));
    scene.asked();
    scene.guard.write("TRUTH", ROW as usize * size_of::<TruthCell>(), &[GENERATION.into(), 0, 1_500, 1_200, 204_000, 2, 1]);
    let lane = |lane, local_port| LaneInfo {
        link: Link { lane, transport: Transport::Tcp, address: ([10, 0, 0, 1], 9000).into(), local_port },
        messages_in: 1,
        messages_out: 1,
        bytes_in: 10,
        bytes_out: 20,
        queued_messages: 0,
        queued_bytes: 0,
        full: 0,
        rtt: None,
    };
    let shown = |local_port| {
        let lanes = Lane::ALL.map(|of| lane(of, local_port));
        let peer = PeerInfo { peer: 1, peer_id, validator: None, outbound: true, age: Duration::ZERO, agent: None, lanes };
        let info = peer_info(&peer, scene.link.view());
        assert_eq!(info.tcp.map(|tcp| (tcp.rtt_us, tcp.retransmits)), Some((Some(1_500), 2)));
        info.guard.is_some()
    };
    assert!(!shown(None) && shown(Some(9000)));
}

/// A row is a peer's as long as one of its flows is.
#[test]
fn rows_are_known_by_peer() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = scene(folder.path(), &[]);
    let flow_of = |port| Flow { label: "12D3Koo".into(), ..flow(port, None) };
    scene.link.order(Order::Admitted(flow_of(9001)));
    scene.link.order(Order::Admitted(flow_of(9002)));
    scene.asked();
    let view = Arc::clone(scene.link.view());
    assert_eq!(view.row("12D3Koo"), Some((ROW, GENERATION)));
    assert_eq!(view.row("12D3Kot"), None);
    assert_eq!(view.with_maps(|maps| maps.row(ROW, GENERATION)).map(|row| row.packets), Some(0));
    // Nothing is visible until the kernel has written; what it has not measured is nothing, what it counted is a count.
    assert_eq!(tcp(&view, ROW, GENERATION), None);
    let cell = |words: &[u64]| scene.guard.write("TRUTH", ROW as usize * size_of::<TruthCell>(), words);
    cell(&[GENERATION.into(), 0, 1_500, kernel_shared::truth::NO_SAMPLE.into(), 204_000, 0, 1]);
    let expect =
        TcpInfo { rtt_us: Some(1_500), min_rtt_us: None, rto_us: Some(204_000), retransmits: 0, state: "established".into() };
    assert_eq!(tcp(&view, ROW, GENERATION), Some(expect));
    assert_eq!(tcp(&view, ROW, GENERATION + 1), None, "another owner's");
    scene.link.order(Order::Gone(flow_of(9001)));
    scene.asked();
    assert_eq!(view.row("12D3Koo"), Some((ROW, GENERATION)));
    scene.link.order(Order::Gone(flow_of(9002)));
    scene.asked();
    assert_eq!(view.row("12D3Koo"), None);
}
