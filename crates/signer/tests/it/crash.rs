//! A signer in another process is killed without warning; its journal must know every signature that it gave away.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use signer::file::FileDisk;
use signer::{Attach, OpenError, SignError, Signer, key};
use types::Kind;

use crate::rules::about;

const FOLDER: &str = "SIGNER_TEST_FOLDER";

fn open(folder: &Path) -> (Signer<FileDisk>, Vec<signer::Record>) {
    let key = key::load(&folder.join("validator.key")).unwrap();
    let disk = FileDisk::open(&folder.join("sign.journal")).unwrap();
    let (mut signer, records) = Signer::open(key, disk).unwrap();
    assert!(signer.storage_at(None));
    (signer, records)
}

/// The other process: signs view after view and names each on a line once it holds the signature.
#[test]
#[ignore = "run by kill_loses_no_signature"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let (mut signer, records) = open(Path::new(&folder));
    let first = records.len() as u64 + 1;
    let mut out = std::io::stdout().lock();
    for view in first..first + 100_000 {
        signer.sign(about(Kind::Notarize, 0, view, 1), Attach::default()).unwrap();
        writeln!(out, "signed {view}").unwrap();
    }
}

#[test]
fn kill_loses_no_signature() {
    let folder = tempfile::tempdir().unwrap();
    key::create(&folder.path().join("validator.key")).unwrap();
    let mut last = 0;
    for round in 1..=3u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::child", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // The first signature shares a line with the test's own words.
        let views = lines.filter_map(|line| line.rsplit_once("signed ").and_then(|(_, view)| view.parse::<u64>().ok()));
        let mut killed = false;
        for view in views {
            last = view;
            if !killed && view >= round * 20 {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed);
        let (mut signer, records) = open(folder.path());
        assert!(records.len() as u64 >= last, "view {last} was signed, {} records", records.len());
        for view in [1, last] {
            let other = signer.sign(about(Kind::Notarize, 0, view, 2), Attach::default());
            assert!(matches!(other, Err(SignError::Contradiction)));
        }
    }
}

#[test]
fn one_key_file_has_one_signer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("validator.key");
    key::create(&path).unwrap();
    let (first, _) = open(folder.path());
    // Another data folder, the same key file.
    let disk = FileDisk::open(&folder.path().join("other.journal")).unwrap();
    let second = Signer::open(key::load(&path).unwrap(), disk);
    assert!(matches!(second, Err(OpenError::Key(key::KeyError::InUse(_)))));
    assert!(FileDisk::open(&folder.path().join("sign.journal")).is_err(), "and the journal is locked as well");
    drop(first);
    open(folder.path());
}

#[test]
fn a_flipped_byte_on_disk_stops() {
    let folder = tempfile::tempdir().unwrap();
    key::create(&folder.path().join("validator.key")).unwrap();
    let (mut signer, _) = open(folder.path());
    for view in 1..=3 {
        signer.sign(about(Kind::Notarize, 0, view, 1), Attach::default()).unwrap();
    }
    drop(signer);
    let path = folder.path().join("sign.journal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let key = key::load(&folder.path().join("validator.key")).unwrap();
    let opened = Signer::open(key, FileDisk::open(&path).unwrap());
    assert!(matches!(opened, Err(OpenError::Damaged(69))));
}
