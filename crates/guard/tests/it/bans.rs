//! Bans: the next packet dies, with its reason; TTLs end; the floor stands.

use crate::support::{Lab, MARKER4, MARKER6, SERVER6, SUSPECT4, SUSPECT6, ban, flow, until};
use guard::{ErrorCode, FlowKind, Request, Response};
use types::Offence;

#[test]
fn a_banned_address_is_dropped_by_its_offence_until_it_is_unbanned() {
    let Some(lab) = Lab::new("a_banned_address_is_dropped_by_its_offence_until_it_is_unbanned") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let lines = [(lab.line4(), SUSPECT4, "10.77.0.1/32"), (lab.line(SUSPECT6, MARKER6, SERVER6), SUSPECT6, "fd77:0:1::/64")];
    for (index, (mut line, suspect, prefix)) in lines.into_iter().enumerate() {
        assert_eq!(line.send(3), 3);
        let Response::Banned { address, flows_deleted, .. } = guard.ban(suspect, 60_000, Offence::BadSignature) else { panic!() };
        assert_eq!((address.to_string().as_str(), flows_deleted), (prefix, 0));
        assert_eq!(line.send(5), 0);
        let stats = guard.stats();
        assert_eq!(stats.dropped["banned_bad_signature"], 5 * (index as u64 + 1));
        assert_eq!(stats.would_drop["banned_bad_signature"], 0);
        let bans = guard.client().bans().unwrap();
        let info = bans.iter().find(|ban| ban.address == address).unwrap();
        assert_eq!((info.offence, info.hits, info.note.as_str()), (Offence::BadSignature, 5, "test"));
        assert!(info.until_unix_ms > info.since_unix_ms);
        assert_eq!(guard.ask(&Request::Unban { address }), Response::Done {});
        assert_eq!(line.send(4), 4);
        assert_eq!(guard.stats().dropped["banned_bad_signature"], 5 * (index as u64 + 1));
    }
    assert_eq!(guard.refusal(&Request::Unban { address: SUSPECT4.parse().unwrap() }).0, ErrorCode::NotFound);
}

#[test]
fn every_offence_is_counted_under_its_own_reason() {
    let Some(lab) = Lab::new("every_offence_is_counted_under_its_own_reason") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let mut line = lab.line4();
    for (index, offence) in Offence::ALL.into_iter().enumerate() {
        guard.ban(SUSPECT4, 60_000, offence);
        let count = index as u32 + 1;
        assert_eq!(line.send(count), 0);
        assert_eq!(guard.stats().dropped[&format!("banned_{}", offence.as_str())], count as u64);
    }
}

#[test]
fn a_ban_ends_by_itself() {
    let Some(lab) = Lab::new("a_ban_ends_by_itself") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let mut line = lab.line4();
    guard.ban(SUSPECT4, 400, Offence::Malformed);
    assert_eq!(line.send(1), 0);
    let dropped = until("the end of the ban", || {
        let dropped = guard.stats().dropped["banned_malformed"];
        (line.send(1) == 1).then_some(dropped)
    });
    assert!(dropped >= 1);
    until("the removal of the expired entry", || (guard.stats().bans == 0).then_some(()));
}

#[test]
fn a_range_bans_all_of_it_and_nothing_else() {
    let Some(lab) = Lab::new("a_range_bans_all_of_it_and_nothing_else") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let (mut line4, mut line6) = (lab.line4(), lab.line(SUSPECT6, MARKER6, SERVER6));
    guard.ban("10.77.0.0/29", 60_000, Offence::List);
    guard.ban("fd77:0:1::/48", 60_000, Offence::List);
    assert_eq!((line4.send(2), line6.send(3)), (0, 0));
    assert_eq!(guard.stats().dropped["banned_list"], 5);
    // An exact ban inside a range has the last word on the reason, and its end uncovers the range again.
    guard.ban(SUSPECT4, 60_000, Offence::Replay);
    assert_eq!(line4.send(2), 0);
    assert_eq!(guard.stats().dropped["banned_replay"], 2);
    guard.ask(&Request::Unban { address: SUSPECT4.parse().unwrap() });
    assert_eq!(line4.send(1), 0);
    assert_eq!(guard.stats().dropped["banned_list"], 6);
    guard.ask(&Request::Unban { address: "10.77.0.0/29".parse().unwrap() });
    guard.ask(&Request::Unban { address: "fd77:0:1::/48".parse().unwrap() });
    assert_eq!((line4.send(2), line6.send(2)), (2, 2));
}

#[test]
fn the_floor_cannot_be_banned() {
    let Some(lab) = Lab::new("the_floor_cannot_be_banned") else { return };
    let guard = lab.start(&["--mode", "enforce", "--floor", "10.77.0.8/29,2001:db8::/32"]);
    for touching in [MARKER4, "10.77.0.0/16", "10.77.0.12/30", "2001:db8:1::1"] {
        let (code, message) = guard.refusal(&ban(touching, 1000, Offence::Manual));
        assert_eq!(code, ErrorCode::Floor);
        assert!(message.contains("floor range"), "{message}");
    }
    guard.ask(&flow(SUSPECT4, 4000, FlowKind::Floor, "validator-1"));
    let (code, message) = guard.refusal(&ban(SUSPECT4, 1000, Offence::BadSignature));
    assert_eq!(code, ErrorCode::Floor);
    assert!(message.contains("validator-1"), "{message}");
    assert_eq!(guard.stats().bans, 0);
    let mut line = lab.line4();
    assert_eq!(line.send(3), 3);
    assert_eq!(guard.stats().passed["floor"], 3);
}

