//! What is signed and what is refused, over a disk in memory.

use proptest::prelude::*;
use signer::{Attach, Config, OpenError, Plain, Record, SignError, Signer, ValidatorKey};
use types::{
    BlockHash, Certificate, ChainId, Epoch, Hash, Kind, PublicKey, Seat, SignedStatement, Stake, Statement, Validator,
    ValidatorSet, View,
};

use crate::memory::Memory;

pub fn key() -> ValidatorKey {
    ValidatorKey::from_seed([9; 32])
}

pub fn about(kind: Kind, epoch: u64, view: u64, digest: u8) -> Statement {
    let chain = ChainId::default();
    if kind == Kind::Nullify {
        return Statement::nullify(chain, Epoch(epoch), View(view));
    }
    let digest = BlockHash(Hash([digest; 32]));
    Statement { chain, epoch: Epoch(epoch), view: View(view), kind, parent_view: View(view - 1), digest }
}

pub fn finality(epoch: u64, view: u64) -> Certificate {
    let set = ValidatorSet::new(Epoch(epoch), vec![Validator { key: key().public(), weight: Stake(1) }]);
    let statement = about(Kind::Finalize, epoch, view, 1);
    Certificate::assemble(&set, statement, &[(Seat(0), types::Signature([0; 64]))])
}

fn open(disk: &Memory, tip: Option<&Certificate>) -> (Signer<Memory>, Vec<Record>) {
    let config = Config { rewrite_bytes: 600, ..Config::default() };
    let (mut signer, records) = Signer::open_with(key(), disk.clone(), config).unwrap();
    signer.storage_at(tip);
    (signer, records)
}

fn sign(signer: &mut Signer<Memory>, statement: Statement) -> Result<SignedStatement, SignError> {
    signer.sign(statement, Attach::default())
}

#[test]
fn signs_durably_and_once() {
    let disk = Memory::default();
    let (mut signer, records) = open(&disk, None);
    assert!(records.is_empty());
    let statement = about(Kind::Notarize, 0, 1, 1);
    let signed = sign(&mut signer, statement).unwrap();
    assert_eq!(signed.verify(), Ok(()));
    assert_eq!(disk.0.borrow().syncs, 1, "one sync a vote");
    assert_eq!(sign(&mut signer, statement).unwrap(), signed);
    assert_eq!(disk.0.borrow().syncs, 1, "the same again costs no record");
    disk.lose_power(0);
    let (mut signer, records) = open(&disk, None);
    assert_eq!(records.iter().map(|record| record.signed).collect::<Vec<_>>(), [signed]);
    assert_eq!(sign(&mut signer, statement).unwrap(), signed);
}

#[test]
fn refuses_contradictions_also_after_a_restart() {
    let pairs = [
        (about(Kind::Propose, 0, 5, 1), about(Kind::Propose, 0, 5, 2), true),
        (about(Kind::Notarize, 0, 5, 1), about(Kind::Notarize, 0, 5, 2), true),
        (about(Kind::Finalize, 0, 5, 1), about(Kind::Finalize, 0, 5, 2), true),
        (about(Kind::Finalize, 0, 5, 1), about(Kind::Nullify, 0, 5, 0), true),
        (about(Kind::Nullify, 0, 5, 0), about(Kind::Finalize, 0, 5, 1), true),
        (about(Kind::Nullify, 0, 5, 0), about(Kind::Notarize, 0, 5, 1), false),
        (about(Kind::Notarize, 0, 5, 1), about(Kind::Finalize, 0, 5, 2), false),
        (about(Kind::Notarize, 0, 5, 1), about(Kind::Notarize, 0, 6, 2), false),
        (about(Kind::Notarize, 0, 6, 1), about(Kind::Finalize, 0, 5, 2), false),
        (about(Kind::Notarize, 0, 5, 1), about(Kind::Notarize, 1, 5, 2), false),
    ];
    for (first, second, refused) in pairs {
        for restart in [false, true] {
            let disk = Memory::default();
            let (mut signer, _) = open(&disk, None);
            sign(&mut signer, first).unwrap();
            if restart {
                disk.lose_power(0);
                signer = open(&disk, None).0;
            }
            let result = sign(&mut signer, second);
            assert_eq!(matches!(result, Err(SignError::Contradiction)), refused, "{first:?} {second:?}");
            assert_eq!(result.is_ok(), !refused);
        }
    }
}

#[test]
fn a_parent_view_is_part_of_the_statement() {
    let (mut signer, _) = open(&Memory::default(), None);
    let statement = about(Kind::Propose, 0, 5, 1);
    sign(&mut signer, statement).unwrap();
    let elsewhere = Statement { parent_view: View(2), ..statement };
    assert!(matches!(sign(&mut signer, elsewhere), Err(SignError::Contradiction)));
}

