//! What outlives the process, its maps, and a torn file.

use crate::support::{Lab, SUSPECT4, SUSPECT6, until};
use guard::{
    Request, Response,
    protocol::{BanInfo, ListInfo},
};
use nix::{
    fcntl::{AT_FDCWD, RenameFlags},
    sys::signal::Signal,
};
use std::os::fd::AsFd;
use types::Offence;

pub fn bans(guard: &crate::support::Running) -> Vec<BanInfo> {
    guard.client().bans().unwrap()
}

pub fn lists(guard: &crate::support::Running) -> Vec<ListInfo> {
    match guard.ask(&Request::Lists {}) {
        Response::Lists { lists } => lists,
        other => panic!("{other:?}"),
    }
}

/// What a ban is but for its end, which is told in ticks.
pub fn told(ban: &BanInfo) -> (String, Offence, u64, u64, String) {
    (ban.address.to_string(), ban.offence, ban.since_unix_ms, ban.hits, ban.note.clone())
}

#[test]
fn bans_and_lists_outlive_the_process_and_the_maps() {
    let Some(lab) = Lab::new("bans_and_lists_outlive_the_process_and_the_maps") else { return };
    let mut guard = lab.start(&["--mode", "enforce"]);
    let mut line = lab.line4();
    for address in [SUSPECT4, SUSPECT6, "192.0.2.0/24", "2001:db8::/40"] {
        assert!(matches!(guard.ban(address, 600_000, Offence::Replay), Response::Banned { .. }));
    }
    let path = lab.folder.path().join("list.txt");
    std::fs::write(&path, "198.51.100.0/24\n").unwrap();
    let request = Request::ListLoad { name: "some".into(), ttl_ms: 600_000, skip_bad: false };
    guard.client().load_list(&request, std::fs::File::open(path).unwrap().as_fd()).unwrap();
    assert_eq!(line.send(3), 0);
    let before = bans(&guard);
    assert_eq!(before.len(), 4);
    // Killed as soon as the file has it: the notes are back, and the hits are the kernel's.
    let file = lab.folder.path().join("state/lab/bans.json");
    until("the bans in their file", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("2001:db8::/40")).then_some(())
    });
    until("the list in its file", || lab.folder.path().join("state/lab/some.list").exists().then_some(()));
    guard.signal(Signal::SIGKILL);
    assert_eq!(line.send(2), 0);
    let mut guard = lab.start(&[]);
    let after: Vec<_> = bans(&guard).iter().map(told).collect();
    let expect: Vec<_> = before.iter().map(|ban| BanInfo { hits: if ban.hits > 0 { 5 } else { 0 }, ..ban.clone() }).collect();
    assert_eq!(after, expect.iter().map(told).collect::<Vec<_>>());
    // Stopped in order, then every map is lost, as by a reboot.
    assert!(guard.signal(Signal::SIGTERM).success());
    lab.detach();
    assert_eq!(line.send(2), 2);
    let guard = lab.start(&["--mode", "enforce"]);
    let restored = bans(&guard);
    assert_eq!(restored.iter().map(told).collect::<Vec<_>>(), after);
    for (ban, old) in restored.iter().zip(&before) {
        assert!(ban.until_unix_ms.abs_diff(old.until_unix_ms) < 60_000, "{ban:?} {old:?}");
    }
    assert_eq!(lists(&guard).iter().map(|list| (list.name.as_str(), list.prefixes)).collect::<Vec<_>>(), [("some", 1)]);
    assert_eq!(line.send(2), 0);
    lab.detach();
}

#[test]
fn hits_are_saved_though_nothing_else_changes() {
    let Some(lab) = Lab::new("hits_are_saved_though_nothing_else_changes") else { return };
    let guard = lab.start(&["--mode", "enforce", "--save-hits-every", "0"]);
    assert!(matches!(guard.ban(SUSPECT4, 600_000, Offence::Replay), Response::Banned { .. }));
    assert_eq!(lab.line4().send(3), 0);
    let file = lab.folder.path().join("state/lab/bans.json");
    until("the hits in their file", || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\"hits\":3")).then_some(()));
    lab.detach();
}

