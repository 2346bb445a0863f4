//! Which votes count, which certificates convince, which evidence convicts: one file that every verifier must agree with.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::traits::Identity;
use serde_json::{Value, json};
use types::{
    AccountKey, Certificate, ChainId, Epoch, EpochRecord, Evidence, Kind, PublicKey, Seat, Signature, SignedStatement, Stake,
    Statement, Validator, ValidatorSet, View,
};

use super::chain::{Chain, QUORUM};
use super::signatures::{Point, above_p, crafted_at, minus_zero, plus_order, signature};

/// Whether a vote counts, by section 9 of the wire format.
pub fn counts(chain: &ChainId, set: &ValidatorSet, vote: &SignedStatement) -> bool {
    let statement = &vote.statement;
    statement.chain == *chain
        && statement.epoch == set.epoch()
        && statement.kind != Kind::Propose
        && statement.is_well_formed()
        && set.seat(&vote.key).is_some()
        && vote.verify().is_ok()
}

/// A signature made with a secret scalar under `secret·B + torsion` and a likewise R, over the first view that fits.
fn odd(base: Statement, a: (u64, Point), r: (u64, Point), wanted: impl Fn(u8) -> bool) -> SignedStatement {
    let at = |i: u32| Statement { view: View(u64::from(i) + 1), parent_view: View(0), ..base };
    let (i, key, bytes) = crafted_at(a, r, |i| at(i).signing_bytes(), wanted);
    SignedStatement { statement: at(i), key: PublicKey(key), signature: Signature(bytes) }
}

/// Votes of keys that no honest validator has; the record below seats these keys.
fn odd_votes(base: Statement) -> Vec<(&'static str, SignedStatement)> {
    let (none, torsion) = (Point::identity(), EIGHT_TORSION[1]);
    let identity = none.compress().to_bytes();
    let order_8 = torsion.compress().to_bytes();
    let small = |key, r| SignedStatement { statement: base, key: PublicKey(key), signature: Signature(signature(r, [0; 32])) };
    vec![
        ("a key with torsion, challenge a multiple of 8", odd(base, (77, torsion), (99, none), |k| k == 0)),
        ("a key with torsion, challenge no multiple of 8", odd(base, (77, torsion), (99, none), |k| k != 0)),
        ("a key and R with torsion that cancel", odd(base, (77, torsion), (99, -torsion), |k| k == 1)),
        ("R with torsion", odd(base, (77, none), (99, torsion), |_| true)),
        ("R is the identity", odd(base, (77, none), (0, none), |_| true)),
        ("a key made of a plain scalar", odd(base, (77, none), (99, none), |_| true)),
        ("the key and R are the identity", small(identity, identity)),
        ("a key of order 8, R the identity", small(order_8, identity)),
        ("the key is the identity with y above p", small(above_p(), identity)),
        ("the key is the identity with minus zero as x", small(minus_zero(), identity)),
        ("R is the identity with y above p", small(identity, above_p())),
    ]
}

