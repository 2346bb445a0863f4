//! Flows and rows: classes, counters of a peer's own, what lapses.

use crate::support::{Lab, MARKER6, SERVER4, SERVER6, SUSPECT4, SUSPECT6, Wire, flow, ip, segment, until};
use guard::{ErrorCode, FlowKind, Request, Response};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};
use types::Offence;

fn row_of(response: Response) -> (u32, u32) {
    match response {
        Response::Flow { row: Some(row), generation } => (row, generation),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peers_packets_are_counted_in_its_row() {
    let Some(lab) = Lab::new("a_peers_packets_are_counted_in_its_row") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let first = row_of(guard.ask(&flow(SUSPECT4, 4000, FlowKind::Known, "peer-a")));
    assert_eq!(row_of(guard.ask(&flow(SUSPECT6, 4000, FlowKind::Known, "peer-a"))), first);
    let other = row_of(guard.ask(&flow("10.77.0.200", 4000, FlowKind::Floor, "peer-b")));
    assert!(other.0 != first.0 && other.1 > first.1);
    assert_eq!(lab.line4().send(4), 4);
    assert_eq!(lab.line(SUSPECT6, MARKER6, SERVER6).send(3), 3);
    let stats = guard.stats();
    assert_eq!((stats.passed["known"], stats.passed["stranger"]), (7, 2));
    let row = stats.rows.iter().find(|row| row.label == "peer-a").unwrap();
    // Ethernet + IP + UDP + 7 bytes: 49 with IPv4, 69 with IPv6.
    assert_eq!((row.packets, row.bytes, row.dropped, row.flows), (7, 4 * 49 + 3 * 69, 0, 2));
    let udp = guard::Protocol::Udp;
    let withdraw = Request::FlowDel { protocol: udp, address: ip(SUSPECT4), port: 4000 };
    assert_eq!(guard.ask(&withdraw), Response::Done {});
    assert_eq!(guard.refusal(&withdraw).0, ErrorCode::NotFound);
    assert_eq!(lab.line4().send(1), 1);
    let stats = guard.stats();
    assert_eq!((stats.passed["known"], stats.passed["stranger"]), (7, 4));
    guard.ask(&Request::FlowsClear {});
    assert_eq!(guard.stats().flows, 0);
}

#[test]
fn a_row_goes_to_a_new_owner_with_a_higher_generation_only_when_all_are_taken() {
    let Some(lab) = Lab::new("a_row_goes_to_a_new_owner_with_a_higher_generation_only_when_all_are_taken") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let mut client = guard.client();
    let (row, generation) = row_of(client.ask(&flow(SUSPECT4, 4000, FlowKind::Known, "first")).unwrap());
    assert_eq!(lab.line4().send(5), 5);
    for index in 1..kernel_shared::abi::ROWS_MAX {
        client.ask(&flow("192.0.2.1", index as u16, FlowKind::Known, &format!("peer-{index}"))).unwrap();
    }
    let full = client.ask(&flow("192.0.2.2", 1, FlowKind::Known, "too many")).unwrap();
    assert_eq!(full, Response::Flow { row: None, generation: 0 });
    client.ask(&Request::FlowDel { protocol: guard::Protocol::Udp, address: ip(SUSPECT4), port: 4000 }).unwrap();
    let (reused, newer) = row_of(client.ask(&flow(SUSPECT4, 4000, FlowKind::Known, "second")).unwrap());
    assert!(reused == row && newer > generation);
    assert_eq!(lab.line4().send(2), 2);
    let stats = guard.stats();
    assert!(stats.rows.iter().map(|info| info.row).eq(0..kernel_shared::abi::ROWS_MAX), "every page, in order");
    let second = stats.rows.iter().find(|info| info.row == row).unwrap();
    assert_eq!((second.label.as_str(), second.packets), ("second", 2));
}

#[test]
fn known_flows_lapse_when_the_heart_stops_and_the_floor_stays() {
    let Some(lab) = Lab::new("known_flows_lapse_when_the_heart_stops_and_the_floor_stays") else { return };
    let guard = lab.start(&["--mode", "enforce", "--heartbeat-timeout", "1"]);
    guard.ask(&flow(SUSPECT4, 4000, FlowKind::Known, "peer"));
    guard.ask(&flow(SUSPECT6, 4000, FlowKind::Floor, "validator"));
    guard.ask(&Request::Heartbeat {});
    let (mut known, mut floor) = (lab.line4(), lab.line(SUSPECT6, MARKER6, SERVER6));
    assert_eq!(known.send(2), 2);
    assert_eq!(guard.stats().passed["known"], 2);
    assert!(guard.stats().heartbeat_age_ms.is_some());
    until("the lapse of the known flow", || {
        let before = guard.stats().passed["known"];
        known.send(1);
        (guard.stats().passed["known"] == before).then_some(())
    });
    assert_eq!(floor.send(2), 2);
    assert_eq!(guard.stats().passed["floor"], 2);
    // What else does not lapse: bans. And that the beat is stale can be read.
    assert!(matches!(guard.ban("192.0.2.9", 60_000, Offence::Manual), Response::Banned { .. }));
    Wire::new(&lab).send(&segment([192, 0, 2, 9], 2));
    floor.send(0);
    assert_eq!(guard.stats().dropped["banned_manual"], 1);
    until("a stale beat", || guard.stats().heartbeat_age_ms.filter(|age| *age >= 1000));
    guard.ask(&Request::Heartbeat {});
    let before = guard.stats().passed["known"];
    known.send(1);
    assert_eq!(guard.stats().passed["known"], before + 1);
}

#[test]
fn a_validator_has_two_floor_addresses_and_no_more() {
    let Some(lab) = Lab::new("a_validator_has_two_floor_addresses_and_no_more") else { return };
    let guard = lab.start(&["--floor", "10.9.0.0/16"]);
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.1"] {
        guard.ask(&flow(address, 1000, FlowKind::Floor, "validator"));
    }
    guard.ask(&flow("10.0.0.2", 1001, FlowKind::Floor, "validator"));
    assert_eq!(guard.refusal(&flow("10.0.0.3", 1000, FlowKind::Floor, "validator")).0, ErrorCode::Limit);
    guard.ask(&flow("10.0.0.3", 1000, FlowKind::Floor, "another"));
    // Flows of an operator's range are of the floor, as many as there are.
    for address in ["10.9.0.1", "10.9.0.2", "10.9.0.3"] {
        guard.ask(&flow(address, 1000, FlowKind::Known, "validator"));
    }
}

#[test]
fn an_established_flow_of_a_floor_range_is_of_the_floor() {
    let Some(lab) = Lab::new("an_established_flow_of_a_floor_range_is_of_the_floor") else { return };
    let guard = lab.start(&["--mode", "enforce", "--floor", "10.77.0.1"]);
    let mut line = lab.line4();
    line.send(1);
    guard.ask(&flow(SUSPECT4, 4000, FlowKind::Known, "operator"));
    assert_eq!(line.send(3), 3);
    assert_eq!((guard.stats().passed["floor"], guard.stats().passed["known"]), (3, 0));
}

#[test]
fn latency_is_measured_from_arrival_to_the_readers_copy() {
    let Some(lab) = Lab::new("latency_is_measured_from_arrival_to_the_readers_copy") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let listener = lab.inside.inside(|| TcpListener::bind((SERVER4, crate::support::PORT)).unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 64];
        while stream.read(&mut buffer).unwrap() > 0 {
            stream.write_all(&[1]).unwrap();
        }
    });
    let mut client = lab.outside.inside(|| TcpStream::connect((SERVER4, crate::support::PORT)).unwrap());
    for _ in 0..200 {
        client.write_all(&[7; 40]).unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    drop(client);
    server.join().unwrap();
    let mut udp = lab.line4();
    for _ in 0..100 {
        udp.send(1);
    }
    let stats = guard.stats();
    for latency in [&stats.latency_tcp, &stats.latency_udp] {
        if latency.source.starts_with("none") {
            eprintln!("not measured here: {}", latency.source);
            continue;
        }
        assert!(latency.count > 0, "{latency:?}");
        assert_eq!(latency.count, latency.buckets.iter().sum::<u64>());
    }
    assert!(stats.latency_stamped >= stats.latency_tcp.count + stats.latency_udp.count);
}
