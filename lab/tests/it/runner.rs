//! The runner with placeholders for nodes: wires, homes, files, and what it leaves behind, whatever ends it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lab::namespace;
use lab::process::Identity;
use lab::state::{Phase, State};

use crate::ground::{LAB, await_that, namespaces, placeholder};

fn start(bin: &Path, dir: &Path) -> Child {
    Command::new(LAB)
        .args(["devnet", "--nodes", "2", "--no-guard", "--tps", "0", "--accounts", "2", "--bin-dir"])
        .arg(bin)
        .arg("--dir")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn started(dir: &Path) -> State {
    let mut state = None;
    await_that("the devnet's processes run", || {
        state = State::read(dir).ok().filter(|state| state.nodes.iter().all(|node| node.node_pid != 0));
        state.is_some()
    });
    state.unwrap()
}

fn nothing_is_left(state: &State) {
    let prefix = &state.fabric.as_ref().unwrap().prefix;
    let number = prefix.rsplit('-').next().unwrap();
    assert_eq!(namespace::list(&format!("{prefix}-")), Vec::<String>::new());
    assert!(!Path::new("/run/ebpf-devnet").join(number).exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&format!("/run/ebpf-devnet/{number}/")));
}

fn ping(from: &str, to: &str) -> bool {
    let netns = namespace::path(from);
    let program = ["ping", "-c", "1", "-W", "5", to];
    Command::new("nsenter").arg(format!("--net={}", netns.display())).args(program).output().is_ok_and(|out| out.status.success())
}

#[test]
fn a_devnet_is_wired_and_leaves_nothing_when_asked_to_stop() {
    if !namespaces() {
        return;
    }
    let (bin, dir) = (placeholder(), tempfile::tempdir().unwrap());
    let folder = dir.path().join("devnet");
    let mut runner = start(bin.path(), &folder);
    let state = started(&folder);
    let [first, second] = &state.nodes[..] else { panic!("two nodes") };
    assert_eq!((first.address.to_string(), second.address.to_string()), ("10.77.0.11".into(), "10.77.0.12".into()));
    assert!(ping(first.namespace.as_ref().unwrap(), "10.77.0.12"), "the fabric connects the nodes");
    let home = std::fs::metadata(folder.join("node2")).unwrap();
    assert_eq!((home.uid(), home.mode() & 0o777), (60_002, 0o700));
    let config = std::fs::read_to_string(folder.join("node1/node.toml")).unwrap();
    assert!(config.contains(&format!("/ip4/10.77.0.12/tcp/9000/p2p/{}", second.peer_id)), "{config}");
    // The API's socket is the host's: whoever connects waits for the node in the kernel's queue.
    let url = first.api_url.strip_prefix("http://").unwrap();
    std::net::TcpStream::connect(url).unwrap();

    let processes: Vec<Identity> = state.nodes.iter().filter_map(|node| Identity::of(node.node_pid)).collect();
    assert_eq!(processes.len(), 2);
    lab::process::terminate(runner.id());
    runner.wait().unwrap();
    assert!(processes.iter().all(|process| !process.is_alive()));
    nothing_is_left(&state);
    assert_eq!(State::read(&folder).unwrap().state, Phase::Stopped);
    assert!(folder.join("summary.json").exists());
}

#[test]
fn the_next_runner_cleans_what_a_killed_one_left() {
    if !namespaces() {
        return;
    }
    let (bin, dir) = (placeholder(), tempfile::tempdir().unwrap());
    let mut killed = start(bin.path(), &dir.path().join("first"));
    let left = started(&dir.path().join("first"));
    let processes: Vec<Identity> = left.nodes.iter().filter_map(|node| Identity::of(node.node_pid)).collect();
    killed.kill().unwrap();
    killed.wait().unwrap();
    let names: Vec<&String> = left.nodes.iter().filter_map(|node| node.namespace.as_ref()).collect();
    assert!(names.iter().all(|name| namespace::path(name).exists()), "a killed runner can't clean up");

    let mut next = start(bin.path(), &dir.path().join("second"));
    let state = started(&dir.path().join("second"));
    assert!(processes.iter().all(|process| !process.is_alive()));
    let ours: Vec<&String> = state.nodes.iter().filter_map(|node| node.namespace.as_ref()).collect();
    let stale = names.iter().filter(|name| !ours.contains(name) && namespace::path(name).exists());
    assert_eq!(stale.count(), 0);
    lab::process::terminate(next.id());
    next.wait().unwrap();
    nothing_is_left(&state);
}