#[test]
fn no_signature_leaves_when_the_disk_fails() {
    // Opening takes two operations, a signature two more.
    for fail_from in 3..7 {
        let disk = Memory::default();
        let (mut signer, _) = open(&disk, None);
        disk.0.borrow_mut().fail_from = Some(fail_from);
        let mut failed = false;
        for view in 1..=3 {
            match sign(&mut signer, about(Kind::Notarize, 0, view, 1)) {
                Ok(_) => assert!(!failed),
                Err(error) => {
                    assert!(error.is_fatal());
                    assert_eq!(matches!(error, SignError::Poisoned), failed, "the first error names the disk");
                    failed = true;
                }
            }
        }
        assert!(failed);
        let header = finality(0, 9);
        assert!(signer.cut(&header).is_err());
        assert!(matches!(
            signer.sign_plain(Plain::Handshake { chain: ChainId::default(), peer_id: b"x" }),
            Err(SignError::Poisoned)
        ));
    }
}

#[test]
fn torn_record_was_never_signed() {
    for torn in 0..200 {
        let disk = Memory::default();
        let (mut signer, _) = open(&disk, None);
        sign(&mut signer, about(Kind::Notarize, 0, 1, 1)).unwrap();
        // The append of the second arrives in part, its sync never does.
        let operations = disk.0.borrow().operations;
        disk.0.borrow_mut().fail_from = Some(operations + 2);
        assert!(sign(&mut signer, about(Kind::Notarize, 0, 2, 1)).is_err());
        disk.0.borrow_mut().fail_from = None;
        disk.lose_power(torn);
        let (mut signer, records) = open(&disk, None);
        let whole = records.len() == 2;
        assert_eq!(records.len(), if whole { 2 } else { 1 });
        // What survived binds, what didn't never left.
        assert_eq!(sign(&mut signer, about(Kind::Notarize, 0, 2, 2)).is_err(), whole);
        assert!(matches!(sign(&mut signer, about(Kind::Notarize, 0, 1, 2)), Err(SignError::Contradiction)));
    }
}

#[test]
fn damage_in_the_middle_stops() {
    let disk = Memory::default();
    let (mut signer, _) = open(&disk, None);
    sign(&mut signer, about(Kind::Notarize, 0, 1, 1)).unwrap();
    let middle = disk.0.borrow().written.len() - 20;
    sign(&mut signer, about(Kind::Notarize, 0, 2, 1)).unwrap();
    disk.0.borrow_mut().written[middle] ^= 1;
    assert!(matches!(Signer::open(key(), disk.clone()), Err(OpenError::Damaged(_))));
}

#[test]
fn refuses_final_views_and_keeps_the_final_views_records() {
    let disk = Memory::default();
    let (mut signer, _) = open(&disk, None);
    for view in 1..=6 {
        sign(&mut signer, about(Kind::Notarize, 0, view, 1)).unwrap();
        sign(&mut signer, about(Kind::Finalize, 0, view, 1)).unwrap();
    }
    signer.cut(&finality(0, 5)).unwrap();
    assert_eq!(disk.0.borrow().replaced, 2, "made, and rewritten at the cut");
    assert!(matches!(sign(&mut signer, about(Kind::Nullify, 0, 4, 0)), Err(SignError::Final { .. })));
    assert!(matches!(sign(&mut signer, about(Kind::Finalize, 0, 5, 2)), Err(SignError::Final { .. })));
    assert!(matches!(sign(&mut signer, about(Kind::Nullify, 0, 6, 0)), Err(SignError::Contradiction)));
    sign(&mut signer, about(Kind::Notarize, 0, 7, 1)).unwrap();
    disk.lose_power(0);
    let (mut signer, records) = open(&disk, Some(&finality(0, 5)));
    let views: Vec<u64> = records.iter().map(|record| record.signed.statement.view.0).collect();
    assert_eq!(views, [5, 5, 6, 6, 7]);
    sign(&mut signer, about(Kind::Notarize, 0, 8, 1)).unwrap();
    signer.cut(&finality(1, 1)).unwrap();
    assert!(matches!(sign(&mut signer, about(Kind::Notarize, 0, 9, 1)), Err(SignError::Final { .. })), "an older epoch");
}

#[test]
fn never_signs_with_a_storage_older_than_the_cut() {
    let disk = Memory::default();
    let (mut signer, _) = open(&disk, None);
    for view in 1..=6 {
        sign(&mut signer, about(Kind::Notarize, 0, view, 1)).unwrap();
    }
    signer.cut(&finality(0, 5)).unwrap();
    drop(signer);
    let written = disk.0.borrow().written.clone();
    for (tip, reached) in [(None, false), (Some(finality(0, 4)), false), (Some(finality(0, 5)), true), (Some(finality(1, 1)), true)]
    {
        disk.0.borrow_mut().written = written.clone();
        let (mut signer, _) = Signer::open(key(), disk.clone()).unwrap();
        assert!(matches!(sign(&mut signer, about(Kind::Notarize, 2, 1, 1)), Err(SignError::StorageBehind)), "not told yet");
        assert_eq!(signer.storage_at(tip.as_ref()), reached);
        assert_eq!(sign(&mut signer, about(Kind::Notarize, 2, 1, 1)).is_ok(), reached);
        // A later sync does not help in this life.
        assert_eq!(signer.storage_at(Some(&finality(0, 9))), reached);
    }
}