#[test]
fn a_ban_deletes_the_flows_of_its_address() {
    let Some(lab) = Lab::new("a_ban_deletes_the_flows_of_its_address") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    guard.ask(&flow(SUSPECT4, 4000, FlowKind::Known, "peer"));
    guard.ask(&flow(SUSPECT4, 4444, FlowKind::Dialing, "peer"));
    guard.ask(&flow(MARKER4, 4001, FlowKind::Known, "other"));
    let mut line = lab.line4();
    assert_eq!(line.send(2), 2);
    assert_eq!(guard.stats().passed["known"], 3);
    let Response::Banned { flows_deleted, .. } = guard.ban(SUSPECT4, 60_000, Offence::Oversize) else { panic!() };
    assert_eq!(flows_deleted, 2);
    assert_eq!(line.send(2), 0);
    assert_eq!(guard.stats().flows, 1);
}

#[test]
fn bans_without_end_too_wide_or_too_long_are_refused() {
    let Some(lab) = Lab::new("bans_without_end_too_wide_or_too_long_are_refused") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    for request in [
        ban(SUSPECT4, 0, Offence::Manual),
        ban(SUSPECT4, guard::protocol::BAN_TTL_MS_MAX + 1, Offence::Manual),
        ban("0.0.0.0/0", 1000, Offence::Manual),
        ban("10.0.0.0/7", 1000, Offence::Manual),
        ban("::/0", 1000, Offence::Manual),
        ban("fd00::/8", 1000, Offence::Manual),
    ] {
        assert_eq!(guard.refusal(&request).0, ErrorCode::Limit, "{request:?}");
    }
    assert_eq!(guard.stats().bans, 0);
}

#[test]
fn what_a_machine_found_out_never_shortens_a_ban() {
    let Some(lab) = Lab::new("what_a_machine_found_out_never_shortens_a_ban") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let (hour, patience) = (3_600_000, 60_000);
    let bans = |ttl_ms, offence| match guard.ban(SUSPECT4, ttl_ms, offence) {
        Response::Banned { until_unix_ms, .. } => until_unix_ms,
        other => panic!("{other:?}"),
    };
    let is = |offence, until: u64| {
        let ban = guard.client().bans().unwrap().remove(0);
        assert!(ban.offence == offence && ban.until_unix_ms.abs_diff(until) < patience, "{ban:?}, not {offence} until {until}");
    };
    let now = guard::kernel::clock::unix_ms();
    let until = bans(hour, Offence::Manual);
    // The answer says what holds: the end that there was.
    assert!(bans(1, Offence::BadSignature).abs_diff(until) < patience);
    is(Offence::Manual, until);
    let until = bans(3 * hour, Offence::Replay);
    assert!(until >= now + 3 * hour);
    is(Offence::Replay, until);
    bans(hour, Offence::BadSignature);
    is(Offence::Replay, until);
    // Whoever decides may do so.
    let until = bans(2 * hour, Offence::Manual);
    is(Offence::Manual, until);
    assert!(until < now + 3 * hour);
}

#[test]
fn a_full_table_is_an_error_and_drops_nobody() {
    let Some(lab) = Lab::new("a_full_table_is_an_error_and_drops_nobody") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let mut client = guard.client();
    let max = kernel_shared::abi::RANGES_MAX;
    for index in 0..max {
        let range = format!("172.{}.{}.0/24", 16 + (index >> 8), index & 255);
        client.ask(&ban(&range, 600_000, Offence::List)).unwrap();
    }
    let (code, message) = guard.refusal(&ban("10.77.0.0/29", 600_000, Offence::List));
    assert_eq!(code, ErrorCode::Full, "{message}");
    assert_eq!(guard.stats().bans, max as u64);
    assert_eq!(lab.line4().send(2), 2);
    // The other kind still has room.
    guard.ban(SUSPECT4, 60_000, Offence::Rate);
    assert_eq!(lab.line4().send(2), 0);
}

#[test]
fn more_bans_than_a_line_holds_are_all_listed() {
    let Some(lab) = Lab::new("more_bans_than_a_line_holds_are_all_listed") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let mut client = guard.client();
    let addresses: Vec<String> = (0..8_200u32).map(|host| format!("172.16.{}.{}/32", host >> 8, host & 255)).collect();
    for address in &addresses {
        client.ask(&ban(address, 3_600_000, Offence::Manual)).unwrap();
    }
    assert_eq!(client.bans().unwrap().len(), addresses.len());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ebpf-guard"));
    let output = command.args(["bans", "--json", "--socket"]).arg(lab.socket()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.len() > guard::protocol::LINE_BYTES_MAX, "else one line would do");
    let Response::Bans { bans, total } = serde_json::from_slice(&output.stdout).unwrap() else { panic!() };
    assert_eq!(total, addresses.len() as u64);
    assert!(bans.iter().map(|ban| ban.address.to_string()).eq(addresses), "each one, once, in order");
}
