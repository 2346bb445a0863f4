//! The world's keys. All are public knowledge here: the judges and the adversaries sign with what an attacker would have.

use types::AccountKey;

/// First seed byte of validators' keys.
const VALIDATOR: u8 = 0x56;

/// The seed of a validator's key.
pub fn validator_seed(index: usize) -> [u8; 32] {
    let mut seed = [VALIDATOR; 32];
    seed[1] = index as u8;
    seed
}

/// The key pair of a validator as an attacker would hold it. Honest nodes sign through the signer only.
pub fn validator(index: usize) -> AccountKey {
    AccountKey::from_seed(validator_seed(index))
}

/// An account that the load sends from.
pub fn account(index: u32) -> AccountKey {
    AccountKey::development(index)
}
