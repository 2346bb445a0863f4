//! Lists: a file's prefixes die as a whole, swap as a whole, end by themselves, and never touch the floor.

use crate::support::{Lab, MARKER6, Running, SERVER6, SUSPECT4, SUSPECT6, flow, until};
use guard::{ErrorCode, FlowKind, Request, Response, protocol::ListInfo};
use std::{fmt::Write, os::fd::AsFd};

/// Loads a text as a file, by its descriptor.
fn load(lab: &Lab, guard: &Running, name: &str, text: &str, ttl_ms: u64) -> Result<ListInfo, (ErrorCode, String)> {
    let path = lab.folder.path().join("list.txt");
    std::fs::write(&path, text).unwrap();
    let request = Request::ListLoad { name: name.into(), ttl_ms, skip_bad: false };
    match guard.client().load_list(&request, std::fs::File::open(path).unwrap().as_fd()) {
        Ok(list) => Ok(list),
        Err(guard::ClientError::Refused { code, message }) => Err((code, message)),
        Err(error) => panic!("{error}"),
    }
}

fn lists(guard: &Running) -> Vec<ListInfo> {
    match guard.ask(&Request::Lists {}) {
        Response::Lists { lists } => lists,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_list_drops_what_it_holds_swaps_as_a_whole_and_survives_a_restart() {
    let Some(lab) = Lab::new("a_list_drops_what_it_holds_swaps_as_a_whole_and_survives_a_restart") else { return };
    let mut guard = lab.start(&["--mode", "enforce"]);
    let (mut line4, mut line6) = (lab.line4(), lab.line(SUSPECT6, MARKER6, SERVER6));
    let text = format!("# a list\n{SUSPECT4}/32 ; and why\n\n192.0.2.0/24\nfd77:0:1::/48\n");
    let list = load(&lab, &guard, "spam", &text, 60_000).unwrap();
    assert_eq!((list.prefixes, list.skipped, list.floor_cut), (3, 0, 0));
    assert_eq!((line4.send(3), line6.send(2)), (0, 0));
    assert_eq!((lists(&guard)[0].hits, guard.stats().dropped["banned_list"]), (5, 5));
    // A second list; then the first is replaced by one without the suspect.
    load(&lab, &guard, "other", "198.51.100.0/24\n", 60_000).unwrap();
    load(&lab, &guard, "spam", "192.0.2.0/24\nfd77:0:1::/48\n", 60_000).unwrap();
    assert_eq!((line4.send(3), line6.send(2)), (3, 0));
    // A refused list changes nothing.
    let (code, message) = load(&lab, &guard, "spam", "10.0.0.0/8\nnonsense\n", 60_000).unwrap_err();
    assert_eq!(code, ErrorCode::BadRequest);
    assert!(message.contains("line 2"), "{message}");
    assert_eq!(line6.send(2), 0);
    guard.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!((line4.send(2), line6.send(2)), (2, 0));
    let guard = lab.start(&[]);
    let names: Vec<(String, u64)> = lists(&guard).into_iter().map(|list| (list.name, list.prefixes)).collect();
    assert_eq!(names, [("spam".to_string(), 2), ("other".to_string(), 1)]);
    assert_eq!(lists(&guard)[0].hits, 11);
    assert_eq!((line4.send(2), line6.send(2)), (2, 0));
    assert_eq!(guard.ask(&Request::ListDrop { name: "spam".into() }), Response::Done {});
    assert_eq!(guard.refusal(&Request::ListDrop { name: "spam".into() }).0, ErrorCode::NotFound);
    assert_eq!(line6.send(2), 2);
    lab.detach();
}

/// Hits of one list are counted once each: over readings, a floor that grows, a killed guard and lost maps.
#[test]
fn a_list_counts_on_whatever_becomes_of_its_array() {
    let Some(lab) = Lab::new("a_list_counts_on_whatever_becomes_of_its_array") else { return };
    let mut guard = lab.start(&["--mode", "enforce"]);
    let mut line = lab.line4();
    let text = format!("{SUSPECT4}\n192.0.2.0/24\n");
    let hits = |guard: &Running| lists(guard).into_iter().map(|list| (list.hits, list.floor_cut)).collect::<Vec<_>>();
    for read in 1..=3 {
        load(&lab, &guard, "spam", &text, 600_000).unwrap();
        assert_eq!((line.send(2), hits(&guard)), (0, vec![(2 * read, 0)]));
    }
    guard.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(line.send(2), 0);
    let mut guard = lab.start(&["--floor", "192.0.2.0/25"]);
    assert_eq!(hits(&guard), [(8, 1)]);
    assert_eq!((line.send(2), hits(&guard)), (0, vec![(10, 1)]));
    assert!(guard.signal(nix::sys::signal::Signal::SIGTERM).success());
    lab.detach();
    let guard = lab.start(&["--mode", "enforce"]);
    assert_eq!((line.send(2), hits(&guard)), (0, vec![(12, 1)]));
    load(&lab, &guard, "spam", &text, 600_000).unwrap();
    assert_eq!((line.send(2), hits(&guard)), (0, vec![(14, 0)]));
    lab.detach();
}

#[test]
fn a_list_ends_by_itself_and_never_reaches_the_floor() {
    let Some(lab) = Lab::new("a_list_ends_by_itself_and_never_reaches_the_floor") else { return };
    let guard = lab.start(&["--mode", "enforce", "--floor", "10.77.0.9"]);
    let mut line = lab.line4();
    // The marker's address is a floor range inside of the list, and the marker still arrives.
    let list = load(&lab, &guard, "wide", "10.0.0.0/8\n", 60_000).unwrap();
    assert_eq!(list.floor_cut, 1);
    assert_eq!(line.send(3), 0);
    // A validator's flow passes before any list is asked.
    assert!(matches!(guard.ask(&flow(SUSPECT4, 4000, FlowKind::Floor, "validator")), Response::Flow { .. }));
    assert_eq!(line.send(3), 3);
    guard.ask(&Request::FlowsClear {});
    assert_eq!(line.send(3), 0);
    load(&lab, &guard, "wide", "10.0.0.0/8\n", 1).unwrap();
    until("the end of the list", || (line.send(1) == 1).then_some(()));
    until("its removal", || lists(&guard).is_empty().then_some(()));
    lab.detach();
}

#[test]
fn a_million_prefixes_are_one_list() {
    let Some(lab) = Lab::new("a_million_prefixes_are_one_list") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let mut line = lab.line4();
    let mut text = String::new();
    let mut number = 1u32;
    for _ in 0..1_000_000 {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Everywhere but in 10/8, where the marker lives.
        let first = (number >> 24) as u8 | 0x80;
        writeln!(text, "{first}.{}.{}.{}/{}", number >> 16 & 255, number >> 8 & 255, number & 255, 20 + number % 13).unwrap();
    }
    writeln!(text, "{SUSPECT4}").unwrap();
    let start = std::time::Instant::now();
    let list = load(&lab, &guard, "million", &text, 60_000).unwrap();
    eprintln!("1,000,001 prefixes in force after {:?}, {} bytes in the kernel", start.elapsed(), list.bytes);
    assert_eq!(list.prefixes, 1_000_001);
    assert_eq!(line.send(3), 0);
    load(&lab, &guard, "million", "192.0.2.0/24", 60_000).unwrap();
    assert_eq!(line.send(3), 3);
    lab.detach();
}
