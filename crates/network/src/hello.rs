//! The hello: who may be a peer, and who is a validator.

use types::{ChainId, Hello, Offence, PublicKey, WIRE_VERSION, decode};

use crate::event::Refusal;

/// Most bytes of a hello of any version. Ours takes 133.
pub(crate) const HELLO_BYTES_MAX: usize = 1024;

/// What is wrong with a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HelloError {
    /// An honest mismatch.
    Refused(Refusal),
    /// A lie, in a version that we know, under an authenticated identity.
    Offence(Offence, &'static str),
}

/// Judges what a peer said first. The version is read alone and before all else: a hello of another version may be of any
/// form, and its sender is no offender.
///
/// # Errors
/// [`HelloError`].
pub(crate) fn judge(payload: &[u8], chain: &ChainId, peer_id: &[u8]) -> Result<Option<PublicKey>, HelloError> {
    let Some(version) = payload.first_chunk::<4>() else {
        return Err(HelloError::Offence(Offence::Malformed, "hello too short for a version"));
    };
    if u32::from_le_bytes(*version) != WIRE_VERSION {
        return Err(HelloError::Refused(Refusal::Version));
    }
    let Ok(hello) = decode::<Hello>(payload, HELLO_BYTES_MAX) else {
        return Err(HelloError::Offence(Offence::Malformed, "hello does not decode"));
    };
    if hello.chain != *chain {
        return Err(HelloError::Refused(Refusal::Chain));
    }
    let Some(proof) = hello.validator else { return Ok(None) };
    if proof.verify(chain, peer_id).is_err() {
        return Err(HelloError::Offence(Offence::BadSignature, "proof of validator does not verify"));
    }
    Ok(Some(proof.key))
}

#[cfg(test)]
mod tests {
    use types::{AccountKey, Hash, ProofOfValidator, encode};

    use super::*;

    const CHAIN: ChainId = ChainId(Hash([7; 32]));

    fn hello(signed_for: &[u8]) -> Hello {
        let key = AccountKey::development(1);
        let signature = key.sign(&ProofOfValidator::signing_bytes(&CHAIN, signed_for));
        Hello { version: WIRE_VERSION, chain: CHAIN, validator: Some(ProofOfValidator { key: key.public(), signature }) }
    }

    fn check(payload: &[u8], expect: Result<Option<PublicKey>, HelloError>) {
        assert_eq!(judge(payload, &CHAIN, b"me"), expect);
    }

    #[test]
    fn honest_ones_pass() {
        check(&encode(&hello(b"me")), Ok(Some(AccountKey::development(1).public())));
        check(&encode(&Hello { validator: None, ..hello(b"me") }), Ok(None));
        assert!(encode(&hello(b"me")).len() <= HELLO_BYTES_MAX);
    }

    #[test]
    fn a_proof_holds_for_one_identity_only() {
        let expect = HelloError::Offence(Offence::BadSignature, "proof of validator does not verify");
        check(&encode(&hello(b"another")), Err(expect));
    }

    #[test]
    fn mismatches_are_no_offence() {
        let other = Hello { chain: ChainId(Hash([8; 32])), ..hello(b"me") };
        check(&encode(&other), Err(HelloError::Refused(Refusal::Chain)));
        let mut newer = encode(&Hello { version: 2, ..hello(b"me") });
        newer.extend_from_slice(b"fields that version 2 added");
        check(&newer, Err(HelloError::Refused(Refusal::Version)));
        check(&2u32.to_le_bytes(), Err(HelloError::Refused(Refusal::Version)));
    }

    #[test]
    fn what_does_not_decode_is_malformed() {
        check(b"", Err(HelloError::Offence(Offence::Malformed, "hello too short for a version")));
        let mut long = encode(&hello(b"me"));
        long.push(0);
        check(&long, Err(HelloError::Offence(Offence::Malformed, "hello does not decode")));
        check(&1u32.to_le_bytes(), Err(HelloError::Offence(Offence::Malformed, "hello does not decode")));
    }
}
