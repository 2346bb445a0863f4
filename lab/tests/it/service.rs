//! One process: where it runs, as whom, with what, and how it ends.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::process::Identity;
use lab::supervise::{Change, RESTART_AFTER, Service, Spec};

use crate::ground::{LAB, await_that, namespaces};

fn spec(command: &[&str]) -> (tempfile::TempDir, Spec) {
    let dir = tempfile::tempdir().unwrap();
    let spec = Spec {
        launcher: PathBuf::from(LAB),
        command: command.iter().map(Into::into).collect(),
        folder: dir.path().to_path_buf(),
        netns: None,
        cgroup: None,
        uid: None,
        listener: None,
        log: dir.path().join("log"),
    };
    (dir, spec)
}

fn status(pid: u32, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim_start_matches(':').trim().to_owned()
}

/// Until the launcher has become the program.
fn await_program(pid: u32, name: &str) {
    await_that("the program runs", || std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name));
}

#[test]
fn a_node_has_no_rights_its_own_network_and_its_socket() {
    if !namespaces() {
        return;
    }
    let name = format!("ebpf-test-{}", std::process::id());
    lab::namespace::create(&name).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (_dir, mut spec) = spec(&["/bin/sleep", "600"]);
    spec.netns = Some(lab::namespace::path(&name));
    spec.uid = Some(60_001);
    spec.listener = Some(listener);
    let service = Service::start(spec, false).unwrap();
    let pid = service.pid();
    await_program(pid, "sleep");
    for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(pid, field), "0000000000000000", "{field}");
    }
    assert_eq!(status(pid, "Uid"), "60001\t60001\t60001\t60001");
    assert_eq!(status(pid, "Gid"), "60001\t60001\t60001\t60001");
    assert_eq!(status(pid, "Groups"), "");
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "SigBlk"), "0000000000000000");
    use std::os::unix::fs::MetadataExt;
    let network = std::fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino();
    assert_eq!(network, std::fs::metadata(lab::namespace::path(&name)).unwrap().ino());
    let passed = std::fs::read_link(format!("/proc/{pid}/fd/3")).unwrap();
    assert!(passed.to_string_lossy().starts_with("socket:"), "{passed:?}");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let variables: Vec<&[u8]> = environment.split(|byte| *byte == 0).collect();
    assert!(variables.contains(&format!("LISTEN_PID={pid}").as_bytes()) && variables.contains(&&b"LISTEN_FDS=1"[..]));
    drop(service);
    lab::namespace::delete(&name).unwrap();
    assert!(!lab::namespace::path(&name).exists());
}

#[test]
fn what_dies_is_started_again_after_the_pause() {
    let (_dir, spec) = spec(&["/bin/sleep", "600"]);
    let mut service = Service::start(spec, true).unwrap();
    let first = service.pid();
    lab::process::kill(first);
    let now = Instant::now();
    await_that("its death is seen", || matches!(service.poll(now).unwrap(), Some(Change::Died(_))));
    assert_eq!(service.pid(), 0);
    assert!(service.poll(now + RESTART_AFTER - Duration::from_millis(1)).unwrap().is_none());
    assert!(matches!(service.poll(now + RESTART_AFTER).unwrap(), Some(Change::Restarted)));
    assert!(service.pid() != 0 && service.pid() != first && service.restarts() == 1);
    service.terminate();
    service.finish();
    assert_eq!(service.pid(), 0);
}

#[test]
fn what_may_stay_dead_stays_dead() {
    let (_dir, spec) = spec(&["/bin/false"]);
    let mut service = Service::start(spec, false).unwrap();
    let now = Instant::now();
    await_that("its death is seen", || service.poll(now).unwrap().is_some());
    assert!(service.poll(now + 10 * RESTART_AFTER).unwrap().is_none());
}

#[test]
fn a_program_that_is_not_there_is_said_in_the_log() {
    let (dir, spec) = spec(&["/nowhere/program"]);
    let mut service = Service::start(spec, false).unwrap();
    await_that("its death is seen", || service.poll(Instant::now()).unwrap().is_some());
    assert!(std::fs::read_to_string(dir.path().join("log")).unwrap().contains("/nowhere/program"));
}

#[test]
fn the_kernel_ends_what_a_dead_runner_left() {
    // A shell plays the runner: it starts the process, tells its pid, and is killed.
    let script = format!("{LAB} launch --parent $$ -- /bin/sleep 600 & echo $!; wait");
    let mut runner = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(runner.stdout.take().unwrap()), &mut line).unwrap();
    let pid: u32 = line.trim().parse().unwrap();
    await_program(pid, "sleep");
    let process = Identity::of(pid).unwrap();
    assert!(process.is_alive());
    runner.kill().unwrap();
    runner.wait().unwrap();
    await_that("the process ends with its runner", || !process.is_alive());
}