fn votes(chain: &Chain) -> Vec<(&'static str, usize, SignedStatement)> {
    let notarize = chain.statement(3, Kind::Notarize);
    let by = |seat: u16, statement: Statement| {
        let key = chain.key(Seat(seat));
        SignedStatement { statement, key: key.public(), signature: key.sign(&statement.signing_bytes()) }
    };
    let good = by(1, notarize);
    let signed = |change: &dyn Fn(&mut Statement)| {
        let mut statement = notarize;
        change(&mut statement);
        by(1, statement)
    };
    let later = |change: &dyn Fn(&mut SignedStatement)| {
        let mut vote = good;
        change(&mut vote);
        vote
    };
    let nullify = Statement::nullify(chain.id, Epoch(0), View(3));
    let stranger = AccountKey::development(0);
    let mut found: Vec<_> = vec![
        ("notarize", good),
        ("finalize", by(2, notarize.with_kind(Kind::Finalize))),
        ("nullify", by(3, nullify)),
        ("the first view on the epoch's base", signed(&|s| (s.view, s.parent_view) = (View(1), View(0)))),
        ("a proposal", signed(&|s| s.kind = Kind::Propose)),
        ("another chain", signed(&|s| s.chain.0.0[0] ^= 1)),
        ("another epoch", signed(&|s| s.epoch = Epoch(1))),
        ("view 0", signed(&|s| (s.view, s.parent_view) = (View(0), View(0)))),
        ("a parent view that is the view", signed(&|s| s.parent_view = s.view)),
        ("a nullify about a block", by(1, notarize.with_kind(Kind::Nullify))),
        ("a nullify with a parent view", by(1, Statement { parent_view: View(2), ..nullify })),
        ("another view than was signed", later(&|v| v.statement.view.0 += 1)),
        ("another kind than was signed", later(&|v| v.statement.kind = Kind::Finalize)),
        ("another block than was signed", later(&|v| v.statement.digest.0.0[31] ^= 1)),
        ("another validator's key", later(&|v| v.key = chain.key(Seat(0)).public())),
        ("a key that is no validator's", {
            let signature = stranger.sign(&notarize.signing_bytes());
            SignedStatement { statement: notarize, key: stranger.public(), signature }
        }),
        ("a flipped bit in R", later(&|v| v.signature.0[0] ^= 1)),
        ("a flipped bit in S", later(&|v| v.signature.0[32] ^= 1)),
        ("S plus the order", later(&|v| v.signature = plus_order(&v.signature))),
        ("the statement without its tag", {
            let signature = chain.key(Seat(1)).sign(&types::encode(&notarize));
            SignedStatement { signature, ..good }
        }),
    ]
    .into_iter()
    .map(|(name, vote)| (name, 0, vote))
    .collect();
    found.extend(odd_votes(notarize).into_iter().map(|(name, vote)| (name, 1, vote)));
    found
}

/// The chain's first record; one that seats odd keys; one whose weights overflow 64 bits when they are added.
fn records(chain: &Chain) -> [EpochRecord; 3] {
    let first = chain.epochs[0].clone();
    let mut odd = first.clone();
    let keys = odd_votes(chain.statement(3, Kind::Notarize)).into_iter().map(|(_, vote)| vote.key);
    odd.validators.extend(keys.map(|key| Validator { key, weight: Stake(10) }));
    odd.validators.sort_by_key(|validator| validator.key);
    odd.validators.dedup_by_key(|validator| validator.key);
    let mut heavy = first.clone();
    heavy.validators.iter_mut().for_each(|validator| validator.weight = Stake(u64::MAX));
    [first, odd, heavy]
}

fn certificates(chain: &Chain) -> Vec<(&'static str, usize, Certificate)> {
    let good = chain.certificate(2, Kind::Finalize, &QUORUM);
    let changed = |change: &dyn Fn(&mut Certificate)| {
        let mut certificate = good.clone();
        change(&mut certificate);
        certificate
    };
    let finalize = |seats: &[u16]| chain.certificate(2, Kind::Finalize, seats);
    let nullify = Statement::nullify(chain.id, Epoch(0), View(3));
    vec![
        ("a finality certificate", 0, good.clone()),
        ("a notarization", 0, chain.certificate(2, Kind::Notarize, &QUORUM)),
        ("a nullification", 0, chain.sign(&nullify, &QUORUM)),
        ("all seats", 0, finalize(&[0, 1, 2, 3])),
        ("proposals", 0, chain.certificate(2, Kind::Propose, &QUORUM)),
        ("exactly two thirds of the weight", 0, finalize(&[2, 3])),
        ("three of four seats, a minority of the weight", 0, finalize(&[0, 1, 2])),
        ("three of four, weights beyond 64 bits", 2, finalize(&[0, 1, 2])),
        ("two of four, weights beyond 64 bits", 2, finalize(&[2, 3])),
        ("nobody", 0, finalize(&[])),
        ("another epoch's", 0, chain.certificate(5, Kind::Finalize, &QUORUM)),
        ("a nullification about a block", 0, chain.sign(&good.statement.with_kind(Kind::Nullify), &QUORUM)),
        ("an unknown scheme", 0, changed(&|c| c.scheme = 1)),
        ("a bit beyond the set", 0, changed(&|c| c.bitmap[0] |= 0x10)),
        ("a bitmap that is too long", 0, changed(&|c| c.bitmap.push(0))),
        ("a signature too few", 0, changed(&|c| _ = c.signatures.pop())),
        ("a signature too many", 0, changed(&|c| c.signatures.push(c.signatures[0]))),
        ("signatures in another order", 0, changed(&|c| c.signatures.swap(0, 1))),
        ("one vote counted three times", 0, changed(&|c| c.signatures = vec![c.signatures[0]; 3])),
        ("S plus the order in one signature", 0, changed(&|c| c.signatures[1] = plus_order(&c.signatures[1]))),
    ]
}

