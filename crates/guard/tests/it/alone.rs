//! The guard alone: its file, reloads, watched bans, the service manager.

use crate::saving::escalated_hours;
use crate::support::{INTERFACE, Lab, MARKER4, PATIENCE, Running, SUSPECT4, skip, until};
use guard::{ErrorCode, Request, Response};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

impl Lab {
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("guard.toml")
    }

    fn ban_file(&self) -> PathBuf {
        self.folder.path().join("bans.txt")
    }

    /// Writes the file: what every test has, then what it adds.
    pub fn write(&self, protect: &str, keys: &str) {
        let (socket, bpffs, state) = (self.socket(), self.bpffs(), self.folder.path().join("state"));
        let text = format!(
            "interface = '{INTERFACE}'\ninstance = 'lab'\nsocket = '{}'\nbpffs = '{}'\nstate = '{}'\nprotect = [{protect}]\n{keys}",
            socket.display(),
            bpffs.display(),
            state.display()
        );
        fs::write(self.config(), text).unwrap();
    }

    /// A guard that knows nothing but its file.
    pub fn by_file(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-guard"));
        command.args(["run", "--netns", &self.inside.path(), "--config"]).arg(self.config());
        command
    }
}

fn reload(guard: &Running) -> Vec<String> {
    match guard.ask(&Request::Reload {}) {
        Response::Reloaded { changes } => changes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_watched_file_bans_and_lifts() {
    let Some(lab) = Lab::new("a_watched_file_bans_and_lifts") else { return };
    let path = lab.ban_file();
    fs::write(&path, "192.0.2.1 # somebody\n").unwrap();
    let ban_files = format!("mode = 'enforce'\n[[ban_files]]\npath = '{}'\nttl = '10m'\n", path.display());
    lab.write("'tcp/9000', 'udp/9000'", &ban_files);
    let guard = lab.launch(lab.by_file());
    let bans = || guard.client().bans().unwrap();
    assert_eq!(bans()[0].note, "bans.txt: somebody");
    let mut line = lab.line4();
    assert_eq!(line.send(2), 2);
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    writeln!(file, "not an address\n{SUSPECT4} 1h # ours").unwrap();
    drop(file);
    until("the appended ban", || (line.send(1) == 0).then_some(()));
    let ours = bans().into_iter().find(|ban| ban.address == SUSPECT4.parse().unwrap()).unwrap();
    assert_eq!((ours.offence, ours.note.as_str()), (types::Offence::Manual, "bans.txt: ours"));
    assert!(guard.stats().dropped["banned_manual"] > 0);
    fs::write(lab.folder.path().join("new"), "192.0.2.1 # somebody\n").unwrap();
    fs::rename(lab.folder.path().join("new"), &path).unwrap();
    until("the end of the ban", || (line.send(1) == 1).then_some(()));
    assert_eq!(bans().len(), 1);
}

#[test]
fn a_line_that_is_taken_again_is_no_ban_in_a_row() {
    let Some(lab) = Lab::new("a_line_that_is_taken_again_is_no_ban_in_a_row") else { return };
    let path = lab.ban_file();
    lab.write("'udp/9000'", &format!("mode = 'enforce'\n[[ban_files]]\npath = '{}'\nttl = '10m'\n", path.display()));
    let guard = lab.launch(lab.by_file());
    for note in ["first", "second", "third"] {
        fs::write(lab.folder.path().join("new"), format!("{SUSPECT4} # {note}\n")).unwrap();
        fs::rename(lab.folder.path().join("new"), &path).unwrap();
        until("the line", || guard.client().bans().unwrap().first()?.note.ends_with(note).then_some(()));
    }
    assert_eq!((escalated_hours(&guard), escalated_hours(&guard)), (1, 2), "what a request asked for counts");
}

#[test]
fn a_reload_under_traffic_takes_all_and_loses_nothing() {
    let Some(lab) = Lab::new("a_reload_under_traffic_takes_all_and_loses_nothing") else { return };
    lab.write("'udp/9000'", "");
    let guard = lab.launch(lab.by_file());
    let program = lab.program_id();
    let before = guard.stats();
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut line = lab.line4();
            let mut sent = 0;
            while !stop.load(SeqCst) || sent == 0 {
                assert_eq!(line.send(20), 20);
                sent += 21;
            }
            sent
        });
        for round in 0..10 {
            let (ports, keys) = match round % 2 {
                0 => (
                    "'udp/9000', 'udp/8000-8020'",
                    "event_shift = 0\nheartbeat_timeout = '5s'\n[budgets]\nudp_prefix = { rate = 1000000, burst = 1000000 }\n",
                ),
                _ => ("'udp/9000'", "mode = 'shadow'\nfloor = ['192.0.2.0/24']\n"),
            };
            lab.write(ports, keys);
            assert!(reload(&guard).len() >= 3);
        }
        stop.store(true, SeqCst);
        traffic.join().unwrap()
    });
    assert_eq!(lab.program_id(), program, "the attachment was not touched");
    let after = guard.stats();
    let count = |stats: &guard::protocol::Stats| stats.passed["stranger"] + stats.off + stats.dropped.values().sum::<u64>();
    assert_eq!(count(&after) - count(&before), sent, "every packet was counted, and as one to a protected port");
    assert_eq!(after.dropped.values().sum::<u64>(), 0);
}

