//! Watched files that are lists: swapped as a whole, under traffic.

use crate::support::{Lab, Running, SUSPECT4, until};
use guard::{Request, Response, protocol::ListInfo};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
};

/// Prefixes of the long list.
const PREFIXES: u32 = 1_000_000;

fn config(lab: &Lab, file: &Path, keys: &str) -> PathBuf {
    let path = lab.folder.path().join("guard.toml");
    let ban_file = format!("[[ban_files]]\npath = '{}'\nttl = '10m'\nas = 'list'\n", file.display());
    fs::write(&path, format!("mode = 'enforce'\n{keys}{ban_file}")).unwrap();
    path
}

/// A guard with this file beside the flags that every guard here has.
fn command(lab: &Lab, config: &Path) -> Command {
    let mut command = lab.command(&[]);
    command.arg("--config").arg(config);
    command
}

fn lists(guard: &Running) -> Vec<ListInfo> {
    match guard.ask(&Request::Lists {}) {
        Response::Lists { lists } => lists,
        other => panic!("{other:?}"),
    }
}

/// Puts a text in the file's place, as `mv` does.
fn swap(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, path).unwrap();
}

/// Waits until the list holds so many prefixes.
fn in_force(guard: &Running, prefixes: u64) -> ListInfo {
    until("the list", || lists(guard).into_iter().find(|list| list.name == "feed" && list.prefixes == prefixes))
}

/// A million prefixes everywhere but in 10/8, and the suspect.
fn long() -> String {
    let (mut text, mut number) = (String::new(), 1u32);
    for _ in 0..PREFIXES {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let first = (number >> 24) as u8 | 0x80;
        writeln!(text, "{first}.{}.{}.0/{}", number >> 16 & 255, number >> 8 & 255, 20 + number % 5).unwrap();
    }
    text + SUSPECT4
}

#[test]
fn a_file_that_is_swapped_under_traffic_lets_nobody_through_who_stays_on_it() {
    let Some(lab) = Lab::new("a_file_that_is_swapped_under_traffic_lets_nobody_through_who_stays_on_it") else { return };
    let path = lab.folder.path().join("feed.txt");
    let short = format!("# a feed\n{SUSPECT4}/32 ; why\n192.0.2.0/24\n");
    fs::write(&path, &short).unwrap();
    let config = config(&lab, &path, "");
    let guard = lab.launch(command(&lab, &config));
    assert_eq!(in_force(&guard, 2).skipped, 0);
    let (long, stop, rounds) = (long(), AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut line = lab.line4();
            while !stop.load(SeqCst) {
                assert_eq!(line.send(20), 0, "every version of the file names the suspect");
                rounds.fetch_add(1, SeqCst);
            }
        });
        let passed = || {
            let seen = rounds.load(SeqCst);
            until("traffic", || (rounds.load(SeqCst) > seen + 1).then_some(()));
        };
        passed();
        swap(&path, &long);
        in_force(&guard, u64::from(PREFIXES) + 1);
        passed();
        swap(&path, &short);
        in_force(&guard, 2);
        passed();
        swap(&path, &format!("198.51.100.0/24\n{SUSPECT4}\n203.0.113.0/24\n"));
        in_force(&guard, 3);
        passed();
        stop.store(true, SeqCst);
    });
    let list = in_force(&guard, 3);
    assert!(list.hits > 0);
    assert_eq!(guard.stats().dropped["banned_list"], list.hits, "a list counts on over its readings");
    assert_eq!(guard.stats().bans, 0, "a list is no ban");
    // A line less, and then no file: who is not on it passes, and a missing file changes nothing.
    let mut line = lab.line4();
    swap(&path, "192.0.2.0/24\nnonsense\n");
    assert_eq!((in_force(&guard, 1).skipped, in_force(&guard, 1).skipped_lines), (1, vec![2]));
    assert_eq!(line.send(3), 3);
    fs::remove_file(&path).unwrap();
    swap(&path, "<html>not found</html>\n");
    swap(&path, &short);
    in_force(&guard, 2);
    assert_eq!(line.send(3), 0);
    swap(&path, "# nothing\n");
    until("the end of an emptied list", || lists(&guard).is_empty().then_some(()));
    assert_eq!(line.send(3), 3);
    lab.detach();
}

#[test]
fn a_list_of_a_file_outlives_the_guard_and_ends_with_its_entry() {
    let Some(lab) = Lab::new("a_list_of_a_file_outlives_the_guard_and_ends_with_its_entry") else { return };
    let path = lab.folder.path().join("feed.txt");
    fs::write(&path, format!("{SUSPECT4}\n")).unwrap();
    let file = config(&lab, &path, "");
    let mut guard = lab.launch(command(&lab, &file));
    let mut line = lab.line4();
    assert_eq!(line.send(3), 0);
    // Nobody reads the file, or knows of it: what it said last holds.
    guard.signal(nix::sys::signal::Signal::SIGKILL);
    fs::remove_file(&path).unwrap();
    assert_eq!(line.send(3), 0);
    let guard = lab.launch(command(&lab, &file));
    assert_eq!(line.send(3), 0);
    // The floor grows over it and shrinks again: files are heard again.
    fs::write(&path, format!("{SUSPECT4}\n192.0.2.0/24\n")).unwrap();
    in_force(&guard, 2);
    config(&lab, &path, &format!("floor = ['{SUSPECT4}']\n"));
    guard.ask(&Request::Reload {});
    assert_eq!((line.send(3), lists(&guard).len()), (3, 1));
    config(&lab, &path, "");
    guard.ask(&Request::Reload {});
    assert_eq!(line.send(3), 0);
    fs::write(&file, "mode = 'enforce'\n").unwrap();
    guard.ask(&Request::Reload {});
    assert_eq!((line.send(3), lists(&guard).len()), (3, 0));
    lab.detach();
}
