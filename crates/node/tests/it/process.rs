//! Nodes as child processes. They end with the test.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use types::{AccountKey, Amount, Epoch, EpochRecord, GenesisRecord, Height, Params, PublicKey, Stake, UnixMs, Validator};

const NODE: &str = env!("CARGO_BIN_EXE_ebpf-node");
/// Longer than anything here takes on a busy machine; who waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Polls a condition.
pub fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs `ebpf-node` to its end.
pub fn cli(arguments: &[&str]) -> Output {
    Command::new(NODE).args(arguments).output().unwrap()
}

/// A home with keys; its configuration listens on free ports.
pub fn home(parent: &Path, name: &str, validator: bool) -> String {
    let home = parent.join(name).display().to_string();
    let mut arguments = vec!["init", "--home", &home, "--name", name];
    if !validator {
        arguments.push("--no-validator");
    }
    assert!(cli(&arguments).status.success());
    edit(
        &home,
        &[("0.0.0.0/tcp/9000", "127.0.0.1/tcp/0"), ("0.0.0.0/udp/9000", "127.0.0.1/udp/0"), ("127.0.0.1:8545", "127.0.0.1:0")],
    );
    edit(&home, &[("format = \"text\"", "format = \"json\""), ("block_interval_min_ms = 25", "block_interval_min_ms = 1")]);
    home
}

/// Replaces texts in a home's configuration; each must be there.
pub fn edit(home: &str, changes: &[(&str, &str)]) {
    let path = Path::new(home).join("node.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    std::fs::write(path, text).unwrap();
}

/// The public keys of a home.
pub fn keys(home: &str) -> serde_json::Value {
    serde_json::from_slice(&cli(&["keys", "show", "--home", home, "--json"]).stdout).unwrap()
}

/// A chain with these validators and some rich development accounts.
pub fn genesis(validators: &[PublicKey], accounts: u32) -> GenesisRecord {
    let mut validators: Vec<Validator> = validators.iter().map(|key| Validator { key: *key, weight: Stake(1) }).collect();
    validators.sort_by_key(|validator| validator.key);
    let mut accounts: Vec<_> =
        (0..accounts).map(|i| (AccountKey::development(i).public().address(), Amount(1_000_000_000))).collect();
    accounts.sort();
    let epoch = |number: u64| EpochRecord {
        epoch: Epoch(number),
        first_height: Height(1 + number * 200),
        length: 200,
        version: 1,
        params: Params::default(),
        validators: validators.clone(),
    };
    GenesisRecord { time: UnixMs(1), accounts, epochs: [epoch(0), epoch(1)] }
}

/// A running node.
pub struct Node {
    child: Child,
    /// The base URL of its API.
    pub api: String,
}

impl Node {
    /// Starts a home's node and waits until its API listens.
    pub fn start(home: &str) -> Node {
        let mut child = Command::new(NODE).args(["start", "--home", home]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let api = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the node ended before its API listened:\n{seen}");
            seen.push_str(&line);
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if event["message"] == "API" {
                break format!("http://{}", event["address"].as_str().unwrap());
            }
        };
        // Read on, so that the node never waits for a full pipe.
        std::thread::spawn(move || std::io::copy(&mut lines.by_ref(), &mut std::io::sink()));
        Node { child, api }
    }

    /// GET, as JSON; null while it does not answer.
    pub fn get(&self, path: &str) -> serde_json::Value {
        let answer = ureq::get(format!("{}{path}", self.api)).call();
        answer.ok().and_then(|mut answer| serde_json::from_reader(answer.body_mut().as_reader()).ok()).unwrap_or_default()
    }

    /// A number of `/api/v1/node/info`.
    pub fn number(&self, field: &str) -> u64 {
        self.get("/api/v1/node/info")[field].as_u64().unwrap_or(0)
    }

    /// Kills it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