#[test]
fn what_a_reload_changes_holds_from_the_next_packet_on() {
    let Some(lab) = Lab::new("what_a_reload_changes_holds_from_the_next_packet_on") else { return };
    lab.write("'udp/9001'", "mode = 'enforce'\n");
    let mut guard = lab.launch(lab.by_file());
    guard.ban(SUSPECT4, 600_000, types::Offence::Manual);
    let mut line = lab.line4();
    assert_eq!(line.send(2), 2, "9000 is not protected yet");
    lab.write("'udp/8998-9001'", "mode = 'enforce'\n");
    assert_eq!(reload(&guard), ["protect = udp/8998-9001"]);
    assert_eq!(line.send(2), 0);
    assert_eq!(guard.stats().protect, ["udp/8998-9001"]);
    // A command since then stays, unless the file speaks of it.
    guard.ask(&Request::Mode { mode: "shadow".into() });
    assert_eq!(reload(&guard), Vec::<String>::new());
    assert_eq!(line.send(2), 2);
    // SIGHUP is the same: the floor takes the ban away.
    lab.write("'udp/8998-9001'", &format!("mode = 'enforce'\nfloor = ['{SUSPECT4}/32']\n"));
    kill(Pid::from_raw(guard.child.id() as i32), Signal::SIGHUP).unwrap();
    until("the new floor", || (guard.stats().bans == 0).then_some(()));
    assert_eq!(guard.refusal(&crate::support::ban(SUSPECT4, 1000, types::Offence::Manual)).0, ErrorCode::Floor);
    assert!(guard.child.try_wait().unwrap().is_none());
}

#[test]
fn a_reload_that_cannot_be_whole_is_nothing() {
    let Some(lab) = Lab::new("a_reload_that_cannot_be_whole_is_nothing") else { return };
    lab.write("'udp/9000'", "mode = 'shadow'\n");
    let guard = lab.launch(lab.by_file());
    let before = guard.stats();
    let budgets = || guard.ask(&Request::Budgets {});
    let old = budgets();
    let refused = |word: &str| {
        let (code, message) = guard.refusal(&Request::Reload {});
        assert!(code == ErrorCode::BadRequest && message.contains(word), "{message}");
        let after = guard.stats();
        assert_eq!((after.mode, after.protect, budgets()), (before.mode.clone(), before.protect.clone(), old.clone()));
    };
    lab.write("'udp/9001'", "mode = 'enforce'\nxdp = 'generic'\n[budgets]\nrest = { rate = 1, burst = 1 }\n");
    refused("xdp can't change");
    lab.write("'udp/9001'", "mode = 'enforce'\nmetrics = '127.0.0.1:1'\n");
    refused("metrics can't change");
    lab.write("'udp/9001'", "mode = 'on'\n");
    refused("guard.toml:7: mode: ");
    fs::remove_file(lab.config()).unwrap();
    refused("can't be read");
    drop(guard);
    let alone = lab.start(&[]);
    assert!(alone.refusal(&Request::Reload {}).1.contains("without --config"));
}

