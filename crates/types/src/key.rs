//! Ed25519 keys and signatures, with the two rules of verification.
//!
//! What a *validator* key signs is checked one by one and strictly (cofactorless, S < L, canonical A and R, small-order A and R
//! refused), so that a light client on any standard library counts the same quorum. *Transactions* follow ZIP-215, whose batch
//! and single verdicts agree by construction; with a library where they differ, one crafted signature splits the validators.

use borsh::{BorshDeserialize, BorshSerialize};
use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_zebra::{SigningKey, VerificationKeyBytes, batch};
use rand::CryptoRng;

use crate::hash::{Address, FromBytes, Hash, hex_text};

/// The scheme byte of Ed25519 in addresses and certificates.
pub const SCHEME_ED25519: u8 = 0;

/// 32 bytes of an Ed25519 public key, not yet known to be a point.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct PublicKey(pub [u8; 32]);

impl FromBytes<32> for PublicKey {
    fn from_bytes(bytes: [u8; 32]) -> Self {
        PublicKey(bytes)
    }
}
hex_text!(PublicKey, 32);

/// 64 bytes of an Ed25519 signature: R ‖ S.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Signature(pub [u8; 64]);

impl FromBytes<64> for Signature {
    fn from_bytes(bytes: [u8; 64]) -> Self {
        Signature(bytes)
    }
}
hex_text!(Signature, 64);

/// The signature does not verify under the rule that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signature does not verify")]
pub struct BadSignature;

fn canonical(bytes: &[u8]) -> bool {
    CompressedEdwardsY::from_slice(bytes).is_ok_and(|y| y.decompress().is_some_and(|point| point.compress() == y))
}

impl PublicKey {
    /// The account that this key controls.
    pub fn address(&self) -> Address {
        let mut bytes = [SCHEME_ED25519; 33];
        bytes[1..].copy_from_slice(&self.0);
        Address(Hash::tagged("ebpf-blockchain/address/1", &bytes))
    }

    /// The strict rule, for all that a validator key signs. About 40 µs.
    ///
    /// # Errors
    /// [`BadSignature`] if any of: A or R not canonical or of small order, S ≥ L, equation (without cofactor) not met.
    pub fn verify_strict(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        if !canonical(&self.0) || !canonical(&signature.0[..32]) {
            return Err(BadSignature);
        }
        let key = ed25519_dalek::VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(message, &signature).map_err(|_| BadSignature)
    }

    /// The ZIP-215 rule, for transactions. About 40 µs; see [`verify_batch`] for many.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify_zip215(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let item: batch::Item = (VerificationKeyBytes::from(self.0), ed25519_zebra::Signature::from(signature.0), &message).into();
        item.verify_single().map_err(|_| BadSignature)
    }
}

/// One signature to check under ZIP-215.
#[derive(Clone)]
pub struct BatchItem(batch::Item);

impl BatchItem {
    /// Hashes the message; the bytes are not kept.
    pub fn new(key: &PublicKey, message: &[u8], signature: &Signature) -> BatchItem {
        BatchItem((VerificationKeyBytes::from(key.0), ed25519_zebra::Signature::from(signature.0), &message).into())
    }
}

/// Checks many signatures at once and names each bad one: a failing batch is cut in halves, so `k` bad ones of `n` cost about
/// `k log n` partial batches. The verdicts equal [`PublicKey::verify_zip215`] one by one, whatever `rng` gives.
pub fn verify_batch<R: CryptoRng>(items: &[BatchItem], rng: &mut R) -> Vec<bool> {
    let mut good = vec![true; items.len()];
    bisect(items, &mut good, rng);
    good
}

/// Below this size one by one is as cheap as halving further.
const BISECT_MIN: usize = 4;

fn bisect<R: CryptoRng>(items: &[BatchItem], good: &mut [bool], rng: &mut R) {
    if items.len() <= BISECT_MIN {
        for (item, good) in items.iter().zip(good) {
            *good = item.0.clone().verify_single().is_ok();
        }
        return;
    }
    let mut verifier = batch::Verifier::new();
    for item in items {
        verifier.queue(item.0.clone());
    }
    if verifier.verify(&mut *rng).is_ok() {
        return;
    }
    let half = items.len() / 2;
    let (left, right) = good.split_at_mut(half);
    bisect(&items[..half], left, rng);
    bisect(&items[half..], right, rng);
}

/// An account's key pair: signs transactions. Never a validator's key: those live in the crate `signer` alone.
#[derive(Clone)]
pub struct AccountKey(SigningKey);

impl AccountKey {
    /// The key with this seed (RFC 8032 secret key).
    pub fn from_seed(seed: [u8; 32]) -> AccountKey {
        AccountKey(SigningKey::from(seed))
    }

    /// Test account number `index` of a development chain: SHA-256 of a public text, so anybody may spend from it.
    pub fn development(index: u32) -> AccountKey {
        AccountKey::from_seed(Hash::tagged("ebpf-blockchain/development-account", &index.to_le_bytes()).0)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(VerificationKeyBytes::from(&self.0).into())
    }

    /// Signs bytes (RFC 8032, deterministic).
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).into())
    }
}

impl std::fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccountKey(public {})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng() -> impl CryptoRng {
        use rand::SeedableRng;
        rand::rngs::StdRng::seed_from_u64(7)
    }

    #[test]
    fn batch_names_each_bad_one() {
        let keys: Vec<_> = (0..64).map(AccountKey::development).collect();
        let mut items = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            let message = [i as u8; 100];
            let mut signature = key.sign(&message);
            if i == 3 || i == 40 || i == 41 {
                signature.0[40] ^= 1;
            }
            assert_eq!(key.public().verify_zip215(&message, &signature).is_ok(), !(i == 3 || i == 40 || i == 41));
            items.push(BatchItem::new(&key.public(), &message, &signature));
        }
        let verdicts = verify_batch(&items, &mut rng());
        let bad: Vec<_> = verdicts.iter().enumerate().filter(|(_, good)| !**good).map(|(i, _)| i).collect();
        assert_eq!(bad, [3, 40, 41]);
    }

    #[test]
    fn strict_refuses_what_zip215_takes() {
        // A = R = the identity (small order), S = 0: the equation holds for every message.
        let mut identity = [0u8; 32];
        identity[0] = 1;
        let key = PublicKey(identity);
        let mut signature = [0u8; 64];
        signature[0] = 1;
        let signature = Signature(signature);
        assert!(key.verify_zip215(b"x", &signature).is_ok());
        assert!(key.verify_strict(b"x", &signature).is_err());
        // A non-canonical identity (y = p + 1) is taken by ZIP-215 as well.
        let mut noncanonical = [0xffu8; 32];
        noncanonical[0] = 0xee;
        noncanonical[31] = 0x7f;
        assert!(PublicKey(noncanonical).verify_zip215(b"x", &signature).is_ok());
        assert!(PublicKey(noncanonical).verify_strict(b"x", &signature).is_err());
    }

    #[test]
    fn strict_takes_honest_and_refuses_flips() {
        let key = AccountKey::development(1);
        let signature = key.sign(b"vote");
        assert!(key.public().verify_strict(b"vote", &signature).is_ok());
        for byte in 0..64 {
            let mut bad = signature;
            bad.0[byte] ^= 1;
            assert!(key.public().verify_strict(b"vote", &bad).is_err(), "byte {byte}");
        }
        assert!(key.public().verify_strict(b"votf", &signature).is_err());
    }
}
