//! The Python verifier against the vectors and against the API; it must also see every lie.
//!
//! It needs `cryptography`, in the interpreter of `$EBPF_VENV` or in `python3`. Without it these tests are skipped and say
//! so; where `CI=true` that is a failure.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tokio::sync::oneshot;

use crate::backend::{Frozen, Lie, file, vectors};

fn python() -> Option<PathBuf> {
    let venv = std::env::var_os("EBPF_VENV").map(|folder| PathBuf::from(folder).join("bin/python3"));
    let candidates = venv.into_iter().chain([PathBuf::from("python3")]);
    let can_import = |python: &PathBuf| {
        let output = Command::new(python).args(["-c", "import cryptography"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let found = candidates.into_iter().find(can_import);
    if found.is_none() {
        let reason = "no python3 with the package `cryptography`; scripts/setup.sh installs one";
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{reason}");
        eprintln!("SKIPPED 1 test: {reason}");
    }
    found
}

fn run(python: &Path, arguments: &[&str]) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verifier/verify.py");
    Command::new(python).arg(script).args(arguments).output().unwrap()
}

/// Exit code, and all that was said.
fn outcome(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_vectors_hold_and_no_flipped_bit_does() {
    let Some(python) = python() else { return };
    let folder = vectors();
    let (code, text) = outcome(&run(&python, &["--vectors", folder.to_str().unwrap(), "--flip"]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("flipped bits") && text.contains("wrong proofs refused"), "{text}");
}

/// The verifier's own verdict hangs on the files: each of these changes must turn it.
#[test]
fn changed_vectors_are_refused() {
    let Some(python) = python() else { return };
    for (name, pointer) in [
        ("hashes.json", "/tagged/0/hash"),
        ("merkle.json", "/trees/5/root"),
        ("signatures.json", "/signatures/18/signature"),
        ("chain.json", "/blocks/0/header/body_root"),
        ("chain.json", "/batches/1/transactions/0/signature"),
        ("chain.json", "/states/2/leaves/3/value_bytes"),
        ("proofs.json", "/finality/0/proof/certificate/signatures/1"),
        ("proofs.json", "/transaction/3/proof/path/siblings/0"),
        ("proofs.json", "/state/2/proof/leaf/value"),
        ("messages.json", "/handshake/signature"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(vectors()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let mut value = file(name);
        let text = value.pointer_mut(pointer).unwrap();
        let flipped = text.as_str().unwrap().to_owned();
        let first = u8::from_str_radix(&flipped[..2], 16).unwrap() ^ 1;
        *text = format!("{first:02x}{}", &flipped[2..]).into();
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        let (code, text) = outcome(&run(&python, &["--vectors", folder.path().to_str().unwrap()]));
        assert_eq!(code, Some(1), "{name}{pointer}: {text}");
        assert!(text.contains("REFUSED"), "{text}");
    }
}

/// Serves a chain and runs the verifier on it.
async fn verify(python: &Path, lie: Lie, arguments: &[&str]) -> (Option<i32>, String) {
    let router = api::router(Frozen::new(lie), &api::Config::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(api::serve(listener, router, api::Config::default(), async { _ = stopped.await }));
    let (python, arguments) = (python.to_owned(), arguments.iter().map(|&each| each.to_owned()).collect::<Vec<_>>());
    let output = tokio::task::spawn_blocking(move || {
        let mut all = vec!["--api", &url];
        all.extend(arguments.iter().map(String::as_str));
        run(&python, &all)
    });
    let output = output.await.unwrap();
    stop.send(()).unwrap();
    server.await.unwrap();
    outcome(&output)
}

#[tokio::test]
async fn a_served_chain_is_verified() {
    let Some(python) = python() else { return };
    let chain = file("chain.json")["genesis"]["chain_id"].as_str().unwrap().to_owned();
    // The last block with proved transactions: in epoch 1, proved by a header of epoch 2, whose record genesis does not hold.
    let (code, text) = verify(&python, Lie::None, &["--chain-id", &chain, "--flip"]).await;
    assert_eq!(code, Some(0), "{text}");
    for what in ["block 7 ", "Merkle roots", "under the receipts root", "absent after height", "balance ", "all refused"] {
        assert!(text.contains(what), "{what} in {text}");
    }
    let (code, text) = verify(&python, Lie::None, &["--height", "3"]).await;
    assert_eq!(code, Some(0), "{text}");
    // Block 6 has no transaction, that of block 9 is not covered yet, block 11 does not exist: neither verified nor refused.
    for height in ["6", "9", "11"] {
        let (code, text) = verify(&python, Lie::None, &["--height", height]).await;
        assert_eq!(code, Some(2), "{text}");
    }
}

#[tokio::test]
async fn every_lie_is_seen() {
    let Some(python) = python() else { return };
    let chain = file("chain.json")["genesis"]["chain_id"].as_str().unwrap().to_owned();
    let lies =
        [Lie::Genesis, Lie::Epoch, Lie::Header, Lie::Body, Lie::Certificate, Lie::Batch, Lie::Receipt, Lie::Balance, Lie::Absence];
    for lie in lies {
        let (code, text) = verify(&python, lie, &["--chain-id", &chain]).await;
        assert_eq!(code, Some(1), "{lie:?}: {text}");
    }
    let (code, text) = verify(&python, Lie::None, &["--chain-id", &"00".repeat(32)]).await;
    assert_eq!(code, Some(1), "another chain: {text}");
}
