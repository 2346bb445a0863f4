//! The journal's bytes are frozen: a journal of this version must be read by every later one.

use signer::{Attach, Signer};
use types::{Certificate, Kind, Seat, Stake, Validator, ValidatorSet, View};

use crate::memory::Memory;
use crate::rules::{about, finality, key};

const JOURNAL_V1: &str = include_str!("../fixtures/journal-v1.hex");

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.as_bytes().chunks(64).map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect()
}

fn notarization(signer: &Signer<Memory>, signature: types::Signature) -> Certificate {
    let set = ValidatorSet::new(types::Epoch(1), vec![Validator { key: signer.public(), weight: Stake(1) }]);
    Certificate::assemble(&set, about(Kind::Notarize, 1, 3, 7), &[(Seat(0), signature)])
}

#[test]
fn version_1_is_frozen() {
    let disk = Memory::default();
    let config = signer::Config { rewrite_bytes: 0, ..signer::Config::default() };
    let (mut signer, _) = Signer::open_with(key(), disk.clone(), config).unwrap();
    assert!(signer.storage_at(None));
    // A cut, so that the header shows one.
    signer.cut(&finality(1, 2)).unwrap();
    let vote = signer.sign(about(Kind::Notarize, 1, 3, 7), Attach::default()).unwrap();
    let certificate = Some(notarization(&signer, vote.signature));
    signer.sign(about(Kind::Finalize, 1, 3, 7), Attach { certificate, block: None }).unwrap();
    let bytes = disk.0.borrow().durable.clone();
    assert_eq!(hex(&bytes), JOURNAL_V1);

    let (_, records) = Signer::open(key(), disk).unwrap();
    let said: Vec<_> = records.iter().map(|record| (record.signed.statement.kind, record.signed.statement.view)).collect();
    assert_eq!(said, [(Kind::Notarize, View(3)), (Kind::Finalize, View(3))]);
    assert_eq!(records[0].signed, vote);
    assert!(records[1].certificate.is_some());
}