fn evidence(chain: &Chain) -> Vec<(&'static str, Evidence)> {
    let key = chain.key(Seat(1));
    let notarize = chain.statement(3, Kind::Notarize);
    let (finalize, propose) = (notarize.with_kind(Kind::Finalize), notarize.with_kind(Kind::Propose));
    let nullify = Statement::nullify(chain.id, notarize.epoch, notarize.view);
    let other = |statement: Statement| Statement { digest: chain.hash(1), ..statement };
    let sign = |statement: Statement| (statement, key.sign(&statement.signing_bytes()));
    let pair = |a, b| Evidence { key: key.public(), first: sign(a), second: sign(b) };
    vec![
        ("nullify and finalize", pair(nullify, finalize)),
        ("finalize and nullify", pair(finalize, nullify)),
        ("two blocks notarized", pair(notarize, other(notarize))),
        ("two blocks finalized", pair(finalize, other(finalize))),
        ("two blocks proposed", pair(propose, other(propose))),
        ("one block on two parents", pair(notarize, Statement { parent_view: View(1), ..notarize })),
        ("the same vote twice", pair(notarize, notarize)),
        ("notarize and finalize of one block", pair(notarize, finalize)),
        ("notarize one block, finalize another", pair(notarize, other(finalize))),
        ("notarize and nullify", pair(notarize, nullify)),
        ("two views", pair(notarize, Statement { view: View(9), ..other(notarize) })),
        ("two epochs", pair(notarize, Statement { epoch: Epoch(1), ..other(notarize) })),
        ("two chains", pair(notarize, Statement { chain: ChainId::default(), ..other(notarize) })),
        ("another's key", Evidence { key: chain.key(Seat(0)).public(), ..pair(nullify, finalize) }),
        ("one signature is another's", {
            let second = (finalize, chain.key(Seat(0)).sign(&finalize.signing_bytes()));
            Evidence { second, ..pair(nullify, finalize) }
        }),
        ("a key of small order, which signs anything", {
            let identity = Point::identity().compress().to_bytes();
            let forged = Signature(signature(identity, [0; 32]));
            Evidence { key: PublicKey(identity), first: (nullify, forged), second: (finalize, forged) }
        }),
    ]
}

/// `votes.json`.
pub fn file(chain: &Chain) -> Value {
    let records = records(chain);
    let sets = records.each_ref().map(EpochRecord::set);
    let votes = votes(chain).into_iter().map(|(name, record, vote)| {
        json!({ "name": name, "record": record, "vote": vote, "counts": counts(&chain.id, &sets[record], &vote) })
    });
    let certificates = certificates(chain).into_iter().map(|(name, record, certificate)| {
        let convinces = certificate.verify(&chain.id, &sets[record]).is_ok();
        json!({ "name": name, "record": record, "certificate": certificate, "convinces": convinces })
    });
    let evidence = evidence(chain)
        .into_iter()
        .map(|(name, evidence)| json!({ "name": name, "evidence": evidence, "convicts": evidence.verify() }));
    json!({
        "chain": chain.id,
        "records": records,
        "votes": votes.collect::<Vec<_>>(),
        "certificates": certificates.collect::<Vec<_>>(),
        "evidence": evidence.collect::<Vec<_>>(),
    })
}