#[test]
fn the_service_manager_is_told() {
    let Some(lab) = Lab::new("the_service_manager_is_told") else { return };
    lab.write("'udp/9000'", "");
    let path = lab.folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = lab.by_file();
    command.env("NOTIFY_SOCKET", &path);
    let mut guard = lab.launch(command);
    let next = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let first = next();
    assert!(first.contains("READY=1\n") && first.contains(&format!("STATUS=guarding {INTERFACE}")), "{first}");
    assert_eq!(next(), "WATCHDOG=1\n");
    assert!(guard.signal(Signal::SIGTERM).success());
    until("the last word", || (next() == "STOPPING=1\n").then_some(()));
}

#[test]
fn a_group_may_write_and_others_may_not() {
    let Some(lab) = Lab::new("a_group_may_write_and_others_may_not") else { return };
    lab.write("'udp/9000'", "allow_group = [54321]\n");
    let _guard = lab.launch(lab.by_file());
    // The folder of a test is its owner's alone.
    fs::set_permissions(lab.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let ban = |groups: &str| {
        let binary = lab.folder.path().join("ebpf-guard");
        fs::copy(env!("CARGO_BIN_EXE_ebpf-guard"), &binary).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "54322", "--regid", "54322", "--groups", groups]).arg(binary);
        command.args(["ban", MARKER4, "--ttl", "60s", "--socket"]).arg(lab.socket());
        command.output().unwrap()
    };
    let refused = ban("54320");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("uid 54322 may not"), "{refused:?}");
    let taken = ban("54320,54321");
    assert!(taken.status.success(), "{taken:?}");
}

#[test]
fn top_prints_a_frame_of_a_real_guard() {
    let Some(lab) = Lab::new("top_prints_a_frame_of_a_real_guard") else { return };
    lab.write("'tcp/9000', 'udp/9000'", "mode = 'enforce'\nevent_shift = 0\n");
    let guard = lab.launch(lab.by_file());
    guard.ban(SUSPECT4, 600_000, types::Offence::Replay);
    guard.ask(&crate::support::flow(MARKER4, 4001, guard::FlowKind::Known, "peer-of-ours"));
    let stop = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut line = lab.line4();
            while !stop.load(SeqCst) {
                assert_eq!(line.send(10), 0);
            }
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-guard"));
        let output =
            command.args(["top", "--once", "--width", "120", "--height", "40", "--socket"]).arg(lab.socket()).output().unwrap();
        stop.store(true, SeqCst);
        traffic.join().unwrap();
        output
    });
    let frame = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(frame.lines().count(), 40);
    for part in ["ENFORCE", INTERFACE, "XDP native", "tcp/9000 udp/9000", "banned_replay", SUSPECT4, "100 %", "peer-of-ours"] {
        assert!(frame.contains(part), "no {part} in\n{frame}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-guard"));
    let refused = command.args(["top", "--socket"]).arg(lab.socket()).env("TERM", "dumb").output().unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("top --once"));
}

#[test]
fn the_unit_file_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let units = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    let mut command = Command::new("systemd-analyze");
    command.arg("verify");
    for name in ["ebpf-guard.service", "run-ebpfguard-bpf.mount"] {
        // The binary is not installed here: any program in its place.
        let text = fs::read_to_string(units.join(name)).unwrap().replace("/usr/bin/ebpf-guard", "/bin/true");
        fs::write(folder.path().join(name), text).unwrap();
        command.arg(folder.path().join(name));
    }
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{said}");
        }
        Err(error) => skip("systemd-analyze verify", &error.to_string()),
    }
}
