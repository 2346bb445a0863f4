//! The devnet as it ships: real nodes, real guards, real load, a real attacker. See docs/guide/devnet.md.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use guard::protocol::{Protocol, Request, Response, RowInfo};
use lab::state::{Node, Phase, State};
use lab::summary::Summary;

use crate::ground::{LAB, await_that, namespaces, real_programs};

/// One devnet at a time: each has timeouts of its own, and two cores feed one well.
static ALONE: Mutex<()> = Mutex::new(());

struct Devnet {
    runner: Option<Child>,
    _dir: tempfile::TempDir,
    folder: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Devnet {
    fn start(arguments: &str) -> Devnet {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("devnet");
        let runner = Command::new(LAB)
            .arg("devnet")
            .args(arguments.split_whitespace())
            .args(["--json", "--dir"])
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Devnet { runner: Some(runner), _dir: dir, folder, _alone: alone }
    }

    /// The state once it is what is awaited.
    fn await_state(&mut self, what: &str, seen: impl Fn(&State) -> bool) -> State {
        let mut state = None;
        await_that(what, || {
            if self.runner.as_mut().is_some_and(|runner| runner.try_wait().unwrap().is_some()) {
                panic!("the devnet ended before: {what}\n{}", self.tell());
            }
            state = State::read(&self.folder).ok().filter(|state| seen(state));
            state.is_some()
        });
        state.unwrap()
    }

    fn running(&mut self) -> State {
        self.await_state("the devnet runs", |state| state.state == Phase::Running)
    }

    /// The summary, with the logs' ends where something is wrong.
    fn summary(&mut self) -> Summary {
        let output = self.runner.take().unwrap().wait_with_output().unwrap();
        let summary = serde_json::from_slice(&output.stdout);
        summary.unwrap_or_else(|error| panic!("no summary: {error}\n{}\n{}", String::from_utf8_lossy(&output.stderr), self.tell()))
    }

    /// The ends of all logs.
    fn tell(&self) -> String {
        let mut text = String::new();
        for node in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            for log in ["node.log", "guard.log"].map(|name| node.path().join(name)) {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = said.lines().collect();
                text += &format!("{}\n{}\n", log.display(), lines[lines.len().saturating_sub(8)..].join("\n"));
            }
        }
        text
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        if let Some(mut runner) = self.runner.take() {
            lab::process::terminate(runner.id());
            let _ = runner.wait();
        }
    }
}

