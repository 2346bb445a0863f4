//! A guard meets the pins of an older layout: it takes over the filter with all that it knew, and no packet passes unjudged or uncounted.

use crate::{
    egress::Group,
    saving::{bans, lists, told},
    support::{Lab, MARKER4, Running, SUSPECT4, SUSPECT6, flow, pins, privileged},
    swap::{Load, counted, furnish},
};
use guard::{
    FlowKind, Request, Response,
    kernel::sys,
    protocol::{BudgetInfo, Stats},
};
use kernel_shared::{abi::LATENCY_BUCKETS, control::WORD_SHARES, layout};
use nix::sys::signal::Signal;
use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};
use types::Offence;

/// The hash of a layout that never was.
const OLDER: &str = "0123456789abcdef";

/// The instance's only directory.
fn directory(lab: &Lab) -> PathBuf {
    let [name] = &pins(&lab.bpffs())[..] else { panic!("{:?}", pins(&lab.bpffs())) };
    lab.bpffs().join(name)
}

/// Makes the pins those of another layout: all the same but for the hash in the directory's name.
pub fn age(lab: &Lab) -> PathBuf {
    let older = lab.bpffs().join(format!("lab-{OLDER}"));
    fs::rename(directory(lab), &older).unwrap();
    older
}

/// Puts an array of words in the place of a map: the filter goes on with its own, whoever opens the pin gets this one.
fn replace(older: &Path, name: &str, words: &[u64]) {
    let map = sys::list_map(words.len() as u32).unwrap();
    for (index, word) in (0u32..).zip(words) {
        sys::update(map.as_fd(), &index, word).unwrap();
    }
    let pin = older.join(name);
    if pin.exists() {
        fs::remove_file(&pin).unwrap();
    }
    sys::pin(map.as_fd(), &pin).unwrap();
}

fn log(lab: &Lab) -> String {
    fs::read_to_string(lab.folder.path().join("guard.log")).unwrap()
}