#[test]
fn torn_files_are_moved_aside_and_the_guard_starts() {
    let Some(lab) = Lab::new("torn_files_are_moved_aside_and_the_guard_starts") else { return };
    let folder = lab.folder.path().join("state/lab");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("bans.json"), "{\"version\":1,\"bans\":[{\"addr").unwrap();
    std::fs::write(folder.join("some.list"), "EBGLIST1").unwrap();
    let guard = lab.start(&["--mode", "enforce"]);
    assert!(bans(&guard).is_empty() && lists(&guard).is_empty());
    assert!(folder.join("bans.json.corrupt-1").exists() && folder.join("some.list.corrupt-1").exists());
    let log = std::fs::read_to_string(lab.folder.path().join("guard.log")).unwrap();
    assert!(log.contains("bans.json") && log.contains("state can't be read"), "{log}");
    lab.detach();
}

#[test]
fn a_file_that_cannot_be_written_holds_up_no_other_and_is_tried_again() {
    let Some(lab) = Lab::new("a_file_that_cannot_be_written_holds_up_no_other_and_is_tried_again") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    let file = |name: &str| lab.folder.path().join("state/lab").join(name);
    let text = lab.folder.path().join("list.txt");
    std::fs::write(&text, "198.51.100.0/24\n").unwrap();
    for name in ["first", "second"] {
        let request = Request::ListLoad { name: name.into(), ttl_ms: 600_000, skip_bad: false };
        guard.client().load_list(&request, std::fs::File::open(&text).unwrap().as_fd()).unwrap();
        until("the list in its file", || file(&format!("{name}.list")).exists().then_some(()));
    }
    // In the place of the bans' new file and of the second list's there is something that can't be written over, or unlinked.
    std::fs::create_dir(file("bans.json.new")).unwrap();
    std::fs::create_dir(file("aside")).unwrap();
    let swap = || nix::fcntl::renameat2(AT_FDCWD, &file("second.list"), AT_FDCWD, &file("aside"), RenameFlags::RENAME_EXCHANGE);
    swap().unwrap();
    guard.ban(SUSPECT4, 600_000, Offence::Replay);
    for name in ["first", "second"] {
        assert_eq!(guard.ask(&Request::ListDrop { name: name.into() }), Response::Done {});
    }
    let log = || std::fs::read_to_string(lab.folder.path().join("guard.log")).unwrap();
    until("both failures", || (log().contains("bans.json.new failed") && log().contains("second.list failed")).then_some(()));
    until("the end of the first list's file", || (!file("first.list").exists()).then_some(()));
    swap().unwrap();
    std::fs::remove_dir(file("bans.json.new")).unwrap();
    until("the end of the second list's file", || (!file("second.list").exists()).then_some(()));
    until("the ban in its file", || {
        std::fs::read_to_string(file("bans.json")).is_ok_and(|text| text.contains(SUSPECT4)).then_some(())
    });
    lab.detach();
}

/// Bans the suspect for an hour, or for so many as it has deserved: how many.
pub fn escalated_hours(guard: &crate::support::Running) -> u64 {
    let (address, offence, note) = (SUSPECT4.parse().unwrap(), Offence::Manual, String::new());
    let now = guard::kernel::clock::unix_ms();
    match guard.ask(&Request::Ban { address, ttl_ms: 3_600_000, offence, note, escalate: true }) {
        Response::Banned { until_unix_ms, .. } => (until_unix_ms - now) / 3_600_000,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_repeated_ban_that_escalates_doubles_also_over_a_restart() {
    let Some(lab) = Lab::new("a_repeated_ban_that_escalates_doubles_also_over_a_restart") else { return };
    let ask = escalated_hours;
    let mut guard = lab.start(&["--mode", "enforce"]);
    assert_eq!((ask(&guard), ask(&guard), ask(&guard)), (1, 2, 4));
    assert!(guard.signal(Signal::SIGTERM).success());
    let guard = lab.start(&[]);
    assert_eq!(ask(&guard), 8);
    for _ in 0..10 {
        ask(&guard);
    }
    assert_eq!(ask(&guard), 30 * 24);
    lab.detach();
}