fn all_well(devnet: &mut Devnet, at_least: u64) -> Summary {
    let summary = devnet.summary();
    let all = format!("{summary:#?}\n{}", devnet.tell());
    assert!(summary.ok, "{all}");
    assert!(summary.agree && summary.blocks_finalized > 0, "{all}");
    assert_eq!(summary.transactions.r#final, summary.transactions.submitted, "{all}");
    assert!(summary.transactions.submitted >= at_least, "{all}");
    summary
}

fn ip(node: &Node) -> String {
    let namespace = node.namespace.as_ref().unwrap();
    let output = Command::new("ip").args(["-n", namespace, "-d", "link", "show", "eth0"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn field(pid: u32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim_start_matches(':').trim().to_owned()
}

/// Packets that the filter has seen and passed: which ports they are for depends on who dialled whom.
fn passed(node: &Node) -> u64 {
    let mut client = guard::Client::connect(node.guard_socket.as_ref().unwrap()).unwrap();
    let stats = client.stats(false).unwrap();
    stats.passed.values().sum::<u64>() + stats.out_of_scope
}

fn egress(node: &Node) -> guard::protocol::EgressInfo {
    let mut client = guard::Client::connect(node.guard_socket.as_ref().unwrap()).unwrap();
    client.stats(false).unwrap().egress.unwrap()
}

/// What a node's guard knows of the other validators: stake and share, packets a second, by label. A share is of flows to a protected
/// port: who was dialled over TCP has none here, but a row.
fn validators(node: &Node) -> BTreeMap<String, (u32, Option<u32>)> {
    let mut client = guard::Client::connect(node.guard_socket.as_ref().unwrap()).unwrap();
    let Response::Flows { flows, .. } = client.ask(&Request::Flows { skip: 0 }).unwrap() else { panic!("no flows") };
    flows.into_iter().filter_map(|flow| Some((flow.label, (flow.stake_ppm?, flow.share)))).collect()
}

/// All four have the same stake, and each guard knows it: a quarter of what validators share is each one's.
fn shares_are_by_stake(nodes: &[Node]) {
    let mut guaranteed = 0;
    for node in nodes {
        await_that("the guard knows three other validators", || validators(node).len() == 3);
        let known = validators(node);
        assert!(known.values().all(|(stake, share)| *stake == 250_000 && share.is_none_or(|share| share == 250_000)), "{known:?}");
        guaranteed += known.values().filter(|(_, share)| share.is_some()).count();
        // The kernel's TCP tells about each peer, whoever dialled.
        await_that("each peer over TCP has figures of the kernel's", || {
            let mut client = guard::Client::connect(node.guard_socket.as_ref().unwrap()).unwrap();
            let rows = client.stats(true).unwrap().rows;
            let over_tcp = |row: &RowInfo| row.endpoints.iter().any(|endpoint| endpoint.protocol == Protocol::Tcp);
            rows.iter().filter(|row| over_tcp(row)).all(|row| row.tcp.as_ref().is_some_and(|tcp| tcp.srtt_us.is_some()))
        });
    }
    // Of two nodes at least the one that was dialled guards the connection.
    assert!((6..=12).contains(&guaranteed), "{guaranteed}");
}

#[test]
fn four_guarded_validators_make_every_transaction_final() {
    let (true, Some(_)) = (namespaces(), real_programs()) else { return };
    let mut devnet = Devnet::start("--nodes 4 --duration 12 --tps 200");
    let state = devnet.running();
    for node in &state.nodes {
        assert_eq!(field(node.node_pid, "CapEff"), "0000000000000000");
        assert_eq!(field(node.node_pid, "CapBnd"), "0000000000000000");
        assert_eq!(node.xdp_mode, "native");
        // Its sockets are its own, and the guard keeps them from every private network but the devnet's.
        let group = std::fs::read_to_string(format!("/proc/{}/cgroup", node.node_pid)).unwrap();
        assert!(
            group.lines().any(|line| line.starts_with("0::/ebpf-devnet-") && line.ends_with(&format!("/{}", node.name))),
            "{group}"
        );
        let egress = egress(node);
        assert_eq!((egress.loopback, egress.allowed.len()), (true, 1));
        let link = ip(node);
        assert!(link.contains("prog/xdp") && !link.contains("xdpgeneric"), "{link}");
    }
    shares_are_by_stake(&state.nodes);
    verify_from_outside(&state.nodes[0]);
    for node in &state.nodes {
        let refused = egress(node).ranges.into_iter().filter(|(_, count)| count.denied + count.would_deny > 0).collect::<Vec<_>>();
        assert!(refused.is_empty(), "an honest node dialed {refused:?}");
    }
    let summary = all_well(&mut devnet, 12 * 200 / 2);
    assert_eq!(summary.log_errors, 0, "{:?}", summary.log_error_lines);
    // A node that dialled all others hears from them on ports of its own choice, which are out of the guard's scope.
    assert!(summary.packets.len() == 4 && summary.packets.values().all(|p| p.out_of_scope > 0), "{summary:#?}");
    let protected: u64 = summary.packets.values().flat_map(|packets| packets.passed.values()).sum();
    assert!(protected > 1_000, "{summary:#?}");
    assert!(summary.restarts.values().all(|count| *count == 0), "{summary:#?}");
}

/// The verifier that knows the chain from docs/spec/wire.md alone: it takes what is true and refuses every flipped bit.
fn verify_from_outside(node: &Node) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/api/tests/verifier/verify.py");
    let venv = std::env::var_os("EBPF_VENV").map(|folder| PathBuf::from(folder).join("bin/python3"));
    let candidates = venv.into_iter().chain([PathBuf::from("python3"), PathBuf::from("/usr/bin/python3")]);
    let able =
        |python: &PathBuf| Command::new(python).args(["-c", "import cryptography"]).output().is_ok_and(|o| o.status.success());
    let Some(python) = candidates.into_iter().find(able) else {
        assert!(std::env::var_os("CI").is_none(), "CI must have a python3 with cryptography (scripts/setup.sh --python)");
        eprintln!("skipped (1): no python3 with the package cryptography (scripts/setup.sh --python)");
        return;
    };
    let check = |more: &[&str]| -> Output {
        Command::new(&python).arg(&script).args(["--api", &node.api_url]).args(more).output().unwrap()
    };
    // "Could not be checked" is its answer as long as no transaction's proof is covered by a final header.
    await_that("a transaction can be verified from outside", || check(&[]).status.code() != Some(2));
    for more in [&[][..], &["--flip"]] {
        let output = check(more);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}");
    }
}

#[test]
fn a_killed_validator_and_a_killed_guard_come_back_where_they_were() {
    let (true, Some(_)) = (namespaces(), real_programs()) else { return };
    let mut devnet = Devnet::start("--nodes 4 --duration 20 --tps 100");
    let state = devnet.running();
    await_that("packets pass", || passed(&state.nodes[0]) > 100);

    // The guard: its filter stays, its successor goes on counting.
    let counted = passed(&state.nodes[0]);
    lab::process::kill(state.nodes[0].guard_pid.unwrap());
    let dead = devnet.await_state("the guard's death is seen", |state| state.nodes[0].guard_pid == Some(0));
    assert!(ip(&dead.nodes[0]).contains("prog/xdp"), "the filter stays attached");
    let back = devnet.await_state("the guard is started again", |state| state.nodes[0].guard_pid.is_some_and(|pid| pid != 0));
    await_that("the new guard answers", || guard::Client::connect(back.nodes[0].guard_socket.as_ref().unwrap()).is_ok());
    assert!(passed(&back.nodes[0]) >= counted, "counters go on");
    let mut client = guard::Client::connect(back.nodes[0].guard_socket.as_ref().unwrap()).unwrap();
    assert!(client.stats(false).unwrap().adopted);

    // The validator: three go on without it, it catches up.
    let killed = back.nodes[1].node_pid;
    lab::process::kill(killed);
    devnet.await_state("the validator is started again", |state| state.nodes[1].node_pid != 0 && state.nodes[1].node_pid != killed);
    let summary = all_well(&mut devnet, 20 * 100 / 2);
    assert_eq!((summary.restarts["node2/node"], summary.restarts["node1/guard"]), (1, 1));
    let (lowest, highest) = (summary.heights.values().min().unwrap(), summary.heights.values().max().unwrap());
    assert!(*lowest >= summary.blocks_finalized && *highest >= *lowest);
}

#[test]
fn bad_signatures_die_in_xdp_until_the_ban_ends() {
    let (true, Some(_)) = (namespaces(), real_programs()) else { return };
    let mut devnet = Devnet::start("--nodes 4 --tps 20");
    devnet.running();
    let attack = Command::new(LAB).args(["attack", "bad-signature", "--dir"]).arg(&devnet.folder).output().unwrap();
    let story = String::from_utf8_lossy(&attack.stdout).into_owned() + &String::from_utf8_lossy(&attack.stderr);
    assert!(attack.status.success(), "{story}\n{}", devnet.tell());
    assert_eq!(story.matches("\n  ok ").count(), 7, "{story}");
    lab::process::terminate(devnet.runner.as_ref().unwrap().id());
    let summary = all_well(&mut devnet, 20);
    let dropped = summary.packets["node1"].dropped.get("banned_bad_signature");
    assert!(dropped.is_some_and(|count| *count > 0), "{summary:#?}");
}

#[test]
fn a_flood_dies_in_xdp_and_every_transaction_becomes_final() {
    let (true, Some(_)) = (namespaces(), real_programs()) else { return };
    let mut devnet = Devnet::start("--nodes 4 --tps 50");
    devnet.running();
    let flood = ["attack", "flood", "--rate", "10000", "--seconds", "6", "--dir"];
    let attack = Command::new(LAB).args(flood).arg(&devnet.folder).output().unwrap();
    let story = String::from_utf8_lossy(&attack.stdout).into_owned() + &String::from_utf8_lossy(&attack.stderr);
    assert!(attack.status.success(), "{story}\n{}", devnet.tell());
    assert_eq!(story.matches("\n  ok ").count(), 8, "{story}");
    lab::process::terminate(devnet.runner.as_ref().unwrap().id());
    let summary = all_well(&mut devnet, 50);
    for (node, packets) in &summary.packets {
        let by_rate: u64 = packets.dropped.iter().filter(|(reason, _)| reason.starts_with("rate_")).map(|(_, count)| count).sum();
        assert!(by_rate > 0, "{node}: {packets:#?}");
        let banned = packets.dropped.iter().any(|(reason, count)| reason.starts_with("banned_") && *count > 0);
        assert!(!banned, "a spoofed address got somebody banned at {node}: {packets:#?}");
    }
}

#[test]
fn without_privileges_the_same_network_runs_on_loopback() {
    let Some(_) = real_programs() else { return };
    let mut devnet = Devnet::start("--nodes 4 --duration 6 --tps 50 --loopback --transport quic");
    let state = devnet.running();
    assert!(state.fabric.is_none() && state.nodes.iter().all(|node| node.guard_pid.is_none() && node.namespace.is_none()));
    let summary = all_well(&mut devnet, 6 * 50 / 2);
    assert_eq!(summary.log_errors, 0, "{:?}", summary.log_error_lines);
    assert!(summary.packets.is_empty());
}
