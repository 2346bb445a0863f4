//! Checks what validator keys signed, each signature once: the same vote comes alone, in re-sends and in certificates.

use std::collections::{HashSet, VecDeque};

use types::{BadSignature, Certificate, CertificateError, ChainId, Hash, SignedStatement, ValidatorSet};

const VERIFIED_TAG: &str = "verified-signature";

/// Remembers verified signatures, oldest forgotten first. Nothing iterates over the set.
#[derive(Debug)]
pub(crate) struct Verifier {
    chain: ChainId,
    known: HashSet<Hash>,
    order: VecDeque<Hash>,
    max: usize,
}

impl Verifier {
    pub(crate) fn new(chain: ChainId, max: usize) -> Verifier {
        Verifier { chain, known: HashSet::new(), order: VecDeque::new(), max: max.max(1) }
    }

    fn remember(&mut self, name: Hash) {
        if !self.known.insert(name) {
            return;
        }
        self.order.push_back(name);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Checks a statement's signature. About 50 µs the first time, 1 µs later.
    pub(crate) fn statement(&mut self, signed: &SignedStatement) -> Result<(), BadSignature> {
        let name = Hash::of(VERIFIED_TAG, signed);
        if self.known.contains(&name) {
            return Ok(());
        }
        signed.verify()?;
        self.remember(name);
        Ok(())
    }

    /// Checks a certificate against the set of its epoch; signatures that were seen as votes are not computed again.
    pub(crate) fn certificate(&mut self, certificate: &Certificate, set: &ValidatorSet) -> Result<(), CertificateError> {
        if certificate.statement.chain != self.chain {
            return Err(CertificateError::Statement);
        }
        certificate.check_shape(set)?;
        for (seat, signature) in certificate.seats().zip(&certificate.signatures) {
            let key = set.get(seat).ok_or(CertificateError::Bitmap)?.key;
            let signed = SignedStatement { statement: certificate.statement, key, signature: *signature };
            self.statement(&signed).map_err(|error| CertificateError::Signature(seat.0, error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{AccountKey, Epoch, Kind, Seat, Signature, Stake, Statement, Validator, View};

    fn signed(key: &AccountKey, view: u64) -> SignedStatement {
        let statement = Statement::nullify(ChainId::default(), Epoch(0), View(view));
        SignedStatement { statement, key: key.public(), signature: key.sign(&statement.signing_bytes()) }
    }

    #[test]
    fn cached_is_not_looser() {
        let key = AccountKey::development(1);
        let mut verifier = Verifier::new(ChainId::default(), 2);
        let good = signed(&key, 1);
        assert!(verifier.statement(&good).is_ok() && verifier.statement(&good).is_ok());
        let mut bad = good;
        bad.statement.view = View(2);
        assert!(verifier.statement(&bad).is_err());
        let mut bad = good;
        bad.signature = Signature([7; 64]);
        assert!(verifier.statement(&bad).is_err());
        for view in 3..9 {
            assert!(verifier.statement(&signed(&key, view)).is_ok());
        }
        assert_eq!((verifier.known.len(), verifier.order.len()), (2, 2));
    }

    #[test]
    fn certificate_agrees_with_types() {
        let mut keys: Vec<_> = (0..4).map(AccountKey::development).collect();
        keys.sort_by_key(AccountKey::public);
        let set = ValidatorSet::new(Epoch(0), keys.iter().map(|k| Validator { key: k.public(), weight: Stake(1) }).collect());
        let votes: Vec<_> = (0..3).map(|i| (Seat(i as u16), signed(&keys[i], 5).signature)).collect();
        let statement = Statement::nullify(ChainId::default(), Epoch(0), View(5));
        let good = Certificate::assemble(&set, statement, &votes);
        let mut verifier = Verifier::new(ChainId::default(), 64);
        assert!(verifier.certificate(&good, &set).is_ok());
        let mut wrong = good.clone();
        wrong.signatures.swap(0, 1);
        let mut few = Certificate::assemble(&set, statement, &votes[..2]);
        let mut kind = good.clone();
        kind.statement.kind = Kind::Propose;
        few.scheme = 0;
        for bad in [wrong, few, kind] {
            assert!(bad.verify(&ChainId::default(), &set).is_err());
            assert!(verifier.certificate(&bad, &set).is_err());
        }
    }
}
