//! Signatures at the edges: where libraries disagree, and what our two rules say.

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};
use types::{AccountKey, PublicKey, Signature};

/// The group's order, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0x10,
];

struct Case {
    name: &'static str,
    key: [u8; 32],
    message: Vec<u8>,
    signature: [u8; 64],
}

/// R and S.
pub fn signature(r: [u8; 32], s: [u8; 32]) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&r);
    bytes[32..].copy_from_slice(&s);
    bytes
}

fn challenge(r: &[u8; 32], a: &[u8; 32], message: &[u8]) -> Scalar {
    let digest: [u8; 64] = Sha512::new().chain_update(r).chain_update(a).chain_update(message).finalize().into();
    Scalar::from_bytes_mod_order_wide(&digest)
}

/// The same S plus the order: another text of the same number.
pub fn plus_order(signature: &Signature) -> Signature {
    let (mut bytes, mut carry) = (signature.0, 0u16);
    for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    Signature(bytes)
}

/// A point of the curve.
pub type Point = EdwardsPoint;

/// Signs with secret scalars under any A and R of the form `secret·B + torsion`, for the first message, of those that
/// `message` makes of 0, 1, …, whose challenge has the wanted remainder by 8: (its number, the key, the signature).
pub fn crafted_at(
    a: (u64, Point),
    r: (u64, Point),
    message: impl Fn(u32) -> Vec<u8>,
    wanted: impl Fn(u8) -> bool,
) -> (u32, [u8; 32], [u8; 64]) {
    let (secret, nonce) = (Scalar::from(a.0), Scalar::from(r.0));
    let key = (ED25519_BASEPOINT_POINT * secret + a.1).compress().to_bytes();
    let point = (ED25519_BASEPOINT_POINT * nonce + r.1).compress().to_bytes();
    (0u32..)
        .find_map(|i| {
            let k = challenge(&point, &key, &message(i));
            let s = nonce + k * secret;
            wanted(k.to_bytes()[0] % 8).then(|| (i, key, signature(point, s.to_bytes())))
        })
        .expect("one in eight")
}

fn crafted(name: &'static str, a: (u64, Point), r: (u64, Point), wanted: impl Fn(u8) -> bool) -> Case {
    let message = |i| format!("{name} {i}").into_bytes();
    let (i, key, signature) = crafted_at(a, r, message, wanted);
    Case { name, key, message: message(i), signature }
}

/// The identity, whose y is 1, written as p + 1.
pub fn above_p() -> [u8; 32] {
    let mut bytes = [0xff; 32];
    (bytes[0], bytes[31]) = (0xee, 0x7f);
    bytes
}

/// The identity, whose x is 0, with the sign bit set.
pub fn minus_zero() -> [u8; 32] {
    let mut bytes = EIGHT_TORSION[0].compress().to_bytes();
    bytes[31] |= 0x80;
    bytes
}

fn cases() -> Vec<Case> {
    let honest_key = AccountKey::development(1);
    let honest =
        Case { name: "honest", key: honest_key.public().0, message: b"honest".to_vec(), signature: honest_key.sign(b"honest").0 };
    let with = |name, change: &dyn Fn(&mut Case)| {
        let mut case = Case { name, key: honest.key, message: honest.message.clone(), signature: honest.signature };
        change(&mut case);
        case
    };
    let identity = EIGHT_TORSION[0];
    let (torsion, none) = (EIGHT_TORSION[1], identity);
    let identity_bytes = identity.compress().to_bytes();
    let (above_p, minus_zero) = (above_p(), minus_zero());
    let small = |name, key, r| Case { name, key, message: b"anything".to_vec(), signature: signature(r, [0; 32]) };
    vec![
        with("another message", &|case| case.message = b"honesty".to_vec()),
        with("a flipped bit in R", &|case| case.signature[0] ^= 1),
        with("a flipped bit in S", &|case| case.signature[32] ^= 1),
        with("S plus the order", &|case| case.signature = plus_order(&Signature(case.signature)).0),
        with("S with high bits", &|case| case.signature[63] |= 0xe0),
        with("A is no point", &|case| case.key = no_point()),
        with("R is no point", &|case| case.signature[..32].copy_from_slice(&no_point())),
        small("A and R are the identity", identity_bytes, identity_bytes),
        small("A of order 8, R the identity", torsion.compress().to_bytes(), identity_bytes),
        small("A and R of order 8", torsion.compress().to_bytes(), torsion.compress().to_bytes()),
        small("A is the identity with y above p", above_p, identity_bytes),
        small("R is the identity with y above p", identity_bytes, above_p),
        small("A is the identity with minus zero as x", minus_zero, identity_bytes),
        crafted("R is the identity, A honest", (77, none), (0, none), |_| true),
        crafted("A with torsion, challenge a multiple of 8", (77, torsion), (99, none), |k| k == 0),
        crafted("A with torsion, challenge no multiple of 8", (77, torsion), (99, none), |k| k != 0),
        crafted("R with torsion", (77, none), (99, torsion), |_| true),
        crafted("A and R with torsion that cancel", (77, torsion), (99, -torsion), |k| k == 1),
        honest,
    ]
}

/// The first y that belongs to no point.
fn no_point() -> [u8; 32] {
    let candidate = |y: u8| {
        let mut bytes = [0; 32];
        bytes[0] = y;
        bytes
    };
    let is_point = |bytes: &[u8; 32]| curve25519_dalek::edwards::CompressedEdwardsY(*bytes).decompress().is_some();
    (0..=255).map(candidate).find(|bytes| !is_point(bytes)).expect("half of all are none")
}

/// `signatures.json`.
pub fn file() -> Value {
    let verdicts = cases().into_iter().map(|case| {
        let (key, signature) = (PublicKey(case.key), Signature(case.signature));
        json!({
            "name": case.name,
            "key": key,
            "message": hex::encode(&case.message),
            "signature": signature,
            "strict": key.verify_strict(&case.message, &signature).is_ok(),
            "zip215": key.verify_zip215(&case.message, &signature).is_ok(),
        })
    });
    json!({ "signatures": verdicts.collect::<Vec<_>>() })
}