pub fn budgets(guard: &Running) -> Vec<(String, u64, u64)> {
    match guard.ask(&Request::Budgets {}) {
        Response::Budgets { budgets } => {
            budgets.into_iter().map(|BudgetInfo { name, rate, burst, .. }| (name, rate.into(), burst.into())).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// The only list, but for its end, which is told in ticks.
fn list(guard: &Running) -> (String, u64, u64, u64) {
    let [list] = &lists(guard)[..] else { panic!("{:?}", lists(guard)) };
    (list.name.clone(), list.prefixes, list.since_unix_ms, list.hits)
}

/// Bans of all kinds, a list, a validator's flow.
fn furnish_more(lab: &Lab, guard: &Running) {
    for address in [SUSPECT6, "192.0.2.0/24", "2001:db8::/40"] {
        assert!(matches!(guard.ban(address, 600_000, Offence::Replay), Response::Banned { .. }));
    }
    let path = lab.folder.path().join("list.txt");
    fs::write(&path, "198.51.100.0/24\n").unwrap();
    let request = Request::ListLoad { name: "some".into(), ttl_ms: 600_000, skip_bad: false };
    guard.client().load_list(&request, fs::File::open(path).unwrap().as_fd()).unwrap();
    guard.ask(&flow("10.77.0.50", 4050, FlowKind::Floor, "validator"));
    guard.ask(&flow("fd77::50", 4050, FlowKind::Floor, "validator"));
}

fn upgraded_under_load(test: &str, mode: &str) {
    let Some(lab) = Lab::new(test) else { return };
    let arguments = ["--xdp", mode];
    let mut guard = lab.start(&["--mode", "enforce", "--xdp", mode]);
    furnish(&guard);
    furnish_more(&lab, &guard);
    let (had, before) = (directory(&lab), guard.stats());
    let (had_bans, had_lists, had_budgets) = (bans(&guard), list(&guard), budgets(&guard));
    let load = Load::default();
    let (peer, banned) = load.during(&lab, |load| {
        load.further(3);
        guard.signal(Signal::SIGKILL);
        // What was saved must not be what helps.
        fs::remove_dir_all(lab.folder.path().join("state")).unwrap();
        let older = age(&lab);
        // This layout had other rows for strangers, a histogram without a column for what is carried over, and a map of its own.
        replace(&older, "STRANGERS", &[0; 100]);
        let cells = sys::map_entries(sys::open_pin(&older.join("LATENCY"), 0).unwrap().as_fd()).unwrap();
        let cells = cells - 2 * LATENCY_BUCKETS;
        replace(&older, "LATENCY", &vec![1; cells as usize]);
        replace(&older, "FROM_ANOTHER_AGE", &[1]);
        load.further(3);
        guard = lab.start(&arguments);
        load.further(3);
    });
    let after = guard.stats();
    let of = |counts: fn(&Stats) -> u64| counts(&after) - counts(&before);
    assert!(after.adopted && after.xdp_mode == mode && after.mode == "enforce");
    assert_eq!(of(counted), peer + banned, "each packet is counted once");
    assert_eq!(of(|stats| stats.passed["known"]), peer);
    assert_eq!(of(|stats| stats.dropped["banned_replay"]), banned);
    let row = after.rows.iter().find(|row| row.row == before.rows.iter().find(|row| row.label == "peer").unwrap().row).unwrap();
    assert_eq!((row.packets, row.flows), (peer, 1), "in the peer's row, too");
    assert_eq!((&after.flows, budgets(&guard), list(&guard)), (&before.flows, had_budgets, had_lists));
    assert_eq!(directory(&lab), had, "one directory again, and it is ours");
    let cpus = kernel_cpus();
    assert_eq!(after.latency_tcp.buckets.len(), LATENCY_BUCKETS as usize, "{:?}", after.latency_tcp);
    assert!(after.latency_tcp.buckets.iter().all(|count| *count >= cpus), "{:?}", after.latency_tcp);
    // Bans with their ends and hits. Hits between the copy and the swap are in the counters only.
    for (ban, old) in bans(&guard).iter().zip(&had_bans) {
        let (address, offence, since, hits, _) = told(ban);
        assert_eq!((address, offence, since), (old.address.to_string(), old.offence, old.since_unix_ms));
        assert!(ban.until_unix_ms.abs_diff(old.until_unix_ms) < 60_000 && hits >= old.hits, "{ban:?} {old:?}");
    }
    assert_eq!(bans(&guard).len(), had_bans.len());
    let log = log(&lab);
    let left =
        |map: &str, why: &str| log.lines().any(|line| line.contains("not taken over") && line.contains(map) && line.contains(why));
    assert!(left("STRANGERS", "values of 8; known is") && left("FROM_ANOTHER_AGE", "begins anew"), "{log}");
    assert!(log.contains("BANS4 1") && log.contains("FLOWS4 2"), "{log}");
    assert!(log.contains(&format!("LATENCY {}", 2 * LATENCY_BUCKETS)), "{log}");
    eprintln!("{mode}: {} packets over an upgrade, none lost, none counted twice", peer + banned);
    lab.detach();
    assert_eq!((lab.line4().send(1), pins(&lab.bpffs())), (1, vec![]));
}

fn kernel_cpus() -> u64 {
    guard::kernel::load::cpus().unwrap().into()
}

#[test]
fn an_upgrade_in_native_mode_keeps_peers_bans_and_counts() {
    upgraded_under_load("an_upgrade_in_native_mode_keeps_peers_bans_and_counts", "native");
}

#[test]
fn an_upgrade_in_tcx_keeps_peers_bans_and_counts() {
    upgraded_under_load("an_upgrade_in_tcx_keeps_peers_bans_and_counts", "tcx");
}

/// The links to a control group change hands as the filter's does: at no moment may the node dial what it must not.
#[test]
fn an_upgrade_leaves_no_gap_in_the_egress_guard() {
    let Some(group) = Group::new("an_upgrade_leaves_no_gap_in_the_egress_guard") else { return };
    let lab = &group.lab;
    let mut guard = lab.start(&group.arguments(&["--mode", "enforce"]));
    assert_eq!(group.dial("tcp", "10.0.0.1"), "EPERM");
    let links = |directory: &Path| -> Vec<(String, u64)> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut links: Vec<String> = names.filter(|name| name.starts_with("link-")).collect();
        links.sort();
        let id = |name: &String| sys::link_info(sys::open_pin(&directory.join(name), 0).unwrap().as_fd()).unwrap().id.into();
        links.iter().map(|name| (name.clone(), id(name))).collect()
    };
    let (ours, had) = (directory(lab), links(&directory(lab)));
    assert_eq!(had.len(), 5, "{had:?}");
    guard.signal(Signal::SIGKILL);
    let older = age(lab);
    assert_eq!(group.dial("tcp", "10.0.0.1"), "EPERM");
    // One that was cut off had moved a link already.
    fs::create_dir(&ours).unwrap();
    fs::rename(older.join("link-connect4"), ours.join("link-connect4")).unwrap();
    let guard = lab.start(&group.arguments(&[]));
    assert_eq!((directory(lab), links(&ours)), (ours.clone(), had), "the same links");
    assert_eq!((group.dial("tcp", "10.0.0.1").as_str(), group.dial("tcp", "fd00::1").as_str()), ("EPERM", "EPERM"));
    assert_eq!(guard.stats().egress.unwrap().ranges["private"].denied, 2, "these counts begin anew, and the log says so");
    assert!(log(lab).contains("map=\"EGRESS\" reason=\"it begins anew\""), "{}", log(lab));
    lab.detach();
    assert_ne!(group.dial("tcp", "10.0.0.1"), "EPERM");
}

/// What starts that were cut off have left, before their maps were complete and after, is cleared away; the filter goes on through all of it.
#[test]
fn an_interrupted_upgrade_is_taken_up_again() {
    let Some(lab) = Lab::new("an_interrupted_upgrade_is_taken_up_again") else { return };
    let mut guard = lab.start(&["--mode", "enforce"]);
    guard.ban(SUSPECT4, 600_000, Offence::Replay);
    let mut line = lab.line4();
    assert_eq!(line.send(3), 0);
    let ours = directory(&lab);
    guard.signal(Signal::SIGKILL);
    // Cut off while maps were made: they are no use, whatever is in them.
    age(&lab);
    fs::create_dir(&ours).unwrap();
    for name in ["CONTROL", "BANS4", "COUNTERS"] {
        replace(&ours, name, &[7; 3]);
    }
    fs::remove_dir_all(lab.folder.path().join("state")).unwrap();
    let mut guard = lab.start(&[]);
    assert_eq!((line.send(2), guard.stats().dropped["banned_replay"]), (0, 5));
    assert!(guard.stats().adopted);
    guard.signal(Signal::SIGKILL);
    // Cut off after the swap, while the old pins were being removed: what is left of them counts for nothing.
    let older = lab.bpffs().join(format!("lab-{OLDER}"));
    fs::create_dir(&older).unwrap();
    replace(&older, "CONTROL", &[7; 3]);
    replace(&older, "COUNTERS", &[7; 3]);
    let guard = lab.start(&[]);
    assert_eq!((line.send(2), guard.stats().dropped["banned_replay"], directory(&lab)), (0, 7, ours));
    lab.detach();
}

/// Both ways of waiting for programs, whichever of them this kernel needs.
#[test]
fn programs_can_be_waited_for_with_membarrier_or_without() {
    if !privileged("programs_can_be_waited_for_with_membarrier_or_without") {
        return;
    }
    sys::wait_for_programs().unwrap();
    sys::wait_by_update().unwrap();
}

/// Rows that say to be of another version are left where they are, whatever their size; then the state's bans come back.
#[test]
fn rows_of_another_version_are_not_guessed_at() {
    let Some(lab) = Lab::new("rows_of_another_version_are_not_guessed_at") else { return };
    let mut guard = lab.start(&["--mode", "enforce"]);
    guard.ban(SUSPECT4, 600_000, Offence::Replay);
    guard.ask(&flow(MARKER4, 4001, FlowKind::Known, "peer"));
    assert!(guard.signal(Signal::SIGTERM).success());
    let older = age(&lab);
    let version = |rows: &layout::Rows| if rows.map == "BANS4" { 2 } else { u64::from(rows.version) };
    replace(&older, layout::PIN, &layout::ROWS.each_ref().map(version));
    let guard = lab.start(&[]);
    let log = log(&lab);
    assert!(log.contains("its rows are of version 2, known is 1"), "{log}");
    assert!(log.contains("bans and lists restored from the state"), "{log}");
    let mut line = lab.line4();
    assert_eq!(line.send(2), 0);
    assert_eq!(guard.stats().flows, 1);
}

/// A layout whose control array had no words for what validators share: those begin with their defaults, all others stay as they were.
#[test]
fn budgets_that_an_older_layout_had_no_words_for_begin_with_their_defaults() {
    let Some(lab) = Lab::new("budgets_that_an_older_layout_had_no_words_for_begin_with_their_defaults") else { return };
    let mut guard = lab.start(&["--mode", "enforce", "--budget", "udp_source=500/900,validators=700/800"]);
    let before = budgets(&guard);
    assert!(guard.signal(Signal::SIGTERM).success());
    let older = age(&lab);
    let control = sys::open_pin(&older.join("CONTROL"), sys::READ_ONLY).unwrap();
    let words: Vec<u64> = (0..WORD_SHARES).map(|index| sys::lookup(control.as_fd(), &index).unwrap().unwrap()).collect();
    replace(&older, "CONTROL", &words);
    let guard = lab.start(&[]);
    let expect = |(name, rate, burst): &(String, u64, u64)| match name.as_str() {
        "validators" => (name.clone(), 1_000_000, 500_000),
        _ => (name.clone(), *rate, *burst),
    };
    assert_eq!(budgets(&guard), before.iter().map(expect).collect::<Vec<_>>());
    assert_eq!(guard.stats().mode, "enforce");
    lab.detach();
}
