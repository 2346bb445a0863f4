//! The first statement of each kind and seat in one view. A second, different one is evidence and is dropped.

use std::collections::BTreeMap;

use types::{Certificate, Kind, Seat, Signature, Statement, ValidatorSet};

/// A statement with its signature; whose it is follows from the seat.
pub(crate) type Signed = (Statement, Signature);

/// What became of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// The first of its kind and seat.
    New,
    /// Heard before.
    Known,
    /// It contradicts this one.
    Contradicts(Signed),
}

/// One view's statements.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    first: BTreeMap<(Kind, Seat), Signed>,
}

impl Tally {
    /// Takes in a statement.
    pub(crate) fn add(&mut self, seat: Seat, statement: Statement, signature: Signature) -> Added {
        for kind in [statement.kind, Kind::Nullify, Kind::Finalize] {
            if let Some(known) = self.first.get(&(kind, seat))
                && known.0.contradicts(&statement)
            {
                return Added::Contradicts(*known);
            }
        }
        let mut added = Added::Known;
        self.first.entry((statement.kind, seat)).or_insert_with(|| {
            added = Added::New;
            (statement, signature)
        });
        added
    }

    /// Whether exactly this is what the seat said first.
    pub(crate) fn holds(&self, seat: Seat, statement: &Statement) -> bool {
        self.first.get(&(statement.kind, seat)).is_some_and(|signed| signed.0 == *statement)
    }

    /// Who said exactly this, in order of seats.
    fn signers(&self, statement: Statement) -> impl Iterator<Item = (Seat, Signature)> + '_ {
        let range = (statement.kind, Seat(0))..=(statement.kind, Seat(u16::MAX));
        self.first.range(range).filter(move |(_, signed)| signed.0 == statement).map(|((_, seat), signed)| (*seat, signed.1))
    }

    /// The weight behind exactly this statement.
    pub(crate) fn weight(&self, set: &ValidatorSet, statement: Statement) -> u128 {
        self.signers(statement).map(|(seat, _)| set.weight(seat)).sum()
    }

    /// Its certificate, if a quorum said it.
    pub(crate) fn certify(&self, set: &ValidatorSet, statement: Statement) -> Option<Certificate> {
        if !set.is_quorum(self.weight(set, statement)) {
            return None;
        }
        let votes: Vec<(Seat, Signature)> = self.signers(statement).collect();
        Some(Certificate::assemble(set, statement, &votes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{BlockHash, ChainId, Epoch, Hash, PublicKey, Stake, Validator, View};

    fn about(kind: Kind, digest: u8, parent: u64) -> Statement {
        Statement {
            chain: ChainId::default(),
            epoch: Epoch(0),
            view: View(5),
            kind,
            parent_view: View(parent),
            digest: BlockHash(Hash([digest; 32])),
        }
    }

    #[test]
    fn second_and_different_is_evidence() {
        let nullify = Statement::nullify(ChainId::default(), Epoch(0), View(5));
        let cases = [
            (about(Kind::Notarize, 1, 4), about(Kind::Notarize, 1, 4), false),
            (about(Kind::Notarize, 1, 4), about(Kind::Notarize, 2, 4), true),
            (about(Kind::Notarize, 1, 4), about(Kind::Notarize, 1, 3), true),
            (about(Kind::Propose, 1, 4), about(Kind::Propose, 2, 4), true),
            (about(Kind::Finalize, 1, 4), about(Kind::Finalize, 2, 4), true),
            (about(Kind::Notarize, 1, 4), about(Kind::Finalize, 2, 4), false),
            (about(Kind::Propose, 1, 4), about(Kind::Notarize, 2, 4), false),
            (about(Kind::Notarize, 1, 4), nullify, false),
            (about(Kind::Finalize, 1, 4), nullify, true),
        ];
        for (a, b, convicts) in cases {
            for (first, second) in [(a, b), (b, a)] {
                let mut tally = Tally::default();
                assert_eq!(tally.add(Seat(0), first, Signature([1; 64])), Added::New);
                assert_eq!(tally.add(Seat(1), second, Signature([2; 64])), Added::New, "another's is no contradiction");
                let added = tally.add(Seat(0), second, Signature([3; 64]));
                assert_eq!(matches!(added, Added::Contradicts(_)), convicts, "{first:?} {second:?}");
            }
        }
    }

    #[test]
    fn certifies_strict_quorums_of_one_statement() {
        let validators = (0..4u8).map(|i| Validator { key: PublicKey([i; 32]), weight: Stake(u64::from(i) + 1) }).collect();
        let set = ValidatorSet::new(Epoch(0), validators);
        let mut tally = Tally::default();
        tally.add(Seat(3), about(Kind::Notarize, 1, 4), Signature([3; 64]));
        tally.add(Seat(2), about(Kind::Notarize, 2, 4), Signature([2; 64]));
        tally.add(Seat(1), about(Kind::Notarize, 1, 4), Signature([1; 64]));
        assert_eq!(tally.certify(&set, about(Kind::Notarize, 1, 4)), None, "6 of 10");
        tally.add(Seat(0), about(Kind::Notarize, 1, 4), Signature([0; 64]));
        let certificate = tally.certify(&set, about(Kind::Notarize, 1, 4)).unwrap();
        assert_eq!(certificate.seats().collect::<Vec<_>>(), [Seat(0), Seat(1), Seat(3)]);
        assert_eq!(certificate.signatures, [Signature([0; 64]), Signature([1; 64]), Signature([3; 64])]);
        assert_eq!(certificate.check_shape(&set), Ok(()));
    }
}
