//! SHA-256 with domain separation, and the newtypes of what is hashed.

use borsh::{BorshDeserialize, BorshSerialize};
use sha2::{Digest, Sha256};

/// The length of every hash here, in bytes.
pub const HASH_BYTES: usize = 32;

/// A SHA-256 digest. Text form: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, BorshSerialize, BorshDeserialize)]
pub struct Hash(pub [u8; HASH_BYTES]);

impl Hash {
    /// All zero: the digest in a statement that is about no block.
    pub const ZERO: Hash = Hash([0; HASH_BYTES]);

    /// `SHA-256(tag ‖ 0x00 ‖ bytes)`. Tags are ASCII without NUL, so no tag's input is another's.
    pub fn tagged(tag: &str, bytes: &[u8]) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(tag.as_bytes());
        hasher.update([0]);
        hasher.update(bytes);
        Hash(hasher.finalize().into())
    }

    /// The tagged hash of a value's borsh bytes.
    pub fn of<T: BorshSerialize>(tag: &str, value: &T) -> Hash {
        Hash::tagged(tag, &encode(value))
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }
}

/// Canonical bytes of a value. Writing to memory cannot fail for our types (no length exceeds `u32::MAX`).
pub fn encode<T: BorshSerialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    value.serialize(&mut out).expect("borsh into memory");
    out
}

/// Why bytes are not a value.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than this kind may have.
    #[error("{actual} bytes, at most {max} allowed")]
    Oversize {
        /// Bytes given.
        actual: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not canonical bytes of the type.
    #[error("bytes do not decode")]
    Malformed(#[source] std::io::Error),
}

/// Reads a value from canonical bytes: all of them, and at most `max`.
///
/// # Errors
/// [`DecodeError::Oversize`] above the limit, [`DecodeError::Malformed`] for all else, trailing bytes among it.
pub fn decode<T: BorshDeserialize>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::Oversize { actual: bytes.len(), max });
    }
    borsh::from_slice(bytes).map_err(DecodeError::Malformed)
}

macro_rules! hex_text {
    ($name:ident, $bytes:expr) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(AsRef::<[u8]>::as_ref(&self.0)))
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({}…)"), hex::encode(&AsRef::<[u8]>::as_ref(&self.0)[..4]))
            }
        }
        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                AsRef::<[u8]>::as_ref(&self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = hex::FromHexError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0u8; $bytes];
                hex::decode_to_slice(text, &mut bytes)?;
                Ok($crate::hash::FromBytes::from_bytes(bytes))
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text: std::borrow::Cow<'de, str> = serde::Deserialize::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use hex_text;

/// Made from exactly `N` bytes.
pub(crate) trait FromBytes<const N: usize> {
    fn from_bytes(bytes: [u8; N]) -> Self;
}

impl FromBytes<HASH_BYTES> for Hash {
    fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Hash(bytes)
    }
}
hex_text!(Hash, HASH_BYTES);

macro_rules! hash_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, BorshSerialize, BorshDeserialize)]
        pub struct $name(pub Hash);
        impl FromBytes<HASH_BYTES> for $name {
            fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
                $name(Hash(bytes))
            }
        }
        hex_text!($name, HASH_BYTES);
    };
}

hash_newtype!(
    /// Names a chain: the hash of its genesis record.
    ChainId
);
hash_newtype!(
    /// Names a block: the hash of its header. The view is not part of it.
    BlockHash
);
hash_newtype!(
    /// Names a batch: the hash of its header.
    BatchId
);
hash_newtype!(
    /// Names a transaction: the hash of its whole signed bytes, signature included.
    TxId
);
hash_newtype!(
    /// Names an account: the hash of signature scheme and public key.
    Address
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_separate_domains() {
        assert_ne!(Hash::tagged("a", b"b"), Hash::tagged("ab", b""));
        assert_ne!(Hash::tagged("a", b"\0b"), Hash::tagged("a", b"b"));
    }

    #[test]
    fn hex_round_trip_and_errors() {
        let hash = Hash::tagged("t", b"x");
        assert_eq!(hash.to_string().parse::<Hash>().unwrap(), hash);
        assert!("00".parse::<Hash>().is_err());
        assert!("zz".repeat(32).parse::<Hash>().is_err());
        assert_eq!(serde_json::from_str::<Hash>(&serde_json::to_string(&hash).unwrap()).unwrap(), hash);
    }

    #[test]
    fn decode_refuses_trailing_and_oversize() {
        assert!(matches!(decode::<u8>(&[1, 2], 8), Err(DecodeError::Malformed(_))));
        assert!(matches!(decode::<u8>(&[1], 0), Err(DecodeError::Oversize { actual: 1, max: 0 })));
        assert_eq!(decode::<u8>(&[7], 1).unwrap(), 7);
    }
}