#[test]
fn refuses_another_keys_journal() {
    let disk = Memory::default();
    drop(open(&disk, None));
    let other = ValidatorKey::from_seed([8; 32]);
    assert!(matches!(Signer::open(other, disk), Err(OpenError::OtherKey(found)) if found == key().public()));
}

#[test]
fn malformed_and_full() {
    let disk = Memory::default();
    let config = Config { journal_bytes_max: 600, ..Config::default() };
    let (mut signer, _) = Signer::open_with(key(), disk, config).unwrap();
    signer.storage_at(None);
    assert!(matches!(sign(&mut signer, about(Kind::Nullify, 0, 0, 0)), Err(SignError::Malformed)));
    let results: Vec<_> = (1..=4).map(|view| sign(&mut signer, about(Kind::Nullify, 0, view, 0))).collect();
    assert!(matches!(results.last(), Some(Err(SignError::Full))));
    assert!(results.first().is_some_and(Result::is_ok));
}

#[test]
fn plain_signatures_verify() {
    let (signer, _) = open(&Memory::default(), None);
    let chain = ChainId(Hash([3; 32]));
    let signature = signer.sign_plain(Plain::Handshake { chain, peer_id: b"peer" }).unwrap();
    let proof = types::ProofOfValidator { key: signer.public(), signature };
    assert_eq!(proof.verify(&chain, b"peer"), Ok(()));
    assert!(proof.verify(&chain, b"deer").is_err());
    assert_eq!(signer.public(), PublicKey(key().public().0));
}

proptest! {
    /// Whatever is asked, with crashes and cuts between: all that was ever signed is free of contradictions.
    #[test]
    fn never_contradicts_itself(steps in prop::collection::vec((0u8..14, 1u64..6, 1u8..3), 1..60)) {
        let disk = Memory::default();
        let mut tip: Option<Certificate> = None;
        let (mut signer, _) = open(&disk, None);
        let mut all: Vec<Statement> = Vec::new();
        for (what, view, digest) in steps {
            match what {
                0..12 => {
                    let kind = [Kind::Propose, Kind::Notarize, Kind::Nullify, Kind::Finalize][usize::from(what % 4)];
                    if let Ok(signed) = sign(&mut signer, about(kind, 0, view, digest)) {
                        all.push(signed.statement);
                    }
                }
                12 => {
                    disk.lose_power(usize::from(digest) * 7);
                    signer = open(&disk, tip.as_ref()).0;
                }
                _ => {
                    tip = tip.filter(|tip| tip.statement.view >= View(view)).or(Some(finality(0, view)));
                    signer.cut(&finality(0, view)).unwrap();
                }
            }
        }
        for (i, one) in all.iter().enumerate() {
            prop_assert!(all[..i].iter().all(|other| !other.contradicts(one)));
        }
    }
}

/// What the simulator's controls rely on: each planted bug lets a key contradict itself.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_contradict() {
    use signer::Bugs;
    let start = |disk: &Memory, bugs: Bugs, tip: Option<&Certificate>| {
        let config = Config { rewrite_bytes: 0, bugs, ..Config::default() };
        let (mut signer, _) = Signer::open_with(key(), disk.clone(), config).unwrap();
        signer.storage_at(tip);
        signer
    };
    let (one, other) = (about(Kind::Notarize, 0, 3, 1), about(Kind::Notarize, 0, 3, 2));
    let both = |disk: &Memory, bugs: Bugs, between: &dyn Fn(&mut Signer<Memory>), second: Statement| {
        let mut signer = start(disk, bugs, None);
        sign(&mut signer, one).unwrap();
        sign(&mut signer, one.with_kind(Kind::Finalize)).unwrap();
        between(&mut signer);
        disk.lose_power(0);
        sign(&mut start(disk, bugs, None), second).is_ok()
    };
    let early_cut = |signer: &mut Signer<Memory>| signer.cut(&finality(0, 4)).unwrap();
    let nothing = |_: &mut Signer<Memory>| ();
    let (sync, xor, cut) = (
        Bugs { sign_before_sync: true, ..Bugs::default() },
        Bugs { nullify_and_finalize: true, ..Bugs::default() },
        Bugs { ignore_cut: true, ..Bugs::default() },
    );
    let nullify = about(Kind::Nullify, 0, 3, 0);
    assert!(both(&Memory::default(), sync, &nothing, other));
    assert!(both(&Memory::default(), xor, &nothing, nullify));
    assert!(!both(&Memory::default(), xor, &nothing, other), "that rule still stands");
    for (bugs, nullify) in [(Bugs::default(), nullify), (cut, nullify)] {
        assert!(!both(&Memory::default(), bugs, &nothing, nullify));
    }
    // The view is above nothing that storage has, and its record went with the early cut.
    assert!(!both(&Memory::default(), Bugs::default(), &early_cut, other));
    assert!(both(&Memory::default(), cut, &early_cut, other));
}
